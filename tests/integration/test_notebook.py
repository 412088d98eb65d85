"""The notebook of examples/ runs from its first cell to its last, with a bar of its own."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_run.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_first_run_runs_in_a_notebook(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, 4)
    client = nbclient.NotebookClient(
        notebook, timeout=280, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = "".join(out.get("text", "") for cell in cells for out in cell.outputs)
    assert "Iteration 2, finetune: done" in shown
    assert "\x1b" not in shown  # no colours where they would be shown as text
    bars = [out for cell in cells for out in cell.outputs if out.output_type == "display_data"]
    assert bars
    table, rows = cells[2].outputs[0], cells[3].outputs[0]
    assert "iter-002" in table["data"]["text/html"]
    assert "completion_text" in rows["data"]["text/plain"]
