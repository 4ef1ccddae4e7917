"""SIGKILL and Ctrl-C in every stage: the same command resumes, to the same result as a run left alone."""

import signal
import time

import pytest
from tiny_run import start, synthmed, write_config

from synthmed.files import read_json
from synthmed.pipeline import STAGES

pytestmark = pytest.mark.slow
NAMES = [stage.name for stage in STAGES]


def _interrupt_in(stage, config, root, how, delay):
    """Start the run, wait for `stage` to begin, then send the signal; return the exit code."""
    process = start("run", config, "--run-dir", root, "--set", "audit.policy=research", quick=True)
    process.wait_for(f"{stage}: running")
    time.sleep(delay)
    process.send_signal(how)
    return process.end(60).returncode


def _results(root):
    """Return the digest of every stage up to the audit, whose steward's record holds paths and therefore differs."""
    stages = ("prepare", "autoencoder", "denoiser", "generate")
    report = (root / "audit" / "release" / "report.json").read_bytes()
    return [read_json(root / name / "manifest.json")["digest"] for name in stages], report


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("left alone")
    root = folder / "run"
    done = synthmed("run", write_config(folder), "--run-dir", root, "--set", "audit.policy=research", quick=True)
    assert done.returncode == 4
    return root


@pytest.mark.parametrize(("how", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_a_run_interrupted_in_every_stage_ends_as_one_left_alone(alone, tmp_path, how, code):
    config = write_config(tmp_path)
    broken = tmp_path / "unterbröchen run"
    codes = []
    for number, stage in enumerate(NAMES):
        codes.append(_interrupt_in(stage, config, broken, how, delay=(0.0, 0.15, 0.3)[number % 3]))
        assert not (broken / "export" / "release").exists()
    final = synthmed("run", config, "--run-dir", broken, "--set", "audit.policy=research", quick=True)
    assert final.returncode == 4
    assert code in codes, "no stage was long enough to be interrupted"
    assert _results(broken) == _results(alone), final.stderr
