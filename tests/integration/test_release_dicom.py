"""DICOM releases through the field's own programs: dciodvfy, dcentvfy, dcm2niix, dcmqi; and on several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_releases import names, objects, phantom, released, rewrite
from release_fidelity import IMAGE_READERS, SEG_READERS, compare, main, make_phantom, write_dicom_case
from releases import digest

from synthmed.errors import ConfigError, StorageError
from synthmed.export.cohort import Columns
from synthmed.export.dicom import seg
from synthmed.export.dicom import workers as dicom_workers

KINDS = [(modality, enhanced) for modality in ("CT", "MR") for enhanced in (False, True)]
IOD = {
    pydicom.uid.CTImageStorage: "CTImage",
    pydicom.uid.MRImageStorage: "MRImage",
    pydicom.uid.EnhancedCTImageStorage: "EnhancedCTImage",
    pydicom.uid.EnhancedMRImageStorage: "EnhancedMRImage",
    pydicom.uid.SegmentationStorage: "Segmentation",
}


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[0]}-{'enhanced' if kind[1] else 'classic'}")
def kind(request: pytest.FixtureRequest) -> tuple[str, bool]:
    return request.param


@pytest.fixture(scope="module")
def release(kind: tuple[str, bool], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Columns]:
    return released(tmp_path_factory.mktemp("release"), kind[0], enhanced=kind[1])


def tool(name: str, *arguments: Path | str) -> list[str]:
    """Run a program that pip installed; return what it said, line by line."""
    command = [str(Path(sys.executable).with_name(name)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).splitlines()


def errors(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("Error") or "rror -" in line]


def some(release: tuple[Path, Columns]) -> list[Path]:
    """First and last file of each series, and each segmentation."""
    path, columns = release
    series = [sorted((path / cells["dicom_series"]).iterdir()) for cells in columns.values()]
    segs = [path / cells["dicom_seg"] for cells in columns.values()]
    return sorted({file for files in series for file in (files[0], files[-1])} | set(segs))


def test_dciodvfy_knows_each_object_and_finds_no_error(release: tuple[Path, Columns]) -> None:
    for file in some(release):
        said = tool("dciodvfy", "-new", file)
        assert IOD[pydicom.dcmread(file).SOPClassUID] in said
        assert errors(said) == []


@pytest.mark.parametrize("most", [seg.MOST_BINARY_SEGMENTS, 1], ids=["BINARY", "LABELMAP"])
def test_dciodvfy_finds_no_error_in_names_of_other_letters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(seg, "MOST_BINARY_SEGMENTS", most)
    monkeypatch.setattr(
        "release_fidelity.NAMES", {"Größe des linken Hippocampus": 1, "left_hippocampus_head": 2, "左腎": 3}
    )
    file = tmp_path / write_dicom_case(tmp_path, make_phantom("CT", (14, 12, 9)), "CT").seg
    assert pydicom.dcmread(file).SpecificCharacterSet == "ISO_IR 192"
    assert errors(tool("dciodvfy", "-new", file)) == []


@pytest.mark.parametrize("compression", ["rle", "jpeg-ls"])
@pytest.mark.parametrize("enhanced", [False, True])
def test_dciodvfy_finds_no_error_in_compressed_objects(tmp_path: Path, compression: str, enhanced: bool) -> None:
    for file in some(released(tmp_path, "MR", enhanced=enhanced, compression=compression)):
        assert errors(tool("dciodvfy", "-new", file)) == []


def test_dcentvfy_finds_one_patient_study_and_series_where_there_is_one(release: tuple[Path, Columns]) -> None:
    path, _ = release
    assert tool("dcentvfy", *(path / name for name in objects(path))) == []


def test_both_validators_do_see_faults(tmp_path: Path) -> None:
    path, columns = released(tmp_path, "CT")
    first, second = sorted((path / columns["synthetic_0000"]["dicom_series"]).iterdir())[:2]
    rewrite(first, lambda data: delattr(data, "ImagePositionPatient"))
    assert any("ImagePositionPatient" in line for line in errors(tool("dciodvfy", "-new", first)))
    rewrite(second, lambda data: setattr(data, "PatientID", "other"))
    assert any("PatientID" in line for line in errors(tool("dcentvfy", first, second)))


def test_dcm2niix_returns_affine_and_voxels(
    release: tuple[Path, Columns], kind: tuple[str, bool], tmp_path: Path
) -> None:
    path, columns = release
    for number, (case, cells) in enumerate(columns.items()):
        truth = phantom(kind[0], number)
        (tmp_path / case).mkdir()
        read = IMAGE_READERS["dcm2niix"](path / cells["dicom_series"], tmp_path / case)
        (affine, _), difference = compare(read, truth.image, truth.affine.astype(np.float32).astype(np.float64))
        assert affine <= 1e-5
        # What is below half a step is the float32 of dcm2niix.
        assert difference.max() <= (0 if kind[0] == "CT" else 0.5 * step(truth.image) + 1e-4)


def step(image: np.ndarray) -> float:
    return float(np.ptp(image)) / 65535


@pytest.mark.parametrize("most", [seg.MOST_BINARY_SEGMENTS, 1], ids=["BINARY", "LABELMAP"])
def test_dcmqi_returns_the_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(seg, "MOST_BINARY_SEGMENTS", most)
    path, columns = released(tmp_path, "CT")
    truth = phantom("CT", 1)
    file = path / columns["synthetic_0001"]["dicom_seg"]
    assert errors(tool("dciodvfy", "-new", file)) == []
    read = SEG_READERS["dcmqi"](file, tmp_path)
    (affine, _), difference = compare(read, np.where(truth.label <= 2, truth.label, 0), truth.affine)
    assert affine <= 1e-5
    assert difference.max() == 0


def test_dcmqi_returns_the_labels_of_a_multi_frame_image(
    release: tuple[Path, Columns], kind: tuple[str, bool], tmp_path: Path
) -> None:
    path, columns = release
    truth = phantom(kind[0], 0)
    read = SEG_READERS["dcmqi"](path / columns["synthetic_0000"]["dicom_seg"], tmp_path)
    _, difference = compare(read, np.where(truth.label <= 2, truth.label, 0), truth.affine)
    assert difference.max() == 0


@pytest.mark.slow
def test_same_bytes_on_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = released(tmp_path / "a", "MR")
    monkeypatch.setattr(dicom_workers, "WORTH_PROCESSES", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert dicom_workers.worker_count(2, 1) == 2
    two, _ = released(tmp_path / "b", "MR")
    assert {name: digest(one / name) for name in names(one)} == {name: digest(two / name) for name in names(two)}


@pytest.mark.slow
def test_an_error_in_another_process_arrives_whole() -> None:
    with pytest.raises(ConfigError, match="found 3; expected 4") as caught:
        list(dicom_workers.ordered_map(refuse, [1, 2, 3], 2))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("end", "workers"), [("", 1), ("\nif __name__ == '__main__':\n    pass\n", 2)])
def test_a_script_that_would_run_again_stays_alone(tmp_path: Path, end: str, workers: int) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nos.sched_getaffinity = lambda _: {0, 1}\n"
        f"from synthmed.export.dicom.workers import worker_count\nprint(worker_count(2, 1e9)){end}"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(workers)


def end(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.slow
def test_a_process_that_is_killed_gives_one_line() -> None:
    with pytest.raises(StorageError, match="ended from outside"):
        list(dicom_workers.ordered_map(end, [1, 2], 2))


def wait(seconds: int) -> int:
    Path(os.environ["SYNTHMED_TEST_PIDS"], str(os.getpid())).touch()
    time.sleep(seconds)
    return seconds


@pytest.mark.slow
@pytest.mark.parametrize(("number", "seconds"), [(signal.SIGKILL, 60), (signal.SIGINT, 3)])
def test_processes_end_with_their_parent(tmp_path: Path, number: signal.Signals, seconds: int) -> None:
    code = f"""
from synthmed.export.dicom.workers import ordered_map
from test_release_dicom import wait
if __name__ == "__main__":
    list(ordered_map(wait, [{seconds}] * 2, 2))
"""
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"SYNTHMED_TEST_PIDS": str(tmp_path), "PYTHONPATH": path}
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment)
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    children = [int(file.name) for file in tmp_path.iterdir()]
    if number == signal.SIGINT:
        # As a terminal does, which sends Ctrl-C to the whole group.
        for child in children:
            os.kill(child, number)
    parent.send_signal(number)
    _, said = parent.communicate(timeout=30)
    assert parent.returncode != 0
    assert said.count("KeyboardInterrupt") == (number == signal.SIGINT)
    until(lambda: not any(alive(child) for child in children))


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end_at
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


def refuse(number: int) -> int:
    if number == 3:
        raise ConfigError("No", found="3", expected="4")
    return number


@pytest.mark.slow
def test_the_table_of_fidelity_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["release_fidelity.py", "--shape", "20", "16", "12"])
    main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * (3 + 5 + 2 + 4 + 2)
    assert all(float(line[37:49]) <= 1e-5 for line in lines[1:])
