"""A folder of scans that also holds runs: what synthmed wrote there is never taken for a patient's scan."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cohorts import save, scan, write_dicom
from dicom_files import write_classic

from synthmed.cohort.read import read_cohort
from synthmed.config import CohortConfig, parse_config
from synthmed.errors import InputError
from synthmed.files import GENERATION, MANIFEST, STARTED, files_below, is_output, write_json
from synthmed.io.dicom import scan as scan_dicom
from synthmed.pipeline import alone
from synthmed.prepare.preprocess import prepare
from synthmed.stages import Run, Stage, run_stage

STAGE = {"recipe": {"stage": "generate", "seed": 0, "settings": {}, "inputs": {}}}
DRAWN = {"autoencoder": "a", "denoiser": "b", "sampler": "ddim", "seed": 0}


def patients(root: Path, **settings: str) -> tuple[str, ...]:
    return read_cohort(CohortConfig(path=str(root), **settings)).subject_ids


def output(folder: Path, record: str = MANIFEST, content: object = STAGE) -> Path:
    write_json(folder / record, content)
    return folder


def prepared(root: Path, where: str) -> None:
    """Prepare a cohort in a run that holds its lock, as the command does."""
    config = parse_config({"cohort": {"path": str(root)}, "preprocess": {"grid": [8, 8, 8]}})
    run = Run(config, root / where)
    work = Stage("prepare", ("cohort",), (), lambda run, out, bars: prepare(run.config, out, progress=bars))
    with alone(run.root):
        run_stage(run, work, False, lambda line: None)


@pytest.mark.parametrize("where", [".", "runs/mine"])
def test_a_cohort_prepared_within_its_own_folder_is_read_the_same_again(tmp_path: Path, where: str) -> None:
    for n in range(6):
        save(tmp_path / f"v{n}.nii.gz", scan(n))
    before = patients(tmp_path)
    prepared(tmp_path, where)
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 12
    assert patients(tmp_path) == patients(tmp_path, images="**/*.nii.gz") == before


@pytest.mark.parametrize("where", [".", "runs/mine"])
def test_dicom_prepared_within_its_own_folder_is_read_the_same_again(tmp_path: Path, where: str) -> None:
    write_dicom(tmp_path, 6)
    before = patients(tmp_path)
    prepared(tmp_path, where)
    assert len(before) == len(list(tmp_path.rglob("*.nii.gz"))) == 6
    assert patients(tmp_path) == before
    assert [one.path.name for one in scan_dicom(tmp_path)[1] if one.damaged] == []


@pytest.mark.parametrize(("record", "content"), [(MANIFEST, STAGE), (STARTED, STAGE), (GENERATION, DRAWN)])
def test_what_a_stage_wrote_or_a_model_drew_is_passed_over(tmp_path: Path, record: str, content: object) -> None:
    save(tmp_path / "a" / "v.nii.gz", scan(0))
    save(output(tmp_path / "a" / "generate", record, content) / "images" / "s.nii.gz", scan(1))
    write_classic(tmp_path / "dicom")
    write_classic(output(tmp_path / "export", record, content) / "dicom")
    series, skipped = scan_dicom(tmp_path / "dicom")
    assert patients(tmp_path) == ("v",)
    assert [one.files for one in scan_dicom(tmp_path)[0]] == [one.files for one in series]
    assert skipped == []


@pytest.mark.parametrize("images", [None, "images", "images/*.nii.gz"])
def test_what_synthmed_wrote_is_read_when_it_is_what_was_asked_for(tmp_path: Path, images: str | None) -> None:
    save(output(tmp_path / "run" / "generate") / "images" / "s.nii.gz", scan(1))
    below = {} if images is None else {"images": f"run/generate/{images}"}
    assert patients(tmp_path if images else tmp_path / "run" / "generate", **below) == ("s",)
    with pytest.raises(InputError, match="only what synthmed wrote"):
        patients(tmp_path / "run")
    with pytest.raises(InputError, match="that synthmed did not write"):
        patients(tmp_path, images="run/*/images/*.nii.gz")


@pytest.mark.parametrize("name", [MANIFEST, GENERATION])
@pytest.mark.parametrize(
    "content",
    ["[1]", "{}", "3", "not JSON", '"recipe"', '{"recipe": "T1 MPRAGE 1mm"}', '{"recipe": null}', "[" * 100_000],
    ids=["list", "object", "number", "text", "string", "protocol", "null", "deep"],
)
def test_another_tools_record_hides_no_scan(tmp_path: Path, name: str, content: str) -> None:
    save(tmp_path / "site" / "v.nii.gz", scan(0))
    (tmp_path / "site" / name).write_text(content)
    assert not is_output(tmp_path / "site")
    assert [path.name for path in files_below(tmp_path)] == [name, "v.nii.gz"]
    assert patients(tmp_path) == ("v",)


def test_hidden_files_and_folders_are_no_scans(tmp_path: Path) -> None:
    for place in ("v.nii.gz", ".w.nii.gz", ".Trash-0/x.nii.gz"):
        save(tmp_path / place, scan(0))
    assert patients(tmp_path) == ("v",)


def test_a_damaged_record_does_not_hide_the_other(tmp_path: Path) -> None:
    output(tmp_path, STARTED)
    (tmp_path / MANIFEST).write_text('{"recipe": {"stage"')
    assert is_output(tmp_path)


def test_a_folder_that_may_not_be_entered_hides_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a" / "v.nii.gz", scan(0))
    closed = save(tmp_path / "closed" / "w.nii.gz", scan(1)).parent
    if os.geteuid() == 0:
        _forbid(monkeypatch, closed)
    else:
        closed.chmod(0)
    assert patients(tmp_path) == ("v",)
    assert [(one.path, one.damaged) for one in scan_dicom(tmp_path)[1] if one.path == closed] == [(closed, True)]


def _forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the system refuse a folder, as it does to everybody but root."""
    scandir, stat = os.scandir, Path.stat

    def refuse(path: Path, closed: bool) -> None:
        if closed:
            raise PermissionError(13, "Permission denied", str(path))

    def look(path: Path, **options: bool) -> os.stat_result:
        refuse(path, folder in path.parents)
        return stat(path, **options)

    def listed(path: str = ".") -> object:
        refuse(Path(path), Path(path) == folder)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", listed)
    monkeypatch.setattr(Path, "stat", look)
