"""The validators really run on a release, each sees a fault of its kind, and what they said is filed."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from releases import Made, make_audit, make_samples

from synthmed.export.validation import validators, validators_dicom
from synthmed.export.validation.running import describe_failures, validate_release
from synthmed.export.validation.validators import VALIDATORS
from synthmed.export.validation.validators_dicom import iod_messages
from synthmed.export.validation.verdicts import FAILED, PASSED, Said, Verdict, judge, run, spread

TOOLS = ["dciodvfy", "dcentvfy", "dcm2niix", "bids-validator", "mlcroissant", "monai", "nnunet"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of two cases in every format."""
    folder = tmp_path_factory.mktemp("whole")
    samples = make_samples(folder / "samples", 2)
    made = Made(samples, make_audit(folder / "audit", samples))
    return made.release(folder / "release", formats=("nifti", "dicom", "bids"))


@pytest.fixture
def release(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "release")


@pytest.mark.slow
def test_every_validator_runs_and_passes_and_says_so_in_files(release: Path) -> None:
    verdicts = validate_release(release)
    assert [v.tool for v in verdicts] == TOOLS
    assert {v.tool: v.status for v in verdicts} == dict.fromkeys(TOOLS, PASSED), describe_failures(verdicts)
    assert describe_failures(verdicts) == []
    files = {file.stem: json.loads(file.read_text()) for file in (release / "validation").iterdir()}
    assert sorted(files) == sorted(TOOLS)
    for content in files.values():
        assert content["version"] not in ("", "unknown")
        assert content["command"]
        assert content["looked_at"]
        assert content["errors"] == []
    assert files["dciodvfy"]["available"] == files["dcentvfy"]["available"] == 2 * (5 + 1)
    assert all((release / name).is_file() for name in files["dciodvfy"]["looked_at"])


@pytest.mark.slow
def test_what_is_filed_names_nothing_of_this_machine_and_does_not_change(release: Path, tmp_path: Path) -> None:
    validate_release(release)
    first = {file.name: file.read_bytes() for file in (release / "validation").iterdir()}
    other = shutil.copytree(release, tmp_path / "elsewhere" / "release", ignore=shutil.ignore_patterns("validation"))
    validate_release(other)
    assert first == {file.name: file.read_bytes() for file in (other / "validation").iterdir()}
    text = b"".join(first.values()).decode()
    for word in (str(tmp_path), "/tmp", str(Path.home()), getpass.getuser() + "@", socket.gethostname(), "/bin/"):
        assert word not in text


def missing_patient(release: Path) -> None:
    file = sorted((release / "dicom").rglob("MR-*/*.dcm"))[0]
    data = pydicom.dcmread(file)
    del data.PatientID
    data.save_as(file)


def one_uid_twice(release: Path) -> None:
    file = sorted((release / "dicom").rglob("MR-*/*.dcm"))[0]
    shutil.copy(file, file.with_name("IM9999.dcm"))


def missing_slice(release: Path) -> None:
    sorted((release / "dicom").rglob("MR-*/*.dcm"))[2].unlink()


def stray_subject(release: Path) -> None:
    (release / "bids" / "sub-1" / "anat").mkdir(parents=True)
    (release / "bids" / "sub-1" / "anat" / "sub-2_T1w.json").write_text("{}")


def without_address(release: Path) -> None:
    content = json.loads((release / "croissant.json").read_text())
    del content["distribution"][0]["contentUrl"]
    (release / "croissant.json").write_text(json.dumps(content))


def missing_image(release: Path) -> None:
    next((release / "nifti" / "imagesTr").iterdir()).unlink()


def misnamed_image(release: Path) -> None:
    file = next((release / "nifti" / "imagesTr").iterdir())
    file.rename(file.with_name("x.nii.gz"))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "dciodvfy": (missing_patient, "PatientID"),
    "dcentvfy": (one_uid_twice, "Duplicate SOPInstanceUID"),
    "dcm2niix": (missing_slice, "became 2 volumes"),
    "bids-validator": (stray_subject, ""),
    "mlcroissant": (without_address, "contentUrl"),
    "monai": (missing_image, "a listed file is not there"),
    "nnunet": (misnamed_image, "is not CASE_0000.nii.gz"),
}


@pytest.mark.parametrize("validator", VALIDATORS, ids=TOOLS)
def test_each_sees_a_fault_of_its_kind(release: Path, validator: Callable[[Path], Verdict]) -> None:
    clean = validator(release)
    fault, words = FAULTS[clean.tool]
    fault(release)
    verdict = validator(release)
    assert (clean.status, verdict.status) == (PASSED, FAILED)
    assert any(words in said.message for said in verdict.errors), verdict.errors
    assert describe_failures([clean, verdict])[0].startswith(f"{verdict.tool}: ")


@pytest.mark.slow
@pytest.mark.parametrize("module", [validators, validators_dicom])
def test_what_is_not_installed_is_filed_as_such(release: Path, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    monkeypatch.setattr(module, "executable", lambda name: None)
    absent = [v.tool for v in validate_release(release) if v.status == "not installed"]
    assert absent == (TOOLS[3:5] if module is validators else TOOLS[:3])
    assert json.loads((release / "validation" / f"{absent[0]}.json").read_text())["status"] == "not installed"


def test_a_release_without_a_format_gives_its_validators_nothing(release: Path) -> None:
    for name in ("nifti", "dicom", "bids"):
        shutil.rmtree(release / name)
    status = {
        v.tool: v.status
        for v in (validator(release) for validator in VALIDATORS if validator.__name__ != "mlcroissant")
    }
    assert set(status.values()) == {"nothing to look at"}


def test_messages_are_counted_and_a_lone_failure_is_an_error() -> None:
    said = [("Warning", "w", "b"), ("Error", "e", "c"), ("warning", "w", "a")]
    verdict = judge("t", "1", "t FILE", ["a"], 3, said)
    assert verdict.errors == (Said("e", 1, "c"),)
    assert verdict.warnings == (Said("w", 2, "a"),)
    assert verdict.status == FAILED
    both = "MRImage\nWarning - one\nError - two  words\nWarning - threeWarning - four\n"
    assert list(iod_messages("f", 1, "", both)) == [
        ("Warning", "one", "f"), ("Error", "two words", "f"), ("Warning", "three", "f"), ("Warning", "four", "f")
    ]  # fmt: skip
    assert list(iod_messages("f", 3, "CTImage\n", "")) == [("Error", "exit status 3", "f")]


def test_a_command_that_cannot_start_is_said(tmp_path: Path) -> None:
    assert run(tmp_path, [str(tmp_path / "no-tool")])[0] == 127


def test_files_are_spread_evenly() -> None:
    names = [str(i) for i in range(10)]
    assert spread(names, 20) == names
    assert spread(names, 4) == ["0", "2", "5", "7"]
