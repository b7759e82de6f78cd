"""A chapter in miniature, for the tests of what runs chapters."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]

PARAMETERS = """scale: str = "fast"  # how large: fast, book, gpu or paper
seed: int = 0  # of every draw
n_train: int = 8  # points to draw
weight: float = 2.0  # guidance weight λ"""

BEGIN = """from memlib import runs

run = runs.begin(
    "07_tiny",
    globals(),
    scales={"book": {"n_train": 16}},
    ranges={"n_train": (2, 100)},
)"""

BODY = """import torch

points = run.cached("points", lambda: torch.randn(n_train, 2))
print(f"{len(points)} points, mean {points.mean():.2f}, weight {weight}")"""

CLAIM = """run.claim("X1", "reproduced", figure=points.std(), interval=(0.5, 1.5), n=n_train)"""

SLIDER = """from memlib import interactive, plots
import matplotlib.pyplot as plt

plots.style()
pictures = []
for sigma in (0.1, 1.0):
    figure, axes = plt.subplots()
    axes.scatter(*(points * sigma).T)
    pictures.append(plots.png(figure, dpi=50))
interactive.frames(pictures, ["0.1", "1"], "noise level σ", lambda sigma: f"points at noise level {sigma}")"""


def write(path: Path, *bodies: str) -> Path:
    """A notebook of a title, the parameters, `runs.begin` and the given code cells, without outputs."""
    cells = [
        new_markdown_cell("# Tiny\n\nDoes a small chapter run?", id="title"),
        new_code_cell(PARAMETERS, id="parameters", metadata={"tags": ["parameters"]}),
        new_code_cell(BEGIN, id="begin"),
        *[new_code_cell(body, id=f"body-{index}") for index, body in enumerate(bodies)],
        new_markdown_cell("| | paper | here | verdict |\n|---|---|---|---|\n| X1 | 1 | 1 | reproduced |", id="table"),
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def python(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    """`python -m words...` in `cwd` with this checkout importable."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MEMLIB_CACHE": str(cwd / "cache")} | variables
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
