"""Which process this is, as launchers say it; alone, nothing changes what passes through."""

import pytest
import torch

from synthmed import processes
from synthmed.processes import Place, place

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
JOB = {"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Place(0, 1, 0, 1)),
        (TORCHRUN, Place(5, 8, 1, 4)),
        (JOB, Place(0, 1, 0, 1)),  # a batch script, which is no step
        (JOB | STEP, Place(5, 8, 1, 4)),
        (JOB | STEP | {"RANK": "1", "WORLD_SIZE": "2"}, Place(1, 2, 0, 1)),  # torchrun started by srun
    ],
)
def test_the_place_of_a_process(monkeypatch, said, expected):
    for name in {*TORCHRUN, *JOB, *STEP}:
        monkeypatch.delenv(name, raising=False)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    assert place() == expected


def test_shares_are_disjoint_and_whole(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        shares.append(list(range(8))[processes.share()])
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]


def test_one_process_passes_through_unchanged():
    values = torch.rand(3, requires_grad=True)
    assert processes.total(values) is values
    assert processes.gather(7) == [7]
    assert processes.from_first(lambda: 7) == 7
    assert list(range(4))[processes.share()] == [0, 1, 2, 3]
    assert processes.speaks()
    assert not processes.is_lost(RuntimeError("gloo"))


def test_fewer_gpus_than_processes_are_refused():
    with pytest.raises(processes.ConfigError, match=r"more processes .* than GPUs.*found 4; expected at most 1"):
        processes._check_gpus(Place(0, 4, 0, 4), 1)
