"""What `memlib run` tells where there is no terminal for a progress bar: a line for each section, and one a minute."""

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

_LOOK = 0.5  # seconds from one look at the notebook to the next


@contextmanager
def told(notebook: Path, every: float = 60.0, stream: TextIO | None = None) -> Iterator[None]:
    """Print how far the execution of a notebook is, as papermill writes it to disk before each cell.

    Arguments:
        notebook: the file that papermill writes.
        every: seconds between two lines about one section.
        stream: where to; None is stderr.
    """
    done = Event()
    thread = Thread(target=_tell, args=(notebook, every, stream or sys.stderr, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell(notebook: Path, every: float, stream: TextIO, done: Event) -> None:
    began = last = time.monotonic()
    seen, section, cell = 0, "", "no cell yet"
    while not done.wait(_LOOK):
        now, before = time.monotonic(), section
        try:
            written = notebook.stat().st_mtime_ns
            if written != seen:
                section, cell = place(json.loads(notebook.read_text(encoding="utf8"))) or (section, cell)
                seen = written
        except (OSError, ValueError, KeyError):  # it is being written
            pass
        if section != before or now - last >= every:
            minutes, seconds = divmod(int(now - began), 60)
            print(f"{notebook.stem} {minutes}:{seconds:02d} {section or 'start'} ({cell})", file=stream, flush=True)
            last = now


def place(notebook: dict) -> tuple[str, str] | None:
    """The section that runs, empty before the first one, and `cell 3 of 12`; None where no cell runs."""
    section, cells = "", notebook["cells"]
    for number, cell in enumerate(cells, 1):
        if cell["cell_type"] == "markdown":
            heading = re.findall(r"(?m)^## (.+)$", "".join(cell["source"]))
            section = heading[-1].strip() if heading else section
        if cell["metadata"].get("papermill", {}).get("status") == "running":
            return section, f"cell {number} of {len(cells)}"
    return None
