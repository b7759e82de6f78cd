"""The claims of a chapter, one record each: shown and stored in the notebook, and read by the book's ledger.

The record in the notebook has only values that are the same on every machine. Device and duration of the run are in
`runs/<chapter>-<scale>.json`, which is not committed.
"""

import contextlib
import html
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from memlib import __version__
from memlib.errors import Refused

MIME = "application/vnd.memlib.claim+json"


def line(claim: Mapping[str, Any]) -> str:
    """A claim in one line of plain text: id, scale, verdict, figure [interval], n, the chapter's own words."""
    text = f"{claim['id']} ({claim['scale']}): {claim['verdict']}; {measured(claim)}"
    return f"{text}. {claim['text']}" if claim.get("text") else text


def measured(claim: Mapping[str, Any]) -> str:
    """`figure [low, high], n = N`, where the interval and n may be absent."""
    text = _shown(claim["figure"])
    if claim["interval"] is not None:
        text += f" [{_shown(claim['interval'])}]"
    return text if claim["n"] is None else f"{text}, n = {claim['n']}"


def show(claim: Mapping[str, Any]) -> None:
    """Display a claim as an output of the running cell, or print its line if there is no IPython."""
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(line(claim))
        return
    from IPython.display import display

    head, _, rest = line(claim).partition(": ")
    page = f'<p class="memlib-claim"><strong>{html.escape(head)}</strong>: {html.escape(rest)}</p>'
    display({"text/plain": line(claim), "text/html": page, MIME: dict(claim)}, raw=True)


def claims_in(notebook: str | Path) -> list[dict[str, Any]]:
    """The records in the outputs of a notebook file, in order. Raises `Refused` if it cannot be read."""
    try:
        cells = json.loads(Path(notebook).read_text(encoding="utf8"))["cells"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(f"{notebook} is not a notebook that can be read ({error}): give the path of an .ipynb") from None
    bundles = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return [bundle[MIME] for bundle in bundles if MIME in bundle]


def root() -> Path | None:
    """The project's folder: the nearest one, from the current folder upwards, with a `_toc.yml`."""
    here = Path.cwd()
    return next((path for path in (here, *here.parents) if (path / "_toc.yml").exists()), None)


def home() -> Path | None:
    """Where the chapters and the kept runs lie: the project around the current folder, the checkout of this memlib,
    or, in a wheel, the package itself. None where there are none."""
    package = Path(__file__).parents[1]
    places = (root(), package.parent, package / "book")
    return next((place for place in places if place and (place / "notebooks").is_dir()), None)


def keep(
    chapter: str,
    scale: str,
    provenance: Mapping[str, Any],
    claims: Sequence[Mapping[str, Any]],
    tables: Mapping[str, Sequence[Sequence[str]]],
) -> None:
    """Write `runs/<chapter>-<scale>.json` in the project, else in the current folder, if that can be written."""
    from memlib.cache.atomic import replace_file  # needs torch, which a page that only reads records does not

    path = (root() or Path.cwd()) / "runs" / f"{chapter}-{scale}.json"
    with contextlib.suppress(Refused):
        page = {"provenance": provenance, "claims": claims} | ({"tables": tables} if tables else {})
        text = json.dumps(page, indent=1, default=str) + "\n"
        replace_file(path, lambda beside: beside.write_text(text, encoding="utf8"))


def kept(chapter: str, scale: str = "book") -> dict[str, Any] | None:
    """The kept run of a chapter at a scale, `results/<scale>/<chapter>.json`, or None.

    Its "claims" are {id: record}, its "tables" {title: rows}, and its "provenance" says on what and how long it ran.
    """
    path = (home() or Path.cwd()) / "results" / scale / f"{chapter}.json"
    if not path.exists():
        return None
    page = json.loads(path.read_text(encoding="utf8"))
    return page | {"claims": {claim["id"]: claim for claim in page["claims"]}, "tables": page.get("tables", {})}


def kept_results(chapter: str, scale: str = "book") -> Any:
    """What a study measured in its kept run, from `results/<scale>/<chapter>.safetensors`, or None.

    The study must be imported: its results are dataclasses of its own.
    """
    from memlib.cache import store  # needs torch, which a page that only reads records does not

    path = (home() or Path.cwd()) / "results" / scale / f"{chapter}.safetensors"
    return store.load(path) if path.exists() else None


def show_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Display rows as an HTML table with a caption, and as plain text, which the tests compare."""
    text = f"{title}\n{aligned(rows)}"
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        print(text)
        return
    from IPython.display import display

    head, *body = [[html.escape(cell) for cell in row] for row in rows]
    cells = "".join(f"<th scope='col'>{cell}</th>" for cell in head)
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in body)
    caption = f"<caption>{html.escape(title)}</caption>"
    page = f'<table class="memlib-table">{caption}<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>'
    display({"text/plain": text, "text/html": page}, raw=True)


def aligned(rows: Sequence[Sequence[object]]) -> str:
    """Rows as columns of text, two spaces apart, without spaces at the end of a line."""
    text = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in text)


def provenance(device: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Commit, device, versions and parameters of a run. Its seconds are 0, to be set when it ends."""
    where = {"commit": commit(), "device": machine(device), "seconds": 0.0}
    return where | {"versions": versions(), "parameters": dict(parameters)}


def machine(device: Any) -> str:
    """The name of the device: that of the card where torch tells it, else its type and the machine's architecture."""
    import torch

    named = getattr(torch.get_device_module(device), "get_device_name", None) if device.type != "cpu" else None
    return named(device) if named else f"{device.type} ({platform.machine()})"


def versions() -> dict[str, str]:
    """The versions that the numbers depend on: memlib, Python and torch."""
    import torch

    return {"memlib": __version__, "python": platform.python_version(), "torch": torch.__version__}


def commit() -> str | None:
    """The commit of this checkout of memlib, with `+changes` if memlib was edited since.

    For a copy of the files alone it is MEMLIB_COMMIT, or None.
    """
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return os.environ.get("MEMLIB_COMMIT")
    try:
        name = _git(folder, "rev-parse", "HEAD")
        return name + ("+changes" if _git(folder, "status", "--porcelain", "--", "memlib") else "")
    except (OSError, subprocess.SubprocessError):  # no git, or no commit yet
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _shown(figure: Any) -> str:
    if isinstance(figure, Mapping):
        return ", ".join(f"{key} {_shown(value)}" for key, value in figure.items())
    return ", ".join(map(_shown, figure)) if isinstance(figure, list) else str(figure)
