"""The digits of the playground: 40 of them, 0 to 3, by their first two principal components.

python tests/playground_points.py writes book/_static/playground/digits.js again.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

FILE = Path(__file__).parents[1] / "book" / "_static" / "playground" / "digits.js"
SPAN = 4.0  # the farthest coordinate in the plane


def digits() -> np.ndarray:
    """(40, 3): two coordinates and the class, ten digits of each class 0 to 3."""
    images, labels = load_digits(return_X_y=True)
    chosen = np.concatenate([np.flatnonzero(labels == digit)[:10] for digit in range(4)])
    plane = PCA(2, svd_solver="full").fit_transform(images[chosen])
    return np.column_stack([plane * SPAN / np.abs(plane).max(), labels[chosen]])


def script() -> str:
    """The file's text, two decimals a coordinate."""
    rows = ", ".join(f"[{x:.2f}, {y:.2f}, {label:.0f}]" for x, y, label in digits())
    return (
        "// 40 handwritten digits by their first two principal components: x, y, class. "
        "Written by tests/playground_points.py.\n"
        f"(globalThis.memPlayground ??= {{}}).digits = [{rows}];\n"
    )


if __name__ == "__main__":
    FILE.write_text(script(), encoding="utf8")
