"""The look of every figure, in one place, and figures as bytes."""

import io
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from memlib.errors import Refused, needs
from memlib.metrics import mean_interval

with needs("book"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

DPI = 100  # of the bytes that a page carries; 6 inches are 600 pixels


def style() -> None:
    """Set the style of all figures that follow: seaborn's colour-blind palette, light grid, no frame on the right.

    Call it once, in a notebook's second cell. Greys and viridis for images stay readable without colour.
    """
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette="colorblind",
        rc={
            "figure.figsize": (6.0, 3.6),
            "figure.dpi": DPI,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "axes.titlesize": "medium",
            "legend.frameon": False,
            "image.cmap": "viridis",
            "image.interpolation": "nearest",
        },
    )


def png(figure: Figure, dpi: int = 75, colours: int = 96) -> bytes:
    """The figure as PNG, with equal bytes for equal drawings. The figure is closed, so that it is displayed once.

    The picture is not cropped, so all frames of a slider have one size.

    Arguments:
        figure: a matplotlib figure.
        dpi: dots per inch.
        colours: size of the palette; 96 colours take a third of the bytes of a full-colour drawing.

    Raises:
        Refused: above 100 dots per inch, since every byte is committed with the notebook.
    """
    if dpi > DPI:
        raise Refused(f"dpi is {dpi}: keep it at {DPI} or less, the page carries every frame")
    drawing, result = io.BytesIO(), io.BytesIO()
    figure.savefig(drawing, format="png", dpi=dpi, bbox_inches=None, metadata={"Software": None})
    plt.close(figure)
    Image.open(drawing).convert("RGB").quantize(colours).save(result, format="png", optimize=True)
    return result.getvalue()


def panels(named: Mapping[str, Any], draw: Callable[..., Axes], *arguments: Any, **options: Any) -> Figure:
    """One panel per name, side by side: the name as a title over `draw(ax, value, *arguments, **options)`."""
    figure, axes = plt.subplots(1, len(named), figsize=(3.2 * len(named), 3.2), squeeze=False)
    for ax, (name, value) in zip(axes[0], named.items(), strict=True):
        draw(ax, value, *arguments, **options).set_title(name)
    return figure


def field(ax: Axes, denoiser: Any, sigma: float, points: Tensor | None = None, reach: float = 4.5) -> Axes:
    """The score of a 2-d denoiser at level sigma on [-reach, reach]^2: arrows of unit length over shades of |D - x|.

    `points` (N, 2) are drawn as dots.
    """
    side = torch.linspace(-reach, reach, 21)
    x = torch.cartesian_prod(side, side)  # (441, 2), x fastest over columns after the transpose below
    with torch.no_grad():
        step = denoiser(x, torch.tensor(sigma)) - x
    length = step.norm(dim=1)
    shades = torch.linspace(0, reach, 10)  # few flat tones: a smooth shade would make each frame ten times as large
    ax.contourf(side, side, length.reshape(21, 21).T, levels=shades, cmap="Blues", extend="max", antialiased=False)
    unit = step / length.clamp_min(1e-12)[:, None]
    ax.quiver(x[:, 0], x[:, 1], unit[:, 0], unit[:, 1], angles="xy", scale=26, width=0.005, color="0.25")
    if points is not None:
        ax.plot(points[:, 0], points[:, 1], "o", ms=3.5, color="C1", mec="white", mew=0.4)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    ax.grid(False)
    return ax


def cloud(ax: Axes, samples: Tensor, points: Tensor | None = None, reach: float = 6.0) -> Axes:
    """Samples (N, 2) as dots, with `points` (M, 2) as rings over them."""
    ax.plot(samples[:, 0], samples[:, 1], ".", ms=2.5, alpha=0.5, color="C0")
    if points is not None:
        ax.plot(points[:, 0], points[:, 1], "o", ms=7, mfc="none", mec="C1", mew=1.2)
    ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    return ax


def curves(
    ax: Axes,
    x: Tensor,
    named: Mapping[str, Tensor],
    xlabel: str,
    ylabel: str,
    limits: Mapping[str, float] | None = None,
) -> Axes:
    """One line per name over x (n,) on a logarithmic axis; `limits` are dotted horizontal lines of the same colour."""
    for (name, y), marker in zip(named.items(), cycle("osv^DPX*"), strict=False):
        line = ax.plot(x, y, marker=marker, ms=3, lw=1.4, label=name)[0]
        if limits:
            ax.axhline(float(limits[name]), ls=":", lw=1.2, color=line.get_color())
    ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    # Over one or two decades, labels at 2 x 10^-1, 3 x 10^-1, ... would overlap.
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if max(x) < 200 * min(x) else (1.0,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend()
    return ax


def band(ax: Axes, x: Tensor, values: Tensor, xlabel: str, ylabel: str) -> Axes:
    """Median and central 90 % of `values` (n, N) over x (n,), on a logarithmic x axis."""
    low, middle, high = values.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=values.dtype), dim=1)
    ax.plot(x, middle)
    ax.fill_between(x, low, high, alpha=0.25)
    ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    return ax


def intervals(
    ax: Axes, rows: Mapping[str, tuple[float, tuple[float, float]]], xlabel: str, reference: float | None = 0.0
) -> Axes:
    """A row for each name, from the top: its value as a dot, its interval (low, high) as a bar.

    `reference` is a vertical line, such as 0 for differences; None draws none.
    """
    for place, (value, (low, high)) in enumerate(rows.values()):
        ax.plot([low, high], [place, place], color=f"C{place % 10}", lw=3, alpha=0.5, solid_capstyle="butt")
        ax.plot(value, place, "o", color=f"C{place % 10}")
    if reference is not None:
        ax.axvline(reference, ls=":", color="0.3")
    ax.set(xlabel=xlabel, yticks=range(len(rows)), yticklabels=list(rows))
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    return ax


def runs(
    ax: Axes, x: Sequence[float] | Tensor, values: Tensor, name: str, at: int = -1, marker: str = "o", up: float = 6
) -> Axes:
    """Mean over runs of `values` (n, R) over x (n,) with its 95 % interval; `name` is written near point `at`."""
    mean, ends = values.mean(1), [mean_interval(one) for one in values]
    colour: Any = ax.plot(x, mean, marker, ls="-", ms=4)[0].get_color()
    ax.fill_between(x, [low for low, _ in ends], [high for _, high in ends], alpha=0.2, color=colour)
    return note(ax, x[at], mean[at], name, colour, "right" if at == -1 else "left", up)


def rates(
    ax: Axes, x: Sequence[float] | Tensor, rows: Sequence[tuple[float, float, float]], name: str, at: int = 0
) -> Axes:
    """A line with its interval: rows (value, low, high) over x (n,); `name` is written near point `at`."""
    value, low, high = zip(*rows, strict=True)
    colour: Any = ax.plot(x, value, "o-", ms=3)[0].get_color()
    ax.fill_between(x, low, high, alpha=0.2, color=colour)
    return note(ax, x[at], value[at], name, colour, "left")


def cross(ax: Axes, x: Tensor, y: Tensor, name: str, colour: str) -> Axes:
    """The means of two measures of the same runs, (R,) each, as a dot with both 95 % intervals and a name."""
    (left, right), (low, high) = mean_interval(x), mean_interval(y)
    ax.plot([left, right], [y.mean()] * 2, color=colour, alpha=0.4)
    ax.plot([x.mean()] * 2, [low, high], color=colour, alpha=0.4)
    ax.plot(x.mean(), y.mean(), "o", ms=4, color=colour)
    return note(ax, x.mean(), y.mean(), name, colour, "left")


def note(
    ax: Axes,
    x: float | Tensor,
    y: float | Tensor,
    text: str,
    colour: str = "0.3",
    side: str = "right",
    up: float = 6,
) -> Axes:
    """Text `up` points above a point of a figure; x and y are numbers or scalar tensors, `side` is its end there."""
    below = "top" if up < 0 else "bottom"
    place, shift = (float(x), float(y)), (0, up)
    ax.annotate(text, place, shift, textcoords="offset points", color=colour, fontsize=9, ha=side, va=below)
    return ax


def images(ax: Axes, rows: Sequence[Tensor], names: Sequence[str] = ()) -> Axes:
    """A sheet of images, grey or RGB: rows (N, C, H, W) in [-1, 1] from the top, with `names` to their left."""
    columns = max(len(row) for row in rows)
    sheet = [torch.nn.functional.pad(row, (1, 1, 1, 1), value=1.0) for row in rows]  # a white rim around each
    blank = torch.ones_like(sheet[0][:1])
    lines = [torch.cat([*row, *blank.expand(columns - len(row), *blank.shape[1:])], 2) for row in sheet]
    sheet = (torch.cat(lines, 1).clamp(-1, 1).movedim(0, -1) + 1) / 2  # (rows H, columns W, C)
    ax.imshow(sheet.expand(*sheet.shape[:2], 3).float(), aspect="equal")
    height = sheet.shape[0] / len(rows)
    ax.set_yticks([height * (i + 0.5) for i in range(len(names))], names)
    ax.set_xticks([])
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return ax


def flow(ax: Axes, boxes: Mapping[str, tuple[float, float]], arrows: Sequence[tuple[str, str, str]]) -> Axes:
    """A method as a diagram: each name in a box at its (column, row), and arrows (from, to, label)."""
    frame = {"boxstyle": "round,pad=0.4", "fc": "white", "ec": "0.3"}
    placed = {name: ax.annotate(name, place, ha="center", va="center", bbox=frame) for name, place in boxes.items()}
    for start, end, label in arrows:
        line = {"arrowstyle": "->", "color": "0.3", "patchA": placed[start].get_bbox_patch(), "shrinkB": 0}
        line["patchB"] = placed[end].get_bbox_patch()
        ax.annotate("", boxes[end], boxes[start], arrowprops=line)
        (x1, y1), (x2, y2) = boxes[start], boxes[end]
        ax.text((x1 + x2) / 2, (y1 + y2) / 2 + 0.06, label, ha="center", va="bottom", fontsize=7, color="0.2")
    columns, rows = zip(*boxes.values(), strict=True)
    ax.set(xlim=(min(columns) - 0.5, max(columns) + 0.5), ylim=(min(rows) - 0.4, max(rows) + 0.5))
    ax.axis("off")
    return ax
