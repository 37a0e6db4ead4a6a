"""The notebook in `examples/python` runs, and tells what it says."""

from __future__ import annotations

import pytest
from conftest import PATIENCE, REPOSITORY, services

NOTEBOOK = REPOSITORY / "examples" / "python" / "encrypted_scoring.ipynb"


def run(monkeypatch, models=None):
    """Texts and the number of pictures that the notebook shows."""
    client, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("xgboost")
    if models is None:
        for name in ("CIPHERSCORE_BROKER_URL", "CIPHERSCORE_REDIS_URL"):
            monkeypatch.delenv(name, raising=False)
    else:
        monkeypatch.setenv("CIPHERSCORE_MODELS_DIR", str(models))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(NOTEBOOK.parent)}}
    client.NotebookClient(notebook, timeout=PATIENCE, resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.text for output in outputs if output.output_type == "stream")
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    return text, len(pictures)


def test_the_notebook_here(monkeypatch):
    text, pictures = run(monkeypatch)
    assert pictures == 4
    assert "143 of 143 rows have the same class" in text
    assert "no fleet here: CIPHERSCORE_BROKER_URL" in text


def test_the_notebook_through_a_fleet(monkeypatch, workers):
    services()
    text, _ = run(monkeypatch, workers.models)
    assert "32890 rows through the fleet" in text
    assert "; 32890 of the same class" in text


def test_the_notebook_is_kept_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    nbformat.validate(notebook)
