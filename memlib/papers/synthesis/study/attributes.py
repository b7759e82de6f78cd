"""R8: attributes of faces, named by classifiers of real faces, of sets from a base, and of sets from ours.

The base is a generator of other people's faces in grey, which knows the attribute and is not fine-tuned, as Stable
Diffusion is the paper's baseline; its sets start from noise. Ours is that base fine-tuned on the training faces, and
its sets start from them. No person is in two of the parts: people of the base, of training, of the test. Half of the
faces of each part have the attribute. The faces are drawn, or read from a source with two labels.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from memlib import data, features, nets
from memlib.data import faces
from memlib.errors import Refused
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
_DEALT = 43_000  # the seed that deals the people of a source to the halves and the parts


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


class Part(NamedTuple):
    """Faces (N, C, H, W), labels (N,), 1 where they have the attribute, and people (N,)."""

    images: Tensor
    labels: Tensor
    people: Tensor


def parts_of(attribute: str, which: Faces) -> dict[str, Part]:
    """Each of `PARTS`, half of it with the attribute: one of `data.faces.ATTRIBUTES`, or a source with two labels.

    Raises Refused for anything else, and for a source with too few faces.
    """
    if attribute in faces.ATTRIBUTES:
        return {name: drawn(name, attribute, which) for name in PARTS}
    if ":" not in attribute:
        raise Refused(
            f"drawn faces have no attribute {attribute!r}: give one of {', '.join(faces.ATTRIBUTES)}, or a source with "
            "two labels such as celeba:PATH,label=Smiling"
        )
    return read(attribute, which)


def check(attribute: str, which: Faces) -> None:
    """Raise Refused for an attribute that `parts_of` would refuse; a source is read for it."""
    if attribute not in faces.ATTRIBUTES:
        parts_of(attribute, which)


def read(source: str, which: Faces) -> dict[str, Part]:
    """The parts of a source with two labels, people dealt to halves and parts by chance.

    The people of `celeba` are those of its identity list. Of another source nobody is known twice: there the copies of
    an image are one person. Raises Refused for another number of labels, and where a part cannot be filled.
    """
    images = data.load(source, which.size)
    if len(images.names) != 2:
        raise Refused(f"{source} has {len(images.names)} labels, and an attribute has two: give a source with two")
    people = data.copies(images.images)
    if source.startswith("celeba:"):
        people = data.load(re.sub(r",label=[^,]*", "", source), 1).labels
    names = people.unique()
    order = torch.empty(int(names.max()) + 1, dtype=torch.int64)
    order[names] = torch.randperm(len(names), generator=keyed(_DEALT, 0))
    place = order[people]  # of an image's person
    half = (place < len(names) // 2) == (which.half == "explore")
    left, found = half, {}
    for name in PARTS:
        count = (which.test if name == "test" else which.n) // 2
        rows = []
        for label in (0, 1):
            here = (left & (images.labels == label)).nonzero()[:, 0]
            rows.append(here[place[here].argsort(stable=True)][:count])
            if len(rows[-1]) < count:
                raise Refused(
                    f"{source} has too few faces for four parts: {len(rows[-1])} of {images.names[label]!r} are left "
                    f"for the part {name!r}, which takes {count}; give a smaller n_faces"
                )
        chosen = torch.cat(rows)
        chosen = chosen[torch.randperm(len(chosen), generator=keyed(_DEALT, 1))]
        found[name] = Part(images.images[chosen], images.labels[chosen], people[chosen])
        left = left & ~torch.isin(people, people[chosen])
    return found


def drawn(name: str, attribute: str, which: Faces) -> Part:
    """One of `PARTS` of drawn faces, half with the attribute.

    People of another part or half are other people: they are drawn with another seed.
    """
    seed, count = _SEEDS[which.half] + PARTS.index(name), which.test if name == "test" else which.n
    traits = faces.factors(_DRAWN, seed, identities=_PEOPLE)
    sides = [(traits[attribute] == k).nonzero()[: count // 2, 0] for k in (0, 1)]
    rows = torch.cat(sides)
    rows = rows[torch.randperm(len(rows), generator=keyed(seed, 0))]
    images = faces.render({key: value[rows] for key, value in traits.items()}, which.size)
    return Part(images, traits[attribute][rows], traits["identity"][rows] + seed * _PEOPLE)


def measured(
    attribute: str, which: Faces, width: int, base: Training, tuned: Training, recipe: Recipe, guidance: float,
    strength: float, steps: int, seed: int, run: Run,
) -> Attribute:  # fmt: skip
    """The three arms for one attribute, networks paired: each has a random half of the training faces.

    `attribute` is as for `parts_of`.
    """
    parts = parts_of(attribute, which)
    encode, _ = features.latents(parts["reference"].images, which.latent)
    colour = parts["base"].images
    grey = colour.mean(1, keepdim=True).expand_as(colour)
    pool = deal(encode(parts["training"].images), parts["training"].labels, 2, which.networks, Canaries(0, 0, 1), seed)
    others = Pool(encode(grey), parts["base"].labels, pool.copies, pool.kind, pool.inside, 2)
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
    test, labels = encode(parts["test"].images), parts["test"].labels

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
