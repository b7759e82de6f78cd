"""The drawing of a cartoon face: soft-edged shapes painted over each other, for many faces at once.

Only sums, products, quotients, roots and comparisons are used for each pixel. IEEE 754 rounds these the same way
everywhere, so a face has the same bits in any batch. In the image, x runs right and y down, from -1 to 1.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.special import ndtr

_PLANE = 2**16  # pixels drawn at a time: the planes of a few shapes then stay in the cache

# Colours from the low to the high end of a trait, then single colours. Hair is darker than the skin of most people.
_SKIN = ((255, 226, 200), (244, 200, 162), (222, 164, 120), (178, 118, 78), (126, 78, 50), (88, 54, 38))
_HAIR = ((20, 18, 22), (38, 28, 26), (66, 42, 30), (104, 60, 36), (150, 92, 48), (212, 164, 92))
_IRIS = ((58, 36, 24), (104, 66, 34), (116, 116, 54), (66, 130, 96), (62, 128, 196))
_CLOTHES = ((52, 56, 74), (96, 104, 118), (60, 96, 140), (64, 134, 116), (196, 152, 70), (196, 84, 74), (222, 120, 150))
_FELT = ((60, 64, 96), (48, 106, 106), (122, 152, 82), (214, 160, 60), (196, 74, 62))
_FRAME = ((24, 24, 28), (70, 40, 30), (130, 30, 40))
_BACKDROP = ((72, 66, 86), (134, 112, 112), (180, 166, 148), (158, 190, 180), (150, 200, 232))
_GREY, _GOLD, _GLASS = (186, 186, 192), (246, 204, 70), (214, 232, 255)
_WHITE, _INK, _THROAT = (250, 250, 250), (36, 26, 30), (90, 24, 30)


def render(factors: dict[str, Tensor], size: int) -> Tensor:
    """The faces with these factors, each (N,), as (N, 3, size, size) float32 in [-1, 1], in 256 levels.

    `memlib.data.faces.factors` names and draws the factors. Attributes are 0 or 1; the other factors are clipped at
    +-2.5.
    """
    inner = size if size >= 64 else 2 * size  # a pixel of a small image is the mean of four finer ones
    many = max(1, _PLANE // inner**2)
    pictures = []
    for start in range(0, len(factors["skin"]), many):
        some = {name: value[start : start + many].to(torch.float32).clamp(-2.5, 2.5) for name, value in factors.items()}
        picture = _paint(some, inner)
        if inner != size:
            rows = picture[:, :, ::2] + picture[:, :, 1::2]
            picture = (rows[..., ::2] + rows[..., 1::2]) / 4
        pictures.append((picture * 255).round() / 127.5 - 1)
    return torch.cat(pictures)


class _Canvas:
    """An unfinished picture (B, 3, P, P) in [0, 1].

    Shapes are signed distances and masks are covered fractions of pixels, (B, P, P) each.
    """

    def __init__(self, colour: Tensor, shade: Tensor) -> None:
        self.picture = colour[:, :, None, None] * shade[:, None]
        self.pixel = 2 / shade.shape[-1]

    def cover(self, distance: Tensor) -> Tensor:
        """The fraction of each pixel that lies inside, from the distance at its centre."""
        return (0.5 - distance / self.pixel).clamp(0, 1)

    def lay(self, mask: Tensor, colour: Tensor, shade: Tensor | float = 1.0) -> None:
        """Paint a colour (B, 3), times the shade (B, P, P), over the picture."""
        paint = colour[:, :, None, None] * (shade[:, None] if isinstance(shade, Tensor) else shade)
        self.picture += mask[:, None] * (paint - self.picture)

    def fill(self, distance: Tensor, colour: Tensor, shade: Tensor | float = 1.0) -> None:
        """Paint a colour over the inside of a shape."""
        self.lay(self.cover(distance), colour, shade)


@dataclass(frozen=True)
class _Head:
    """Where the parts of the faces are: planes (B, P, P), measures (B, 1, 1), colours (B, 3)."""

    f: dict[str, Tensor]  # the factors, (B, 1, 1)
    x: Tensor  # coordinates of the head, moved, zoomed and tilted
    y: Tensor
    front: Tensor  # x of the features, which turn further than the outline
    wide: Tensor  # half axes
    high: Tensor
    outline: Tensor  # distance to it
    round: Tensor  # 0 at the middle of the face, 1 at its outline
    scalp: Tensor  # distance to the outline of the hair above
    thick: Tensor  # thickness of the hair
    light: Tensor
    skin: Tensor
    hair: Tensor


def _paint(factors: dict[str, Tensor], inner: int) -> Tensor:
    head = _measure(factors, inner)
    f, sides = head.f, _grid(inner)
    backdrop = (0.5 + 0.5 * head.light) * (1 - 0.14 * sides[:, None] + 0.03 * f["light_side"] * sides)
    canvas = _Canvas(_ramp(_BACKDROP, factors["backdrop"]), backdrop)
    gloss = head.light * (0.92 + 0.16 * (1 - ((head.y + 0.45) / 0.2).abs()).clamp(0) + 0.06 * f["light_side"] * head.x)
    _bust(canvas, head, gloss, _ramp(_CLOTHES, factors["clothes"]))
    _skin(canvas, head)
    _mouth(canvas, head)
    _eyes(canvas, head, _ramp(_IRIS, factors["eye_tone"]))
    _glasses(canvas, head, _ramp(_FRAME, factors["frame"]))
    _fringe(canvas, head, gloss)
    hoops = _ellipse(head.x.abs(), head.y, head.wide + 0.03, 0.26, 0.065, 0.075)
    canvas.lay(canvas.cover(hoops) * f["earrings"], _flat(_GOLD, head.skin), head.light)
    _hat(canvas, head, _ramp(_FELT, factors["felt"]))
    warmth = torch.stack((0.03 * f["warmth"], 0 * f["warmth"], -0.04 * f["warmth"]), 1)  # red up, blue down
    return (canvas.picture * (1 + warmth)).clamp(0, 1)


def _measure(factors: dict[str, Tensor], inner: int) -> _Head:
    f = {name: value[:, None, None] for name, value in factors.items()}
    lean, scale = 0.05 * f["tilt"], 1.1 + 0.03 * f["zoom"]
    x = (_grid(inner) - 0.035 * f["right"]) / scale
    y = (_grid(inner)[:, None] - 0.03 * f["down"] - 0.06) / scale
    x, y = x + lean * y, y - lean * x
    wide, high = 0.47 + 0.028 * f["width"], 0.60 + 0.025 * f["height"]
    below = (y / high).clamp(0, 1)
    narrow = 1 - (0.30 - 0.09 * f["jaw"]) * below * below  # an ellipse above, an egg below
    radius = ((x / (wide * narrow)).square() + (y / high).square()).sqrt()
    thick = 0.11 + 0.03 * f["volume"]
    hair, grey = _ramp(_HAIR, factors["hair_tone"]), 0.75 * (factors["grey"] - 0.4).clamp(0, 1)[:, None]
    return _Head(
        f=f, x=x, y=y, front=x - 0.035 * f["turn"], wide=wide, high=high, outline=(radius - 1) * wide, round=radius,
        scalp=_ellipse(x, y, 0.0, -0.08, wide + thick, high + thick - 0.04), thick=thick, light=1 + 0.07 * f["light"],
        skin=_ramp(_SKIN, factors["skin"]), hair=hair + grey * (_flat(_GREY, hair) - hair),
    )  # fmt: skip


def _bust(canvas: _Canvas, head: _Head, gloss: Tensor, clothes: Tensor) -> None:
    """What is behind the face: the hair, as long as it is, shoulders, neck, ears."""
    f, x, y = head.f, head.x.abs(), head.y
    length = 0.5 * ndtr(2 * f["hair_length"].double() - 0.6).float()  # most heads are clearly short or clearly long
    fall = _box(x, y, 0.0, 0.30 + 0.5 * length, head.wide + head.thick - 0.12 * (1 - 2 * length), 0.35 + length, 0.16)
    long = torch.minimum(torch.maximum(head.scalp, y - 0.1), fall)
    canvas.fill(torch.where(length > 0.03, long, torch.maximum(head.scalp, y + 0.02)), head.hair * 0.8, gloss)
    shoulders = _ellipse(x, y, 0.0, 1.15, 0.86 + 0.05 * f["width"], 0.50)
    canvas.fill(shoulders, clothes, head.light * (1 + 0.1 * f["light_side"] * head.x))
    canvas.fill(_box(x, y, 0.0, 0.62, 0.19 + 0.015 * f["jaw"], 0.26, 0.12), head.skin * 0.86, head.light)
    canvas.fill(_ellipse(x, y, 0.0, 0.83, 0.24, 0.10), head.skin * 0.86, head.light)  # the neckline
    canvas.fill(_ellipse(x, y, head.wide, 0.03, 0.08, 0.12), head.skin * 0.9, head.light)


def _skin(canvas: _Canvas, head: _Head) -> None:
    """The face, darker near its outline and away from the light, with cheeks, nose and beard."""
    f, x, y, skin = head.f, head.front, head.y, head.skin
    shade = head.light * (1.04 - 0.16 * head.round.square().clamp(0, 1.3) + 0.08 * f["light_side"] * head.x)
    face = canvas.cover(head.outline)
    canvas.lay(face, skin, shade)
    cheeks = (-_ellipse(x.abs(), y, 0.28, 0.22, 0.17, 0.13) / 0.13).clamp(0, 1)  # without an edge
    canvas.lay(cheeks * (0.35 + 0.2 * f["blush"]).clamp(0, 0.9), skin * skin.new_tensor([1.0, 0.72, 0.72]), shade)
    beard = canvas.cover(0.27 - 0.36 * (x / head.wide).square() - y) * face
    canvas.lay(beard * f["beard"], head.hair * 0.88)
    large = 1 + 0.22 * f["nose"]
    canvas.fill(_ellipse(x, y, 0.0, 0.13, 0.065 * large, 0.05 * large), skin * 0.72, shade)
    canvas.fill(_ellipse(x, y, 0.0, 0.09, 0.05 * large, 0.07), skin, shade * 1.06)


def _mouth(canvas: _Canvas, head: _Head) -> None:
    """Lips along a curved line. A smile bends the line, widens it, and opens it to show the teeth."""
    f, y, smile = head.f, head.y, head.f["smiling"]
    arch = 1 - (head.front / (0.15 + 0.02 * f["mouth"] + 0.06 * smile)).square()  # 1 in the middle, 0 at the corners
    line = y - 0.385 - (0.005 + 0.015 * f["expression"] + 0.075 * smile) * (arch - 0.5)
    full = 0.035 + 0.008 * f["lips"]
    gape = (0.012 + 0.006 * f["expression"]).clamp(0) + smile * (0.035 + 0.008 * f["expression"])
    lips = canvas.cover(torch.maximum(-line - (full + 0.3 * gape) * arch, line - (full + gape) * arch))
    red = head.skin * head.skin.new_tensor([0.86, 0.50, 0.50]) + head.skin.new_tensor([0.06, 0.0, 0.0])
    canvas.lay(lips, red)
    gap = canvas.cover(torch.maximum(-line - 0.35 * gape * arch, line - gape * arch))
    dark, teeth = _flat(_THROAT, head.skin), _flat(_WHITE, head.skin)
    canvas.lay(gap * lips, dark + smile[..., 0] * (teeth - dark))


def _eyes(canvas: _Canvas, head: _Head, iris: Tensor) -> None:
    """Eyes and brows, mirrored left and right except for the gaze and the glint."""
    f, x, y = head.f, head.front.abs(), head.y
    large, gap, high = 1 + 0.11 * f["eye_size"], 0.20 + 0.014 * f["eye_gap"], -0.07
    lift = 0.092 * large * (1 + 0.10 * f["lids"] - 0.12 * f["smiling"])
    ink, white = _flat(_INK, head.skin), _flat(_WHITE, head.skin)
    canvas.fill(_ellipse(x, y, gap, high - 0.012, 0.14 * large, lift + 0.02), ink)
    eye = canvas.cover(_ellipse(x, y, gap, high, 0.125 * large, lift))
    canvas.lay(eye, white)
    side = torch.where(head.front < 0, -1.0, 1.0)
    looks = gap + side * 0.018 * f["gaze"]
    canvas.lay(canvas.cover(_ellipse(x, y, looks, high, 0.072 * large, 0.08 * large)) * eye, iris)
    canvas.lay(canvas.cover(_ellipse(x, y, looks, high, 0.036 * large, 0.04 * large)) * eye, ink)
    canvas.lay(canvas.cover(_ellipse(x, y, gap - side * 0.025, high - 0.03, 0.022, 0.022)) * eye, white)
    off = x - gap - 0.01
    bow = y - high + 0.165 + 0.01 * f["expression"] - 1.8 * (off + 0.02).square() - 0.06 * off
    canvas.fill(torch.maximum(bow.abs() - 0.026 - 0.008 * f["brow"], off.abs() - 0.125), head.hair * 0.75)


def _glasses(canvas: _Canvas, head: _Head, frame: Tensor) -> None:
    """A rim around each eye, pale blue glass, and the bridge."""
    x, y, gap, worn = head.front.abs(), head.y, 0.205 + 0.014 * head.f["eye_gap"], head.f["eyeglasses"]
    lens = _box(x, y, gap, -0.06, 0.155, 0.13, 0.09)
    canvas.lay(canvas.cover(lens) * worn * 0.3, _flat(_GLASS, head.skin))
    bridge = torch.maximum((y + 0.09).abs() - 0.018, x - gap + 0.145)
    canvas.lay(canvas.cover(torch.minimum(lens.abs() - 0.021, bridge)) * worn, frame)


def _fringe(canvas: _Canvas, head: _Head, gloss: Tensor) -> None:
    """The hair over the forehead: down to a parted hairline or, with bangs, in strands down to the brows."""
    f, x, y = head.f, head.front, head.y
    parted = ((x - 0.05 * f["parting"]) / head.wide).square()
    line = -0.46 + 0.03 * f["hairline"] + (0.38 - 0.03 * f["hairline"]) * parted
    strands = 6 * x + 0.5 * f["parting"]
    low = -0.235 + 0.07 * (strands - strands.floor() - 0.5).abs() + 0.10 * (x / head.wide).square()
    line = torch.where(f["bangs"] > 0, torch.maximum(line, low), line)
    shadow = canvas.cover(torch.maximum(y - line - 0.05, head.outline))
    canvas.lay(shadow * f["bangs"] * 0.35, head.hair * 0.5)
    canvas.fill(torch.maximum(head.scalp, y - line), head.hair, gloss)


def _hat(canvas: _Canvas, head: _Head, felt: Tensor) -> None:
    """A woollen hat with a turned-up brim."""
    f, y, worn = head.f, head.y, head.f["hat"]
    crown = _ellipse(head.x, y, 0.0, -0.10, head.wide + head.thick, head.high + head.thick + 0.02)
    shade = head.light * (1 + 0.08 * f["light_side"] * head.x)
    canvas.lay(canvas.cover(torch.maximum(crown, y + 0.36)) * worn, felt, shade)
    brim = _box(head.x, y, 0.0, -0.40, head.wide + 0.5 * head.thick, 0.075, 0.06)
    canvas.lay(canvas.cover(brim) * worn, felt * 0.72, head.light)


def _ellipse(x: Tensor, y: Tensor, cx: Tensor | float, cy: float, rx: Tensor | float, ry: Tensor | float) -> Tensor:
    """The signed distance to an ellipse, (B, P, P): exact at the ends of the shorter axis, too small elsewhere."""
    shorter = torch.minimum(torch.as_tensor(rx), torch.as_tensor(ry))
    return ((((x - cx) / rx).square() + ((y - cy) / ry).square()).sqrt() - 1) * shorter


def _box(
    x: Tensor, y: Tensor, cx: Tensor | float, cy: Tensor | float, rx: Tensor | float, ry: Tensor | float, corner: float
) -> Tensor:
    """The signed distance to a rectangle with half sides rx and ry and rounded corners, (B, P, P)."""
    dx, dy = (x - cx).abs() - rx + corner, (y - cy).abs() - ry + corner
    return (dx.clamp(0).square() + dy.clamp(0).square()).sqrt() + torch.maximum(dx, dy).clamp(max=0) - corner


def _ramp(stops: tuple[tuple[int, int, int], ...], trait: Tensor) -> Tensor:
    """Colours (B, 3) in [0, 1] on the line through the stops, at the quantile of a normal trait (B,)."""
    table = torch.tensor(stops, dtype=torch.float32) / 255
    place = ndtr(trait.double()).to(torch.float32) * (len(table) - 1)
    left = place.floor().clamp(0, len(table) - 2)
    low, high = table[left.long()], table[left.long() + 1]
    return low + (place - left)[:, None] * (high - low)


def _flat(colour: tuple[int, int, int], like: Tensor) -> Tensor:
    """The same colour for all faces, (B, 3) in [0, 1]."""
    return (torch.tensor(colour, dtype=torch.float32) / 255).expand_as(like)


def _grid(inner: int) -> Tensor:
    """The centres of P pixels, (P,), in (-1, 1)."""
    return (torch.arange(inner) + 0.5) * (2 / inner) - 1
