"""The chapters of the book for the command line: find them by name, inspect them, execute them."""

import dataclasses
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import memlib
from memlib import data, papers
from memlib.chapters import claims, parameters
from memlib.cli.progress import told
from memlib.errors import Refused, needs
from memlib.settings import plain


class Failed(Exception):
    """A chapter stopped with an error; the message is one sentence."""


def root() -> Path:
    """The project's folder: the one around the current folder, else the checkout of this memlib."""
    checkout = Path(memlib.__file__).parents[1]
    found = claims.root() or (checkout if (checkout / "_toc.yml").exists() else None)
    if found is None:
        raise Refused(f"no book in {Path.cwd()} or above: change to a checkout of the project, where _toc.yml lies")
    return found


def every() -> list[Path]:
    """The notebooks of the book, in order: of the project, or those that a wheel carries. Raises `Refused`."""
    home = claims.home()
    if home is None:
        raise Refused(f"no book in {Path.cwd()} or above: change to a checkout of the project, where _toc.yml lies")
    return sorted((home / "notebooks").glob("*.ipynb"))


def find(chapter: str) -> Path:
    """The notebook with this path, name (`02_side`) or number (`02`). Raises `Refused` if there is none."""
    if chapter.endswith(".ipynb"):
        if Path(chapter).is_file():
            return Path(chapter)
        raise Refused(f"there is no notebook {chapter}: give the path of one, or a chapter of `memlib chapters`")
    known = {path.stem: path for path in every()}
    names = [name for name in known if name == chapter or name.split("_")[0] == chapter]
    if len(names) == 1:
        return known[names[0]]
    close = get_close_matches(chapter, known, n=1)
    raise Refused(
        f"no chapter {chapter}: choose among {', '.join(known) or '(none yet)'}"
        + (f" (closest: {close[0]})" if close else "")
    )


def title(notebook: Path) -> str:
    """The first heading of the notebook."""
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    heading = re.search(r"(?m)^# (.+)$", text)
    return heading[1].strip() if heading else notebook.stem


def declared(notebook: Path) -> dict[str, dict[str, str]]:
    """The parameters that papermill finds in the parameters cell: name -> type, default and help."""
    with needs("book"):
        import papermill

    return papermill.inspect_notebook(str(notebook))


def given(notebook: Path, assignments: list[str], scale: str | None = None) -> dict[str, Any]:
    """The values of `-p name=value` and `--scale`, checked before anything runs.

    Arguments:
        notebook: its parameters cell and the study of its chapter say which values are allowed.
        assignments: `name=value`. A value is a Python literal (`3`, `1e-3`, `None`, `[1, 2]`, also `true`), or else a
            string; for a `str` parameter it is always the text itself.
        scale: of `--scale`.

    Raises:
        Refused: for an unknown name, a wrong type or value, or a source of images that is missing.
    """
    texts = _texts(assignments)
    if scale is not None:
        texts["scale"] = scale
    if not texts:
        return {}
    namespace = _defaults(notebook)
    kinds = namespace.get("__annotations__", {})
    values = {name: text if kinds.get(name) is str else parameters.literal(text) for name, text in texts.items()}
    settled = parameters.settle(namespace | values, values)
    if study := papers.known(notebook.stem):
        settings = parameters.settings_of(study.SCALES, settled, values)
        for images in filter(None, (getattr(settings, name, "") for name in ("data", "held_out", "attribute"))):
            data.check(images)
    return {name: settled[name] for name in values}


def assigned(assignments: list[str], settings: Any) -> dict[str, Any]:
    """The values of `--set name=value`: literals, and for a `str` setting always the text. Raises `Refused`."""
    kinds = {field.name: field.type for field in dataclasses.fields(settings)}
    return {
        name: text if kinds.get(name) in (str, "str") else parameters.literal(text)
        for name, text in _texts(assignments).items()
    }


def merged(outputs: list[Any]) -> list[Any]:
    """Outputs with neighbouring pieces of one stream joined, since their division is random."""
    joined: list[Any] = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == last.get("output_type") == "stream" and output.name == last["name"]:
            last["text"] += output.text
        else:
            joined.append(output)
    return joined


def execute(notebook: Path, out: Path, values: Mapping[str, Any], cwd: Path | None = None) -> Any:
    """Run a copy of `notebook` with `values` injected, write it to `out` and return it.

    Old outputs are cleared first. Output to stderr, such as the progress of training, goes to the terminal and is not
    kept in the notebook. Without a terminal, a line a section and minute says how far it is.

    Raises:
        Failed: if a cell fails, with the sentence of a `Refused`, or with the cell and the error. `out` then contains
            the cells that ran.
        Refused: if `out` is the notebook itself, or papermill is not installed.
    """
    with needs("book"):
        import nbformat
        import papermill

    if out.exists() and out.samefile(notebook):
        raise Refused(f"the output {out} is the chapter itself: give another path")
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(cleared(nbformat.read(notebook, as_version=4)), out)
    bar = {"leave": False, "disable": None, "desc": notebook.stem}  # none if stderr is not a terminal
    # Stopping after a failed cell interrupts the kernel, which may log that as an error.
    settings = {"cwd": cwd, "progress_bar": bar, "extra_arguments": ["--log-level=CRITICAL"]}
    # Parameters are checked already, and what cells print would be logged as well.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    if sys.stderr.isatty():
        settings |= {"log_output": True, "stderr_file": sys.stderr}
    try:
        # The variable keeps the kernel from warning of frozen modules.
        with environment(PYDEVD_DISABLE_FILE_VALIDATION="1"), nullcontext() if sys.stderr.isatty() else told(out):
            executed = papermill.execute_notebook(out, out, dict(values), **settings)
    except papermill.PapermillExecutionError as error:
        if error.ename == Refused.__name__:
            raise Failed(error.evalue) from None
        reason = " ".join(error.evalue.split())
        raise Failed(
            f"{notebook.stem} stopped in cell [{error.exec_count}], {error.ename}: {reason}; see {out}"
        ) from None
    for cell in executed.cells:
        if cell.cell_type == "code":
            cell.outputs = merged([output for output in cell.outputs if output.get("name") != "stderr"])
    nbformat.write(executed, out)
    return executed


def cleared(notebook: Any) -> Any:
    """The notebook without outputs, counts and widget state, which a run without widgets would not replace."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata.pop("widgets", None)
    return notebook


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Set environment variables for the kernels that start inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _texts(assignments: list[str]) -> dict[str, str]:
    """`name=value` as {name: value}, or Refused."""
    texts = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name.isidentifier():
            raise Refused(f"-p {plain(assignment)} is not name=value: write for example -p seed=1")
        texts[name] = text
    return texts


def _defaults(notebook: Path) -> dict[str, Any]:
    """The names that the parameters cell defines, with its annotations. The cell is executed to find them."""
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    if not tagged:
        raise Refused(f"{notebook} has no cell tagged `parameters`: it takes none")
    namespace: dict[str, Any] = {}
    exec("".join(tagged[0]["source"]), namespace)
    return namespace
