"""`benchmarks/device.py`: arithmetic that is counted right, rows that say why they are empty, and the dated table."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import device
import pytest
import torch
from speed import measuring, roofline, running
from speed.running import Cell
from torch import nn
from torch.nn import functional

SIDE = 32


def flops_of_training(layer: nn.Module, x: torch.Tensor) -> int:
    return roofline.count_flops(lambda: layer(x.requires_grad_()).sum().backward())


def test_a_linear_layer_costs_two_operations_a_weight_and_its_gradients_twice_that() -> None:
    layer, x = nn.Linear(8, 16), torch.rand(4, 8)
    assert roofline.count_flops(lambda: layer(x)) == 2 * 4 * 8 * 16
    assert flops_of_training(layer, x) == 3 * 2 * 4 * 8 * 16
    with torch.inference_mode():
        assert roofline.count_flops(lambda: layer(torch.rand(4, 8))) == 2 * 4 * 8 * 16


@pytest.mark.parametrize(
    ("layer", "once"),
    [
        (nn.Conv3d(4, 6, 3, padding=1, bias=False), 2 * 27 * 4 * 6 * 5**3),
        (nn.Conv3d(4, 4, 3, padding=1, groups=4, bias=False), 2 * 27 * 4 * 5**3),
        (nn.ConvTranspose3d(4, 6, 2, stride=2, bias=False), 2 * 8 * 4 * 6 * 5**3),
    ],
)
def test_a_convolution_and_each_of_its_gradients_cost_the_same(layer: nn.Module, once: int) -> None:
    assert roofline.count_flops(lambda: layer(torch.rand(1, 4, 5, 5, 5))) == once
    assert flops_of_training(layer, torch.rand(1, 4, 5, 5, 5)) == 3 * once


def test_attention_on_the_cpu_is_counted() -> None:
    heads, tokens, width = 2, 7, 8
    q = torch.rand(1, heads, tokens, width)
    once = 2 * 2 * heads * tokens**2 * width
    assert roofline.count_flops(lambda: functional.scaled_dot_product_attention(q, q, q)) == once
    learned = q.clone().requires_grad_()
    work = roofline.count_flops(lambda: functional.scaled_dot_product_attention(learned, q, q).sum().backward())
    assert work == 3.5 * once


def test_compiled_work_is_counted_without_compilation() -> None:
    def refuse(*_: object) -> None:
        raise AssertionError

    layer = nn.Linear(8, 16)
    layer.compile(backend=refuse)
    assert roofline.count_flops(lambda: layer(torch.rand(4, 8))) == 2 * 4 * 8 * 16


def test_the_roof_is_measured_and_leaves_the_precision_of_products_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "LARGE", {"cpu": (256, 8, 8)})
    before = torch.get_float32_matmul_precision()
    assert roofline.roof("cpu", torch.float32, measuring.clock_of("wall")) > 1e8
    assert torch.get_float32_matmul_precision() == before


def test_a_gpu_is_waited_for_and_asked_for_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("waited"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    assert roofline.clock_on("cuda", "wall")() > 0
    assert (running.start_memory("cuda"), running.memory_mib("cuda")) == (0.0, 3.0)
    assert asked == ["waited", "reset"]


def test_networks_are_those_of_the_plan_for_the_device() -> None:
    assert running.configuration(Cell("denoiser", SIDE, device="cpu")).denoiser.width == 256
    large = running.configuration(Cell("denoiser", SIDE, "bf16-mixed", device="cpu", networks="large"))
    assert (large.denoiser.width, large.denoiser_training.precision) == (512, "bf16-mixed")


def test_a_row_has_figures_that_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "roof", lambda *_: 1e12)
    row = running.run_cell(Cell("denoiser", 16, device="cpu", repeats=2))
    assert row["note"] == ""
    assert 0 < row["low"] <= row["s"] <= row["high"]
    assert row["share"] == pytest.approx(row["TFLOP/s"]) == pytest.approx(row["TFLOP"] / row["s"])
    assert row["samples/s"] == pytest.approx(1 / row["s"])
    assert row["compile s"] is None


def test_rows_without_figures_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = running.run_cell(Cell("autoencoder", 16, "bf16-mixed", device="cpu"))
    assert "bf16-mixed gives wrong gradients" in refused["note"]
    assert "s" not in refused
    assert running.reason(RuntimeError("x\n DefaultCPUAllocator: can't allocate memory")).startswith("out of memory")
    assert running.reason(torch.OutOfMemoryError("CUDA out of memory.")).startswith("out of memory: CUDA")
    assert running.reason(ValueError("\nno compiler\nhere")) == "ValueError: no compiler"


def test_a_process_that_dies_or_lasts_leaves_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    options = device.parse(["--limit", "0.01"])
    assert device.run_apart(Cell("denoiser", SIDE), options)["note"] == "not done within 0.01 s"
    for code, text in ((-9, "want of memory"), (1, "ValueError: last")):
        done = subprocess.CompletedProcess([], code, "", "first\nValueError: last\n")
        monkeypatch.setattr(subprocess, "run", lambda *_, done=done, **__: done)
        assert text in device.run_apart(Cell("denoiser", SIDE), options)["note"]


def test_decoding_in_one_piece_is_measured_where_the_product_decodes_in_tiles() -> None:
    found = list(device.cells(device.parse(["--sides", "128", "256"]), "cpu"))
    assert {cell.side for cell in found if cell.task == "whole"} == {256}
    assert len(found) == 4 * (3 + 4)


def test_the_table_names_device_date_and_what_maisi_publishes() -> None:
    facts = {"device": "GPU 1", "date": "2000-01-01", "torch": "2.13"}
    text = device.report([{"task": "denoiser", "side": 128, "s": None, "note": "a|b"}], facts, ["--sides", "128"])
    assert text.startswith("## GPU 1, 2000-01-01\n\n`python benchmarks/device.py --sides 128`: torch 2.13.")
    assert "| denoiser | 128 |  |  |  |  |  |  |  |  |  | a/b |" in text
    assert "| sampling, MAISI as published | 256 |  |  | 8 | 0.125 | 14687 |" in text
    assert "2409.11169" in text
    assert "A100" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_absent_device_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert device.main(["--device", "cuda"]) == 2
    assert "no such device" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_measures_every_task_in_processes_of_their_own(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--sides", str(SIDE), "--repeats", "1", "--precisions", "32-true", "--clock", "process"]
    table, rows = tmp_path / "table.md", tmp_path / "rows.json"
    assert device.main([*words, "--modes", "eager", "--table", str(table), "--json", str(rows)]) == 0
    found = json.loads(rows.read_text())
    assert [row["task"] for row in found["rows"]] == ["autoencoder", "denoiser", "sampling"]
    for row in found["rows"]:
        assert row["s"] > 0, row
        assert row["TFLOP"] > 0
        assert 0 < row["share"] < 1.5
        assert 10 < row["peak MiB"] < 4000
    assert "20 steps: denoising" in found["rows"][2]["note"]
    head = table.read_text().splitlines()[0]
    assert head == f"## {running.device_name('cpu')}, {date.today().isoformat()}"


@pytest.mark.slow
@pytest.mark.parametrize("compiler", [None, "no-such-compiler"])
def test_a_compiled_row_has_figures_or_the_reason(
    compiler: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiler:
        monkeypatch.setenv("CXX", compiler)
    words = ["--device", "cpu", "--sides", "16", "--repeats", "1", "--precisions", "32-true", "--tasks", "denoiser"]
    out = tmp_path / "rows.json"
    assert device.main([*words, "--modes", "compile", "--json", str(out)]) == 0
    row = json.loads(out.read_text())["rows"][0]
    if compiler or not shutil.which("g++"):
        assert "ompiler" in row["note"], row
    else:
        assert row["compile s"] > 0, row
