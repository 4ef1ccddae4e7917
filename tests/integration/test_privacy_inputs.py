"""What an audit is given: grids, scales and DICOM that differ are compared all the same; what cannot be is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_files import Grid, write_classic
from privacy_audits import arguments, quick
from privacy_scans import SHAPE, scan, scans, write

import privacy
from privacy.__main__ import main

TRAIN, HOLDOUT, HONEST = range(12), range(100, 111), range(200, 224)


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with quick(planted=1):
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a cohort with a table of patients, and honest samples."""
    root = tmp_path_factory.mktemp("cohort")
    for role, people in (("train", TRAIN), ("holdout", HOLDOUT)):
        paths = write(root / role / "images", scans(people), prefix=role)
        rows = "".join(f"{path.name},{role}-{k}\n" for k, path in enumerate(paths))
        (root / role / "subjects.csv").write_text("file,subject\n" + rows)
    write(root / "synthetic", scans(HONEST), prefix="gen")
    (root / "file").write_text("")
    return root


def _oriented(folder: Path, volumes: list[np.ndarray], zoom: tuple[float, ...], axes: tuple[int, ...]) -> Path:
    """Write volumes on another grid and in another order of axes, one of them turned round: the field is the same."""
    from scipy import ndimage

    placed = []
    for volume in volumes:
        finer = ndimage.zoom(volume, zoom, order=1, grid_mode=True, mode="nearest")
        placed.append(np.flip(finer.transpose(axes), 0))
    affine = np.eye(4)
    affine[:3, :3] = np.diag(1 / np.array(zoom))[:, axes] * np.array([-1, 1, 1])
    write(folder, placed, affine=affine)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("copied", [False, True])
def test_grids_and_orientations_that_differ_are_resampled(tmp_path: Path, copied: bool) -> None:
    samples = [*scans(list(HONEST)[1:]), scan(7)] if copied else scans(HONEST)
    report = privacy.audit(
        _oriented(tmp_path / "train", scans(TRAIN), (1.0, 1.0, 1.0), (0, 1, 2)),
        _oriented(tmp_path / "holdout", scans(HOLDOUT), (1.25, 1.25, 1.0), (2, 0, 1)),
        _oriented(tmp_path / "synthetic", samples, (1.25, 1.0, 1.5), (1, 2, 0)),
        policy="research",
    )
    assert report.verdict == ("FAIL" if copied else "PASS"), report.reasons
    matched = [(row["file"], row["nearest_scan"]) for row in report.samples if row["flag"] == "match"]
    assert matched == ([("case_023.nii.gz", "case_007.nii.gz")] if copied else [])


@pytest.mark.slow
def test_scales_that_differ_a_thousandfold_change_nothing() -> None:
    samples = [*scans(list(HONEST)[1:]), scan(7)]
    scaled = [volume * np.float32(1000.0 ** ((k % 3) - 1)) for k, volume in enumerate(samples)]
    train = [volume * np.float32(1000.0 ** (k % 2)) for k, volume in enumerate(scans(TRAIN))]
    report = privacy.audit(train, scans(HOLDOUT), scaled, policy="research")
    assert report.verdict == "FAIL"
    assert len(report.reasons) == 1
    matched = [(row["file"], row["nearest_scan"]) for row in report.samples if row["flag"] == "match"]
    assert matched == [("synthetic-00023", "train-00007")]


def _series(folder: Path, patients: list[int], ids: list[str]) -> None:
    """Write each scan as a CT series of its own, with a PatientID and the same name in all."""
    grid = Grid(pixel_spacing=(1.0, 1.0), increment=1.0, origin=(-9.0, -11.0, -8.0))
    for k, (patient, name) in enumerate(zip(patients, ids, strict=True)):

        def named(number: int, data: object, name: str = name) -> None:
            data.PatientID = name  # type: ignore[attr-defined]

        stored = (1000 * scan(patient)).astype(np.uint16)
        write_classic(folder / f"s{k:02d}", grid=grid, stored=stored, uid=f"1.2.3.{patient + 1}.{k}", edit=named)


@pytest.mark.slow
def test_dicom_series_are_audited_by_patient_id_unless_a_table_says_otherwise(tmp_path: Path) -> None:
    train = [*TRAIN, 0]
    _series(tmp_path / "train", train, [f"Weber{k % 12}" for k in range(13)])
    _series(tmp_path / "holdout", list(HOLDOUT), ["scanner"] * 11)
    _series(tmp_path / "synthetic", [*range(200, 207), 7], ["synthetic"] * 8)
    table = tmp_path / "owners.csv"
    table.write_text("series,patient\n" + "".join(f"s{k:02d},Lang{k}\n" for k in range(11)))
    with quick(lessons=16, planted=1):
        assert main([*arguments(tmp_path, "out"), f"--holdout-patients={table}"]) == 3
    release = json.loads((tmp_path / "out" / "release" / "report.json").read_text())
    assert release["train"] == {"n_scans": 13, "n_patients": 12}
    assert release["holdout"] == {"n_scans": 11, "n_patients": 11}
    pairs = json.loads((tmp_path / "out" / "steward" / "report.json").read_text())["pairs"]
    assert [(pair["file"], pair["nearest_patient"]) for pair in pairs if pair["flag"] == "match"] == [("s07", "Weber7")]
    assert any("told apart by PatientID" in note for note in release["notes"])
    content = b"".join(path.read_bytes() for path in (tmp_path / "out" / "release").iterdir())
    assert not any(word in content for word in (b"Weber", b"Lang", b"scanner", b"s07", b"1.2.3.8"))


def _missing(root: Path) -> list[str]:
    return arguments(root, "x", "nowhere")


def _empty(root: Path) -> list[str]:
    (root / "empty").mkdir(exist_ok=True)
    return arguments(root, "x", "empty")


def _damaged(root: Path) -> list[str]:
    path = write(root / "damaged", scans([300, 301]))[0]
    path.write_bytes(path.read_bytes()[:700])
    return arguments(root, "x", "damaged")


def _every_fault(root: Path) -> list[str]:
    """Write two good volumes, and one each that is constant, tiny, 4D, cut off, no image; one holds a NaN."""
    bad = scan(300).copy()
    bad[3, 4, 5] = np.nan
    volumes = [scan(301), scan(302), np.ones(SHAPE, np.float32), bad, bad[:5, :5, :5], np.stack([scan(303)] * 2, -1)]
    paths = write(root / "faulty", volumes)
    shutil.copy(paths[0], root / "faulty" / "half.nii.gz")
    (root / "faulty" / "half.nii.gz").write_bytes(paths[0].read_bytes()[:900])
    (root / "faulty" / "text.nii").write_text("no image")
    return arguments(root, "x", "faulty")


FAULTS = (
    "6 of 8 synthetic volumes cannot be used",
    "case_002.nii.gz (constant",
    "case_003.nii.gz (voxels that are not finite; found 1 NaN",
    "case_004.nii.gz (too small",
    "case_005.nii.gz (not a 3D volume; found shape (18, 22, 16, 2)",
    "half.nii.gz (unreadable",
    "text.nii (unreadable",
)


def _inside_train(root: Path) -> list[str]:
    return arguments(root, "train/audit")


def _other_holdout_field(root: Path) -> list[str]:
    write(root / "wide", scans(HOLDOUT), affine=np.diag([2.0, 2, 2, 1]))
    return [*arguments(root, "x"), f"--holdout={root / 'wide'}"]


def _other_field(root: Path) -> list[str]:
    write(root / "field", scans([300]), affine=np.diag([2.0, 2, 2, 1]))
    return arguments(root, "x", "field")


def _same_folder(root: Path) -> list[str]:
    return [*arguments(root, "x"), f"--holdout={root / 'train' / 'images'}"]


def _both_tables(root: Path) -> list[str]:
    table = root / "train" / "subjects.csv"
    return [*arguments(root, "x"), f"--patients={table}", f"--train-patients={table}"]


def _wrong_table(root: Path) -> list[str]:
    return [*arguments(root, "x"), f"--patients={root / 'train' / 'subjects.csv'}"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (_missing, 5, "no synthetic folder"),
        (_empty, 5, "holds no NIfTI"),
        (_damaged, 5, "1 of 2 synthetic volumes cannot be used: case_000.nii.gz (unreadable"),
        *((_every_fault, 5, fault) for fault in FAULTS),
        (_other_field, 5, "a field of another size"),
        (_other_holdout_field, 5, "a field of another size"),
        (_inside_train, 2, "The reports would lie within the train set"),
        (_same_folder, 2, "train and holdout are the same folder"),
        (_both_tables, 2, "--patients is for both sets"),
        (_wrong_table, 2, "no row for 11 holdout volumes"),
        (lambda root: arguments(root, "x", policy="lenient"), 2, "one of default, research, strict"),
        (lambda root: arguments(root, "file"), 2, "The reports need a folder"),
    ],
)
def test_what_cannot_be_audited_says_so_in_one_line(
    root: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Callable[[Path], list[str]],
    code: int,
    words: str,
) -> None:
    assert main(arguments(root)) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not (root / "x").exists()


@pytest.mark.slow
def test_control_c_ends_with_130_and_no_record(root: Path) -> None:
    shown = [option for option in arguments(root, "stopped") if option != "--quiet"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "privacy", *shown], stderr=subprocess.PIPE, text=True, env=environment
    )
    seen = ""
    while "learning the embedding" not in seen:
        piece = process.stderr.read(40)  # type: ignore[union-attr]
        assert piece, seen
        seen += piece
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert rest.endswith("interrupted; no release record was written\n")
    assert not (root / "stopped").exists()
