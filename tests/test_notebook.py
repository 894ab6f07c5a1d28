"""The notebooks run from top to bottom, in their short version."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's own machinery
def test_notebook_runs(path, monkeypatch, tmp_path):
    monkeypatch.setenv("LSTMX_FAST", "1")
    notebook = nbformat.read(path, as_version=4)
    outputs = [output for c in notebook.cells for output in c.get("outputs", [])]
    assert any(output.get("data", {}).get("image/png") for output in outputs)
    assert not any(output.get("name") == "stderr" for output in outputs)  # warnings that name a machine's folders
    client = nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
