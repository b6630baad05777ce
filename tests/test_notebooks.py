"""The notebooks: valid, small, without anybody's paths; the slow test runs them from the first cell to the last."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="pip install sentemb[dev]")

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
LARGEST = 300_000  # bytes of a notebook with its outputs


def test_there_are_six_and_the_docs_name_each():
    assert len(NOTEBOOKS) == 6
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    assert [path.name for path in NOTEBOOKS if path.name not in page] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_valid_compiles_and_is_small(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        ast.parse(cell.source)
        assert cell.execution_count, "outputs are those of a real run"
        assert not [one for one in cell.outputs if one.output_type == "error"]
    assert "assert " in "\n".join(cell.source for cell in code)
    assert len(text) < LARGEST
    for private in ("/root/", "/home/", "/work/", "/Users/", "site-packages", "/tmp/"):
        assert private not in json.dumps(notebook), private


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path, monkeypatch, minilm):
    from nbclient import NotebookClient

    monkeypatch.setenv("SENTEMB_CACHE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(tmp_path)}}
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources=folder)
    client.execute()
