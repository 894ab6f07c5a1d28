"""The notebooks are short, show what they say, and run from top to bottom in their short version."""

import re
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
MACHINE = re.compile(r"/(?:home|root|tmp|work|Users|usr|opt|var|mnt)/|[A-Z]:\\|ipykernel|site-packages")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_short_and_shows_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) <= 8 or path.stem == "gallery"
    assert path.stat().st_size < 300_000
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # run once, in order
    outputs = [output for cell in code for output in cell.outputs]
    assert any(output.get("data", {}).get("image/png") for output in outputs)
    assert not any(output.get("name") == "stderr" or output.output_type == "error" for output in outputs)
    shown = [output.get("text", "") for output in outputs]
    shown += [
        text for output in outputs for kind, text in output.get("data", {}).items() if kind.startswith("text/")
    ]
    assert not [text for text in shown if MACHINE.search(text)]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own machinery
def test_notebook_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("LSTMX_FAST", "1")
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
