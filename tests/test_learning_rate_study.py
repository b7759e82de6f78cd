"""The learning-rate study: every rule on results made by hand and on results where nothing is there, and a tiny run."""

from dataclasses import fields, replace

import pytest
import torch

from memlib.cache import store
from memlib.chapters import plots
from memlib.chapters.parameters import as_dict
from memlib.claim import VERDICTS
from memlib.errors import Refused
from memlib.metrics import mean_interval
from memlib.papers import groups_of
from memlib.papers.learning_rate import excess_risk, quadrature, study, zero_score_risk
from memlib.papers.learning_rate.study import experiment, rules
from memlib.papers.learning_rate.study.line import Network, at_level, joined, noise_levels, pairs, row, sweep
from memlib.papers.learning_rate.study.memory import equal_time, looks
from memlib.papers.learning_rate.study.results import (
    Bracket,
    Digits,
    Dimensions,
    Edge,
    Factor,
    Gaps,
    Memory,
    Pictures,
    Results,
    Smoothness,
    Theorem,
    Walk,
)
from memlib.papers.learning_rate.study.words import headline
from memlib.run import begin
from memlib.settings import changed

RATES = [1e-5, 3e-5, 1e-4, 1e-3, 1e-2, 1e-1]
RUNS = 8  # as at `fast`
RHO = experiment.edge.RHO


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def uniform(generator, *shape):
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


# Results made by hand.


def memory(fraction, excess, full=None, timed=None):
    """Memory with the fields that L1 reads: memorized fraction and excess risk by rate, each (E, R)."""
    nothing = torch.zeros(0)
    return Memory(
        rates=RATES,
        levels=[4.0, 0.25],
        excess=excess,
        quarter=excess,
        full_batch=excess if full is None else full,
        timed_rates=RATES,
        timed=excess if timed is None else timed,
        fraction=fraction,
        exact=torch.full((fraction.shape[1],), 0.6).double(),
        truth=excess,
        inside={},
        diverged={"mini-batch": torch.zeros(len(RATES), fraction.shape[1], 2, dtype=torch.bool)},
        threshold=nothing,
        pictures=Pictures(*[nothing] * 5),
    )


def theorem(relative):
    """Theorem with excess risk (3, R, levels), a little lower above the threshold from run to run."""
    relative = relative.clone()
    relative[2] -= 1e-4 * torch.arange(relative.shape[1])[:, None]
    factors = {name: Factor([1.0, 2.0], torch.ones(2, 2, relative.shape[1])) for name in ("n", "Delta", "A")}
    return Theorem(100.0, 4, [1e-5, 1e-3, 40.0], experiment.SIGMAS, relative, factors)


def edge(left, peak=1.0):
    """Edge with who leaves, (RHO, R) bools, and a largest median sharpness in full-batch training."""
    sharp = torch.full((3, 1, left.shape[1]), float(peak))
    arms = {"full batch": sharp, "mini-batch": sharp / 2}
    rise = torch.where(left, 2.0, 1.0)
    return Edge(RHO, {"full batch": rise, "mini-batch": rise}, [0.1], [1, 2, 3], arms, arms)


def dimensions(memorized, truth):
    """Dimensions from one arm's memorized fraction and true score learnt, (dims, R); the other arm learns nothing."""
    both = [torch.stack([part, torch.zeros_like(part)], 1) for part in (memorized, truth)]
    return Dimensions([1, 2, 8, 32][: len(memorized)], both[0], both[1], both[1])


def gaps(spacing, opened):
    """Gaps from the excess risk at the middle rate, (values, R) each; above the threshold it is 1."""
    parts = [torch.stack([part, torch.ones_like(part)]) for part in (spacing, opened)]
    return Gaps(Factor(experiment.SPACINGS, parts[0]), Factor(experiment.OPENINGS, parts[1]))


def smoothness(rough, star=(2.0, 69.0, 1142.0, 17521.0)):
    """Smoothness from the roughness at the lowest level, (E, R)."""
    return Smoothness(RATES, [0.25], rough[..., None], [1.0, 0.4, 0.2, 0.1], list(star))


def digits(sizes):
    """Digits from EMM by rate, (rates, models)."""
    rates = study.SCALES["fast"].image_rates
    brackets = [Bracket(rate, 64, torch.stack([one, one + 1], 1)) for rate, one in zip(rates, sizes, strict=True)]
    walks = [Walk(rate, "constant", torch.ones(sizes.shape[1], 4, 3)) for rate in rates]
    return Digits(rates, 64, 2, brackets, walks, (0, 250))


def falling(runs=RUNS):
    """Something that falls with the rate, (E, R), about the size of the memorized fraction; not equally in all runs."""
    apart = 0.01 * torch.arange(runs).double()
    return torch.linspace(0.5, 0.05, len(RATES)).double()[:, None] * (1 + apart) + apart


RISING = falling().flip(0)
LEVEL = falling()[:1].expand(len(RATES), -1)
BELOW = torch.tensor(RHO)[:, None].expand(-1, RUNS) > 1  # who leaves where the edge decides


@pytest.mark.parametrize(
    ("rule", "results", "verdict"),
    [
        (rules.l1, memory(falling(), RISING), "reproduced"),
        (rules.l1, memory(falling(), RISING, full=LEVEL), "trend only"),
        (rules.l1, memory(falling(), RISING, timed=falling()), "trend only"),
        (rules.l1, memory(LEVEL, RISING), "not reproduced"),
        (rules.l1, memory(RISING, RISING), "not reproduced"),
        (rules.l2, theorem(torch.tensor([0.1, 0.2, 0.9])[:, None, None].expand(3, RUNS, 5)), "trend only"),
        (rules.l2, theorem(torch.tensor([0.1, 0.2, 1.01])[:, None, None].expand(3, RUNS, 5)), "not reproduced"),
        (rules.l2, theorem(torch.tensor([0.1, 0.2, 1.0])[:, None, None].expand(3, RUNS, 5)), "trend only"),
        (rules.l2, theorem(torch.full((3, RUNS, 5), 0.5)), "not reproduced"),
        (rules.l3, edge(BELOW), "reproduced"),
        (rules.l3, edge(BELOW, peak=0.8), "trend only"),
        (rules.l3, edge(BELOW, peak=1.6), "trend only"),
        (rules.l3, edge(~BELOW), "not reproduced"),
        (rules.l3, edge(torch.ones_like(BELOW)), "not reproduced"),
        (rules.l4, dimensions(falling()[::2], falling()[::2].flip(0) + 0.3), "reproduced"),
        (rules.l4, dimensions(falling()[::2], falling()[::2]), "trend only"),
        (rules.l4, dimensions(RISING[::2], RISING[::2]), "not reproduced"),
        (rules.l4, dimensions(LEVEL[:3], RISING[::2] + 0.3), "not reproduced"),
        (rules.l5, gaps(RISING[:5], RISING[:5]), "reproduced"),
        (rules.l5, gaps(RISING[:5], falling()[:5]), "trend only"),
        (rules.l5, gaps(falling()[:5], RISING[:5]), "not reproduced"),
        (rules.l6, smoothness(falling()), "reproduced"),
        (rules.l6, smoothness(falling(), star=(1.0, 1.0, 1.0, 7.9)), "trend only"),  # a power of -2.98
        (rules.l6, smoothness(RISING), "not reproduced"),
        (rules.l6, smoothness(torch.zeros(len(RATES), RUNS).double()), "not reproduced"),  # all flat
        (rules.l7, digits(torch.tensor([[4.0, 4], [8, 8], [6, 6], [0, 0]])), "reproduced"),
        (rules.l7, digits(torch.tensor([[4.0, 4], [8, 2], [4, 4], [2, 2]])), "trend only"),
        (rules.l7, digits(torch.tensor([[4.0, 4], [4, 4], [4, 4], [8, 8]])), "not reproduced"),
        (rules.l7, digits(torch.tensor([[4.0], [8], [6], [0]])), "needs data or scale"),
    ],
)
def test_each_rule_reaches_each_of_its_verdicts(rule, results, verdict):
    claim = rule(results)
    assert claim.verdict == verdict and claim.id == rule.__name__.upper() and claim.n >= 1


def test_a_rule_says_its_own_verdicts_in_its_docstring():
    """The protocol page quotes the docstring: every verdict that the code can give stands in it."""
    source = {rule: rule.__doc__.lower() for rule in (rules.l1, rules.l2, rules.l3, rules.l4, rules.l5, rules.l6)}
    assert all("not reproduced" in text and "trend" in text for text in source.values())
    assert all(word in " ".join(rules.l7.__doc__.lower().split()) for word in VERDICTS)


def test_what_the_rules_rest_on():
    x = torch.tensor([1.0, 2.0, 4.0])
    powers, factors = torch.tensor([1.9, 2.0, 2.1]).double(), torch.tensor([1.0, 5.0, 7.0])
    mean, (low, high) = rules.power(factors * x[:, None] ** powers, x.tolist())
    half = 4.302653 * 0.1 / 3**0.5  # Student's t with two degrees of freedom
    assert (mean, low, high) == pytest.approx((2, 2 - half, 2 + half))
    assert rules.better(torch.tensor([[[1, 2.0], [5, 6]]])).tolist() == [[5, 6]]
    assert rules.star_power(smoothness(LEVEL, (1.0, 1.0, 1.0, 16.0))) == pytest.approx(-4)
    below, above = rules.left_of_edge(edge(BELOW))
    assert (below.k, below.n, above.k, above.n) == (0, 4 * RUNS, 3 * RUNS, 3 * RUNS)
    found = replace(digits(torch.ones(4, 1)), walks=[])
    looks = torch.tensor([[0.0, 1, 9], [0.04, 1, 5], [0.3, 1, 2], [0.9, 1, 1]])[None]
    walks = [Walk(rate, "constant", looks * (1 if rate < 0.03 else 2)) for rate in found.rates]
    costs = rules.costs(replace(found, walks=walks))
    assert (float(costs["largest rate"]), float(costs["best early look"])) == (2.0, 5.0)


# Where nothing is there, "reproduced" must come in at most one run of twenty. Each null draws results of the real size:
# the same runs at every rate, noise between runs that their arms share, noise of each network on top.

TRIALS = 400
SLACK = 0.05 + 2 * (0.05 * 0.95 / TRIALS) ** 0.5  # of twenty in four hundred, two standard deviations of chance


def called(rule, draw, trials=TRIALS, word="reproduced"):
    """The fraction of null runs in which a rule says this word."""
    generator = torch.Generator().manual_seed(0)
    return sum(rule(draw(generator)).verdict == word for _ in range(trials)) / trials


def risk_without_rate(generator, arms, runs=RUNS):
    """Excess risk about 0.5 that depends on the run and on chance, and not on the arm: (arms, R)."""
    return 0.5 * (0.15 * normal(generator, 1, runs) + 0.1 * normal(generator, arms, runs)).exp()


def fraction_without_rate(generator, arms, runs=RUNS):
    """Memorized fractions of 400 samples about 0.3, varying between runs as measured, alike in all arms: (arms, R)."""
    true = (0.3 + 0.15 * normal(generator, 1, runs)).clamp(0.01, 0.99).expand(arms, -1)
    return torch.binomial(torch.full_like(true, 400.0), true, generator=generator) / 400


def null_l1(generator):
    risks = [risk_without_rate(generator, len(RATES)) for _ in range(3)]
    return memory(fraction_without_rate(generator, len(RATES)), *risks)


def null_l2(generator):
    return theorem(torch.stack([risk_without_rate(generator, 5).T for _ in range(3)]).clamp_max(1))


def null_l4(generator):
    return dimensions(fraction_without_rate(generator, 4), torch.full((4, RUNS), 0.9).double())


def null_l5(generator):
    return gaps(risk_without_rate(generator, 5), risk_without_rate(generator, 5))


def null_l6(generator):
    """Roughness unrelated to the rate, over orders of magnitude, a third of the networks flat."""
    rough = (normal(generator, 1, RUNS) + 2 * normal(generator, len(RATES), RUNS)).exp()
    return smoothness(torch.where(uniform(generator, *rough.shape) < 0.3, 0.0, rough))


@pytest.mark.parametrize(
    ("rule", "draw"),
    [
        (rules.l1, null_l1),
        (rules.l2, null_l2),
        (rules.l4, null_l4),
        (rules.l5, null_l5),
        (rules.l6, null_l6),
    ],
)
def test_null_runs_are_seldom_called_reproduced(rule, draw):
    assert called(rule, draw) <= SLACK


def test_null_runs_seldom_show_the_difference_that_l2_calls_a_trend():
    """L2 never says reproduced; its "trend only" is what a null must not reach."""
    assert called(rules.l2, null_l2, word="trend only") <= SLACK


@pytest.mark.parametrize("chance", [0.2, 0.5])
def test_null_l3_where_each_push_leaves_by_chance(chance):
    assert called(rules.l3, lambda g: edge(uniform(g, len(RHO), RUNS) < chance), 100) <= 0.05


@pytest.mark.xfail(
    strict=True,
    reason="says reproduced in 15 % of null runs (16 networks, limits scattered over two decades): multiples of one "
    "network count as several networks, and any network leaves more often at larger steps",
)
def test_null_l3_where_networks_leave_at_steps_unrelated_to_the_edge():
    """The part about leaving, the sharpness in training granted: a network's own limit lies anywhere in 0.1..10."""

    def draw(generator):
        limit = 10 ** (2 * uniform(generator, 1, 16) - 1)
        return edge(limit < torch.tensor(RHO)[:, None])

    assert called(rules.l3, draw, 200) <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5


@pytest.mark.xfail(
    strict=True,
    reason="says reproduced in 42 % of null runs: the best of four rates is chosen on the two models that judge it",
)
def test_null_l7_where_the_rate_has_no_effect():
    assert called(rules.l7, lambda g: digits(2 * 32 ** uniform(g, 4, 2))) <= SLACK


@pytest.mark.xfail(
    strict=True,
    reason="one threshold for all levels: that of the lowest; at 0.4 and 0.5 the theorem asks for a larger rate",
)
def test_the_rate_of_l2_is_above_the_threshold_at_every_level():
    given = experiment.inputs_of(study.SCALES["fast"], begin("test"), with_images=False)
    stack = at_level(given.points[:1].expand(5, -1, -1), torch.tensor(experiment.SIGMAS))
    assert (experiment.rate_threshold(stack) < given.three[2]).all()


def test_null_a_silent_network_is_not_called_reproduced_by_l5():
    """The risk of the zero function grows with the spacing as s* does: "trend only" says nothing about the rate."""

    def silent(points):
        stack = at_level(points, torch.full((len(points),), 0.25))
        return excess_risk(torch.zeros_like, stack, quadrature(stack)) / zero_score_risk(stack)

    keys = torch.arange(RUNS)
    spread = torch.stack([silent(row(keys, 4, gap)) for gap in experiment.SPACINGS])
    opened = torch.stack([silent(pairs(keys, gap)) for gap in experiment.OPENINGS])
    assert rules.l5(gaps(spread, opened)).verdict == "trend only"


def test_null_the_arithmetic_of_l6_has_no_chance_and_a_wrong_power_is_not_reproduced():
    assert rules.l6(smoothness(falling(), star=(1.0, 1.0, 1.0, 2.0))).verdict == "trend only"


# The experiment, tiny.

TINY = changed(
    study.Settings(),
    {"n_runs": 2, "rates": RATES[::2] + [0.2], "n_levels": 4, "width": 8, "steps": 64, "batch": 4, "edge_steps": 8}
    | {"sharpness_at": [1, 2, 3], "dims": [1, 2], "image_rates": [1e-3, 1e-2], "image_steps": 8}
    | {"image_sizes": [2, 3], "walk_images": 2, "schedules": ["constant", "cosine"]},
)


@pytest.fixture(scope="module")
def tiny():
    return study.run(TINY, begin(study.CHAPTER, processes=1))


def test_a_tiny_run_measures_every_group_and_survives_the_disk(tiny, tmp_path):
    store.save(tmp_path / "tiny.safetensors", tiny)
    read = store.load(tmp_path / "tiny.safetensors")
    claims = study.verdicts(read)
    assert [claim.id for claim in claims] == [f"L{i}" for i in range(1, 8)]
    assert [claim.record("fast") for claim in claims] == [claim.record("fast") for claim in study.verdicts(tiny)]
    assert all(getattr(tiny, field.name) is not None for field in fields(Results))
    assert "2 runs of 4 points" in tiny.description and "250 images to train on" in tiny.description
    tables = study.tables(read)
    assert len(tables) == 9
    for rows in tables.values():
        assert {len(one) for one in rows} == {len(rows[0])} and all(
            isinstance(cell, str) for one in rows for cell in one
        )
    words = study.sentences(read)
    assert len(words) == 12 and max(len(line) for lines in words.values() for line in lines) <= 88
    told = [line for lines in words.values() for line in lines]
    assert all(f"{claim.id}: {claim.verdict}" in told for claim in claims if claim.id != "L3")
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


def test_the_headline_quotes_the_kept_records(tiny):
    kept = {claim.id: claim.record("book") for claim in study.verdicts(tiny)}
    lines = headline(kept)
    assert max(map(len, lines)) <= 88
    assert all(f"({name}: {kept[name]['verdict']})" in " ".join(lines) for name in ("L1", "L3", "L7"))


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
    points = row(keys, 4)
    parts = [sweep(points, keys, part, levels, network, 70, 4, (10, 70)) for part in (RATES, RATES[:3], RATES[3:])]
    whole, both = parts[0], joined(parts[1:])
    for name in ("excess", "alive", "w1", "b", "w2"):
        assert torch.equal(getattr(whole, name), getattr(both, name))
    assert torch.equal(whole.problem.sigma, both.problem.sigma) and joined([whole]) is whole


def test_points_and_looks():
    assert row(torch.tensor([3, 5]), 4)[1].equal(row(torch.tensor([5]), 4)[0])
    assert row(torch.tensor([3]), 4, 2.0).equal(2 * row(torch.tensor([3]), 4))
    opened = pairs(torch.tensor([3]), 0.5)[0, :, 0]
    assert abs(opened[1] - opened[0] - 0.5) < 0.05 and abs(opened.mean()) < 0.05
    assert equal_time(6000, RATES) == [6000, 2000, 600, 60, 6, 1] and looks(6000, RATES)[-2:] == (2000, 6000)
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
        {"image_sizes": [2, 4, 8]},
        {"image_sizes": [8, 2]},
        {"sharpness_at": [10, 20]},
        {"schedules": ["cosine"]},
        {"schedules": ["constant", "constant"]},
        {"image_batches": []},
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
