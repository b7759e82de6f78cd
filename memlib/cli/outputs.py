"""Outputs committed with the notebooks, without everything that differs from one run to the next."""

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from memlib.cli import chapters
from memlib.errors import needs

with needs("book"):
    import nbformat

_VIEW = "application/vnd.jupyter.widget-view+json"
_STATE = "application/vnd.jupyter.widget-state+json"
_REFERENCE = "IPY_MODEL_"


def refresh(notebook: Path, cwd: Path) -> int:
    """Execute a notebook in place with an empty cache, at the scale of its parameters cell.

    The file changes only after a run without error.

    Returns:
        The number of claims.

    Raises:
        chapters.Failed: if a cell fails.
    """
    with tempfile.TemporaryDirectory(prefix="memlib-") as folder:
        quiet = {"TQDM_DISABLE": "1", "MEMLIB_CACHE": f"{folder}/cache"}
        with chapters.environment(**quiet):
            executed = chapters.execute(notebook, Path(folder) / notebook.name, {}, cwd=cwd)
        nbformat.write(normalised(executed), notebook)
    return len(chapters.claims.claims_in(notebook))


def normalised(notebook: Any) -> Any:
    """The notebook in a form that is equal, byte for byte, for equal runs.

    The times and marks of papermill and the version of the kernel are dropped. Widget models are renumbered in the
    order in which the displayed views reach them, and unreachable ones are dropped. Pieces of one stream are merged,
    since their division is random. Cells keep their id; a cell without one gets an id from its place and text.
    """
    notebook.metadata.pop("papermill", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for index, cell in enumerate(notebook.cells):
        cell.setdefault("id", hashlib.sha256(f"{index} {cell.source}".encode()).hexdigest()[:8])
        for key in ("papermill", "execution", "collapsed", "scrolled"):
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = chapters.merged(cell.outputs)
    _renumber(notebook)
    return notebook


def _renumber(notebook: Any) -> None:
    """Number the widget models in the order of a traversal from the displayed views."""
    widgets = notebook.metadata.get("widgets", {}).get(_STATE)
    data = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    views = [bundle[_VIEW] for bundle in data if _VIEW in bundle]
    if widgets is None or not views:
        notebook.metadata.pop("widgets", None)
        return
    names: dict[str, str] = {}

    def visit(model: str) -> None:
        if model in widgets["state"] and model not in names:
            names[model] = f"{len(names):032x}"
            named(widgets["state"][model]["state"])

    def named(value: Any) -> Any:
        """The value with references renamed, each model visited where it is first met; keys in order."""
        if isinstance(value, dict):
            return {key: named(value[key]) for key in sorted(value)}
        if isinstance(value, list):
            return [named(item) for item in value]
        if isinstance(value, str) and value.startswith(_REFERENCE):
            model = value.removeprefix(_REFERENCE)
            visit(model)
            return _REFERENCE + names.get(model, model)
        return value

    for view in views:
        visit(view["model_id"])
        view["model_id"] = names.get(view["model_id"], view["model_id"])
    models = {
        names[old]: {**model, "state": named(model["state"])} for old, model in widgets["state"].items() if old in names
    }
    notebook.metadata["widgets"] = {_STATE: {**widgets, "state": models}}
