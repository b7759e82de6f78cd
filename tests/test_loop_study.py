"""The closed loop: who forgets what, what is asked, every rule on hand-made results and where nothing is there."""

import dataclasses

import pytest
import torch

from memlib import membership, nets
from memlib.errors import Refused
from memlib.papers.loop import forgetting, study, unlearning
from memlib.papers.loop.study import experiment, measures, rounds, rules, world
from memlib.papers.loop.study.results import Arm, Frontier, Loop, counted
from memlib.papers.sgu.study.arms import ARMS
from memlib.papers.synthesis.generators import Network, build
from memlib.run import begin
from memlib.settings import changed

PAIRS, IMAGES, SAMPLES = 8, 40, 400
TINY = {
    "n_pool": 80, "n_test": 100, "n_reference": 30, "pairs": 4, "width": 8, "train_steps": 10, "batch": 8, "forget": 3,
    "tune_steps": 2, "n_samples": 50, "sampling_steps": 3, "levels": [0.5], "draws": 1, "known": 1,
    "relearn_steps": 2, "rates": [1e-2], "looks": [5, 10], "kinds": ["images", "label"],
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def copies(draw, share, gone):
    """(T, S): each sample copies the first forgotten image with a chance that differs between pairs."""
    chance = share * (1 + 0.3 * torch.randn(len(gone) // 2, 1, generator=draw)).clamp(0.1).repeat_interleave(2, 0)
    hit = torch.rand(len(gone), SAMPLES, generator=draw) < chance
    return torch.where(hit, gone.long().argmax(1)[:, None], -1)


def loop(draw, shares, precision=None):
    """C1's results by the share of samples of each arm that copy a forgotten image."""
    inside = membership.halves(IMAGES, PAIRS, draw)
    gone = torch.zeros_like(inside)
    gone[torch.arange(len(inside)), inside.long().argmax(1)] = True
    one = torch.ones(len(inside)).double()
    arms = {}
    for name in rounds.NAMES:
        of = counted(copies(draw, shares.get(name, 0.0), gone), IMAGES)
        good = 0.9 * one + 0.01 * torch.randn(len(one), generator=draw)
        good = good - (precision or {}).get(name, 0.0)
        arms[name] = Arm(SAMPLES, of, of, gone, one, good, one, one, inside, one, one)
    return Loop(gone, inside, arms)


def frontier(draw, copied, usual_copied, lost=0.0):
    """C2's results: two looks, the second of which is chosen."""
    pairs = 1 + 0.1 * torch.randn(PAIRS, generator=draw).double().repeat_interleave(2)

    def around(mean):
        return mean * pairs * (1 + 0.05 * torch.randn(2 * PAIRS, generator=draw).double())

    chosen = torch.stack((torch.full((2 * PAIRS,), 0.2), torch.ones(2 * PAIRS)))
    share = {0.003: around(usual_copied), 0.01: around(copied)}
    quality = {0.003: around(0.5), 0.01: around(0.5) - lost}
    return Frontier(
        0.003, 0.01, (1, 2), {rate: chosen for rate in share},
        {rate: torch.stack((value / 9, value)) for rate, value in quality.items()},
        {rate: torch.stack((0 * value, value)) for rate, value in share.items()},
    )  # fmt: skip


STOPPED = {"original": 0.1, "orthogonal": 0.002, "obtuse": 0.03}


@pytest.mark.parametrize(
    ("rule", "results", "verdict"),
    [
        (rules.c1, {"images": loop(generator(), STOPPED)}, "reproduced"),
        (rules.c1, {"images": loop(generator(), STOPPED, {"orthogonal": 0.3})}, "trend only"),  # obtuse still lowers it
        (rules.c1, {"images": loop(generator(), STOPPED | {"orthogonal": 0.05})}, "trend only"),
        (rules.c1, {"images": loop(generator(), dict.fromkeys(STOPPED, 0.1))}, "not reproduced"),
        (rules.c1, {"images": loop(generator(), STOPPED, {"orthogonal": 0.3, "obtuse": 0.3})}, "not reproduced"),
        (rules.c1, {"images": loop(generator(), {"original": 0.0})}, "needs data or scale"),
        (
            rules.c1,
            {"images": loop(generator(), STOPPED), "label": loop(generator(), dict.fromkeys(STOPPED, 0.1))},
            "not reproduced",
        ),
        (rules.c2, frontier(generator(), 0.02, 0.2), "reproduced"),
        (rules.c2, frontier(generator(), 0.02, 0.2, lost=0.3), "trend only"),
        (rules.c2, frontier(generator(), 0.3, 0.2), "not reproduced"),
        (rules.c2, frontier(generator(), 0.001, 0.002), "needs data or scale"),
    ],
)
def test_each_rule_reaches_each_of_its_verdicts(rule, results, verdict):
    claim = rule(results)
    assert claim.verdict == verdict and claim.n == PAIRS
    assert f"*{verdict}*" in " ".join(rule.__doc__.split()).lower()


def test_rules_say_reproduced_in_at_most_five_percent_of_null_runs():
    """C1 where both losses leave exactly a tenth; C2 where both rates copy alike, at equal quality."""
    edge = {"original": 0.3, "orthogonal": 0.03, "obtuse": 0.03}
    runs = 300
    said = [rules.c1({"images": loop(generator(seed), edge)}).verdict == "reproduced" for seed in range(runs)]
    assert sum(said) <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5
    same = [rules.c2(frontier(generator(seed), 0.2, 0.2)).verdict != "not reproduced" for seed in range(runs)]
    assert sum(same) <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5


def test_each_model_forgets_members_of_its_own():
    settings = changed(study.SCALES["fast"], TINY)
    dealt = world.load(settings, begin("test"))
    chance, label = (world.forgotten(dealt, kind, 3, 0) for kind in ("images", "label"))
    for gone in (chance, label):
        assert (gone <= dealt.inside).all() and gone.any(1).all() and (gone.sum(1) <= 3).all()
    assert chance.sum(1).eq(3).all() and not torch.equal(chance[0], chance[2])
    for model, row in enumerate(label):
        assert dealt.labels[row].unique().tolist() == [(model // 2) % 10]
    with pytest.raises(Refused, match="give 600 or more"):
        world.load(dataclasses.replace(settings, data="digits:limit=300"), begin("test"))


def test_the_gradient_of_each_network_is_its_own():
    """The loss of a stack, written out for each network alone; and images that are kept have no forget loss."""
    images = torch.randn(6, 1, 2, 2, generator=generator())
    kept = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 2, 1, 0, 0]])
    gone = torch.tensor([[False, False, False, False, True, False], [False, False, False, False, False, True]])
    stack = build(Network((1, 2, 2), 8, 2, 0, 1.0), 2)
    for weight in stack.weights:  # the last layer starts at 0, where networks would be alike
        torch.nn.init.normal_(weight, std=0.3, generator=generator(1))
    how = unlearning.Recipe(1, 1e-3, 8, alpha=0.7, level=0.5)
    total = forgetting(images, kept, gone, ARMS["obtuse"], how)(stack, generator(2))
    one = nets.Stack(stack.unstack()[:1])
    assert total.requires_grad and total > 0
    for forgotten, arm in ((gone, "rest"), (None, "obtuse")):
        with pytest.raises(Refused, match="both the images to forget and a loss"):
            forgetting(images, kept, forgotten, ARMS[arm], how)
    with pytest.raises(Refused, match="network 1 has no image to keep"):
        forgetting(images, kept * torch.tensor([[1], [0]]), gone, ARMS["obtuse"], how)
    alone = forgetting(images, kept[:1], None, ARMS["rest"], how)(one, generator(3))
    (gradient, *_) = torch.autograd.grad(alone, list(one.weights), allow_unused=True)
    assert gradient is not None


def test_forgetting_turns_the_noise_of_forgotten_images_alone():
    images = torch.eye(4).view(4, 1, 2, 2) * 4
    kept, gone = torch.tensor([[1, 1, 1, 0]]), torch.tensor([[False, False, False, True]])
    torch.manual_seed(0)
    stack = build(Network((1, 2, 2), 32, 2, 0, 1.0), 1)
    how = unlearning.Recipe(200, 3e-3, 32)
    first = unlearning.fit(stack, images, torch.ones(1, 4).long(), how, 0)
    weights = first.state_dict()
    again = build(Network((1, 2, 2), 32, 2, 0, 1.0), 1)
    again.load_state_dict(weights)
    how = dataclasses.replace(how, alpha=0.5)
    after = unlearning.fit(again, images, kept, how, 1, forgotten=gone, arm=ARMS["obtuse"])
    noise = torch.randn(4, 1, 2, 2, generator=generator())

    def loss(net):
        x = images + 0.5 * noise
        return (net(x, torch.tensor(0.5)) - images).square().flatten(1).mean(1)

    rise = loss(after) - loss(first)
    assert rise[3] > 0.05 and rise[3] > 5 * rise[:3].abs().max()


def test_copies_are_counted_by_the_image_they_copy():
    of = torch.tensor([[0, 0, 2, -1], [1, -1, -1, -1]])
    some = torch.tensor([[True, True, False], [False, True, True]])
    one = torch.ones(2)
    arm = Arm(4, counted(of, 3), *[one] * 9)
    assert arm.share(some).tolist() == [0.5, 0.25] and arm.distinct(some).tolist() == [1, 1]


def test_counts_of_copies_by_image():
    of = torch.tensor([[0, 0, 2, -1], [1, -1, -1, -1]])
    assert counted(of, 3).tolist() == [[2, 0, 1], [0, 1, 0]]


def test_the_judge_knows_copies_from_held_out_images():
    settings = changed(study.SCALES["fast"], {"pairs": 4, "n_pool": 80})
    dealt = world.load(settings, begin("test"))
    judge = measures.Judge(dealt, world.descriptor(dealt), 0.01)
    members = torch.stack([dealt.pool[inside][:30] for inside in dealt.inside])
    found = judge.copies(members + 0.01 * torch.randn(members.shape, generator=generator()))
    assert torch.equal(found, torch.stack([inside.nonzero()[:30, 0] for inside in dealt.inside]))
    strangers = dealt.test[None].expand(len(dealt.inside), *dealt.test.shape)
    assert ((judge.copies(strangers) >= 0).float().mean(1) <= 0.01).all()


def test_a_small_run_measures_everything(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    settings = changed(study.SCALES["book"], TINY)
    results = study.run(settings, begin("test", processes=1))
    assert [claim.id for claim in study.verdicts(results)] == ["C1", "C2"]
    tables = study.tables(results)
    assert len(tables) == 6 and all(len({len(row) for row in rows}) == 1 for rows in tables.values())
    for kind in ("images", "label"):
        arms = results.loop[kind].arms
        assert list(arms) == list(rounds.NAMES)
        assert all(
            arm.copies.shape == (8, 80) and arm.samples == 50 and arm.hits.shape == (8, 80) for arm in arms.values()
        )
        assert (arms["original"].revealed == 0.5).all()  # nothing has changed yet
    part = study.run(settings, begin("test", processes=1), ["frontier"])
    assert part.loop is None and torch.equal(part.frontier.share[1e-2], results.frontier.share[1e-2])
    assert experiment.recipe_of("obtuse", settings).alpha == settings.alpha_obtuse
