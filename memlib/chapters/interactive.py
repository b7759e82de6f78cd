"""Interactive figures: sliders over finished pictures, which need no kernel, and live controls, which need one.

The sliders are plain HTML without a library: `<input type="range">`, one `<img>` per frame and a short handler. They
work on a static page, by keyboard, and with a screen reader.
"""

import base64
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from memlib.errors import Refused, needs

with needs("book"):
    import ipywidgets

# The frame's index follows from the sliders in row-major order. `style.display`, not `hidden`: a theme that sets
# `img {display: block}` would override the attribute.
_MOVE = (
    "const f=this.closest('figure');let i=0;"
    "f.querySelectorAll('input').forEach(r=>{i=i*(+r.max+1)+ +r.value;const t=JSON.parse(r.dataset.labels)[r.value];"
    "r.setAttribute('aria-valuetext',t);r.nextElementSibling.value=t});"
    "f.querySelectorAll('img').forEach((m,k)=>m.style.display=k===i?'block':'none')"
)


@dataclass(frozen=True)
class Page:
    """A piece of HTML that a notebook displays; `text` describes it in words."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def picture(png: bytes, alt: str) -> Page:
    """One PNG with its alternative text `alt`, for a static figure."""
    return Page(f'<figure class="memlib-figure">{_image(png, alt, shown=True)}</figure>', f"picture: {alt}")


def frames(
    pictures: Sequence[bytes],
    labels: Sequence[Any],
    name: str,
    alt: Sequence[str] | Callable[[str], str],
    start: int = 0,
) -> Page:
    """A slider over pictures.

    Arguments:
        pictures: PNG bytes of one size, from `plots.png`.
        labels: the value of the slider at each picture.
        name: of the slider.
        alt: a description of each picture, or a function of the label that returns it.
        start: the index of the picture that is shown first.

    Raises:
        Refused: if the numbers of pictures, labels and descriptions differ.
    """
    texts = [alt(str(label)) for label in labels] if callable(alt) else list(alt)
    if not len(pictures) == len(labels) == len(texts) > 0:
        raise Refused(
            f"{len(pictures)} pictures, {len(labels)} labels and {len(texts)} texts: give one of each a frame"
        )
    return _sliders(pictures, texts, [(name, labels, start)])


def grid(
    pictures: Sequence[Sequence[bytes]],
    labels: tuple[Sequence[Any], Sequence[Any]],
    names: tuple[str, str],
    alt: Callable[[str, str], str],
    start: tuple[int, int] = (0, 0),
) -> Page:
    """Two sliders over `pictures[i][j]`, one for i and one for j.

    Arguments:
        pictures: rows of PNG bytes of one size, from `plots.png`.
        labels: the values of the first slider, and of the second.
        names: of the two sliders.
        alt: `alt(label_i, label_j)` describes a picture.
        start: the indices (i, j) of the picture that is shown first.

    Raises:
        Refused: if the numbers of pictures and labels differ.
    """
    if [len(row) for row in pictures] != [len(labels[1])] * len(labels[0]):
        raise Refused(f"the pictures are not a grid of {len(labels[0])} rows of {len(labels[1])}, as the labels are")
    texts = [alt(str(first), str(second)) for first, second in product(*labels)]
    return _sliders([png for row in pictures for png in row], texts, list(zip(names, labels, start, strict=True)))


@dataclass(frozen=True)
class Live:
    """Controls over one picture, for a running kernel; `box` is the widget, `text` describes it in words."""

    box: ipywidgets.VBox
    text: str

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        # Not the widget's own text: it contains the picture's bytes, which differ between processors.
        return (self.box._repr_mimebundle_(**kwargs) or {}) | {"text/plain": self.text}


def live(draw: Callable[..., bytes], **controls: tuple[str, Any]) -> Live:
    """Controls over a picture that changes with them: `live(draw, sigma=("noise level σ", (0.1, 10.0)))`.

    Tag the cell `remove-output`, since the controls do not work on a static page. The picture is an Image widget: an
    Output widget, which `ipywidgets.interact` uses, can hang a notebook that is executed without a front end.

    Arguments:
        draw: `draw(**values)` returns PNG bytes (`plots.png`).
        controls: for each argument of `draw`, the name that the reader sees, and a widget or a value that ipywidgets
            turns into one: a range, a list of options, a bool.

    Raises:
        Refused: if ipywidgets cannot make a widget of a control.
    """
    widgets = {}
    for argument, (name, control) in controls.items():
        widget: Any = (
            control if isinstance(control, ipywidgets.Widget) else ipywidgets.interactive.widget_from_abbrev(control)
        )
        if widget is None:
            raise Refused(f"control {argument} is {control!r}: give a widget, a (low, high) range or a list of options")
        widget.description, widget.tooltip = name, name
        widget.style.description_width = "initial"
        if hasattr(widget, "continuous_update"):
            widget.continuous_update = False  # a new picture when the slider is released, not at every pixel
        widgets[argument] = widget
    image = ipywidgets.Image(format="png")

    def redraw(_: Any = None) -> None:
        image.value = draw(**{argument: widget.value for argument, widget in widgets.items()})

    for widget in widgets.values():
        widget.observe(redraw, "value")
    redraw()
    names = ", ".join(name for name, _ in controls.values())
    return Live(ipywidgets.VBox([*widgets.values(), image]), f"live controls: {names}")


def _sliders(pictures: Sequence[bytes], texts: Sequence[str], axes: list[tuple[str, Sequence[Any], int]]) -> Page:
    """The figure: its frames in row-major order of the axes (name, labels, start), then one slider per axis."""
    shown = 0
    for name, labels, start in axes:
        if not 0 <= start < len(labels):
            raise Refused(f"start is {start}, but {name} has {len(labels)} frames")
        shown = shown * len(labels) + start
    images = [_image(png, text, index == shown) for index, (png, text) in enumerate(zip(pictures, texts, strict=True))]
    ranges = [_range(name, [str(label) for label in labels], start) for name, labels, start in axes]
    # Inside an element with this attribute, JupyterLab does not use the arrow keys as shortcuts.
    page = f'<figure class="memlib-frames" data-lm-suppress-shortcuts="true">{"".join(images + ranges)}</figure>'
    steps = " × ".join(f"{name} ({labels[0]} … {labels[-1]}, {len(labels)} steps)" for name, labels, _ in axes)
    return Page(page, f"slider: {steps}")


def _image(png: bytes, alt: str, shown: bool) -> str:
    if not png.startswith(b"\x89PNG"):
        raise Refused("a picture is not PNG: draw it with plots.png")
    if not alt.strip():
        raise Refused("a picture has no alternative text: say what it shows")
    source = "data:image/png;base64," + base64.b64encode(png).decode()
    look = f"display:{'block' if shown else 'none'};max-width:100%;margin:0 auto"
    return f'<img alt="{html.escape(alt)}" src="{source}" style="{look}">'


def _range(name: str, labels: list[str], start: int) -> str:
    """One labelled slider; `autocomplete` is off, or a reload restores its position without the picture."""
    title, label = html.escape(name), html.escape(labels[start])
    data = html.escape(json.dumps(labels, ensure_ascii=False))
    return (
        f'<div style="text-align:center"><label>{title} '
        f'<input type="range" min="0" max="{len(labels) - 1}" step="1" value="{start}" autocomplete="off" '
        f'aria-label="{title}" aria-valuetext="{label}" data-labels="{data}" '
        f'style="width:18em;max-width:50%;vertical-align:middle" oninput="{html.escape(_MOVE)}">'
        f'<output style="margin-left:.5em">{label}</output></label></div>'
    )
