"""The drawing of a cartoon face: soft-edged shapes laid over each other, for many faces at once.

Per pixel only sums, products, quotients, roots and comparisons are taken, which round alike everywhere, so a face has
the same bits in any batch. x runs right and y down, -1 to 1 over the image.
"""

import torch
from torch import Tensor
from torch.special import ndtr

_PLANE = 2**16    # pixels that are worked on at a time: the planes of a few shapes stay in the cache

_SKIN = ((255, 226, 200), (244, 200, 162), (222, 164, 120), (178, 118, 78), (126, 78, 50), (88, 54, 38))
_HAIR = ((26, 22, 26), (58, 38, 30), (104, 64, 38), (142, 84, 48), (196, 144, 82), (236, 204, 136))
_IRIS = ((58, 36, 24), (104, 66, 34), (116, 116, 54), (66, 130, 96), (62, 128, 196))
_CLOTHES = ((52, 56, 74), (96, 104, 118), (60, 96, 140), (64, 134, 116), (196, 152, 70), (196, 84, 74), (222, 120, 150))
_FELT = ((60, 64, 96), (48, 106, 106), (122, 152, 82), (214, 160, 60), (196, 74, 62))
_FRAME = ((24, 24, 28), (70, 40, 30), (130, 30, 40))
_BACKDROP = ((72, 66, 86), (134, 112, 112), (180, 166, 148), (158, 190, 180), (150, 200, 232))
_GREY, _GOLD, _WHITE, _INK = (206, 206, 210), (246, 204, 70), (250, 250, 250), (36, 26, 30)


def render(factors: dict[str, Tensor], size: int) -> Tensor:
    """The faces with these factors, each (N,), as (N, 3, size, size) in [-1, 1], in 256 levels."""
    n = len(factors["skin"])
    inner = size if size >= 64 else 2 * size    # small images are the mean of 2 x 2 finer pixels
    many = max(1, _PLANE // inner**2)
    return torch.cat([
        _paint({name: value[i : i + many] for name, value in factors.items()}, inner, inner // size)
        for i in range(0, n, many)
    ])


class _Canvas:
    """Pictures (B, 3, P, P) in [0, 1], and the width of a pixel; shapes come as signed distances (B, P, P)."""

    def __init__(self, colour: Tensor, shade: Tensor, pixel: float) -> None:
        self.picture, self.pixel = colour[:, :, None, None] * shade[:, None], pixel

    def cover(self, distance: Tensor) -> Tensor:
        """The share of each pixel inside the shape, (B, P, P), from the distance at its centre."""
        return (0.5 - distance / self.pixel).clamp(0, 1)

    def lay(self, mask: Tensor, colour: Tensor, shade: Tensor | None = None) -> None:
        """Cover with a colour (B, 3), where shade (B, P, P) is given times that, by the share mask (B, P, P)."""
        paint = colour[:, :, None, None]
        paint = paint if shade is None else paint * shade[:, None]
        self.picture += mask[:, None] * (paint - self.picture)

    def fill(self, distance: Tensor, colour: Tensor, shade: Tensor | None = None) -> None:
        """`lay` over the inside of a shape."""
        self.lay(self.cover(distance), colour, shade)


def _paint(factors: dict[str, Tensor], inner: int, finer: int) -> Tensor:
    f = {name: value.to(torch.float32).clamp(-2.5, 2.5)[:, None, None] for name, value in factors.items()}
    grid = (torch.arange(inner) + 0.5) * (2 / inner) - 1
    across, along = grid[None, None, :], grid[None, :, None]
    skin = _ramp(_SKIN, factors["skin"])
    hair = _ramp(_HAIR, factors["hair_tone"])
    hair = hair + (0.75 * (factors["grey"] - 0.4).clamp(0, 1))[:, None] * (_flat(_GREY, hair) - hair)
    clothes, side = _ramp(_CLOTHES, factors["clothes"]), f["light_side"]

    # The frame of the head: moved, zoomed and tilted; its features turn further than its outline.
    lean, scale = 0.05 * f["tilt"], 1.1 + 0.03 * f["zoom"]
    x0, y0 = (across - 0.035 * f["right"]) / scale, (along - 0.03 * f["down"] - 0.06) / scale
    x, y = x0 + lean * y0, y0 - lean * x0
    fx = x - 0.035 * f["turn"]
    ax, near = x.abs(), fx.abs()

    wide = 0.47 + 0.028 * f["width"]
    high = 0.60 + 0.025 * f["height"]
    chin = 0.30 - 0.09 * f["jaw"]
    low = (y / high).clamp(0, 1)
    radius = ((ax / (wide * (1 - chin * low * low))).square() + (y / high).square()).sqrt()
    head = (radius - 1) * wide
    light = 1 + 0.07 * f["light"]
    shade = light * (1.04 - 0.16 * (radius * radius).clamp(0, 1.3) + 0.08 * side * x)

    canvas = _Canvas(_ramp(_BACKDROP, factors["backdrop"]), (0.5 + 0.5 * light) * (1 - 0.14 * along + 0.03 * side * across), 2 / inner)

    # Behind the face: hair, shoulders, neck, ears.
    thick = 0.11 + 0.03 * f["volume"]
    length = 0.5 * ndtr(f["hair_length"] * 2 - 0.6)
    gloss = light * (0.92 + 0.16 * (1 - ((y + 0.45) / 0.2).abs()).clamp(0, 1) + 0.06 * side * x)
    dome = _ellipse(ax, y, 0, -0.08, wide + thick, high + thick - 0.04)
    fall = _box(ax, y, 0.30 + 0.5 * length, wide + thick - 0.12 * (1 - 2 * length), 0.35 + length, 0.16)
    back = torch.where(length > 0.03, torch.minimum(torch.maximum(dome, y - 0.1), fall), torch.maximum(dome, y + 0.02))
    canvas.fill(back, hair * 0.8, gloss)
    canvas.fill(_ellipse(x0.abs(), y0, 0, 1.22, 0.86 + 0.05 * f["width"], 0.50), clothes, light * (1 + 0.1 * side * x))
    canvas.fill(_box(ax, y, 0.62, 0.19 + 0.015 * f["jaw"], 0.26, 0.12), skin * 0.86, light)
    canvas.fill(_ellipse(ax, y, 0, 0.83, 0.24, 0.10), skin * 0.86, light)
    canvas.fill(_ellipse(ax, y, wide, 0.03, 0.08, 0.12), skin * 0.9, light)

    # The face.
    inside = canvas.cover(head)
    canvas.lay(inside, skin, shade)
    rosy = skin * skin.new_tensor([1.0, 0.72, 0.72])
    canvas.lay((1 - _ellipse(near, y, 0.28, 0.22, 0.17, 0.13) / 0.13 - 1).clamp(0, 1) * (0.35 + 0.2 * f["blush"]).clamp(0, 0.9), rosy, shade)
    _beard(canvas, f, fx, y, wide, inside, hair)
    _mouth(canvas, f, fx, y, skin)
    grown = 1 + 0.22 * f["nose"]
    canvas.fill(_ellipse(fx, y, 0, 0.13, 0.065 * grown, 0.05 * grown), skin * 0.72, shade)
    canvas.fill(_ellipse(fx, y, 0, 0.09, 0.05 * grown, 0.07), skin, shade * 1.06)
    _eyes(canvas, f, fx, near, y, hair, skin, factors)
    _hair(canvas, f, x, fx, y, wide, high, thick, hair, gloss, factors)

    # What is worn.
    worn = canvas.cover((_ellipse(ax, y, wide + 0.03, 0.26, 0.065, 0.075))) * f["earrings"]
    canvas.lay(worn, _flat(_GOLD, skin), light)
    _hat(canvas, f, x, ax, y, wide, high, thick, light, factors)

    tint = torch.stack((1 + 0.03 * factors["warmth"], torch.ones(len(skin)), 1 - 0.04 * factors["warmth"]), 1)
    picture = (canvas.picture * tint.to(torch.float32)[:, :, None, None]).clamp(0, 1)
    if finer == 2:
        rows = picture[:, :, ::2] + picture[:, :, 1::2]
        picture = (rows[..., ::2] + rows[..., 1::2]) / 4
    return (picture * 255).round() / 127.5 - 1


def _beard(canvas, f, fx, y, wide, inside, hair):
    edge = 0.27 - 0.36 * (fx / wide).square()
    mask = canvas.cover(edge - y) * inside * f["beard"]
    canvas.lay(mask, hair * 0.88)


def _mouth(canvas, f, fx, y, skin):
    """Lips between two parabolas about a bent line; a smile bends it, widens it and shows teeth."""
    smile = f["smiling"]
    half = 0.15 + 0.02 * f["mouth"] + 0.06 * smile
    arch = 1 - (fx / half).square()
    line = 0.385 + (0.005 + 0.015 * f["expression"] + 0.075 * smile) * (arch - 0.5)
    full = 0.035 + 0.008 * f["lips"]
    opened = (0.012 + 0.006 * f["expression"]).clamp(0) + smile * (0.035 + 0.008 * f["expression"])
    lips = skin * skin.new_tensor([0.86, 0.50, 0.50]) + skin.new_tensor([0.06, 0.0, 0.0])
    canvas.fill(torch.maximum(line - (full + 0.3 * opened) * arch - y, y - line - (full + opened) * arch), lips)
    gap = torch.maximum(line - 0.35 * opened * arch - y, y - line - opened * arch)
    white = _flat(_WHITE, skin)
    dark = _flat((90, 24, 30), skin)
    canvas.fill(gap, dark + smile[:, :, 0] * (white - dark))


def _eyes(canvas, f, fx, near, y, hair, skin, factors):
    """Both eyes at once, as mirror images but for the gaze; brows above; glasses before them."""
    big = 1 + 0.11 * f["eye_size"]
    gap = 0.20 + 0.014 * f["eye_gap"]
    high = -0.07
    open_ = 0.092 * big * (1 + 0.10 * f["lids"] - 0.12 * f["smiling"])
    eye = _ellipse(near, y, gap, high, 0.125 * big, open_)
    white = canvas.cover(eye)
    canvas.lay(canvas.cover(_ellipse(near, y, gap, high - 0.012, 0.14 * big, open_ + 0.02)), _flat(_INK, skin))
    canvas.lay(white, _flat(_WHITE, skin))
    look = torch.where(fx < 0, -1.0, 1.0) * 0.018 * f["gaze"]
    iris = _ramp(_IRIS, factors["eye_tone"])
    canvas.lay(canvas.cover(_ellipse(near, y, gap + look, high, 0.072 * big, 0.08 * big)) * white, iris)
    canvas.lay(canvas.cover(_ellipse(near, y, gap + look, high, 0.036 * big, 0.04 * big)) * white, _flat(_INK, skin))
    shine = _ellipse(fx + torch.where(fx < 0, gap, -gap), y, -0.025, high - 0.03, 0.022, 0.022)
    canvas.lay(canvas.cover(shine) * white, _flat(_WHITE, skin))
    off = near - gap - 0.01
    bar = (y - (high - 0.165 - 0.01 * f["expression"] + 0.9 * (off + 0.02).square() * 2 + 0.06 * off)).abs()
    brow = torch.maximum(bar - (0.026 + 0.008 * f["brow"]), off.abs() - 0.125)
    canvas.fill(brow, hair * 0.75)
    lens = _box(near, y, high + 0.01, 0.155, 0.13, 0.09, centre=gap + 0.005)
    canvas.lay(canvas.cover(lens) * f["eyeglasses"] * 0.22, _flat((214, 232, 255), skin))
    rim = torch.minimum(lens.abs() - 0.021, torch.maximum((y - high + 0.02).abs() - 0.018, near - gap + 0.14))
    canvas.lay(canvas.cover(rim) * f["eyeglasses"], _ramp(_FRAME, factors["frame"]))


def _hair(canvas, f, x, fx, y, wide, high, thick, hair, gloss, factors):
    """What hangs over the forehead: up to a parted hairline, with bangs down to the brows in teeth."""
    dome = _ellipse(x, y, 0, -0.08, wide + thick, high + thick - 0.04)
    part = fx - 0.05 * f["parting"]
    line = -0.42 + 0.035 * f["hairline"] + (0.36 - 0.03 * f["hairline"]) * (part / wide).square()
    fringe = (fx * 6 + 0.5 * f["parting"])
    teeth = (fringe - fringe.floor() - 0.5).abs()
    low = -0.245 + 0.07 * teeth + 0.10 * (fx / wide).square()
    line = torch.where(f["bangs"] > 0, torch.maximum(line, low), line)
    canvas.fill(torch.maximum(dome, y - line), hair, gloss)


def _hat(canvas, f, x, ax, y, wide, high, thick, light, factors):
    """A woollen hat with a turned-up band."""
    felt = _ramp(_FELT, factors["felt"])
    crown = torch.maximum(_ellipse(ax, y, 0, -0.10, wide + thick, high + thick + 0.02), y + 0.36)
    canvas.lay(canvas.cover(crown) * f["hat"], felt, light * (1 + 0.08 * f["light_side"] * x))
    band = _box(ax, y, -0.40, wide + 0.5 * thick, 0.075, 0.06)
    canvas.lay(canvas.cover(band) * f["hat"], felt * 0.72, light)


def _ellipse(x: Tensor, y: Tensor, cx, cy, rx, ry) -> Tensor:
    """Roughly the signed distance to an ellipse: exact on its edge along the shorter axis."""
    least = torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry))
    return ((((x - cx) / rx).square() + ((y - cy) / ry).square()).sqrt() - 1) * least


def _box(x: Tensor, y: Tensor, cy, half, tall, corner, centre=0.0) -> Tensor:
    """The signed distance to a rectangle of half sizes `half` and `tall` with round corners."""
    dx, dy = (x - centre).abs() - half + corner, (y - cy).abs() - tall + corner
    return (dx.clamp(0).square() + dy.clamp(0).square()).sqrt() + torch.maximum(dx, dy).clamp(max=0) - corner


def _ramp(stops: tuple[tuple[int, int, int], ...], trait: Tensor) -> Tensor:
    """Colours (B, 3) in [0, 1] on the line through the stops, at the quantile of a normal trait (B,)."""
    table = torch.tensor(stops, dtype=torch.float32) / 255
    place = ndtr(trait.double()).to(torch.float32) * (len(table) - 1)
    left = place.floor().clamp(0, len(table) - 2)
    index = left.long()
    return table[index] + (place - left)[:, None] * (table[index + 1] - table[index])


def _flat(colour: tuple[int, int, int], like: Tensor) -> Tensor:
    """One colour for all, (B, 3)."""
    return (torch.tensor(colour, dtype=torch.float32) / 255).expand(len(like), 3)
