"""A chapter in miniature, for the tests of what runs chapters."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]
PATH = os.pathsep.join([str(ROOT), str(ROOT / "tests")])  # tiny_study stands beside this file

PARAMETERS = """scale: str = "fast"  # how large: fast, book, gpu or paper
seed: int = 0  # of every draw
n_train: int = 8  # points to draw
weight: float = 2.0  # guidance weight λ
settings: dict = {}  # any other setting"""

BEGIN = """import tiny_study
from memlib import chapters

page = chapters.begin("07_tiny", globals(), tiny_study)"""

BODY = """results = tiny_study.run(page.settings, page.run)
points = results.points
print(f"{len(points)} points, mean {points.mean():.2f}, weight {weight}")"""

CLAIM = """page.record(tiny_study.verdicts(results)[:1])"""

SLIDER = """from memlib.chapters import interactive, plots
import matplotlib.pyplot as plt

plots.style()
pictures = []
for sigma in (0.1, 1.0):
    figure, axes = plt.subplots()
    axes.scatter(*(points * sigma).T)
    pictures.append(plots.png(figure, dpi=50))
interactive.frames(
    pictures, ["0.1", "1"], "noise level σ", lambda sigma: f"points at {sigma}"
)"""

CLOSING = """page.verdicts({"X1": ("one", "one", "by construction")})"""


def write(path: Path, *bodies: str) -> Path:
    """A notebook of a title, the parameters, `chapters.begin` and the given code cells, without outputs."""
    cells = [
        new_markdown_cell("# Tiny\n\nDoes a small chapter run?", id="title"),
        new_code_cell(PARAMETERS, id="parameters", metadata={"tags": ["parameters", "hide-input"]}),
        new_code_cell(BEGIN, id="begin"),
        *[new_code_cell(body, id=f"body-{index}") for index, body in enumerate(bodies)],
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def python(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """`python -m words...` in `cwd` with this checkout importable."""
    environment = os.environ | {"PYTHONPATH": PATH, "MEMLIB_CACHE": str(cwd / "cache")} | variables
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
