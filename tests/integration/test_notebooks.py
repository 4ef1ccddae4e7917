"""Notebooks are valid, stored without outputs, and run from top to bottom."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from skimage.io import imread

from synthmed.models.library import shipped_models

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"01": 4, "02": 5 + len(shipped_models()), "03": 4, "04": 4, "05": 8}
"""How many pictures each draws, by its number; 02 ends with one of each further pretrained model."""
WORDS = {
    "01": r"(?s).*Proposed for this cohort.*72 .*\nPASS\n- .*SHA256SUMS.*\n0 findings when verified\n",
    "02": r"Synthetic phantoms(?s:.*)12 volumes, \d+ of them (?s:.*)71 training scans, 39 held out\n",
    "03": r"FAIL\n- 3 of 24(?s:.*)\n0 matches in 24 samples",
    "04": r"(?s).*SHA256SUMS.*\n0 findings\n64 cases of \(1, 32, 32, 32\)\n71 training patients, 39 held out\n"
    r"trained on synthetic release: mean Dice 0\.\d\d\ntrained on real scans: mean Dice 0\.\d\d\n",
    "05": r"(?:\w+ +gives x_0 and the noise back to within (?:\de-1[3-9]|0e\+00)\n){3}\Z",
}
"""What each prints, at its beginning."""

QUICK = f"""
import sys
sys.path.append({str(ROOT / "tests")!r})
from privacy_audits import quick
_quick = quick(planted=3)
_quick.__enter__()
"""
"""What the kernel does first: of fewer planted copies a PASS lets fewer be missed, and `make demo` plants them all."""


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_as_it_should_be(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells), "stored with outputs"
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, "no trace of whoever ran it"
    assert notebook.cells[0].source.startswith(f"# {path.stem[:2]} ")
    for cell in cells:
        compile(cell.source, path.name, "exec")


def test_the_index_lists_every_notebook() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert len(NOTEBOOKS) == len(PICTURES)
    assert [path.name for path in NOTEBOOKS if f"notebooks/{path.name}" not in index] == []


def execute(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from nbclient import NotebookClient

    # Nothing of this process's settings for tests, and none of its user's for Jupyter.
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "quick.py").write_text(QUICK, encoding="utf-8")
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(folder / "jupyter"))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = read(path)
    NotebookClient(notebook, timeout=400, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = outputs(execute(path, tmp_path, monkeypatch))
    text = "".join(output.text for output in found if output.output_type == "stream" and output.name == "stdout")
    pictures = [output.data["image/png"] for output in found if "image/png" in output.get("data", {})]
    assert len(pictures) == PICTURES[path.stem[:2]]
    for picture in pictures:
        pixels = imread(io.BytesIO(base64.b64decode(picture)))[..., :3]
        assert np.unique(pixels).size > 20, "an empty picture"
    assert re.match(WORDS[path.stem[:2]], text), text
