"""Notebooks are valid, stored without outputs, and run from top to bottom."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from skimage.io import imread

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"03": 4, "05": 8}
"""How many pictures each draws, by its number."""


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
    if path.stem.startswith("03"):
        assert text.startswith("FAIL\n- 3 of 24")
        assert "\n0 matches in 24 samples" in text
    else:
        assert text.count("gives x_0 and the noise back to within") == 3
        assert all(float(line.rsplit(" ", 1)[1]) < 1e-12 for line in text.splitlines())
