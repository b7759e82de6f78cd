"""The learning-rate study: every rule on results made by hand and on results where nothing is there, and a tiny run."""

from dataclasses import fields

import pytest
import torch

from memlib.cache import store
from memlib.chapters import plots
from memlib.chapters.parameters import as_dict
from memlib.errors import Refused
from memlib.metrics import mean_interval
from memlib.papers import groups_of
from memlib.papers.learning_rate import (
    descend,
    excess_risk,
    minibatches,
    quadrature,
    ramp,
    rate_threshold,
    study,
    two_layer,
    zero_score_risk,
)
from memlib.papers.learning_rate.study import digits_rules, experiment, measures, rules
from memlib.papers.learning_rate.study.line import Network, at_level, joined, noise_levels, pairs, row, sweep
from memlib.papers.learning_rate.study.results import (
    Digits,
    Dimensions,
    Edge,
    Factor,
    Gaps,
    Leaving,
    Looks,
    Memory,
    Pictures,
    Results,
    Smoothness,
    Theorem,
)
from memlib.papers.learning_rate.study.summary import closing, headline
from memlib.run import begin
from memlib.settings import changed

RATES = [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 1e-2]
RUNS = 8  # as at `fast`
EDGE, EXPERIMENT_DIGITS = experiment.edge, experiment.digits
RHO = EDGE.RHO
SIZES = [4, 8, 16, 32]


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def uniform(generator, *shape):
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


# Results made by hand.


def memory(at_rate, annealed, fraction, full=None, control=0.05):
    """Memory with what L1 reads: excess risk at the rate and annealed, (E, R), memorized fraction (2, E, R)."""
    nothing = torch.zeros(0)
    excess = torch.stack([torch.full_like(at_rate, 9.0), at_rate, annealed])
    excess[2, 0] = control
    whole = excess if full is None else torch.stack([excess[0], full, annealed])
    arms = {"mini-batch": excess, "full batch": whole, "abrupt": excess}
    return Memory(
        rates=RATES,
        decisive=1e-4,
        levels=[4.0, 0.25],
        excess=arms,
        inside={arm: torch.ones_like(excess) for arm in arms},
        sharp={},
        fraction=fraction,
        exact=torch.full((fraction.shape[2],), 0.6).double(),
        truth=at_rate,
        silent=0.5,
        diverged={arm: torch.zeros(len(RATES), fraction.shape[2], 2, dtype=torch.bool) for arm in arms},
        threshold=nothing,
        pictures=Pictures(*[nothing] * 5),
    )


def theorem(relative):
    """Theorem with excess risk (5, R, levels), a little lower above the threshold from run to run."""
    relative = relative.clone()
    relative[-1] -= 1e-4 * torch.arange(relative.shape[1])[:, None]
    factors = {name: Factor([1.0, 2.0], torch.ones(2, 2, relative.shape[1])) for name in ("n", "Delta", "A")}
    ones = torch.ones_like(relative)
    return Theorem(100.0, 4, experiment.MULTIPLES, 20 * ones[0], experiment.SIGMAS, relative, ones[0], ones, factors)


def edge(left, peak=1.0, adam=1.0, missing=0.1):
    """Edge with who leaves, (RHO, R) bools, and where sharpness settles: a number or (R,)."""
    runs = left.shape[1]
    rise = torch.where(left, 2.0, 1.0)
    ones = torch.ones(runs).double()
    leaving = Leaving(
        RHO, {"full batch": rise, "mini-batch": rise}, 1e-4 * ones, missing * ones, torch.ones(2, *left.shape)
    )
    wobble = 1 + 0.01 * torch.arange(runs).double() / runs
    sharp = {
        arm: torch.ones(4, 4, 1).double() * torch.as_tensor(value) * wobble
        for arm, value in {"full batch": peak, "mini-batch": 0.5, "Adam, full batch": adam}.items()
    }
    return Edge(leaving, EDGE.RATES, EDGE.SETTLED, [1, 2, 3, 4], sharp, sharp, {})


def dimensions(memorized, star=0.9, truth=0.9):
    """Dimensions from the memorized fraction, (dims, R), and what is learnt."""
    ones = torch.ones_like(memorized)
    return Dimensions([1, 2, 8, 32][: len(memorized)], memorized, ones, star * ones, truth * ones, ones)


def gaps(spacing, opened):
    """Gaps from the missing fraction of s* at the rate, (values, R) each; the control misses a tenth."""
    missing = {"spacing": spacing, "pairs": opened}
    control = {name: torch.full_like(part, 0.1) for name, part in missing.items()}
    return Gaps(3e-4, 1e-5, experiment.SPACINGS, experiment.OPENINGS, missing, control)


def smoothness(rough, star=(2.0, 69.0, 1142.0, 17521.0), units=1.0):
    """Smoothness from the roughness at the rate at the lowest level, (E, R); initially it is 1."""
    every = torch.stack([torch.ones_like(rough), rough, rough])[..., None]
    inside = torch.as_tensor(units).double().reshape(-1, 1).expand_as(rough)
    return Smoothness(RATES, [0.25], every, inside, [1.0, 0.4, 0.2, 0.1], list(star))


def digits(copied, looks=None, choosing=3):
    """Digits from the copied fraction, (sizes, rates, models), and looks along training, (rates, models, looks, 4)."""
    count, models = copied.shape[1:]
    rates = [0.01 * 2**i for i in range(count)]
    looks = torch.ones(count, models, 5, 4).double() if looks is None else looks
    constant = Looks("Adam", rates, 16, looks, torch.ones(count, models))
    rest = constant.values[:, choosing:]
    annealed, sgd = (Looks(name, rates, 16, rest, torch.ones(count, models - choosing)) for name in ("a", "SGD"))
    return Digits(rates, SIZES[: len(copied)], choosing, copied, [1, 2, 3, 4, 5], constant, annealed, sgd, (0, 250))


def shares(sizes):
    """Copied fractions (sizes, rates, models) that give these EMM, (rates, models), each one of SIZES or half of 4."""
    return torch.stack([torch.where(sizes >= n, 1.0, 0.0) for n in SIZES]).double()


def walking(losses, copies, frechet):
    """Looks (rates, models, looks, 4) from training loss, copied fraction and Frechet distance, (rates, looks) each."""
    parts = [torch.tensor(part).double()[:, None].expand(-1, 8, -1) for part in (copies, losses, losses, frechet)]
    wobble = 1 + 0.01 * torch.arange(8).double()[:, None]
    return torch.stack([parts[0] * wobble, parts[1], parts[2], parts[3] * wobble], 3)


def falling(runs=RUNS):
    """Something that falls with the rate, (E, R), about the size of the memorized fraction; not equally in all runs."""
    apart = 0.01 * torch.arange(runs).double()
    return torch.linspace(0.5, 0.05, len(RATES)).double()[:, None] * (1 + apart) + apart


def climbing(last):
    """Excess risk that grows with the multiple of the threshold up to a number, (5, R, levels)."""
    return torch.tensor([0.1, 0.2, 0.3, 0.4, last])[:, None, None].expand(5, RUNS, 5)


RISING = falling().flip(0)
LEVEL = falling()[:1].expand(len(RATES), -1)
LOW = falling() * 0.2
BELOW = torch.tensor(RHO)[:, None].expand(-1, RUNS) > 1  # who leaves where the edge decides
RETURNS, STAYS = torch.stack([LOW, falling()]), torch.stack([LEVEL, LEVEL])
FELL = shares(torch.tensor([[8.0] * 8, [16] * 8, [8] * 8, [4.0, 8, 4, 4, 8, 4, 4, 8]]))  # EMM by rate and model
LOSS, COPIES = [[4, 3, 2, 1, 1]] * 3, [[0, 0.1, 0.5, 0.9, 0.9]] * 3
CALM = walking([*LOSS, [4, 4, 3, 3, 2]], [*COPIES, [0, 0, 0, 0, 0.1]], [[1] * 5] * 4)
CALM[3, :, :, 3] *= 0.9 + 0.01 * torch.arange(8)[:, None]
SAME = walking([*LOSS, [4, 4, 3, 3, 2]], [*COPIES, [0, 0, 0, 0, 0.5]], [[1] * 5] * 4)
POOR = walking([*LOSS, LOSS[0]], [*COPIES, [0, 0, 0, 0, 0.1]], [[1] * 5] * 3 + [[2] * 5])
POOR[3, :, :, 3] *= 1 + 0.01 * torch.arange(8)[:, None]
SO_SO = walking([*LOSS, LOSS[0]], [*COPIES, [0, 0, 0, 0, 0.1]], [[1] * 5] * 4)
SO_SO[3, :, :, 3] *= torch.tensor([1, 1, 1, 0.7, 1.3, 0.8, 1.2, 1.0])[:, None]


@pytest.mark.parametrize(
    ("rule", "results", "verdict"),
    [
        (rules.l1, memory(RISING, LOW, RETURNS), "reproduced"),
        (rules.l1, memory(RISING, LOW, STAYS), "trend only"),
        (rules.l1, memory(RISING, LOW, RETURNS, full=LOW), "not reproduced"),
        (rules.l1, memory(RISING, RISING, RETURNS), "not reproduced"),
        (rules.l1, memory(RISING, LOW, RETURNS, control=0.4), "needs data or scale"),
        (rules.l2, theorem(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.9])[:, None, None].expand(5, RUNS, 5)), "trend only"),
        (rules.l2, theorem(torch.tensor([0.1, 0.2, 0.3, 0.4, 1.0])[:, None, None].expand(5, RUNS, 5)), "trend only"),
        (
            rules.l2,
            theorem(torch.tensor([0.1, 0.2, 0.3, 0.4, 1.01])[:, None, None].expand(5, RUNS, 5)),
            "not reproduced",
        ),
        (rules.l2, theorem(torch.full((5, RUNS, 5), 0.5)), "not reproduced"),
        (rules.l3, edge(BELOW), "reproduced"),
        (rules.l3, edge(BELOW, peak=0.5), "trend only"),
        (rules.l3, edge(BELOW, peak=1.6), "trend only"),
        (rules.l3, edge(~BELOW), "not reproduced"),
        (rules.l3, edge(torch.ones_like(BELOW)), "not reproduced"),
        (rules.l3, edge(BELOW, missing=0.6), "needs data or scale"),
        (rules.l3b, edge(BELOW), "reproduced"),
        (rules.l3b, edge(BELOW, adam=2 ** torch.linspace(-3, 3, RUNS)), "trend only"),
        (rules.l3b, edge(BELOW, adam=0.3), "not reproduced"),
        (rules.l4, dimensions(falling()[::2]), "reproduced"),
        (rules.l4, dimensions(falling()[::2], truth=0.4), "trend only"),
        (rules.l4, dimensions(RISING[::2]), "not reproduced"),
        (rules.l4, dimensions(LEVEL[:3]), "not reproduced"),
        (rules.l4, dimensions(falling()[::2], 0.4, 0.4), "needs data or scale"),
        (rules.l5, gaps(RISING[:5], RISING[:5]), "reproduced"),
        (rules.l5, gaps(RISING[:5], falling()[:5]), "trend only"),
        (rules.l5, gaps(falling()[:5], RISING[:5]), "trend only"),
        (rules.l5, gaps(falling()[:5], falling()[:5]), "not reproduced"),
        (rules.l6, smoothness(falling()), "reproduced"),
        (rules.l6, smoothness(falling(), star=(1.0, 1.0, 1.0, 7.9)), "trend only"),  # a power of -2.98
        (rules.l6, smoothness(torch.cat([RISING[:3], LOW[3:]]), units=[1, 1, 1, 0, 0, 0]), "trend only"),
        (rules.l6, smoothness(RISING), "not reproduced"),
        (rules.l6, smoothness(torch.zeros(len(RATES), RUNS).double()), "not reproduced"),  # all flat
        (rules.l6, smoothness(falling(), units=[1, 1, 0, 0, 0, 0]), "needs data or scale"),
        (digits_rules.l7, digits(FELL, CALM), "reproduced"),
        (digits_rules.l7, digits(FELL, SAME), "trend only"),
        (digits_rules.l7, digits(FELL.flip(1), CALM), "not reproduced"),
        (digits_rules.l7, digits(FELL, CALM, choosing=6), "needs data or scale"),
        (digits_rules.l7, digits(shares(torch.ones(4, 8))), "needs data or scale"),
        (digits_rules.l7b, digits(FELL, CALM), "reproduced"),
        (digits_rules.l7b, digits(FELL, SO_SO), "trend only"),
        (digits_rules.l7b, digits(FELL, POOR), "not reproduced"),
        (digits_rules.l7b, digits(FELL, CALM, choosing=6), "needs data or scale"),
    ],
)
def test_each_rule_reaches_each_of_its_verdicts(rule, results, verdict):
    claim = rule(results)
    assert claim.verdict == verdict and claim.id == rule.__name__.capitalize() and claim.n >= 1


def test_a_rule_says_its_own_verdicts_in_its_docstring():
    """The protocol page quotes the docstring: every verdict that the code can give stands in it."""
    every = (rules.l1, rules.l2, rules.l3, rules.l3b, rules.l4, rules.l5, rules.l6, digits_rules.l7, digits_rules.l7b)
    source = {rule: " ".join(rule.__doc__.lower().split()) for rule in every}
    assert all("not reproduced" in text and "trend only" in text for text in source.values())
    gated = {rules.l1, rules.l3, rules.l4, rules.l6, digits_rules.l7, digits_rules.l7b}
    assert all(("needs data or scale" in source[rule]) == (rule in gated) for rule in every)


def test_what_the_rules_rest_on():
    x = torch.tensor([1.0, 2.0, 4.0])
    powers, factors = torch.tensor([1.9, 2.0, 2.1]).double(), torch.tensor([1.0, 5.0, 7.0])
    mean, (low, high) = measures.power(factors * x[:, None] ** powers, x.tolist())
    half = 4.302653 * 0.1 / 3**0.5  # Student's t with two degrees of freedom
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half))
    assert measures.star_power(smoothness(LEVEL, (1.0, 1.0, 1.0, 16.0))) == pytest.approx(-4)
    some = BELOW.clone()
    some[0, 0], some[-1, 1] = True, False  # one run leaves below the edge, one stays above
    count = measures.agreeing(edge(some))
    assert (count.k, count.n) == (RUNS - 2, RUNS)
    holes = torch.tensor([[1.0, torch.nan, 3], [2, torch.nan, 5], [3, 1, 7], [4, 9, 9]]).double()
    assert measures.slopes(holes, [1.0, 10.0, 100.0, 1e3]).tolist() == pytest.approx([1, 0, 2])


def test_emm_is_interpolated_and_a_loss_is_matched_along_training():
    copied = torch.tensor([[1.0, 0.8], [0.95, 1.0], [0.85, 1.0]]).double()[:, None]  # sizes 4, 8, 16 of two models
    assert digits_rules.emm(digits(copied, choosing=1))[0].tolist() == pytest.approx([3.5, 1])
    loss, values = torch.tensor([[4.0, 2, 3, 1]] * 3).double(), torch.tensor([[0.0, 0.2, 0.3, 0.8]] * 3).double()
    at = torch.tensor([8.0, 2**0.5, 0.5]).double()
    above, there, below = digits_rules.interpolated(loss, values, at).tolist()
    assert above != above and there == pytest.approx(0.55) and below != below  # NaN outside the range
    found = digits(FELL, CALM)
    assert digits_rules.peak_rate(found) == 1
    gap = digits_rules.at_equal_loss(found)  # 0.5 at a loss of 2 against 0.1
    assert gap.tolist() == pytest.approx([0.4 * (1 + 0.01 * i) for i in range(3, 8)])
    assert digits_rules.cost(digits(FELL, POOR)).exp().tolist() == pytest.approx([2 + 0.02 * i for i in range(3, 8)])


# Where nothing is there, "reproduced" must come in at most one run of twenty. Each null draws results of the real size:
# the same runs at every rate, noise between runs that their arms share, noise of each network on top.

TRIALS = 400
SLACK = 0.05 + 2 * (0.05 * 0.95 / TRIALS) ** 0.5  # of twenty in four hundred, two standard deviations of chance


def called(rule, draw, trials=TRIALS, word="reproduced"):
    """The fraction of null runs in which a rule says this word."""
    generator = torch.Generator().manual_seed(0)
    return sum(rule(draw(generator)).verdict == word for _ in range(trials)) / trials


def risk_without_rate(generator, arms, runs=RUNS):
    """Excess risk about 0.1 that depends on the run and on chance, and not on the arm: (arms, R)."""
    return 0.1 * (0.15 * normal(generator, 1, runs) + 0.1 * normal(generator, arms, runs)).exp()


def fraction_without_rate(generator, arms, runs=RUNS):
    """Memorized fractions of 400 samples about 0.3, varying between runs as measured, alike in all arms: (arms, R)."""
    true = (0.3 + 0.15 * normal(generator, 1, runs)).clamp(0.01, 0.99).expand(arms, -1)
    return torch.binomial(torch.full_like(true, 400.0), true, generator=generator) / 400


def null_l1(generator):
    risks = [risk_without_rate(generator, len(RATES)) for _ in range(3)]
    fractions = fraction_without_rate(generator, 2 * len(RATES)).view(2, len(RATES), RUNS)
    return memory(risks[0], risks[1], fractions, full=risks[2])


def null_l1_by_memory(generator):
    """The excess risk granted: does the memorized fraction return by chance?"""
    fractions = fraction_without_rate(generator, 2 * len(RATES)).view(2, len(RATES), RUNS)
    return memory(RISING, LOW, fractions)


def null_l2(generator):
    return theorem(torch.stack([risk_without_rate(generator, 5).T for _ in range(5)]).clamp_max(1))


def null_l4(generator):
    return dimensions(fraction_without_rate(generator, 4))


def null_l5(generator):
    return gaps(risk_without_rate(generator, 5), risk_without_rate(generator, 5))


def null_l6(generator):
    """Roughness unrelated to the rate, over orders of magnitude, a third of the networks flat."""
    rough = (normal(generator, 1, RUNS) + 2 * normal(generator, len(RATES), RUNS)).exp()
    return smoothness(torch.where(uniform(generator, *rough.shape) < 0.3, 0.0, rough))


def null_l7(generator):
    """Copied fractions that depend on the model, the size and chance, and not on the rate; losses alike."""
    size = torch.tensor([1.1, 0.95, 0.85, 0.6])[:, None, None]
    drawn = (size + 0.1 * normal(generator, 1, 1, 8) + 0.1 * normal(generator, 4, 8, 8)).clamp(0, 1)
    looks = torch.rand(8, 8, 5, 4, generator=generator, dtype=torch.float64).cumsum(2)
    looks[..., 1] = looks[..., 1].flip(2)  # a loss that falls
    return digits(drawn, looks)


def null_l7b(generator):
    """A large rate that costs a tenth more, with chance on top: the edge of what counts as equal."""
    looks = CALM.clone()
    looks[..., 3] = (0.1 * normal(generator, 4, 8, 1)).exp()
    looks[-1, ..., 3] *= 1.1
    return digits(FELL, looks)


@pytest.mark.parametrize(
    ("rule", "draw"),
    [
        (rules.l1, null_l1),
        (rules.l1, null_l1_by_memory),
        (rules.l2, null_l2),
        (rules.l4, null_l4),
        (rules.l5, null_l5),
        (rules.l6, null_l6),
        (digits_rules.l7, null_l7),
        (digits_rules.l7b, null_l7b),
    ],
)
def test_null_runs_are_seldom_called_reproduced(rule, draw):
    assert called(rule, draw) <= SLACK


def test_null_runs_seldom_show_the_difference_that_l2_calls_a_trend():
    """L2 never says reproduced; its "trend only" is what a null must not reach."""
    assert called(rules.l2, null_l2, word="trend only") <= SLACK


def test_null_runs_of_l7_are_seldom_called_a_trend_either():
    """The rate of the peak is chosen on other models than it is tested on."""
    assert called(digits_rules.l7, null_l7, word="trend only") <= SLACK


@pytest.mark.parametrize("chance", [0.2, 0.5])
def test_null_l3_where_each_push_leaves_by_chance(chance):
    assert called(rules.l3, lambda g: edge(uniform(g, len(RHO), RUNS) < chance), 100) <= 0.05


@pytest.mark.parametrize("runs", [8, 16])
def test_null_l3_where_networks_leave_at_steps_unrelated_to_the_edge(runs):
    """The part about leaving, the sharpness in training granted: a network's own limit lies anywhere in 0.1..10."""

    def draw(generator):
        limit = 10 ** (2 * uniform(generator, 1, runs) - 1)
        return edge(limit < torch.tensor(RHO)[:, None])

    assert called(rules.l3, draw, 200) <= 0.05


@pytest.mark.parametrize(("rule", "arm"), [(rules.l3, "peak"), (rules.l3b, "adam")])
def test_null_sharpness_that_settles_anywhere_is_not_called_the_edge(rule, arm):
    """Each run settles anywhere between a tenth and ten times the edge, or all of them at one such place."""

    def apart(generator):
        return edge(BELOW, **{arm: 10 ** (2 * uniform(generator, RUNS) - 1)})

    assert called(rule, apart) <= SLACK


def test_the_rate_of_l2_is_above_every_networks_own_threshold():
    given = experiment.inputs_of(study.SCALES["fast"], begin("test"), with_images=False)
    levels = torch.tensor(experiment.SIGMAS)
    own = experiment.threshold(given, given.points, levels)
    (_, _, inputs) = experiment._PLANS["theorem"][0](given)["sigma"]
    rates = inputs[2]  # (multiples, R, levels)
    stack = at_level(given.points[:1].expand(5, -1, -1), levels)
    torch.testing.assert_close(own[0], rate_threshold(stack))
    assert (rates[-1] > own).all() and (rates[:-1] < own).all() and (own[:, -1] > 4 * own[:, 0]).all()


def test_null_a_silent_network_shows_no_power_of_the_gap():
    """The risk of the zero function grows with the spacing as s* does; what is missing of s* is all, at every gap."""

    def silent(points):
        stack = at_level(points, torch.full((len(points),), 0.25))
        return excess_risk(torch.zeros_like, stack, quadrature(stack)).double()

    keys = torch.arange(RUNS)
    spread = torch.stack([silent(row(keys, 4, gap)) for gap in experiment.SPACINGS])
    opened = torch.stack([silent(pairs(keys, gap)) for gap in experiment.OPENINGS])
    assert measures.power(spread, experiment.SPACINGS)[1][0] > 0.5
    assert rules.l5(gaps(spread / spread, opened / opened)).verdict == "not reproduced"


def test_null_the_arithmetic_of_l6_has_no_chance_and_a_wrong_power_is_not_reproduced():
    assert rules.l6(smoothness(falling(), star=(1.0, 1.0, 1.0, 2.0))).verdict == "trend only"


# The experiment, tiny.

TINY = changed(
    study.Settings(),
    {"n_runs": 2, "rates": RATES[::2] + [0.2], "n_levels": 4, "width": 8, "steps": 64, "batch": 4, "edge_steps": 8}
    | {"sharpness_at": [1, 2, 3, 4], "dims": [1, 2], "dim_width": 8, "dim_steps": 64, "image_rates": [1e-3, 1e-2]}
    | {"image_steps": 32, "image_batch": 4, "sgd_rates": [0.1], "image_sizes": [2, 3], "watched": 3},
)


@pytest.fixture(scope="module")
def tiny():
    return study.run(TINY, begin(study.CHAPTER, processes=1))


def test_a_tiny_run_measures_every_group_and_survives_the_disk(tiny, tmp_path):
    store.save(tmp_path / "tiny.safetensors", tiny)
    read = store.load(tmp_path / "tiny.safetensors")
    claims = study.verdicts(read)
    assert [claim.id for claim in claims] == ["L1", "L2", "L3", "L3b", "L4", "L5", "L6", "L7", "L7b"]
    assert [claim.record("fast") for claim in claims] == [claim.record("fast") for claim in study.verdicts(tiny)]
    assert all(getattr(tiny, field.name) is not None for field in fields(Results))
    assert "2 runs of 4 points" in tiny.description and "250 images to train on" in tiny.description
    tables = study.tables(read)
    assert len(tables) == 12
    for rows in tables.values():
        assert {len(one) for one in rows} == {len(rows[0])} and all(
            isinstance(cell, str) for one in rows for cell in one
        )
    words = study.sentences(read)
    assert len(words) == 12 and max(len(line) for lines in words.values() for line in lines) <= 88
    told = [line for lines in words.values() for line in lines]
    assert all(f"{claim.id}: {claim.verdict}" in told for claim in claims)
    pictures = read.memory.pictures
    assert pictures.learnt.shape == (4, 4, 301) and pictures.samples.shape == (4, 4, 400)
    assert (tmp_path / "tiny.safetensors").stat().st_size < 1_000_000


@pytest.mark.parametrize("group", [name for name in study.GROUPS if name != "digits"])
def test_a_group_alone_gives_what_it_gives_among_all(tiny, group):
    alone = study.run(TINY, begin(study.CHAPTER, processes=1), (group,))
    mine = {claim.id: claim.record("fast") for claim in study.verdicts(alone)}
    assert tuple(mine) == study.GROUPS[group]
    assert mine.items() <= {claim.id: claim.record("fast") for claim in study.verdicts(tiny)}.items()
    assert [f.name for f in fields(Results) if getattr(alone, f.name) is not None] == ["description", group]
    assert groups_of(study, list(mine)) == ((group,) if mine else tuple(study.GROUPS))


def test_the_headline_and_the_closing_table_quote_the_kept_records(tiny):
    kept = {claim.id: claim.record("book") for claim in study.verdicts(tiny)}
    lines = headline(kept)
    assert max(map(len, lines)) <= 88
    assert all(f"({name}: {kept[name]['verdict']})" in " ".join(lines) for name in ("L1", "L3", "L4", "L7"))
    rows = closing(kept)
    assert set(rows) == set(kept) and all(len(row) == 3 and all(row) for row in rows.values())


def test_a_figure_of_runs_has_its_mean_and_its_name():
    _, ax = plots.plt.subplots()
    plots.runs(ax, [1.0, 2.0], torch.tensor([[1.0, 3.0], [2.0, 4.0]]), "name", at=0)
    assert ax.lines[0].get_ydata().tolist() == [2.0, 3.0] and [text.get_text() for text in ax.texts] == ["name"]
    plots.plt.close()


def test_figures_of_rates_and_of_two_measures_show_their_intervals():
    _, (left, right) = plots.plt.subplots(1, 2)
    plots.rates(left, [1.0, 2.0], [(0.2, 0.1, 0.3), (0.4, 0.2, 0.5)], "name")
    assert left.lines[0].get_ydata().tolist() == [0.2, 0.4] and left.texts[0].get_text() == "name"
    band = left.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 0.1 and band[:, 1].max() == 0.5
    x, y = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.5])
    plots.cross(right, x, y, "both", "C0")
    across, up, dot = (line.get_xydata() for line in right.lines)
    assert dot.tolist() == [[2.0, float(y.mean())]]
    assert across[:, 0].tolist() == list(mean_interval(x)) and up[:, 1].tolist() == list(mean_interval(y))
    plots.plt.close()


def test_two_processes_give_the_bits_of_one(monkeypatch, tmp_path):
    few = changed(TINY, {"dims": [1, 2]})
    found = []
    for processes in (1, 2):
        monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / str(processes)))
        found.append(study.run(few, begin(study.CHAPTER, processes=processes), ("dimensions",)).dimensions)
    assert torch.equal(found[0].memorized, found[1].memorized)
    assert torch.equal(found[0].of_truth, found[1].of_truth)


def test_a_sweep_in_two_halves_is_the_sweep_in_one():
    keys, levels, network = torch.arange(3), noise_levels(0.25, 4), Network(8, 24.0, 100.0)
    points, rates = row(keys, 4), torch.tensor(RATES)[:, None, None]
    parts = [sweep(points, keys, part, levels, network, 70, 4, False, True) for part in (rates, rates[:3], rates[3:])]
    whole, both = parts[0], joined(parts[1:])
    for name in ("excess", "silent", "sharp", "alive", "w1", "b", "w2"):
        assert torch.equal(getattr(whole, name), getattr(both, name))
    assert torch.equal(whole.problem.sigma, both.problem.sigma) and joined([whole]) is whole


@pytest.mark.parametrize("batch", [4, 0])
def test_a_sweep_is_the_descent_that_its_words_describe(batch):
    """Up from 1e-6, at the rate; then one copy stays, another is annealed on the same batches."""
    keys, level, network = torch.arange(2), torch.tensor([0.25]), Network(8, 24.0, 100.0)
    points, rates = row(keys, 4), torch.tensor([1e-4, 1e-2])
    found = sweep(points, keys, rates[:, None, None], level, network, 70, batch)
    stack = at_level(points.repeat(2, 1, 1), level.expand(4))
    start = two_layer(keys.repeat(2), 8, reach=float(points.abs().max()) + 0.5, scale=24 / stack.sigma**2)
    eta = rates.repeat_interleave(2)
    up = ramp(eta, 1e-6, 1e-6, 23, 10**6, 1)
    ways = {1: up, 2: lambda step: up(step) if step <= 46 else (1e-6 / eta) ** ((step - 46) / 24)}
    for moment, schedule in ways.items():
        net = start.members(torch.arange(4))
        batches = minibatches(stack, keys.repeat(2), batch, 70) if batch else [quadrature(stack)] * 70
        list(descend(net, stack, eta, batches, bound=100 / stack.sigma**2, schedule=schedule))
        torch.testing.assert_close(found.b[moment], net.b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.w2[moment], net.w2, rtol=1e-3, atol=1e-3)
    assert torch.equal(found.b[0], start.b)
    silent = excess_risk(torch.zeros_like, stack, quadrature(stack)) / zero_score_risk(stack)
    torch.testing.assert_close(found.silent.flatten(), silent)


def test_targets_on_digits_give_the_images_back():
    """Undo the preconditioning: c_skip x + c_out F is a training image, and only the code tells the level."""
    points = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    batch = next(EXPERIMENT_DIGITS._batches(points, torch.tensor([3, 3]), 64))
    sigma = (2 * batch.y[..., 4]).exp()[..., None]
    x = batch.y[..., :4] * (1 + sigma**2).sqrt()
    found = x / (1 + sigma**2) + sigma / (1 + sigma**2).sqrt() * batch.target
    assert ((found[:, :, None] - points[:, None]).norm(dim=3).amin(2) < 1e-5).all()
    assert batch.weight.sum() == pytest.approx(1)


def test_what_is_learnt_is_one_for_the_target_and_zero_for_the_other():
    y = torch.randn(3, 50, 2, generator=torch.Generator().manual_seed(0))
    learnt = experiment.dimensions._learnt
    assert learnt(torch.sin, torch.sin, torch.cos, y).tolist() == [1, 1, 1]
    assert learnt(torch.cos, torch.sin, torch.cos, y).tolist() == pytest.approx([0, 0, 0])


def test_points_and_looks():
    assert row(torch.tensor([3, 5]), 4)[1].equal(row(torch.tensor([5]), 4)[0])
    assert row(torch.tensor([3]), 4, 2.0).equal(2 * row(torch.tensor([3]), 4))
    opened = pairs(torch.tensor([3]), 0.5)[0, :, 0]
    assert abs(opened[1] - opened[0] - 0.5) < 0.05 and abs(opened.mean()) < 0.05
    explore, report = (
        experiment.inputs_of(changed(TINY, {"half": half}), begin("test"), with_images=False).keys
        for half in ("explore", "report")
    )
    assert not set(explore.tolist()) & set(report.tolist())


@pytest.mark.parametrize(
    "values",
    [
        {"rates": [1e-3, 1e-2, 1e-1]},
        {"rates": [1e-3, 1e-3, 1e-2, 1e-1]},
        {"dims": []},
        {"image_rates": [1e-3]},
        {"image_sizes": [8, 3]},
        {"sgd_rates": []},
        {"sharpness_at": [10, 20]},
        {"decisive": 1e-5},
        {"watched": 7},
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_trained(values, monkeypatch):
    monkeypatch.setattr(experiment, "inputs_of", None)
    with pytest.raises(Refused, match="give|needs|name"):
        study.run(changed(TINY, values), begin("test", processes=1))


def test_scales_and_types():
    with pytest.raises(Refused, match="between 4 and 50"):
        changed(TINY, {"n_levels": 2})
    assert list(study.SCALES) == ["fast", "book", "gpu", "paper"] and study.SCALES["fast"] == study.Settings()
    for settings in study.SCALES.values():
        assert changed(study.Settings(), as_dict(settings)) == settings  # within the ranges
