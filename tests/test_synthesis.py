"""Pipelines of synthesis: what they are trained on, what they publish, and attacks that find what was planted."""

import copy
import math
from functools import partial

import pytest
import torch

from memlib import membership, noise
from memlib.analytic import Empirical
from memlib.errors import Refused
from memlib.papers.synthesis import attacks, classifiers, copies, generators, synthetic
from memlib.papers.synthesis.pool import MISLABELLED, PLAIN, REPEATED, Canaries, Pool, deal
from memlib.papers.synthesis.synthetic import Published

CLASSES, SIZE = 3, 60


def images(n=SIZE, seed=0):
    """Three clusters in four dimensions, (n, 4), and their labels (n,)."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % CLASSES
    return torch.eye(4)[:CLASSES][y] + 0.2 * torch.randn(n, 4, generator=draw), y


@pytest.fixture
def pool():
    return deal(*images(), CLASSES, 4, Canaries(6, 5, 8), seed=3)


def test_a_coin_deals_the_pool_and_canaries_are_what_they_are_called(pool):
    x, y = images()
    assert torch.equal(pool.images, x) and pool.pipelines == 8
    assert torch.equal(pool.inside[0::2], ~pool.inside[1::2]) and (pool.inside.sum(1) == SIZE // 2).all()
    assert [int((pool.kind == kind).sum()) for kind in (PLAIN, MISLABELLED, REPEATED)] == [SIZE - 11, 6, 5]
    assert torch.equal(pool.labels != y, pool.kind == MISLABELLED)  # these alone, and every one of them
    assert torch.equal(pool.copies, torch.where(pool.kind == REPEATED, 8.0, 1.0))
    assert set(pool.labels.tolist()) <= set(range(CLASSES))
    other = deal(x, y, CLASSES, 4, Canaries(6, 5, 8), seed=4)
    assert not torch.equal(other.inside, pool.inside) and not torch.equal(other.kind, pool.kind)


@pytest.mark.parametrize(
    ("n", "classes", "canaries", "says"),
    [
        (61, 3, (1, 1), "61 images have no halves"),
        (60, 3, (20, 11), "20 mislabelled and 11 repeated images are more than half of 60"),
        (60, 1, (2, 1), "single class"),
    ],
)
def test_a_pool_that_cannot_be_dealt_is_refused(n, classes, canaries, says):
    x, y = images(n)
    with pytest.raises(Refused, match=says):
        deal(x, y % classes, classes, 2, Canaries(*canaries, 2), 0)


class Labelled(torch.nn.Module):
    """A stack of denoisers that answer with a point of their own for each label; `count` networks."""

    def __init__(self, points):
        super().__init__()
        self.points, self.count = points, len(points)

    def forward(self, x, sigma, y=None):
        own = torch.arange(self.count).repeat_interleave(len(x) // self.count)
        return self.points.mean(1)[own] if y is None else self.points[own, y]


def test_a_published_set_has_the_labels_of_the_members_and_the_points_of_its_own_generator(pool):
    points = torch.randn(8, CLASSES, 4)
    made = synthetic.publish(Labelled(points), pool, pool.inside, times=3, steps=4)
    assert made.images.shape == (8, 3 * SIZE // 2, 4) and made.labels.shape == (8, 3 * SIZE // 2)
    for e in range(8):
        counts = torch.bincount(made.labels[e], minlength=CLASSES)
        assert torch.equal(counts, 3 * pool.counts()[e])
        torch.testing.assert_close(made.images[e], points[e, made.labels[e]])
        assert pool.inside[e, made.members[e]].all()
    once = synthetic.publish(Labelled(points), pool, pool.inside, steps=4)
    assert torch.equal(made.images[:, : SIZE // 2], once.images)


def test_guidance_is_that_of_the_labels_against_none(pool):
    points = torch.randn(8, CLASSES, 4)
    made = synthetic.publish(Labelled(points), pool, pool.inside, guidance=2.0, steps=4)
    middle = points.mean(1)
    expected = 2 * points[0, made.labels[0]] - middle[0]
    torch.testing.assert_close(made.images[0], expected)


class Identity(torch.nn.Module):
    """Denoisers that know nothing: they return what they are given."""

    count = 8

    def forward(self, x, sigma, y=None):
        return x


def test_a_low_strength_starts_from_the_pipeline_s_own_members(pool):
    spread = float(pool.images.std())
    made = synthetic.publish(Identity(), pool, pool.inside, strength=0.25, steps=2, seed=1)
    own = pool.images[made.members]
    assert ((made.images - own).std() / (0.69 * spread) - 1).abs() < 0.1
    again = synthetic.publish(Identity(), pool, pool.inside, strength=0.25, steps=2, seed=2)
    assert not torch.equal(again.images, made.images)
    fresh = synthetic.publish(Identity(), pool, pool.inside, strength=1.0, steps=2)
    correlation = torch.corrcoef(torch.stack([fresh.images.flatten(), own.flatten()]))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(own.numel())


def test_large_sets_are_sampled_in_parts_and_are_the_same(pool, monkeypatch):
    points = torch.randn(8, CLASSES, 4)
    whole = synthetic.publish(Labelled(points), pool, pool.inside, steps=3)
    monkeypatch.setattr(synthetic, "_BLOCK", 16)
    parts = synthetic.publish(Labelled(points), pool, pool.inside, steps=3)
    torch.testing.assert_close(parts.images, whole.images)
    assert torch.equal(parts.labels, whole.labels)


def test_sets_of_unequal_sizes_are_refused(pool):
    inside = pool.inside.clone()
    inside[0, inside[0].nonzero()[0]] = False
    with pytest.raises(Refused, match="29 to 30 members"):
        synthetic.publish(Identity(), pool, inside)


def test_a_generator_never_sees_what_is_not_dealt_to_it(pool):
    """Images outside a half are not a number, and the loss stays one."""
    poisoned = copy.copy(pool)
    outside = torch.where(pool.inside[0][:, None], pool.images, torch.nan)
    object.__setattr__(poisoned, "images", outside)
    network = generators.Network((4,), 16, 1, CLASSES, 0.5)
    torch.manual_seed(0)
    stack = generators.build(network, 2)
    rows = pool.inside[[0, 0]]
    average = generators.fit(stack, poisoned, rows, generators.Training(20, 16, 1e-3), 0)
    assert all(p.isfinite().all() for p in average.parameters())


def test_repeated_members_are_drawn_as_often_as_told():
    weights = torch.tensor([[1.0, 8.0, 0.0], [1.0, 1.0, 1.0]])
    rows = generators.rows_of(weights, 9000, torch.Generator().manual_seed(0))
    shares = torch.stack([torch.bincount(row, minlength=3) for row in rows]) / 9000
    torch.testing.assert_close(shares, weights / weights.sum(1, keepdim=True), atol=0.02, rtol=0)


def test_generators_learn_their_labels(pool):
    network = generators.Network((4,), 32, 1, CLASSES, float(pool.images.std()))
    torch.manual_seed(0)
    clean = Pool(pool.images, images()[1], torch.ones(SIZE), pool.kind, pool.inside, CLASSES)
    stack = generators.fit(generators.build(network, 2), clean, pool.inside[:2], generators.Training(250, 32, 1e-2), 0)
    made = synthetic.publish(stack, clean, pool.inside[:2], steps=8)
    named = made.images[..., :CLASSES].argmax(-1)  # the cluster nearest to a corner
    assert (named == made.labels).double().mean() > 0.9


def recipes():
    return classifiers.Recipe(width=16, steps=60, batch=16, lr=5e-3, looks=(0.5, 1.0))


def test_a_classifier_in_the_stack_is_the_one_trained_alone():
    """Same draws: only its own row of the weights matters to a network."""
    x, y = images()
    both = x.expand(2, -1, -1), y.expand(2, -1)
    weights = torch.ones(2, SIZE)
    weights[0, :30], weights[1, 30:] = 0, 0
    stacks = classifiers.fit(*both, weights, CLASSES, 0.5, recipes(), seed=0)
    assert len(stacks) == 2 and all(stack.count == 2 for stack in stacks)
    half = classifiers.logits(stacks[0], x)
    assert half.shape == (2, SIZE, CLASSES) and not torch.allclose(half, classifiers.logits(stacks[1], x))
    assert (classifiers.accuracy(stacks[1], x, y) > 0.9).all()
    poisoned = both[0].clone()
    poisoned[0, :30] = torch.nan  # what the first never draws
    (_, again) = classifiers.fit(poisoned, both[1], weights, CLASSES, 0.5, recipes(), seed=0)
    torch.testing.assert_close(classifiers.logits(again, x), classifiers.logits(stacks[1], x))


def test_smoothing_and_jitter_change_training():
    x, y = images()
    plain = classifiers.Recipe(width=16, steps=60, batch=16, lr=5e-3)
    found = {}
    for name, change in {"plain": {}, "smoothing": {"smoothing": 0.3}, "jitter": {"jitter": 1.0}}.items():
        recipe = classifiers.Recipe(**(vars(plain) | change))
        (stack,) = classifiers.fit(x[None], y[None], torch.ones(1, SIZE), CLASSES, 0.5, recipe, seed=0)
        found[name] = membership.margin(classifiers.logits(stack, x), y[None]).mean()
    assert found["smoothing"] < found["plain"] and found["jitter"] < found["plain"]


# Attacks: what is planted is found, and nothing where there is nothing.


def statistic(inside, gap, seed=0, levels=1):
    """Values (L, T, N) of every image plus `gap` for members; the last of several levels alone has a gap."""
    draw = torch.Generator().manual_seed(seed)
    of_image = torch.randn(inside.shape[1], generator=draw)
    noise_ = torch.randn(levels, *inside.shape, generator=draw)
    gaps = torch.tensor([0.0] * (levels - 1) + [gap])[:, None, None]
    return 3 * of_image + noise_ + gaps * inside


def mean_area(scores, inside):
    return float(attacks._auc(scores, inside).mean())


@pytest.mark.parametrize("name", list(attacks.calibrations(log_p=True)))
def test_every_way_of_using_shadows_finds_members_and_nothing_in_noise(name):
    inside = membership.halves(400, 8, torch.Generator().manual_seed(0))
    way = attacks.calibrations(log_p=True)[name]
    area = mean_area(attacks.judged(statistic(inside, 2.0), inside, way), inside)
    nothing = mean_area(attacks.judged(statistic(inside, 0.0), inside, way), inside)
    assert area > (0.6 if name == "raw" else 0.8) and abs(nothing - 0.5) < 0.03
    if name not in ("raw", "RMIA"):  # the difference of images is what calibration takes away
        ideal = torch.distributions.Normal(0, 1).cdf(torch.tensor(2 / math.sqrt(2)))
        assert area > ideal - 0.06


def test_the_level_is_chosen_by_the_shadows_and_not_by_the_target():
    inside = membership.halves(300, 4, torch.Generator().manual_seed(1))
    values = statistic(inside, 3.0, levels=3)
    for name in ("raw", "calibrated"):
        way = attacks.calibrations()[name]
        scores = attacks.judged(values, inside, way)
        torch.testing.assert_close(scores, attacks.judged(values[2:], inside, way))
    swapped = inside.clone()
    swapped[0], swapped[1] = inside[1], inside[0]  # another truth for one pair: its own scores do not move
    way = attacks.calibrations()["calibrated"]
    torch.testing.assert_close(attacks.judged(values, inside, way)[:2], attacks.judged(values, swapped, way)[:2])


def test_fewer_shadows_find_less():
    inside = membership.halves(400, 8, torch.Generator().manual_seed(0))
    values, way = statistic(inside, 2.0), attacks.calibrations()["LiRA"]
    areas = [mean_area(attacks.judged(values, inside, way, count), inside) for count in (4, 14)]
    assert areas[0] < areas[1]


def test_a_set_that_publishes_members_gives_them_away(pool):
    size = SIZE // 2
    members = pool.inside.nonzero()[:, 1].reshape(8, size)
    made = Published(pool.images[members] + 0.01, pool.labels[members], members)
    found = attacks.of_published(made, pool)
    assert found.threat == "B" and mean_area(found.values[0], pool.inside) == 1.0


def memorizers(pool):
    """A stack of perfect memorizers of each pipeline's members, labels unheard."""

    class Memory(torch.nn.Module):
        count = pool.pipelines

        def forward(self, x, sigma, y=None):
            blocks, levels = x.chunk(self.count), torch.as_tensor(sigma).expand(len(x)).chunk(self.count)
            every = zip(blocks, levels, pool.inside, strict=True)
            return torch.cat([Empirical(pool.images[seen])(part, level) for part, level, seen in every])

    return Memory()


@pytest.mark.parametrize("name", ["loss", "PIA", "remade"])
def test_statistics_of_generators_find_the_members_of_memorizers(pool, name):
    stack, way = memorizers(pool), attacks.calibrations()["calibrated"]
    if name == "remade":  # at strength .25, another member of four coordinates is often nearer than one's own place
        found, least = attacks.of_answers(stack, pool, (0.25,), 1.0, draws=8, steps=4), 0.75
    else:
        found = next(one for one in attacks.of_weights(stack, pool, (0.1, 0.4)) if one.name == name)
        least = 0.9
    assert mean_area(attacks.judged(found.values, pool.inside, way), pool.inside) > least


def test_noise_of_a_statistic_is_that_of_the_image_for_every_model(pool):
    shared = attacks._shared(4)
    x = torch.zeros(4 * 10, 3)
    first, second = shared(x), shared(x)
    assert torch.equal(first[:10], first[30:]) and not torch.equal(first, second)
    torch.testing.assert_close(first[:10], noise.seeded(range(10))(x[:10]))


def test_gradients_are_those_of_each_network(pool):
    network = generators.Network((4,), 8, 1, CLASSES, 0.5)
    torch.manual_seed(0)
    stack = generators.build(network, 8).eval().requires_grad_(False)
    for weight in stack.weights:
        torch.nn.init.normal_(weight, std=0.3)
    values = attacks.of_gradients(stack, pool, (0.4,)).values[0]
    net, sigma = stack.unstack()[5].requires_grad_(), 0.4 * float(pool.images.std())
    eps = noise.seeded(range(SIZE))(pool.images)
    x0, y = pool.images[7:8], pool.labels[7:8]
    residual = (x0 + sigma * eps[7:8] - net(x0 + sigma * eps[7:8], sigma, y)) / sigma - eps[7:8]
    loss = residual.square().flatten(1).mean(1).sum()
    norm = torch.cat([g.flatten() for g in torch.autograd.grad(loss, net.parameters(), allow_unused=True)]).norm()
    ratio = -values[5, 7] / norm
    assert ratio == pytest.approx(1, rel=1e-3) or ratio == pytest.approx(x0.numel(), rel=1e-3)


# Copies and the blind classifier.


def test_copies_are_found_and_fresh_images_are_no_copies(pool):
    members = pool.inside.nonzero()[:, 1].reshape(8, -1)
    held_out = images(300, seed=9)[0]
    fresh = images(8 * 30, seed=5)[0].unflatten(0, (8, -1))
    embed = partial(torch.sub, other=pool.images.mean(0))
    exact = copies.find(Published(pool.images[members], members, members), pool.images, pool.inside, held_out, embed)
    assert (exact.nearer == 1).all() and (exact.of_members == 1).all()
    chance = copies.find(Published(fresh, members, members), pool.images, pool.inside, held_out, embed)
    pairs = chance.nearer.view(-1, 2).mean(1)
    assert torch.allclose(pairs, torch.full_like(pairs, 0.5), atol=0.15) and (chance.of_members < 0.15).all()
    cosine, index = copies.look_up(pool.images[:3], pool.images, embed, top=4)
    assert index[:, 0].tolist() == [0, 1, 2] and cosine.shape == (3, 4)


def test_a_blind_classifier_sees_a_shift_and_no_coin():
    x, _ = images(400)
    areas = []
    for seed in range(12):
        seen = membership.halves(400, 1, torch.Generator().manual_seed(seed))[0]
        areas.append(membership.blind(x[seen], x[~seen])[0])
    mean, deviation = torch.tensor(areas).mean(), torch.tensor(areas).std()
    assert abs(mean - 0.5) < 4 * deviation / 12**0.5
    assert membership.blind(x[seen], x[~seen] + 0.3)[0] > 0.9
