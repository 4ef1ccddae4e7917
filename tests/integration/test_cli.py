"""What a user sees when something is wrong: one line, the documented exit code, nothing lost."""

import json
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_run import command, synthmed, write_config
from typer.testing import CliRunner

from synthmed.cli import EXIT_CODES, app


def _scan(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


def _cohort(folder, count=6, labels=True):
    rng = np.random.default_rng(0)
    for i in range(count):
        _scan(folder / "images" / f"Fall ü {i}.nii.gz", rng.normal(100, 20, (16, 16, 16)).astype(np.float32))
        if labels:
            _scan(folder / "labels" / f"Fall ü {i}.nii.gz", (rng.random((16, 16, 16)) > 0.7).astype(np.uint8))
    return folder


def _image(folder):
    return sorted((folder / "images").iterdir())[0]


def _truncate(folder):
    _image(folder).write_bytes(_image(folder).read_bytes()[:500])


def _nan(folder):
    _scan(_image(folder), np.full((16, 16, 16), np.nan, np.float32))


def _infinite(folder):
    array = np.ones((16, 16, 16), np.float32)
    array[0, 0, 0] = np.inf
    _scan(_image(folder), array)


def _four_d(folder):
    _scan(_image(folder), np.random.default_rng(0).random((16, 16, 16, 3)).astype(np.float32))


def _rgb(folder):
    rgb = np.zeros((16, 16, 16), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    _scan(_image(folder), rgb)


def _constant(folder):
    _scan(_image(folder), np.full((16, 16, 16), 7, np.float32))


def _no_label(folder):
    (folder / "labels" / _image(folder).name).unlink()


def _label_shape(folder):
    _scan(folder / "labels" / _image(folder).name, np.zeros((16, 16, 15), np.uint8))


def _label_affine(folder):
    _scan(folder / "labels" / _image(folder).name, np.zeros((16, 16, 16), np.uint8), np.diag([2, 1, 1, 1.0]))


FAULTS = {
    "truncated": (_truncate, ["Fall ü 0"]),
    "NaN": (_nan, ["Fall ü 0", "NaN"]),
    "infinite": (_infinite, ["Fall ü 0"]),
    "4D": (_four_d, ["Fall ü 0", "three axes"]),
    "RGB": (_rgb, ["Fall ü 0", "RGB"]),
    "constant": (_constant, ["Fall ü 0", "constant"]),
    "missing label": (_no_label, ["Fall ü 0", "label"]),
    "label of another shape": (_label_shape, ["Fall ü 0", "shape"]),
    "label of another affine": (_label_affine, ["Fall ü 0", "affine"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_scan_is_named_in_one_line(tmp_path, fault):
    break_it, words = FAULTS[fault]
    folder = _cohort(tmp_path / "scans with space")
    break_it(folder)
    result = _invoke("prepare", folder, "--images", "images", "--labels", "labels", "--run-dir", tmp_path / "r")
    assert result.code == 5, result.error
    assert all(word.lower() in result.error.lower() for word in words), result.error
    assert "Traceback" not in result.error
    assert not (tmp_path / "r" / "prepare" / "manifest.json").exists()


class _Result:
    def __init__(self, code, output, error):
        self.code, self.output, self.error = code, output, error


def _invoke(*arguments):
    """Run a verb as `main` does, in this process."""
    import contextlib
    import io

    from synthmed import cli

    out, err = io.StringIO(), io.StringIO()
    argv = sys.argv
    sys.argv = ["synthmed", *map(str, arguments)]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = argv
    return _Result(code, out.getvalue(), err.getvalue())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "no_such_config"], 2, ["no_such_config", "phantom"]),
        (["run", "phantom", "--set", "sampling.sampler=hein"], 2, ["sampling.sampler", "heun"]),
        (["run", "phantom", "--set", "sampling.num_sample=3"], 2, ["Did you mean sampling.num_samples"]),
        (["frobnicate"], 2, ["frobnicate"]),
        (["run"], 2, ["target"]),
        (["generate", "phantom", "-n", "0"], 2, ["num_samples"]),
        (["verify", "no/such/release"], 8, ["no/such/release is no release", "nothing of that name"]),
        (["verify", "."], 8, ["is no release", "no SHA256SUMS", "synthmed export"]),
        (["send", ".", "--to", "dicom://A@localhost:4242"], 8, ["is no release"]),
        (["audit", "no/such/run"], 2, ["no configuration or run no/such/run", "the directory of a run"]),
        (["report", "."], 2, ["is not a run", "an empty folder", "synthmed run"]),
        (["generate", "--model", "hipocampus-mri"], 2, ["Did you mean hippocampus-mri?"]),
    ],
)
def test_wrong_commands(tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    result = _invoke(*arguments)
    assert result.code == code, result.error
    assert all(word.lower() in (result.error + result.output).lower() for word in words), result.error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["generate", "--model", "hipocampus"], ["run", "phantm"], ["report", "nowhere"]])
def test_a_wrong_name_is_refused_before_torch_is_loaded(tmp_path, words):
    code = "import sys\nfrom synthmed.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "False\n")


def test_an_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    result = _invoke("prepare", tmp_path / "empty", "--run-dir", tmp_path / "r")
    assert result.code == 5
    assert "empty" in result.error


def test_one_patient_only(tmp_path):
    folder = _cohort(tmp_path / "scans", count=1)
    result = _invoke("prepare", folder, "--images", "images", "--labels", "labels", "--run-dir", tmp_path / "r")
    assert result.code == 5
    assert "patient" in result.error


def test_plan_then_prepare(tmp_path):
    folder = _cohort(tmp_path / "scäns with space", count=8)
    options = ["--images", "images", "--labels", "labels"]
    planned = _invoke("plan", folder, *options, "-o", tmp_path / "mine.yaml")
    assert planned.code == 0, planned.error
    again = _invoke("plan", folder, *options, "-o", tmp_path / "mine.yaml")
    assert again.code == 2, "an existing file is not overwritten"
    prepared = _invoke("prepare", tmp_path / "mine.yaml", "--run-dir", tmp_path / "r")
    assert prepared.code == 0, prepared.error
    assert "8" in prepared.output
    images = [p for split in ("train", "holdout") for p in (tmp_path / "r" / "prepare" / split / "images").iterdir()]
    assert len(images) == 8


def test_help_of_every_verb_has_an_example():
    for verb in app.registered_commands:
        name = verb.name or verb.callback.__name__
        text = CliRunner().invoke(app, [name, "--help"]).output
        assert f"Example: synthmed {name}" in text


def test_exit_codes_in_the_help_are_those_of_the_errors():
    from synthmed import errors

    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.SynthmedError)]
    for code in {c.exit_code for c in classes}:
        assert f"{code} " in EXIT_CODES


def _limit_files():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))


@pytest.mark.slow
def test_a_full_disk_in_the_middle_of_a_run_is_one_line_and_the_run_resumes(tmp_path):
    """A file-size limit stands in for a full disk: the system refuses the write in the same way."""
    config = write_config(tmp_path)
    failed = synthmed("generate", config, "--run-dir", tmp_path / "r", before=_limit_files)
    assert failed.returncode == 7, failed.stderr
    assert "Cannot write" in failed.stderr.splitlines()[-1]
    resumed = synthmed("generate", config, "--run-dir", tmp_path / "r")
    assert resumed.returncode == 0, resumed.stderr
    assert len(list((tmp_path / "r" / "generate" / "images").iterdir())) == 12


@pytest.mark.slow
def test_a_holdout_too_small_to_audit_blocks_the_release(tmp_path):
    config = write_config(tmp_path, cohort={"phantom": {"num_subjects": 8, "shape": [16, 16, 16]}})
    result = synthmed("run", config, "--run-dir", tmp_path / "r", quick=True)
    assert result.returncode == 4, result.stderr
    assert not (tmp_path / "r" / "export" / "release").exists()
    report = json.loads((tmp_path / "r" / "audit" / "release" / "report.json").read_text())
    assert report["verdict"] == "INCONCLUSIVE"
    assert "holdout" in " ".join(report["reasons"]) or "held" in " ".join(report["reasons"])


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "SHA256SUMS").touch()
    program = shlex.join(command("verify", tmp_path))
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {program} | head -1"], capture_output=True, text=True)
    assert done.returncode == 8
    assert done.stdout.count("\n") == 1
    assert "BrokenPipe" not in done.stderr
