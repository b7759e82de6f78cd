"""What counts as a copy: a descriptor, and thresholds that are earned on held-out images."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from memlib import features, metrics
from memlib.cache.recent import recent
from memlib.errors import Refused
from memlib.features import Embed
from memlib.metrics import Joint
from memlib.papers.side.attack import Similarities, similarities
from memlib.papers.side.study.settings import Settings
from memlib.papers.side.study.world import World, coders
from memlib.run import Run

PUBLISHED = {"low": 0.4, "mid": 0.5, "high": 0.6}  # lower edges of SIDE's bands, of SSCD: sec. 3.4
FEWEST = 16  # reference images that the descriptor `copies` needs


@dataclass(frozen=True)
class Measure:
    """How similarity is measured: a descriptor by name, the SSCD file, steps of `copies`, and the fraction of held-out
    images above the high edge (0: 1 %, or one image)."""

    descriptor: str
    sscd: str
    copy_steps: int
    fpr: float


@dataclass(frozen=True)
class Judge:
    """Descriptor, thresholds and the images that samples are compared with, (N, C, H, W) as the model can return them.

    `fractions` of held-out images were to pass the `edges` of the bands low, mid and high; a copy passes a cosine and a
    distance. `alone` are the edges of the high band for each of the two by itself. `null` are the calibration images,
    as if they were samples, and `check` the non-members.
    """

    embed: Embed
    members: Tensor
    non_members: Tensor
    fractions: dict[str, float]
    edges: dict[str, Joint]
    alone: dict[str, Joint]
    null: Similarities
    check: Similarities

    @property
    def bands(self) -> dict[str, tuple[Joint, Joint | None]]:
        """Each band by its edges and by those of the next, None above the last."""
        ends = [*self.edges.values(), None]
        return {band: (own, after) for (band, own), after in zip(self.edges.items(), ends[1:], strict=True)}

    def compare(self, images: Tensor | Iterable[Tensor]) -> Similarities:
        """Nearest members and non-members of images (N, C, H, W), or of batches of them."""
        return similarities(images, self.embed, self.members, self.non_members)


def measure_of(settings: Settings) -> Measure:
    """The measure that the settings ask for."""
    return Measure(settings.descriptor, settings.sscd, settings.copy_steps, settings.fpr)


def seen_by_the_model(world: World) -> dict[str, Tensor]:
    """The four parts (N, C, H, W) as the model could at best return them, after its encoder and decoder.

    Otherwise the blur of the coordinates would count as a difference.
    """
    encode, decode = coders(world)
    parts = ("members", "non_members", "reference", "calibration")
    return {name: decode(encode(getattr(world, name))) for name in parts}


def descriptors(world: World, reference: Tensor, measure: Measure, run: Run) -> dict[str, Embed]:
    """Every descriptor that can be fitted to the reference (M, C, H, W), as the model can return it, by name."""
    whitened = features.half_whitened(reference, components(world))
    known = {"centred": features.centred(reference), "half_whitened": whitened}
    if len(reference) >= FEWEST or measure.descriptor == "copies":
        known["copies"] = _copies(reference, measure, run)
    return known


def components(world: World) -> int:
    """How many principal components a descriptor has: at most 40, since the smallest are noise to a copy."""
    most = world.latent if world.coordinates == "principal" else world.reference[0].numel()
    return min(40, len(world.reference) - 1, most)


def _copies(reference: Tensor, measure: Measure, run: Run) -> Embed:
    state = run.cached("copies", features.learn_copies, reference.float(), run.seed, measure.copy_steps)
    return features.copies(reference.float(), state)


@recent  # the attacks on one network share it
def judge_of(world: World, measure: Measure, run: Run) -> Judge:
    """The judge: thresholds are set on the calibration part, or as published where the descriptor is SSCD.

    Raises Refused where the calibration images are too few for a threshold that five times `fpr` of them reach, or too
    alike for three different ones.
    """
    fpr = measure.fpr or max(0.01, 1 / len(world.calibration))
    if 5 * fpr >= 1:
        raise Refused(
            f"{len(world.calibration)} calibration images set no thresholds: give more images, or fewer n_train"
        )
    seen = seen_by_the_model(world)
    embed = _chosen(world, seen["reference"], measure, run)
    null, check = (
        similarities(seen[part], embed, seen["members"], seen["non_members"]) for part in ("calibration", "non_members")
    )
    fractions = {"low": 5 * fpr, "mid": 2 * fpr, "high": fpr}
    if measure.descriptor == "sscd":
        edges = {band: Joint(edge, torch.inf) for band, edge in PUBLISHED.items()}
    else:
        edges = {band: metrics.joint_threshold(*null[:2], rate) for band, rate in fractions.items()}
    alone = {
        "cosine": Joint(_quantile(-null.similarity, fpr) * -1, torch.inf),
        "L2": Joint(-torch.inf, _quantile(null.distance, fpr)),
    }
    if not edges["low"].similarity < edges["high"].similarity:
        raise Refused(
            f"the {len(null.similarity)} calibration images are too alike to set three thresholds, which would all be "
            f"near {edges['high'].similarity:.3g}: give a source with more distinct images"
        )
    return Judge(embed, seen["members"], seen["non_members"], fractions, edges, alone, null, check)


def _quantile(values: Tensor, fpr: float) -> float:
    """The edge that at most a fraction `fpr` of the values (M,) lies at or below."""
    following = values.sort().values[int(fpr * len(values) + 1e-9)]
    return float(torch.nextafter(following, following - 1))


def _chosen(world: World, reference: Tensor, measure: Measure, run: Run) -> Embed:
    """The one descriptor that similarity is measured in."""
    match measure.descriptor:
        case "sscd":
            return features.sscd(Path(measure.sscd) if measure.sscd else None, device=reference.device)
        case "copies":
            return _copies(reference, measure, run)
        case "centred":
            return features.centred(reference)
    return features.half_whitened(reference, components(world))
