"""Utility of synthetic data: changes of test images, controls; R11 and R12 on hand-made and on null results."""

import numpy as np
import pytest
import torch
from official_sets import save

from memlib import data
from memlib.errors import Refused
from memlib.papers.synthesis.classifiers import Recipe
from memlib.papers.synthesis.generators import Training
from memlib.papers.synthesis.study import attributes, usefulness, usefulness_rules, world
from memlib.papers.synthesis.study.usefulness import (
    AUGMENTED,
    BOTH,
    MATCHED,
    NOISY,
    PLAINLY,
    REAL,
    SHIFTS,
    SYNTHETIC,
    TWICE,
    Utility,
)  # fmt: skip
from memlib.papers.synthesis.study.world import World
from memlib.run import begin

PAIRS, TEST = 8, 400


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def results(draw, gains, level=0.7):
    """Answers by the true gain in accuracy of each arm over real data, on each change; 0 where none is named."""
    right = {}
    easy = {change: torch.rand(TEST, generator=draw) for change in (PLAINLY, *SHIFTS)}
    for arm in (REAL, SYNTHETIC, BOTH, AUGMENTED, TWICE, NOISY, MATCHED):
        right[arm] = {}
        for change in easy:
            own = 0.03 * torch.randn(2 * PAIRS, TEST, generator=draw)
            pair = 0.002 * torch.randn(PAIRS, 1, generator=draw).repeat_interleave(2, 0)
            right[arm][change] = easy[change] + own + pair < level + gains.get((arm, change), 0.0)
    return Utility(right, (0.5, 0.0))


ROOM = {(TWICE, PLAINLY): 0.1}


@pytest.mark.parametrize(
    ("rule", "gains", "verdict"),
    [
        (usefulness_rules.r11, ROOM | {(BOTH, PLAINLY): 0.05}, "reproduced"),
        (usefulness_rules.r11, ROOM | {(BOTH, PLAINLY): -0.05}, "not reproduced"),
        (usefulness_rules.r11, {(BOTH, PLAINLY): 0.05}, "needs data or scale"),  # more data are of no use
        (usefulness_rules.r12, {(SYNTHETIC, "blur"): 0.1}, "reproduced"),
        (usefulness_rules.r12, {(SYNTHETIC, "blur"): 0.1, (MATCHED, "blur"): 0.1}, "trend only"),  # it is smoothing
        (usefulness_rules.r12, {(SYNTHETIC, change): -0.1 for change in SHIFTS}, "not reproduced"),
    ],
)
def test_each_rule_reaches_its_verdicts(rule, gains, verdict):
    claim = rule(results(generator(), gains))
    assert claim.verdict == verdict and claim.n == PAIRS
    text = " ".join(rule.__doc__.split()).lower()
    assert f"*{verdict}*" in text


def test_r12_needs_data_where_a_gain_is_open():
    gains = {(SYNTHETIC, change): -0.1 for change in SHIFTS[1:]}
    found = results(generator(), gains)
    few = {arm: {name: x[:, :20] for name, x in by.items()} for arm, by in found.right.items()}
    assert usefulness_rules.r12(Utility(few, (0.0, 0.0))).verdict == "needs data or scale"


TRIALS = 150
SLACK = 0.05 + 2 * (0.05 * 0.95 / TRIALS) ** 0.5


@pytest.mark.parametrize(
    ("rule", "gains"),
    [
        (usefulness_rules.r11, ROOM),
        (usefulness_rules.r12, {}),
        (usefulness_rules.r12, {(arm, change): 0.05 for arm in (SYNTHETIC, MATCHED) for change in SHIFTS}),
    ],
    ids=["r11", "r12 equal", "r12 smoothing alone"],
)
def test_null_runs_are_seldom_called_reproduced(rule, gains):
    numbers = generator(5)
    called = sum(rule(results(numbers, gains)).verdict == "reproduced" for _ in range(TRIALS))
    assert called / TRIALS <= SLACK


def test_holm_is_the_step_down_procedure():
    assert usefulness_rules.holm([0.01, 0.013, 0.014, 0.19, 0.35]) == 1  # .01, then .013 > .05 / 4
    assert usefulness_rules.holm([0.009, 0.0124, 0.016, 0.19, 0.35]) == 3
    assert usefulness_rules.holm([0.02, 0.02, 0.02, 0.02, 0.02]) == 0 and usefulness_rules.holm([1.0]) == 0


def test_the_p_value_is_where_the_interval_touches_zero():
    found = results(generator(2), {(SYNTHETIC, "blur"): 0.01}).right
    a, b = found[SYNTHETIC]["blur"], found[REAL]["blur"]
    p = usefulness_rules.p_above(a, b)
    everywhere = torch.ones_like(a)
    cells = a.double() - b.double()
    ends = usefulness_rules.membership.crossed_interval(cells, everywhere, 1 - p, (-1, 1))
    assert 1e-6 < p < 0.999 and ends[0] == pytest.approx(0, abs=1e-5)
    assert usefulness_rules.p_above(b, a) == 1.0 and usefulness_rules.p_above(a, a) == 1.0


def digits():
    """Digits as a world without a pool: whole pixels, centred."""
    found = data.load("digits")
    reference, test = found.images[:100], found.images[100:140]
    centre = reference.mean(0)
    return World("digits", "", None, test - centre, found.labels[100:140], reference, "centred", 64)


def test_changes_move_images_and_keep_their_range():
    here = digits()
    _, decode = world.coders(here)
    before = decode(here.test)
    for name in SHIFTS:
        after = decode(usefulness.shifted(here, name, 0))
        assert after.shape == before.shape and float(after.abs().max()) <= 1 + 1e-6
        apart = (after - before).square().mean()
        assert float(apart) > 0.005, name
        assert torch.equal(usefulness.shifted(here, name, 0), usefulness.shifted(here, name, 0))
    moved = decode(usefulness.shifted(here, "shift", 0))
    left = torch.cat([before[..., 1:], before[..., -1:]], -1)
    right = torch.cat([before[..., :1], before[..., :-1]], -1)
    apart = torch.stack([(moved - one).abs().amax((1, 2, 3)) for one in (left, right)])
    assert float(apart.min(0).values.max()) < 1e-5 and (apart.argmin(0) == 0).any() and (apart.argmin(0) == 1).any()


def test_noise_of_variance_v_makes_images_rougher_by_2_v():
    images = torch.zeros(50, 1, 20, 20) + 0.3 * torch.arange(20)
    noise = 0.2 * torch.randn(images.shape, generator=generator())
    assert usefulness.roughness(images) == pytest.approx(0.045, rel=1e-4)  # .3^2 in one of two directions
    assert usefulness.roughness(images + noise) == pytest.approx(0.045 + 2 * 0.04, rel=0.02)


@pytest.mark.parametrize("blur", [True, False])
def test_real_images_are_made_as_smooth_or_as_rough(blur):
    here = digits()
    encode, decode = world.coders(here)
    images = here.test[None]
    shown = decode(here.test)
    one = usefulness.blurred(shown, torch.full((40,), 0.6)) if blur else shown + 0.1 * torch.randn(shown.shape)
    made = usefulness.Published(encode(one)[None], here.test_labels[None], torch.arange(40)[None])
    like, width, noise = usefulness._as_smooth(here, images, made, torch.ones(1, 40))
    assert usefulness.roughness(decode(like[0])) == pytest.approx(usefulness.roughness(one), rel=0.05)
    assert (width, noise) == (pytest.approx(0.6, abs=0.06), 0.0) if blur else (0.0, pytest.approx(0.1, abs=0.02))


def test_augmented_views_differ_and_keep_the_place_of_their_image():
    here = digits()
    views = usefulness._augmented(here, here.test[:6].unflatten(0, (2, 3)), 0)
    assert views.shape == (2, 30, 1, 8, 8) and not torch.equal(views[:, :3], views[:, 3:6])
    nearest = torch.cdist(views[0].flatten(1), here.test[:6].flatten(1)).argmin(1)
    assert float((nearest == torch.arange(3).repeat(10)).float().mean()) > 0.9


# R8.


def named(draw, real, base, ours):
    """One attribute's answers by the true accuracies of three arms."""
    easy = torch.rand(TEST, generator=draw)
    each = [easy + 0.03 * torch.randn(PAIRS, TEST, generator=draw) < level for level in (real, base, ours)]
    return attributes.Attribute(*each, 0.5)


@pytest.mark.parametrize(
    ("levels", "verdict"),
    [
        ((0.9, 0.6, 0.85), "reproduced"),
        ((0.9, 0.6, 0.65), "not reproduced"),
        ((0.9, 0.6, 0.74), "trend only"),
        ((0.9, 0.9, 0.9), "needs data or scale"),
    ],
)
def test_r8_reaches_its_verdicts(levels, verdict):
    good = named(generator(), 0.9, 0.6, 0.85)
    claim = usefulness_rules.r8({"smiling": good, "hat": named(generator(1), *levels)})
    assert claim.verdict == verdict and claim.n == PAIRS
    assert f"*{verdict}*" in " ".join(usefulness_rules.r8.__doc__.split()).lower()


def test_r8_is_seldom_called_reproduced_where_one_attribute_closes_no_more_than_the_share():
    numbers, trials = generator(6), 200
    at = 0.6 + usefulness_rules.CLOSED * 0.3
    parts = ({"a": named(numbers, 0.9, 0.6, 0.85), "b": named(numbers, 0.9, 0.6, at)} for _ in range(trials))
    called = sum(usefulness_rules.r8(one).verdict == "reproduced" for one in parts)
    assert called / trials <= 0.05 + 2 * (0.05 * 0.95 / trials) ** 0.5


def test_no_person_is_in_two_parts_or_halves_and_half_have_the_attribute():
    seen = []
    for half in ("explore", "report"):
        which = attributes.Faces(half, 16, 100, 60, 8, 4)
        for name in attributes.PARTS:
            images, labels, people = attributes.drawn(name, "beard", which)
            count = 60 if name == "test" else 100
            assert images.shape == (count, 3, 16, 16) and int(labels.sum()) == count // 2
            seen.append(set(people.tolist()))
    assert len(set().union(*seen)) == sum(map(len, seen))


def write_faces(root, count=240, people=60):
    """A folder in CelebA's layout: noise whose upper half is brighter where the face has the attribute."""
    draw = np.random.default_rng(0)
    attribute, person = draw.integers(0, 2, count), draw.integers(0, people, count)
    files = [f"{number:06}.jpg" for number in range(1, count + 1)]
    for name, has in zip(files, attribute, strict=True):
        image = draw.integers(0, 200, (109, 89, 3), dtype=np.uint8)
        image[:54] += np.uint8(50 * has)
        save(root / "img_align_celeba" / name, image)
    rows = [f"{name} {2 * has - 1}" for name, has in zip(files, attribute, strict=True)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(count), "Smiling", *rows]) + "\n")
    named = [f"{name} {one + 100}" for name, one in zip(files, person, strict=True)]
    (root / "identity_CelebA.txt").write_text("\n".join(named) + "\n")


def test_attributes_of_a_source_with_people(tmp_path):
    write_faces(tmp_path)
    source, seen = f"celeba:{tmp_path},label=Smiling", []
    for half in ("explore", "report"):
        which = attributes.Faces(half, 16, 20, 12, 8, 2)
        for name, part in attributes.parts_of(source, which).items():
            count = 12 if name == "test" else 20
            assert part.images.shape == (count, 3, 16, 16) and int(part.labels.sum()) == count // 2
            bright = part.images[:, :, :8].mean((1, 2, 3)) - part.images[:, :, 8:].mean((1, 2, 3)) > 0.2
            assert torch.equal(bright.long(), part.labels)  # images kept their labels
            seen.append(set(part.people.tolist()))
    assert len(set().union(*seen)) == sum(map(len, seen))
    how, recipe = Training(20, 16, 3e-3), Recipe(8, 1, 40, 16, 3e-3)
    found = attributes.measured(source, which, 8, how, how, recipe, 2.0, 0.75, 3, 0, begin("06_synthesis", processes=1))
    assert found.real.shape == found.base.shape == found.ours.shape == (2, 12) and found.majority == 0.5
    assert float(found.real.double().mean()) > 0.8


def test_attributes_that_do_not_fit_are_refused(tmp_path):
    write_faces(tmp_path, 40, 8)
    which = attributes.Faces("report", 16, 40, 12, 8, 2)
    for name, words in (
        ("moustache", "no attribute 'moustache'"),
        ("faces:identity,n=50,identities=3", "3 labels"),
        (f"celeba:{tmp_path},label=Smiling", "too few faces for four parts"),
    ):
        with pytest.raises(Refused, match=words):
            attributes.check(name, which)
