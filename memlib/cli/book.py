"""`memlib book`: execute the chapters at one scale in a staging folder, then render the book from there."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from memlib.chapters import claims
from memlib.cli import chapters
from memlib.errors import Refused

_SOURCES = ("_config.yml", "_toc.yml", "book", "notebooks", "results")


def make(scale: str, chapter: str | None = None) -> int:
    """Execute every chapter (or one) at `scale` and render `_build/html`.

    A chapter that fails does not stop the others: the book shows it as committed, and the failed run is kept in
    `_build/executed`.

    Returns:
        The exit code: 0, or 1 if a chapter or the rendering failed.
    """
    home = chapters.root()
    chosen = [chapters.find(chapter)] if chapter else chapters.every()
    stage = home / "_build" / "stage"
    _copy(home, stage)
    failed = []
    for notebook in chosen:
        began = time.perf_counter()
        try:
            count = _execute(notebook, stage, scale, home)
            told = f"{time.perf_counter() - began:5.0f} s  {count} claims"
        except (chapters.Failed, Refused) as error:
            failed.append(notebook.stem)
            told = f"failed: {error}"
        print(f"{notebook.stem:<28} {told}", flush=True)
    page = _render(stage, home)
    if failed:
        print(f"not executed, shown as committed: {', '.join(failed)}", file=sys.stderr)
    if page is None:
        print(f"the book was not rendered: see {home / '_build' / 'render.log'}", file=sys.stderr)
    else:
        print(f"open {page}")
    return int(bool(failed) or page is None)


def _copy(home: Path, stage: Path) -> None:
    """A fresh staging folder with everything that the rendering reads."""
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    for source in (home / name for name in _SOURCES):
        if source.is_dir():
            shutil.copytree(source, stage / source.name, ignore=shutil.ignore_patterns("node_modules", ".*"))
        elif source.exists():
            shutil.copy2(source, stage)


def _execute(notebook: Path, stage: Path, scale: str, home: Path) -> int:
    """Run one chapter, replace its staged copy if it ran to the end, and return the number of its claims."""
    values = {} if scale == "fast" else chapters.given(notebook, [], scale)
    out = home / "_build" / "executed" / notebook.name
    chapters.execute(notebook, out, values, cwd=home)
    shutil.copy2(out, stage / "notebooks" / notebook.name)
    return len(claims.claims_in(out))


def _render(stage: Path, home: Path) -> Path | None:
    """Run jupyter-book; the path of the first page, or None if it failed (its output is in `_build/render.log`)."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(stage), "--path-output", str(home), "--all"]
    with open(home / "_build" / "render.log", "w", encoding="utf8") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        except FileNotFoundError:
            raise Refused(
                f"jupyter-book is not installed next to {sys.executable}: pip install 'memlib[book]'"
            ) from None
    page = home / "_build" / "html" / "index.html"
    return page if code == 0 and page.exists() else None
