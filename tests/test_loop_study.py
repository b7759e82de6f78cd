"""The closed loop: who forgets what, what is asked, every rule on hand-made results and where nothing is there."""

import dataclasses

import pytest
import torch

from memlib import losses, membership, nets
from memlib.analytic import Empirical
from memlib.errors import Refused
from memlib.papers.loop import forgetting, study, unlearning
from memlib.papers.loop.study import experiment, guiding, measures, practices, rounds, rules, world
from memlib.papers.loop.study.results import ATTACKS, Arm, Curve, Frontier, Loop, Practices, counted
from memlib.papers.sgu.study.arms import ARMS
from memlib.papers.synthesis.generators import Network, build
from memlib.run import begin
from memlib.settings import changed

PAIRS, IMAGES, SAMPLES = 8, 40, 400
TINY = {
    "n_pool": 120, "n_test": 100, "n_reference": 30, "pairs": 4, "width": 8, "train_steps": 10, "batch": 8, "forget": 3,
    "tune_steps": 2, "n_samples": 50, "sampling_steps": 3, "levels": [0.5], "draws": 1, "known": 1,
    "relearn_steps": 2, "rates": [1e-2], "looks": [5, 10], "kinds": ["images", "label"], "clusters": 3, "n_guided": 50,
    "guide_width": 8, "guide_steps": 2, "others": ["faces:n=900,identities=4,seed=3"],
}  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def copies(draw, share, gone):
    """(T, S): each sample copies the first forgotten image with a chance that differs between pairs."""
    chance = share * (1 + 0.3 * torch.randn(len(gone) // 2, 1, generator=draw)).clamp(0.1).repeat_interleave(2, 0)
    hit = torch.rand(len(gone), SAMPLES, generator=draw) < chance
    return torch.where(hit, gone.long().argmax(1)[:, None], -1)


def loop(draw, shares, precision=None, guided=None):
    """C1's results by the share of samples of each arm that copy a forgotten image; those of C1b by attack."""
    inside = membership.halves(IMAGES, PAIRS, draw)
    gone = torch.zeros_like(inside)
    gone[torch.arange(len(inside)), inside.long().argmax(1)] = True
    one = torch.ones(len(inside)).double()
    arms = {}
    for name in rounds.NAMES:
        of = counted(copies(draw, shares.get(name, 0.0), gone), IMAGES)
        good = 0.9 * one + 0.01 * torch.randn(len(one), generator=draw)
        good = good - (precision or {}).get(name, 0.0)
        steered = {
            attack: counted(copies(draw, (guided or {}).get(attack, shares).get(name, 0.0), gone), IMAGES) / SAMPLES
            for attack in ATTACKS
        }
        arms[name] = Arm(SAMPLES, of, of, gone, one, good, one, one, inside, one, one, steered)
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


def trained_ways(draw, copied, usual_copied, lost=0.0):
    """C2b's results: the frontier's, with the matching term in place of the large rate."""
    both = frontier(draw, copied, usual_copied, lost)
    names = {"usual": both.usual, "matching": both.large}
    curves = {name: Curve(both.chosen[r], both.quality[r], both.share[r]) for name, r in names.items()}
    return Practices(both.looks, curves)


STOPPED = {"original": 0.1, "orthogonal": 0.002, "obtuse": 0.03}
LEFT, NOTHING = STOPPED | {"orthogonal": 0.05}, dict.fromkeys(STOPPED, 0.1)


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
        (rules.c1b, {"images": loop(generator(), STOPPED)}, "reproduced"),
        (
            rules.c1b,
            {"images": loop(generator(), STOPPED, guided={"aimed": STOPPED | {"orthogonal": 0.05}})},
            "trend only",
        ),
        (
            rules.c1b,
            {"images": loop(generator(), STOPPED, guided={"own": dict.fromkeys(STOPPED, 0.1)})},
            "not reproduced",
        ),
        (rules.c1b, {"images": loop(generator(), STOPPED, guided={"aimed": {}})}, "needs data or scale"),
        (rules.c2b, trained_ways(generator(), 0.02, 0.2), "reproduced"),
        (rules.c2b, trained_ways(generator(), 0.02, 0.2, lost=0.3), "trend only"),
        (rules.c2b, trained_ways(generator(), 0.3, 0.2), "not reproduced"),
        (rules.c2b, trained_ways(generator(), 0.001, 0.002), "needs data or scale"),
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
    """C1, C1b where both losses leave exactly a tenth; C2, C2b where both copy alike, at equal quality."""
    edge = {"original": 0.3, "orthogonal": 0.03, "obtuse": 0.03}
    runs = 300
    said = [rules.c1({"images": loop(generator(seed), edge)}).verdict == "reproduced" for seed in range(runs)]
    assert sum(said) <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5
    said = [rules.c1b({"images": loop(generator(seed), edge)}).verdict == "reproduced" for seed in range(runs)]
    assert sum(said) <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5
    same = [rules.c2b(trained_ways(generator(seed), 0.2, 0.2)).verdict != "not reproduced" for seed in range(runs)]
    assert sum(same) <= 0.05 * runs + 2 * (0.05 * 0.95 * runs) ** 0.5
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
    arm = Arm(4, counted(of, 3), *[one] * 9, steered={"own": counted(of.flip(0), 3) / 4})
    assert arm.share_steered("own", some).tolist() == [0.25, 0.25] and arm.distinct_steered("own", some).sum() == 2
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
    assert [claim.id for claim in study.verdicts(results)] == ["C1", "C1b", "C2", "C2b"]
    assert len(results.description.splitlines()) == 2
    tables = study.tables(results)
    assert len(tables) == 12 and all(len({len(row) for row in rows}) == 1 for rows in tables.values())
    assert [*results.practices.curves] == ["usual", *settings.practices]
    for kind in ("images", "label", "label, faces"):
        arms = results.loop[kind].arms
        assert list(arms) == list(rounds.NAMES)
        assert all(
            arm.copies.shape == (8, 120) and arm.samples == 50 and arm.hits.shape == (8, 120) for arm in arms.values()
        )
        assert (arms["original"].revealed == 0.5).all()  # nothing has changed yet
    blind = study.run(dataclasses.replace(settings, n_guided=0, others=()), begin("test", processes=1), ["loop"])
    assert [claim.id for claim in study.verdicts(blind)] == ["C1"] and len(study.tables(blind)) == 4
    part = study.run(settings, begin("test", processes=1), ["frontier"])
    assert (
        part.loop is None
        and part.practices is None
        and torch.equal(part.frontier.share[1e-2], results.frontier.share[1e-2])
    )
    assert experiment.recipe_of("obtuse", settings).alpha == settings.alpha_obtuse


def test_two_sources_of_one_kind_are_refused():
    settings = changed(study.SCALES["fast"], {"others": ["digits:limit=900"]})
    with pytest.raises(Refused, match="give each kind of source once"):
        study.check_sources(settings, begin("test"))


def perfect(dealt):
    """A stack of perfect memorizers of the members of each model."""
    each = [Empirical(dealt.pool[inside]) for inside in dealt.inside]

    def stack(x, sigma):
        levels = torch.as_tensor(sigma, dtype=x.dtype).expand(len(x)).chunk(len(each))
        return torch.cat([one(rows, s) for one, rows, s in zip(each, x.chunk(len(each)), levels, strict=True)])

    return stack


def test_guidance_leads_where_it_aims():
    """Perfect memorizers return members; guided ones return more of the label that was forgotten."""
    settings = changed(
        study.SCALES["fast"], {"pairs": 4, "n_samples": 60, "guide_steps": 300, "guidance": 1.0, "sampling_steps": 12}
    )
    dealt = world.load(settings, begin("test"))
    gone, embed = world.forgotten(dealt, "label", 8, 0), world.descriptor(dealt)
    stack, attack, how = perfect(dealt), experiment.attack_of(settings), experiment.guide_of(settings)
    judge = measures.Judge(dealt, embed, 0.01)
    ends = guiding.unguided(stack, dealt, attack, 0)
    blind = judge.copies(ends)
    aimed = judge.copies(guiding.aimed(stack, dealt, gone, attack, how, 0))
    own = judge.copies(guiding.own_guided(stack, dealt, embed, ends, attack, how, 0))
    assert (blind >= 0).all() and (own >= 0).float().mean() > 0.9

    def share(of):
        return gone.gather(1, of.clamp_min(0)).float().mean()

    assert share(aimed) > 4 * share(blind)
    assert (dealt.labels[own] == dealt.labels[blind]).float().mean() > 0.8  # own labels keep the destination


def test_labels_of_a_broken_model_are_no_error():
    assert guiding._clusters(torch.zeros(20, 3), 4, 0).eq(0).all()


def test_the_matching_term_is_that_of_each_network():
    images, kept = torch.randn(6, 1, 2, 2, generator=generator()), torch.ones(2, 6).long()
    stack = build(Network((1, 2, 2), 8, 2, 0, 1.0), 2)
    for weight in stack.weights:
        torch.nn.init.normal_(weight, std=0.3, generator=generator(1))
    plain, matched = (
        forgetting(images, kept, None, ARMS["rest"], unlearning.Recipe(1, 1e-3, 8, matching=gamma))(stack, generator(2))
        for gamma in (0.0, 0.5)
    )
    seen = []

    def spy(eps_hat, eps):
        seen.append((eps_hat, eps))
        return losses.matching(eps_hat, eps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearning, "losses", type("spied", (), {"denoising": losses.denoising, "matching": spy}))
        forgetting(images, kept, None, ARMS["rest"], unlearning.Recipe(1, 1e-3, 8, matching=0.5))(stack, generator(2))
    assert [len(one) for one, _ in seen] == [8, 8]
    by_hand = sum((a - b).flatten(1).mean(0).square().sum() for a, b in seen)
    assert torch.allclose(matched - plain, 0.5 * by_hand, rtol=1e-4)


def test_each_practice_changes_one_thing(monkeypatch):
    settings = changed(study.SCALES["book"], TINY)
    dealt = world.load(settings, begin("test"))
    gone, how = world.forgotten(dealt, "images", 3, 0), unlearning.Recipe(4, 1e-3, 8)
    asked, curve = {}, {name: torch.zeros(1, 8) for name in ("chosen", "quality", "share")}

    class Recorded:
        seed = 0

        def each(self, name, make, calls):
            asked[name] = calls
            return [({}, curve) if name == "trained" else curve for _ in calls]

    names = settings.practices
    found = practices.practices(
        names, dealt, gone, ({}, curve), how, 8, 8, (4,), experiment.attack_of(settings), Recorded()
    )
    assert [*found.curves] == ["usual", *names]
    once, half, last, longer, matched = asked["trained"]
    usual = dealt.inside.long() + 7 * gone.long()
    assert torch.equal(once[3], dealt.inside.long()) and once[2] == how
    few = half[0].inside
    assert (gone <= few).all() and (few <= dealt.inside).all() and torch.equal(half[3] > 0, few)
    assert 0.3 < float(few.sum()) / float(dealt.inside.sum()) < 0.7
    assert torch.equal(few[0] | few[1], few[0] ^ few[1])  # the two models of a pair still share no image
    for call, other in ((last, {"decay": 0.0}), (longer, {"decay": 0.999}), (matched, {"matching": 0.05})):
        assert torch.equal(call[3], usual) and call[2] == dataclasses.replace(how, **other)
    assert [call[6] for call in asked["distilled"]] == [False, True]


def test_a_model_of_own_samples_sees_none_that_copies(monkeypatch):
    settings = changed(study.SCALES["fast"], {"pairs": 4, "n_samples": 50, "sampling_steps": 3})
    dealt = world.load(settings, begin("test"))
    first = dealt.inside.long().argmax(1)
    fresh = dealt.test[:49].expand(len(first), *dealt.test[:49].shape)
    made = torch.cat((dealt.pool[first][:, None], fresh), 1)  # one copy, and images that no model saw
    monkeypatch.setattr(measures, "drawn", lambda *_: made)
    seen = []
    monkeypatch.setattr(rounds, "trained", lambda *inputs: (None, seen.append(inputs)))
    weights = rounds._empty(dealt, 8).state_dict()
    attack, how = experiment.attack_of(settings), unlearning.Recipe(2, 1e-3, 8)
    for clean in (False, True):
        rounds.distilled(dealt, 8, weights, how, (2,), attack, clean, 0)
    everything, kept = (inputs[3] for inputs in seen)
    models, count = made.shape[:2]
    block = torch.block_diag(*torch.ones(models, 1, count).long())
    assert torch.equal(everything, block) and torch.equal(seen[0][7], made.flatten(0, 1))
    assert (kept <= everything).all() and not kept[torch.arange(models), torch.arange(models) * count].any()
    assert kept.sum() >= 0.97 * models * (count - 1)
