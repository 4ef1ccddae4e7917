"""Each way of tampering with a finished release is found, and named by its file."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from releases import Made, digest, make_audit, make_samples, oblique_affine, phantom_image, phantom_label, reseal

from synthmed.export import verify
from synthmed.export.seal import SEAL
from synthmed.io import write_volume
from synthmed.volume import Volume

# What a change of the checksums alone adds to the findings.
FORGED = {
    "SHA256SUMS: is not the file that provenance.dsse.json states",
    "SHA256SUMS.sig: is not a signature of SHA256SUMS by signer.pub",
}
IMAGE, LABEL = "nifti/imagesTr/synthetic_0002_0000.nii.gz", "nifti/labelsTr/synthetic_0002.nii.gz"


@pytest.fixture(scope="module")
def released(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Made(pristine / "generate", pristine / "audit")
    return made.release(tmp_path_factory.mktemp("released") / "release")


@pytest.fixture
def release(released: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(released, tmp_path / "release"))


def problems(release: Path) -> list[str]:
    found = [str(f) for f in verify(release)]
    assert all("\n" not in line for line in found)
    return found


def edit(file: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_a_release_as_written_has_no_finding(release: Path) -> None:
    assert verify(release) == []


def test_it_may_be_moved_and_renamed(release: Path, tmp_path: Path) -> None:
    shutil.move(release, tmp_path / "elsewhere é")
    assert verify(tmp_path / "elsewhere é") == []


def all_files() -> list[str]:
    volumes = [f"nifti/imagesTr/synthetic_000{i}_0000.nii.gz" for i in range(6)]
    volumes += [f"nifti/labelsTr/synthetic_000{i}.nii.gz" for i in range(6)]
    audit = ["audit/gate.json", "audit/report.html", "audit/report.json", "audit/report.md"]
    documents = ["README.md", "LICENSE", "DATASHEET.md", "MODEL_CARD.md", "croissant.json"]
    return [*volumes, *audit, *documents, "cases.csv", "nifti/dataset.json", "nifti/datalist.json"]


@pytest.mark.parametrize("name", all_files())
def test_any_changed_byte_is_named(release: Path, name: str) -> None:
    content = bytearray((release / name).read_bytes())
    content[len(content) // 2] ^= 1
    (release / name).write_bytes(content)
    assert f"{name}: was changed: its digest is not that in SHA256SUMS" in problems(release)


@pytest.mark.parametrize("name", [*all_files(), "SHA256SUMS", *SEAL])
def test_any_missing_file_is_named(release: Path, name: str) -> None:
    (release / name).unlink()
    assert f"{name}: is missing" in problems(release)


@pytest.mark.parametrize("name", ["extra.txt", "nifti/imagesTr/.hidden", "nifti/deep/er/x.json", "audit/ü.md"])
def test_any_added_file_is_named(release: Path, name: str) -> None:
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_text("added")
    assert problems(release) == [f"{name}: was added: SHA256SUMS does not list it"]


@pytest.mark.parametrize("target", ["cases.csv", "/etc/hostname", "nowhere"])
def test_a_symbolic_link_is_refused_and_not_followed(release: Path, target: str) -> None:
    (release / "link").symlink_to(target)
    assert problems(release) == ["link: is a symbolic link"]


def test_a_linked_directory_is_not_entered(release: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.nii.gz").write_bytes(b"x")
    (release / "nifti" / "more").symlink_to(tmp_path / "outside")
    assert problems(release) == ["nifti/more: is a symbolic link"]


def test_a_file_replaced_by_a_link_to_the_same_bytes(release: Path, tmp_path: Path) -> None:
    shutil.move(release / "cases.csv", tmp_path / "cases.csv")
    (release / "cases.csv").symlink_to(tmp_path / "cases.csv")
    assert problems(release) == ["cases.csv: is a symbolic link", "cases.csv: is missing"]


def test_a_folder_that_cannot_be_entered_is_named(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def forbidden(path: str) -> Any:
        if str(path).endswith("labelsTr"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    found = problems(release)
    assert "nifti/labelsTr: cannot be read: Permission denied" in found
    assert f"{LABEL}: is missing" in found


@pytest.mark.parametrize("name", ["Mustermann_Erika", "nifti/imagesTr/Mustermann/Erika"])
def test_an_empty_folder_is_named(release: Path, name: str) -> None:
    (release / name).mkdir(parents=True)
    assert problems(release) == [f"{name}: is an empty folder"]


def test_causes_come_before_what_follows_from_them(release: Path) -> None:
    (release / "README.md").write_text("changed")
    (release / "audit" / "report.md").write_text("changed")
    (release / IMAGE).write_bytes(b"changed")
    (release / "zzz.txt").write_text("added")
    found = problems(release)
    causes = [line for line in found if "was changed: " in line or "was added: " in line]
    assert len(causes) == 4
    assert found[:4] == sorted(causes)
    assert f"{IMAGE}: is not the file that the gate let through" in found[4:]


def test_no_finding_names_the_place_of_the_release(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "generate")
    made = Made(samples, make_audit(tmp_path / "audit", samples))
    release = made.release(tmp_path / "release", formats=("nifti", "dicom"))
    (release / "dicom" / "index.json").write_text("{")
    assert "dicom/index.json: cannot be used: Cannot read dicom/index.json" in problems(release)[-1]
    assert not [line for line in problems(release) if str(tmp_path) in line]


def test_a_pipe_does_not_block(release: Path) -> None:
    os.mkfifo(release / "pipe")
    assert problems(release) == ["pipe: is not a regular file"]


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname", "nifti/../../outside.txt", "a\\..\\b"])
def test_a_checksum_that_leads_outside_is_refused(release: Path, name: str) -> None:
    (release.parent / "outside.txt").write_text("x")
    with (release / "SHA256SUMS").open("a") as stream:
        stream.write(f"{digest(release.parent / 'outside.txt')}  {name}\n")
    assert set(problems(release)) == {f"SHA256SUMS: line 25 leads outside the release: {name}", *FORGED}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("nonsense", "SHA256SUMS: line 25 is not a checksum and a name"),
        ("", "SHA256SUMS: line 25 is not a checksum and a name"),
        ("0" * 64 + "  cases.csv", "cases.csv: is listed twice in SHA256SUMS"),
        ("0" * 64 + "  gone.txt", "gone.txt: is missing"),
    ],
)
def test_a_bad_line_of_the_checksums_is_named(release: Path, line: str, problem: str) -> None:
    with (release / "SHA256SUMS").open("a") as stream:
        stream.write(line + "\n")
    assert set(problems(release)) == {problem, *FORGED}


def test_an_image_changed_with_forged_checksums(release: Path) -> None:
    write_volume(release / IMAGE, Volume(phantom_image(9)[None], oblique_affine()))
    reseal(release)
    found = problems(release)
    assert f"{IMAGE}: is not the file that the gate let through" in found
    assert "audit/gate.json: the released images in nifti/ are not those approved" in found


def test_a_label_changed_with_forged_checksums_and_gate(release: Path) -> None:
    write_volume(release / LABEL, Volume(phantom_label((2, 1))[None], oblique_affine()), dtype="uint8")
    edit(release / "audit" / "gate.json", lambda gate: gate["released"][LABEL].update(sha256=digest(release / LABEL)))
    reseal(release)
    assert problems(release) == ["audit/gate.json: the released labels in nifti/ are not those approved"]


def test_an_image_changed_with_a_wholly_forged_gate_is_not_what_was_audited(release: Path) -> None:
    write_volume(release / IMAGE, Volume(phantom_image(9)[None], oblique_affine()))

    def forge(gate: dict) -> None:  # type: ignore[type-arg]
        gate["released"][IMAGE]["sha256"] = gate["approved"]["images"]["synthetic_0002"] = digest(release / IMAGE)

    edit(release / "audit" / "gate.json", forge)
    reseal(release)
    assert problems(release) == ["audit/gate.json: its images are not those that were audited"]


def test_a_relabelled_release_keeps_as_many_labels(tmp_path: Path) -> None:
    samples = make_samples(tmp_path / "generate", labels=(1, 17))
    release = Made(samples, make_audit(tmp_path / "audit", samples)).release(tmp_path / "release")
    assert verify(release) == []
    (release / LABEL).unlink()
    edit(release / "audit" / "gate.json", lambda gate: gate["released"].pop(LABEL))
    reseal(release)
    assert problems(release) == ["audit/gate.json: the cases with a label in nifti/ are not those approved"]


def test_an_added_case_with_forged_checksums(release: Path) -> None:
    shutil.copy(release / IMAGE, release / "nifti/imagesTr/synthetic_0099_0000.nii.gz")
    reseal(release)
    assert problems(release) == ["audit/gate.json: the released volumes are not those it names"]


def test_a_removed_case_with_forged_checksums(release: Path) -> None:
    (release / IMAGE).unlink()
    (release / LABEL).unlink()
    reseal(release)
    assert "audit/gate.json: the released volumes are not those it names" in problems(release)


@pytest.mark.parametrize("name", ["report.json", "report.md"])
def test_a_swapped_report_with_forged_checksums(release: Path, tmp_path: Path, name: str) -> None:
    other = make_samples(tmp_path / "other", n=4)
    shutil.copy(make_audit(tmp_path / "other_audit", other) / "report.json", release / "audit" / name)
    reseal(release)
    assert f"audit/{name}: is not the one that was approved" in problems(release)


def test_measurements_that_would_fail_do_not_pass_whatever_is_forged(release: Path) -> None:
    edit(release / "audit" / "report.json", lambda report: report["measurements"].update(identity_matches=4))
    forged = digest(release / "audit" / "report.json")
    edit(release / "audit" / "gate.json", lambda gate: gate["approved"]["records"].update({"report.json": forged}))
    reseal(release)
    assert problems(release) == ["audit/gate.json: its verdict is not what the measurements give"]


def test_a_loosened_policy_is_found(release: Path) -> None:
    edit(release / "audit" / "gate.json", lambda g: g["policy"]["thresholds"].update(max_copy_rate_upper=0.08))
    reseal(release)
    assert "audit/gate.json: its policy is not the report's" in problems(release)


def test_other_thresholds_under_the_name_of_a_bundled_policy_are_found(release: Path) -> None:
    def loosen(gate: dict) -> None:
        gate["policy"]["name"] = "default"
        gate["policy"]["thresholds"]["max_copy_rate_upper"] = 0.08

    edit(release / "audit" / "gate.json", loosen)
    reseal(release)
    assert "audit/gate.json: its thresholds are not those of the policy it names" in problems(release)


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.clear(),
        lambda g: g.pop("approved"),
        lambda g: g.update(approved=3),
        lambda g: g.update(policy={"name": "x", "thresholds": {}, "sha256": ""}),
        lambda g: g["approved"].update(images=["a"]),
        lambda g: g.update(released=None),
    ],
)
def test_a_mangled_gate_is_a_finding_not_a_crash(release: Path, change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    edit(release / "audit" / "gate.json", change)
    reseal(release)
    [problem] = problems(release)
    assert problem.startswith("audit/gate.json: cannot be checked: ")


@pytest.mark.parametrize("name", ["audit/gate.json", "audit/report.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[]"])
def test_an_unreadable_record_is_a_finding_not_a_crash(release: Path, name: str, content: bytes) -> None:
    (release / name).write_bytes(content)
    reseal(release)
    assert any(line.startswith(f"{name}: cannot be ") for line in problems(release))


def test_a_label_off_the_grid_of_its_image(release: Path) -> None:
    shifted = oblique_affine()
    shifted[0, 3] += 1.0
    write_volume(release / LABEL, Volume(phantom_label((1, 2))[None], shifted), dtype="uint8")
    assert f"{LABEL}: does not lie on the grid of its image" in problems(release)


def test_a_flipped_label_has_another_affine(release: Path) -> None:
    affine = oblique_affine() @ np.diag([-1.0, 1.0, 1.0, 1.0])
    write_volume(release / LABEL, Volume(phantom_label((1, 2))[None], affine), dtype="uint8")
    assert f"{LABEL}: does not lie on the grid of its image" in problems(release)


def test_a_label_without_an_image(release: Path) -> None:
    shutil.copy(release / LABEL, release / "nifti/labelsTr/other.nii.gz")
    assert "nifti/labelsTr/other.nii.gz: has no image" in problems(release)


def test_a_volume_without_the_mark_and_one_that_is_none(release: Path) -> None:
    write_volume(release / IMAGE, Volume(phantom_image(2)[None], oblique_affine()), description="scan")
    (release / LABEL).write_bytes(b"no volume")
    found = problems(release)
    assert f"{IMAGE}: descrip is not SYNTHETIC" in found
    assert any(line.startswith(f"{LABEL}: is not a readable NIfTI-1 volume") for line in found)


def test_what_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert problems(tmp_path / "file") == ["file: is not a directory"]
    assert problems(tmp_path / "nothing") == ["nothing: is not a directory"]


def test_an_empty_directory_lacks_everything(tmp_path: Path) -> None:
    found = problems(tmp_path)
    assert {"SHA256SUMS: is missing", "audit/gate.json: is missing", "cases.csv: is missing"} <= set(found)


def test_a_name_that_is_not_text_can_be_printed(release: Path) -> None:
    with open(os.fsencode(release) + b"/bad\xff.txt", "wb") as stream:
        stream.write(b"x")
    assert problems(release) == ["bad\\udcff.txt: was added: SHA256SUMS does not list it"]
