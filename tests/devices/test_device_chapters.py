"""Every chapter's notebook on the device, at its `book` settings made small. Only `make devices` runs it."""

import os
from pathlib import Path

import pytest
from tiny import PAPERS, SMALL, study_of

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif("MEMLIB_DEVICE" not in os.environ, reason="make devices runs the chapters")

FIRST = """
import functools, sys
if {device!r} == "pretend":
    sys.path.insert(0, {tests!r})
    import pretend_device
    filled = pretend_device.filled()
    filled.__enter__()
import memlib.run
memlib.run.begin = functools.partial(memlib.run.begin, device={device!r})
"""


@pytest.mark.parametrize("paper", PAPERS)
def test_a_chapter_runs_on_the_device(paper, device, tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="chapters are notebooks")
    nbclient = pytest.importorskip("nbclient", reason="chapters are notebooks")
    pytest.importorskip("matplotlib", reason="chapters draw figures")
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    chapter = study_of(paper)[0].CHAPTER
    notebook = nbformat.read(TESTS.parent / "notebooks" / f"{chapter}.ipynb", 4)
    cells = notebook.cells
    place = next(i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", []))
    given = f"# Parameters\nscale = 'book'\nsettings = {SMALL[paper]!r}"
    cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    cells.insert(0, nbformat.v4.new_code_cell(FIRST.format(device=str(device), tests=str(TESTS))))
    client = nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
