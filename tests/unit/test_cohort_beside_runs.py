"""A folder of scans that also holds runs: what synthmed wrote there is never taken for a patient's scan."""

from __future__ import annotations

from pathlib import Path

import pytest
from cohorts import save, scan
from dicom_files import write_classic

from synthmed.cohort.read import read_cohort
from synthmed.config import CohortConfig, parse_config
from synthmed.errors import InputError
from synthmed.files import MANIFEST, STARTED, files_below, is_stage, write_json
from synthmed.io.dicom import scan as scan_dicom
from synthmed.prepare.preprocess import prepare
from synthmed.stages import Run, Stage, run_stage


def patients(root: Path, **settings: str) -> tuple[str, ...]:
    return read_cohort(CohortConfig(path=str(root), **settings)).subject_ids


def stage(folder: Path, record: str) -> Path:
    write_json(folder / record, {"recipe": {"stage": folder.name}})
    return folder


@pytest.mark.parametrize("where", [".", "runs/mine"])
def test_a_cohort_prepared_within_its_own_folder_is_read_the_same_again(tmp_path: Path, where: str) -> None:
    for n in range(6):
        save(tmp_path / f"v{n}.nii.gz", scan(n))
    config = parse_config({"cohort": {"path": str(tmp_path)}, "preprocess": {"grid": [8, 8, 8]}})
    before = patients(tmp_path)
    run = Run(config, tmp_path / where)
    work = Stage("prepare", ("cohort",), (), lambda run, out, bars: prepare(run.config, out, progress=bars))
    run_stage(run, work, False, lambda line: None)
    assert len(list(tmp_path.rglob("*.nii.gz"))) == 12
    assert patients(tmp_path) == patients(tmp_path, images="**/*.nii.gz") == before


@pytest.mark.parametrize("record", [MANIFEST, STARTED])
def test_what_a_stage_wrote_is_passed_over_whether_it_ended_or_not(tmp_path: Path, record: str) -> None:
    save(tmp_path / "a" / "v.nii.gz", scan(0))
    save(stage(tmp_path / "a" / "generate", record) / "images" / "s.nii.gz", scan(1))
    write_classic(tmp_path / "dicom")
    write_classic(stage(tmp_path / "export", record) / "dicom")
    series, skipped = scan_dicom(tmp_path / "dicom")
    assert patients(tmp_path) == ("v",)
    assert [one.files for one in scan_dicom(tmp_path)[0]] == [one.files for one in series]
    assert skipped == []


def test_a_stage_is_read_when_it_is_what_was_asked_for(tmp_path: Path) -> None:
    save(stage(tmp_path / "generate", MANIFEST) / "images" / "s.nii.gz", scan(1))
    assert patients(tmp_path / "generate") == ("s",)
    with pytest.raises(InputError, match="is empty"):
        patients(tmp_path)


@pytest.mark.parametrize("content", ["[1]", "{}", "3", "not JSON", '"recipe"'])
def test_another_tools_manifest_hides_no_scan(tmp_path: Path, content: str) -> None:
    save(tmp_path / "site" / "v.nii.gz", scan(0))
    (tmp_path / "site" / MANIFEST).write_text(content)
    assert not is_stage(tmp_path / "site")
    assert [path.name for path in files_below(tmp_path)] == [MANIFEST, "v.nii.gz"]
    assert patients(tmp_path) == ("v",)
