"""R8: attributes of cartoon faces, named by classifiers of real faces, of sets from a base, and of sets from ours.

The base is a generator of other people's faces in grey, which knows the attribute and is not fine-tuned, as Stable
Diffusion is the paper's baseline; its sets start from noise. Ours is that base fine-tuned on the training faces, and
its sets start from them. No person is in two of the parts: people of the base, of training, of the test. Half of the
faces of each part have the attribute.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from memlib import features, nets
from memlib.data import faces
from memlib.papers.synthesis import classifiers, generators, matching
from memlib.papers.synthesis.classifiers import Recipe
from memlib.papers.synthesis.generators import Network, Training
from memlib.papers.synthesis.matching import Term
from memlib.papers.synthesis.pool import Canaries, Pool, deal
from memlib.papers.synthesis.synthetic import publish
from memlib.random import keyed
from memlib.run import Run

PARTS = ("reference", "base", "training", "test")
_PEOPLE, _DRAWN = 400, 12_000  # people of each part; faces drawn, of which a balanced part is taken
_SEEDS = {"explore": 41_000, "report": 42_000}  # of people: the two halves have none in common


@dataclass(frozen=True)
class Faces:
    """What faces are used: half of the people, pixels a side, faces of a part, components, and networks."""

    half: str
    size: int
    n: int
    test: int
    latent: int
    networks: int


@dataclass(frozen=True)
class Attribute:
    """Test faces named rightly, (E, M) bools, by classifiers of real faces, of the base's sets and of ours; the
    fraction of the commoner answer among the M test faces."""

    real: Tensor
    base: Tensor
    ours: Tensor
    majority: float


def part(name: str, attribute: str, which: Faces) -> tuple[Tensor, Tensor, Tensor]:
    """Faces (N, 3, H, W), labels (N,) and people (N,) of one of `PARTS`, half with the attribute.

    People of another part or half are other people: they are drawn with another seed.
    """
    seed, count = _SEEDS[which.half] + PARTS.index(name), which.test if name == "test" else which.n
    traits = faces.factors(_DRAWN, seed, identities=_PEOPLE)
    sides = [(traits[attribute] == k).nonzero()[: count // 2, 0] for k in (0, 1)]
    rows = torch.cat(sides)
    rows = rows[torch.randperm(len(rows), generator=keyed(seed, 0))]
    images = faces.render({key: value[rows] for key, value in traits.items()}, which.size)
    return images, traits[attribute][rows], traits["identity"][rows] + seed * _PEOPLE


def measured(
    attribute: str, which: Faces, width: int, base: Training, tuned: Training, recipe: Recipe, guidance: float,
    strength: float, steps: int, seed: int, run: Run,
) -> Attribute:  # fmt: skip
    """The three arms for one attribute, networks paired: each has a random half of the training faces."""
    parts = {name: part(name, attribute, which) for name in PARTS}
    encode, _ = features.latents(parts["reference"][0], which.latent)
    grey = parts["base"][0].mean(1, keepdim=True).expand(-1, 3, -1, -1)
    pool = deal(encode(parts["training"][0]), parts["training"][1], 2, which.networks, Canaries(0, 0, 1), seed)
    others = Pool(encode(grey), parts["base"][1], pool.copies, pool.kind, pool.inside, 2)
    members, spread = pool.inside[::2], float(pool.images.std())
    network = Network((which.latent,), width, 2, 2, spread)
    torch.manual_seed(seed)
    stack = generators.build(network, len(members)).to(pool.images)
    stack = generators.fit(stack, others, members, base, seed)
    stack = nets.Stack(stack.unstack()).eval().requires_grad_(False)  # type: ignore[operator]
    ours = matching.fine_tune(matching.copied(stack), pool, members, tuned, Term("printed", 0.05), seed)
    asked = {"guidance": guidance, "steps": steps, "seed": seed}
    before = publish(stack, pool, members, **asked)
    after = publish(ours, pool, members, strength=strength, **asked)
    rows = members.nonzero()[:, 1].reshape(len(members), -1)
    test, labels = encode(parts["test"][0]), parts["test"][1]

    def right(images: Tensor, named: Tensor) -> Tensor:
        (judges,) = classifiers.fit(images, named, torch.ones(named.shape), 2, spread, recipe, seed)
        return classifiers.logits(judges, test).argmax(-1) == labels

    share = float(labels.double().mean())
    return Attribute(
        right(pool.images[rows], pool.labels[rows]),
        right(before.images, before.labels),
        right(after.images, after.labels),
        max(share, 1 - share),
    )
