"""Chapter 2's experiment: its rules on hand-made and on null results, and the whole of it, small, end to end."""

import dataclasses
import math

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from PIL import Image
from scipy.stats import binom

from memlib import train
from memlib.cache import load, save
from memlib.errors import Refused
from memlib.metrics import Count, Joint
from memlib.papers import groups_of
from memlib.papers.side import study
from memlib.papers.side.study import arms as arms_of
from memlib.papers.side.study import curves, experiment, rules, theory
from memlib.papers.side.study import world as world_of
from memlib.papers.side.study._tables import of_planted
from memlib.papers.side.study.judge import judge_of, measure_of
from memlib.papers.side.study.model import Network, Training, train_model
from memlib.papers.side.study.results import Arms, Held, Labels, Results, Seconds, Theory, Thresholds, Weights
from memlib.papers.side.study.seconds import bought, equal_seconds
from memlib.run import Run
from memlib.settings import changed

TINY = study.Settings(
    data="digits",
    n_train=20,
    latent=12,
    width=16,
    train_steps=10,
    batch=16,
    n_samples=100,
    n_random=120,
    n_synthetic=100,
    clusters=5,
    student_steps=3,
    weight=4.0,
    sweep=[0.0, 4.0, 8.0],
    networks=2,
    class_sizes=[2],
    second="digits:limit=1000",
    decisive=True,
    copy_steps=1,
)
RUN = Run("02_side")
N, MEMBERS = 1000, 300  # of the fast scale
IDS = ["G3", "S1", "S1a", "S1b", "S2", "S3", "S3a", "S3b", "S4", "S5", "S6", "S7"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def hits(rate, g, n=N):
    """Hits (n,): random members at this rate, else -1."""
    members = torch.randint(MEMBERS, (n,), generator=g)
    return members.where(torch.rand(n, generator=g) < rate, -1).int()


NAMES = {
    "random": "Random",
    "own": "CL-TD own",
    "clti": "CL-TI own",
    "cl": "CL-TD",
    "td": "OL-TD",
    "tdown": "OL-TD own",
    "ti": "OL-TI",
    "control": "RL-TD own",
    "training": "RL-TD (training)",
    "oracle": "RL-TD (oracle)",
}


def arms(networks=3, seed=0, n=N, members=MEMBERS, **rates):
    """Results of arms that copy at these rates; a network's own rates differ from them by a tenth or so."""
    g, found = generator(seed), []
    for _ in range(networks):
        luck = 1 + 0.1 * float(torch.randn((), generator=g))
        found.append({full: hits(rates.get(name, 0.04) * luck, g, n) for name, full in NAMES.items()})
    return Arms("faces", members, {}, found, [], [], {}, {}, {}, {})


def weights(levels, seed=0, networks=3, n=N, noise=0.02):
    """A sweep of K networks whose AMS, cosines and distances at each weight lie about these levels."""
    g, count = generator(seed), len(levels)
    level = torch.tensor(levels, dtype=torch.float64)

    def about(*shape):
        return level.view(1, count, *[1] * len(shape)) + noise * torch.randn(
            networks, count, *shape, generator=g, dtype=torch.float64
        )

    tops = about(2, 5)
    tops[..., :2] = math.nan  # of too few samples
    bands = {"OL-TD": torch.zeros(networks, count, 3, 2, dtype=torch.float64)}
    listed = [4.0 * i for i in range(count)]
    others = {"OL-TD": torch.zeros(networks, count)}
    return Weights("OL-TD", listed, n, about(2), tops, -tops, {"OL-TD": listed}, bands, others)


def labels(**shown):
    names = {"td": "OL-TD", "ti": "OL-TI", "cl": "CL-TD", "oracle": "RL-TD (oracle)"}
    found = {full: shown.get(name, False) for name, full in names.items()}
    ten = {name: 10 for name in found}
    return Labels(ten, ten, dict.fromkeys(found, ""), found, "", torch.ones(1), {}, {}, {})


FRACTIONS = {"low": 0.05, "mid": 0.02, "high": 0.01}


def thresholds(networks=3, descriptor="half_whitened", factor=1.0, copied=0.05, others=0.002, seed=0, n=300):
    """Held-out images that pass `factor` times as often as promised, and samples that copy at these rates."""
    g, held = generator(seed), []
    for _ in range(networks):
        uniform = torch.rand(n, generator=g)
        passed = {band: Count(int((uniform < factor * rate).sum()), n) for band, rate in FRACTIONS.items()}
        both = (Count(int((torch.rand(N, generator=g) < rate).sum()), N) for rate in (copied, others))
        held.append(Held(passed, FRACTIONS, *both))
    none, edges = torch.zeros(1), {band: Joint(0.9, 1.0) for band in FRACTIONS}
    return Thresholds(descriptor, n, edges, {}, FRACTIONS, none, none, none, none, {}, none, none, held)


def spreads(mean=0.5, deviation=0.1, networks=3, classes=60, seed=0):
    """Ratios of nuclear norms: normal about `mean`."""
    draw = mean + deviation * torch.randn(networks, classes, generator=generator(seed), dtype=torch.float64)
    return Theory(N, 4.0, [], [], [], [], [], list(draw))


class TestRules:
    """Each verdict on results made by hand."""

    @pytest.mark.parametrize("rule, arm", [(rules.s1, "td"), (rules.s1a, "own"), (rules.s1b, "own")])
    def test_s1_asks_for_copies_and_for_distinct_members(self, rule, arm):
        assert rule(arms(**{arm: 0.12})).verdict == "reproduced"
        assert rule(arms()).verdict == "not reproduced"
        assert rule(arms(**{arm: 0.01})).verdict == "not reproduced"
        few = arms(**{arm: 0.12})
        for one in few.hits:  # as many copies, of twenty members
            name = NAMES[arm]
            one[name] = one[name].where(one[name] < 0, one[name] % 20)
        assert rule(few).verdict == "trend only"
        as_chance = rule(arms(**{arm: 0.12, "control": 0.12})).verdict
        assert as_chance == ("reproduced" if rule is rules.s1 else "trend only")
        claim = rule(arms(**{arm: 0.12}))
        assert claim.n == 3 and claim.interval[0] > 0 and f"interval of {NAMES[arm]} less Random" in claim.text

    @pytest.mark.parametrize("rule", [rules.s1, rules.s1a, rules.s1b, rules.s3, rules.s3a, rules.s3b])
    @pytest.mark.parametrize("networks", [1, 2])
    def test_fewer_than_three_networks_decide_nothing(self, rule, networks):
        assert rule(arms(networks, td=0.3, own=0.3, ti=0.01)).verdict == "needs data or scale"
        assert rule(arms(networks)).n == networks

    def test_one_network_that_disagrees_is_seen_in_the_interval(self):
        found = arms(td=0.12)
        found.hits[1]["OL-TD"] = torch.full((N,), -1).int()
        assert rules.s1(found).verdict == "not reproduced"

    @pytest.mark.parametrize(
        ("levels", "verdict"),
        [
            ([0.1, 0.3, 0.3, 0.1], "reproduced"),
            ([0.1, 0.2, 0.3, 0.3], "trend only"),
            ([0.3, 0.2, 0.1, 0.1], "not reproduced"),
            ([0.2, 0.2, 0.2, 0.2], "not reproduced"),
            ([0.1, 0.3, 0.1], "needs data or scale"),  # three weights are no sweep
        ],
    )
    def test_s2_and_s7(self, levels, verdict):
        found = weights(levels, noise=0.003)
        assert rules.s2(found).verdict == rules.s7(found).verdict == verdict
        assert list(rules.s2(found).figure) == [f"{4 * i}" for i in range(len(levels))] and rules.s2(found).n == 3
        assert list(rules.s7(found).figure) == ["top 1 %", "top 5 %", "top 10 %"]  # those of ten samples or more
        assert rules.s2(weights(levels, networks=2)).verdict == "needs data or scale"

    def test_the_peak_is_found_on_even_samples_and_tested_on_odd_ones(self):
        found = weights([0.2, 0.2, 0.2, 0.2], noise=0.001)
        found.copies[:, 1, 0] = 1.0
        found.copies[:, 2, 1] = 1.0
        assert rules.peak_of(found) == 1 and rules.s2(found).verdict == "not reproduced"

    def test_s7_asks_distances_too(self):
        found = weights([0.1, 0.3, 0.3, 0.1], noise=0.003)
        assert rules.s7(dataclasses.replace(found, near=-found.near)).verdict == "not reproduced"

    @pytest.mark.parametrize(
        ("rates", "whole", "weaker", "tenth"),
        [
            ({"td": 0.25, "ti": 0.02}, "reproduced", "reproduced", "reproduced"),
            ({"td": 0.25, "ti": 0.15}, "trend only", "reproduced", "not reproduced"),
            ({"td": 0.25, "ti": 0.25}, "not reproduced", "not reproduced", "not reproduced"),
            ({"td": 0.0, "ti": 0.0}, "not reproduced", "not reproduced", "not reproduced"),
        ],
    )
    def test_s3_and_its_two_parts(self, rates, whole, weaker, tenth):
        found = arms(**rates)
        assert [rule(found).verdict for rule in (rules.s3, rules.s3a, rules.s3b)] == [whole, weaker, tenth]
        assert "about a tenth" in rules.s3(found).text

    @pytest.mark.parametrize(
        ("members", "rates", "verdict"),
        [
            (300, {"td": 0.25, "training": 0.1}, "needs data or scale"),
            (300, {"td": 0.1, "training": 0.5}, "needs data or scale"),
            (25_000, {"td": 0.25, "training": 0.1}, "reproduced"),
            (25_000, {"td": 0.1, "training": 0.5}, "not reproduced"),
        ],
    )
    def test_s4_is_about_as_many_labels_as_the_paper_had(self, members, rates, verdict):
        claim = rules.s4(arms(members=members, **rates))
        assert claim.verdict == verdict and len(claim.figure) == 4 and f"{members} members" in claim.text

    @pytest.mark.parametrize(
        ("shown", "verdict"),
        [
            ({"oracle": True}, "reproduced"),
            ({}, "not reproduced"),  # the search does not find what is there
            ({"oracle": True, "cl": True}, "not reproduced"),
        ],
    )
    def test_s5(self, shown, verdict):
        claim = rules.s5(labels(**shown))
        assert claim.verdict == verdict and claim.n == 1 and sum(claim.figure.values()) == len(shown)

    @pytest.mark.parametrize(
        ("given", "verdict"),
        [
            ({"n": 3000}, "trend only"),
            ({"n": 3000, "factor": 0.3}, "trend only"),  # fewer than promised is no fault
            ({"n": 3000, "factor": 3.0}, "not reproduced"),
            ({"n": 3000, "copied": 0.002}, "not reproduced"),
            ({"n": 20}, "needs data or scale"),
            ({"networks": 2}, "needs data or scale"),
            ({"descriptor": "sscd"}, "reproduced"),
            ({"descriptor": "sscd", "factor": 9.0}, "reproduced"),  # published numbers promise no fraction
            ({"descriptor": "sscd", "copied": 0.002}, "not reproduced"),
        ],
    )
    def test_s6(self, given, verdict):
        claim = rules.s6(thresholds(**given))
        assert claim.verdict == verdict and list(claim.figure) == ["low", "mid", "high"]

    def test_an_image_past_all_edges_scores_3(self):
        assert rules.score({band: Count(1, 4) for band in FRACTIONS}) == pytest.approx(0.75)

    @pytest.mark.parametrize(
        ("given", "verdict"),
        [
            ({"mean": 0.4, "deviation": 0.1}, "reproduced"),
            ({"mean": 0.6, "deviation": 0.4}, "trend only"),
            ({"mean": 1.0, "deviation": 0.1}, "not reproduced"),
            ({"networks": 2}, "needs data or scale"),
        ],
    )
    def test_g3(self, given, verdict):
        claim = rules.g3(spreads(**given))
        assert claim.verdict == verdict and "classes lie above 1" in claim.text and claim.n == given.get("networks", 3)

    @pytest.mark.parametrize("left", [0, 2])
    def test_g3_networks_without_a_class_of_two_say_nothing(self, left):
        some = spreads(mean=0.4, deviation=0.1)
        some = dataclasses.replace(some, spread=[*some.spread[:left], *[torch.empty(0)] * (3 - left)])
        claim = rules.g3(some)
        assert (claim.verdict, claim.n) == ("needs data or scale", left or 3)
        assert isinstance(claim.figure, float) == (left > 0)

    def test_every_rule_says_in_its_docstring_when_it_says_what(self):
        for name in IDS:
            told = getattr(rules, name.lower()).__doc__
            assert "eproduced" in told and "lse" in told

    def test_verdicts_are_those_of_the_groups_that_were_run(self):
        one = weights([0.1, 0.2, 0.3, 0.1])
        whole = Results("", thresholds(), one, labels(), arms(), arms(), spreads())
        assert [claim.id for claim in rules.verdicts(whole)] == IDS
        assert [claim.id for claim in rules.verdicts(Results(weights=one))] == ["S2", "S7"]
        assert rules.verdicts(Results()) == []


def reproduced(simulate, runs):
    """The fraction of runs in which a rule says "reproduced"."""
    return sum(simulate(seed).verdict == "reproduced" for seed in range(runs)) / runs


def allowed(runs):
    """A rule that says "reproduced" in 5 % of null runs stays below this fraction with probability 0.999."""
    return float(binom.ppf(0.999, runs, 0.05)) / runs


@pytest.mark.parametrize("networks", [3, 5])
class TestNull:
    """Results as they would come if nothing were there, with noise of the size of the `fast` and `book` scales. A rule
    may say "reproduced" in 5 % of them."""

    @pytest.mark.parametrize("rate", [0.02, 0.2])
    @pytest.mark.parametrize("rule", [rules.s1, rules.s1a, rules.s1b])
    def test_s1_null_all_arms_copy_as_random_does(self, rule, rate, networks):
        every = dict.fromkeys(NAMES, rate)
        assert reproduced(lambda seed: rule(arms(networks, seed=seed, **every)), 150) <= allowed(150)

    @pytest.mark.parametrize("levels", [[0.2] * 5, [0.1, 0.2, 0.3, 0.3, 0.3]])
    @pytest.mark.parametrize("rule", [rules.s2, rules.s7])
    def test_s2_and_s7_null_the_weight_does_nothing_or_only_lifts(self, rule, levels, networks):
        assert reproduced(lambda seed: rule(weights(levels, seed=seed, networks=networks)), 200) <= allowed(200)

    @pytest.mark.parametrize("rate", [0.04, 0.2])
    def test_s3_null_time_makes_no_difference(self, rate, networks):
        for rule in (rules.s3, rules.s3a):
            found = reproduced(lambda seed, rule=rule: rule(arms(networks, seed=seed, td=rate, ti=rate)), 150)
            assert found <= allowed(150)

    def test_s3b_null_the_teacher_reaches_a_third(self, networks):
        found = reproduced(lambda seed: rules.s3b(arms(networks, seed=seed, td=0.24, ti=0.08)), 200)
        assert found <= allowed(200)

    @pytest.mark.parametrize("rate", [0.04, 0.3])
    def test_s4_null_random_labels_are_as_good_as_real_ones(self, rate, networks):
        given = {"members": 25_000, "td": rate, "training": rate}
        assert reproduced(lambda seed: rules.s4(arms(networks, seed=seed, **given)), 150) <= allowed(150)

    def test_s5_null_is_an_identity_without_noise(self, networks):
        """A search, not a measurement: one training image too many, or none found with the oracle, and it fails."""
        for shown in ({"oracle": True, arm: True} for arm in ("td", "ti", "cl")):
            assert rules.s5(labels(**shown)).verdict == "not reproduced"
        assert rules.s5(labels()).verdict == "not reproduced"

    @pytest.mark.parametrize("rate", [0.002, 0.05])
    def test_s6_null_members_are_copied_as_often_as_non_members(self, rate, networks):
        """With SSCD; with any other descriptor the rule never says reproduced."""
        given = {"networks": networks, "copied": rate, "others": rate}
        assert reproduced(lambda seed: rules.s6(thresholds(descriptor="sscd", seed=seed, **given)), 200) <= allowed(200)
        assert not reproduced(lambda seed: rules.s6(thresholds(seed=seed, networks=networks)), 40)

    def test_s6_null_thresholds_that_keep_their_promise_are_seldom_called_broken(self, networks):
        """One joint test: the interval lies above 0 in 2.5 % of runs, where three looks failed in 8 %."""
        told = [rules.s6(thresholds(seed=seed, networks=networks)).verdict for seed in range(300)]
        assert told.count("not reproduced") / 300 <= allowed(300)

    def test_g3_null_labels_without_meaning(self, networks):
        """Shuffled labels: the traces of unbiased covariances of two or three points over the whole's."""
        g, told = generator(), []
        for _ in range(60):
            latents = torch.randn(networks, 300, 8, generator=g, dtype=torch.float64)
            ratios = [one.unflatten(0, (100, 3)).var(1).sum(1) / one.var(0).sum() for one in latents]
            told.append(rules.g3(Theory(N, 4.0, [], [], [], [], [], ratios)).verdict)
        assert told.count("reproduced") == 0 and told.count("trend only") / 60 <= allowed(60)


@pytest.fixture(scope="module")
def results():
    """The whole study, tiny."""
    return study.run(TINY, RUN)


def same(one, other):
    """Whether two trees of results are equal, bit for bit."""
    if dataclasses.is_dataclass(one):
        fields = [field.name for field in dataclasses.fields(one)]
        return type(one) is type(other) and all(same(getattr(one, name), getattr(other, name)) for name in fields)
    if isinstance(one, torch.Tensor):
        if one.is_floating_point() and one.isnan().any():
            return one.dtype == other.dtype and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


class TestStudy:
    """The experiment end to end."""

    def test_all_groups(self, results, tmp_path):
        claims = study.verdicts(results)
        assert [claim.id for claim in claims] == IDS
        assert all(claim.n >= 1 for claim in claims)
        assert {claim.verdict for claim in claims if claim.id != "S5"} == {"needs data or scale"}  # two networks
        assert results.description.startswith("digits: 1797 images (1, 8, 8), fingerprint ")
        assert "20 members, 20 non-members" in results.description and torch.get_default_dtype() == torch.float32
        save(tmp_path / "a.safetensors", results)
        assert same(load(tmp_path / "a.safetensors"), results)
        assert (tmp_path / "a.safetensors").stat().st_size < 1 << 20

    def test_what_is_measured(self, results):
        found = results.arms
        assert len(found.hits) == 2 and {*found.hits[0]} == {"Random", *arms_of.ARMS}
        assert {*found.hits[1]} == {"Random", *arms_of.COMPARED} == {*results.second.hits[0]}
        assert all(one.shape == (100,) for network in found.hits for one in network.values())
        assert found.weights["OL-TD"] == 4.0 and found.weights["CL-TD own"] == 0.5
        assert results.weights.weights == [0.0, 4.0, 8.0] and results.weights.copies.shape == (2, 3, 2)
        assert {*results.weights.bands} == {*experiment.SWEPT}
        assert results.weights.of_arm["CL-TD own"] == [0.0, 0.5, 4.0, 8.0]
        assert results.labels.shown == {name: name == "RL-TD (oracle)" for name in arms_of.ARMS}
        assert results.model.hits.shape == (120,) and len(results.model.steps) == 5
        assert results.model.emm and results.model.duplicates["samples"] == 2000
        assert set(results.thresholds.planted) == {"centred", "half_whitened", "copies"}
        assert len(results.thresholds.held) == len(results.theory.spread) == 2 and len(results.theory.ratio) == 1
        assert results.theory.ratio[0].keys() == results.second_theory.ratio[0].keys()
        assert results.theory.ratio[0]["one each"] == 0 and len(results.seconds.hits["Random"]) >= 250

    def test_networks_differ_in_deal_and_seed(self):
        with experiment.in_dtype(TINY):
            one, other = (stage.bench for stage in experiment.set_stages(TINY, RUN))
        assert not torch.equal(one.world.members, other.world.members)
        assert not torch.equal(one.plain, other.plain)

    def test_results_lie_on_the_cpu(self, results):
        def tensors(tree):
            if isinstance(tree, torch.Tensor):
                yield tree
            elif dataclasses.is_dataclass(tree):
                for field in dataclasses.fields(tree):
                    yield from tensors(getattr(tree, field.name))
            elif isinstance(tree, dict | list | tuple):
                for item in tree.values() if isinstance(tree, dict) else tree:
                    yield from tensors(item)

        found = list(tensors(results))
        assert len(found) > 60 and all(one.device.type == "cpu" for one in found)

    def test_tables(self, results):
        told = study.tables(results)
        assert len(told) == 16 and all(len({len(row) for row in rows}) == 1 for rows in told.values())
        assert study.tables(Results()) == {}
        assert of_planted(results.thresholds)[-1][0] == "fraction of all"

    def test_each_group_alone(self, results):
        for group, ids in study.GROUPS.items():
            alone = study.run(changed(TINY, {"decisive": False}), RUN, (group,))
            if group == "training":  # at `book` alone; see test_side_training.py
                assert alone == Results(results.description)
                continue
            field = getattr(alone, group)
            others = [name for name in study.GROUPS if name != group]
            assert field is not None and all(getattr(alone, name) is None for name in others)
            assert tuple(claim.id for claim in study.verdicts(alone)) == ids
            if group in ("thresholds", "weights", "labels", "arms", "second", "theory"):
                assert same(field, getattr(results, group)), group

    def test_every_claim_has_its_group(self):
        assert sorted(one for ids in study.GROUPS.values() for one in ids) == [*IDS, "S8"]
        assert groups_of(study, ["S7"]) == ("weights",)
        fields = {field.name for field in dataclasses.fields(Results)}
        assert fields == {"description", "second_theory", *study.GROUPS}  # `second` measures both of the second set

    def test_two_processes_give_the_same_bits(self, results):
        small = changed(TINY, {"n_samples": 101, "networks": 1, "decisive": False})
        found = [study.run(small, Run("02_side", processes=n, seed=3), ("weights", "arms", "theory")) for n in (2, 1)]
        assert same(*found) and found[0].arms.hits[0]["OL-TD"].shape == (101,)

    def test_curves(self, results):
        """What is drawn agrees with the tables and the records."""
        lines = curves.by_weight(results.weights)
        claims = {claim.id: claim for claim in study.verdicts(results)}
        assert lines["AMS"] == pytest.approx(list(claims["S2"].figure.values()))
        ends = zip(lines["low"], lines["AMS"], lines["high"], strict=True)
        assert all(low <= rate <= high for low, rate, high in ends)
        assert {*curves.swept_arms(results.weights)} == {*experiment.SWEPT}
        budgets, members = curves.distinct_members(results.model)
        assert budgets[-1] == 120 and members["counted"][-1] == len(results.model.hits.clamp_min(-1).unique()) - 1
        along = curves.along_training(results.model)
        assert [value for value, _ in along["members"]] == pytest.approx(results.model.along["members"].tolist())
        bars = curves.figure_4(results.arms)
        assert bars["Random"]["AMS"][2] == pytest.approx(claims["S1"].figure["Random"])
        points, _ = curves.by_ratio(results.theory)
        assert points["one each"][0] == 0 and len(points) == 4
        kept = {"claims": {name: claim.record("fast") for name, claim in claims.items()}}
        kept |= {"tables": study.tables(results), "provenance": {"parameters": {"data": "digits"}}}
        assert {*curves.kept_gains(kept)} == {*arms_of.COMPARED} == {*curves.arm_gains(results.arms)}
        said = curves.told(kept)
        assert said.startswith("On digits (fast, 2 networks), ") and claims["S1a"].verdict in said

    @pytest.mark.parametrize("descriptor", ["centred", "copies"])
    def test_other_descriptors(self, descriptor):
        found = study.run(changed(TINY, {"descriptor": descriptor}), RUN, ("thresholds",)).thresholds
        assert found.descriptor == descriptor and list(found.edges) == ["low", "mid", "high"]

    def test_pictures(self):
        shown = study.pictures(TINY, RUN)
        assert shown.members.shape == shown.non_members.shape == (16, 1, 8, 8)
        assert len(shown.path) == len(shown.sigmas) == 11 and shown.path[0].shape == shown.ends.shape == (12, 1, 8, 8)
        assert list(shown.by_weight) == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0] and list(shown.pairs) == ["low", "mid", "high"]
        for made, members, distance in shown.pairs.values():
            assert len(made) == len(members) == len(distance) <= 8 and len(members.flatten(1).unique(dim=0)) == len(
                made
            )
        assert len(shown.clusters) == 4 and all(len(row) <= 14 for row in shown.clusters)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"n_random": 100, "n_samples": 101}, "n_random = 100 is below n_samples = 101"),
            ({"n_synthetic": 100, "clusters": 101}, "cannot be put into 101 clusters"),
            ({"data": "folder:/no/such"}, "/no/such"),
            ({"model": "/no/such"}, "/no/such"),
            ({"descriptor": "sscd", "sscd": "/no/such.pt"}, "/no/such.pt"),
            ({"n_train": 10**6}, "fewer"),
            ({"n_train": 447}, "2 calibration images set no thresholds"),
            (
                {"n_train": 0, "data": "digits:limit=40"},
                "5 calibration images set no thresholds.*digits:limit=40.* or n_train below 5",
            ),
            ({"n_train": 0, "data": "digits:limit=12"}, "1 members are too few.* give more distinct images$"),
            ({"data": "digits:limit=100", "n_train": 80}, "data = digits:limit=100, n_train = 80: 80 members"),
            (
                {"n_train": 0, "data": "digits:limit=1,duplicates=1x299"},
                "only 1 of its 300 images are distinct, and copies",
            ),
            (
                {"n_train": 0, "data": "digits:limit=10,duplicates=10x29"},
                "only 10 of its 300 images are distinct, and copies",
            ),
            ({"held_out": "digits:limit=300,seed=1"}, "held_out = digits:limit=300,seed=1.* are copies of images of"),
            ({"held_out": "faces:n=100"}, "data has images of 1 x 8 x 8, and held_out of 3 x 16 x 16"),
        ],
    )
    def test_refused_before_anything_is_trained(self, values, said, monkeypatch):
        monkeypatch.setattr(train, "fit", None)
        with pytest.raises(Refused, match=said):
            study.run(changed(TINY, values), Run("02_side", seed=99))

    @pytest.mark.parametrize("source", ["digits:limit=1000", "digits:limit=300,duplicates=300x1"])
    def test_sources_with_options_and_copies_can_be_judged(self, source):
        settings = changed(TINY, {"data": source, "n_train": 0, "descriptor": "half_whitened"})
        with experiment.in_dtype(settings):
            world, _ = experiment.prepare(settings, RUN)
            edges = judge_of(world, measure_of(settings), RUN).edges
        assert world.members.shape[1:] == (1, 8, 8) and edges["low"].similarity < edges["high"].similarity < 1

    def test_calibration_images_that_are_alike_are_refused(self):
        with experiment.in_dtype(TINY):
            world, _ = experiment.prepare(TINY, RUN)
            alike = dataclasses.replace(world, calibration=world.calibration[:1].expand(20, -1, -1, -1))
            with pytest.raises(Refused, match="the 20 calibration images are too alike to set three thresholds"):
                judge_of(alike, measure_of(changed(TINY, {"descriptor": "centred"})), RUN)

    def test_scales(self):
        assert list(study.SCALES) == ["fast", "book", "gpu", "paper"]
        assert study.SCALES["fast"] == study.Settings() and study.SCALES["paper"].sweep[-1] == 50.0
        assert study.SCALES["paper"].student_lr == 1e-4 and study.SCALES["book"].networks >= 5
        assert study.SCALES["fast"].networks >= rules.FEWEST and {5, 6, 7, 8, 9} <= set(study.SCALES["book"].sweep)
        assert [one.dtype for one in study.SCALES.values()] == ["float64", "float32", "float32", "float32"]


def folder_of_images(path, n=200, shape=(8, 8)):
    """n images of 8 pixels, without labels: grey, or in colour for the shape (8, 8, 3)."""
    path.mkdir()
    for i, image in enumerate(torch.rand(n, *shape, generator=generator())):
        Image.fromarray((255 * image).byte().numpy()).save(path / f"{i:03d}.png")
    return f"folder:{path}"


class TestOtherPeoples:
    """Images and models that come from elsewhere."""

    def test_a_folder_of_images_without_labels(self, tmp_path):
        values = {"data": folder_of_images(tmp_path / "images"), "n_train": 12, "size": 8, "copy_steps": 1}
        found = study.run(changed(TINY, values | {"networks": 1, "decisive": False}), RUN, ("labels", "thresholds"))
        assert "200 images" in found.description and "12 members" in found.description
        assert found.labels.shown["RL-TD (oracle)"] and len(study.verdicts(found)) == 2

    def test_a_diffusers_folder_is_attacked_in_float32(self, tmp_path):
        torch.manual_seed(0)
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        widths = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}
        net = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, **widths, **blocks)
        net.save_pretrained(tmp_path / "unet")
        DDPMScheduler(num_train_timesteps=100).save_pretrained(tmp_path / "scheduler")
        settings = changed(TINY, {"model": str(tmp_path), "sweep": [0.0, 4.0], "second": ""})
        found = study.run(settings, RUN, ("weights", "model"))
        assert found.weights.copies.shape == (1, 2, 2) and found.weights.copies.isfinite().all()
        assert found.model.emm is None and len(found.model.steps) == 0 and torch.get_default_dtype() == torch.float32
        assert "give held_out" in found.description and [claim.id for claim in study.verdicts(found)] == ["S2", "S7"]
        with experiment.in_dtype(settings):
            (stage,) = experiment.set_stages(settings, RUN)
            assert stage.bench.recipe.residual and stage.foreign
        with pytest.raises(Refused, match=r"the model makes images \(1, 8, 8\), data has \(3, 8, 8\)"):
            study.run(changed(settings, {"data": folder_of_images(tmp_path / "colour", 60, (8, 8, 3))}), RUN)

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (
                {"sample_size": (16, 24)},
                r"\(1, 16, 24\), data has \(1, 8, 8\): .* as files of 16 x 24 pixels",
            ),
            ({"num_class_embeds": 10}, "wants a class label, and this study gives none"),
            ({"sample_size": 16}, r"the model makes images \(1, 16, 16\), data has \(1, 8, 8\): give the data"),
        ],
    )
    def test_models_that_cannot_be_attacked_are_refused_at_once(self, tmp_path, change, said, monkeypatch):
        monkeypatch.setattr(train, "fit", None)
        blocks = {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
        widths = {"block_out_channels": (8,), "norm_num_groups": 4, "layers_per_block": 1}
        options = {"sample_size": 8, "in_channels": 1, "out_channels": 1} | widths | blocks | change
        UNet2DModel(**options).save_pretrained(tmp_path / "unet")
        DDPMScheduler(num_train_timesteps=100).save_pretrained(tmp_path / "scheduler")
        with pytest.raises(Refused, match=said):
            study.run(changed(TINY, {"model": str(tmp_path)}), RUN)

    def test_a_model_of_oblong_images_takes_files_as_they_are(self, tmp_path):
        oblong = torch.nn.Module()  # as much of a model as is looked at
        oblong.shape, oblong.net = (1, 16, 24), None
        source = folder_of_images(tmp_path / "images", 60, (16, 24))
        settings = changed(TINY, {"data": source, "n_train": 0, "model": "oblong"})
        assert world_of._loaded("data", settings, oblong).images.shape == (60, 1, 16, 24)

    def test_held_out_images_of_their_own(self, tmp_path):
        """The first 30 of both folders are the same images, which no model trained on `data` has not seen."""
        values = {"data": folder_of_images(tmp_path / "a", 30), "held_out": folder_of_images(tmp_path / "b", 130)}
        with pytest.warns(UserWarning, match="30 of 130 held-out images of folder.* are copies of images of folder"):
            found = study.run(changed(TINY, values | {"size": 8, "n_train": 0}), RUN, ("thresholds",))
        assert "30 members, 30 non-members" in found.description


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_at", [3, 7, 12, 15])
def test_a_resumed_training_keeps_its_five_moments(killed_at, monkeypatch, tmp_path):
    """Killed between two checkpoints, and started again."""
    z, network, how = torch.randn(20, 4, generator=generator()), Network("mlp", (4,), 8, [], 1.0), Training(16, 8, 1e-3)
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "whole"))
    whole = train_model(z, network, how, 0, RUN)
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "killed"))
    fit, begun = train.fit, []

    def fragile(*arguments, **options):
        begun.append(options["every"])
        for step in fit(*arguments, **(options | {"every": 4})):
            yield step
            if step.index + 1 == killed_at and len(begun) == 1:
                raise Killed

    monkeypatch.setattr(train, "fit", fragile)
    with pytest.raises(Killed):
        train_model(z, network, how, 0, RUN)
    again = train_model(z, network, how, 0, RUN)
    assert len(again) == 5 and same(again, whole)
    assert not same(again[0], again[1]) and begun == [499, 499]


@pytest.mark.parametrize("steps", [5, 16, 1600, 2495, 390_000])
def test_checkpoints_never_fall_on_a_kept_moment(steps, monkeypatch):
    """Of the first four: the fifth is the end, where the checkpoint holds it."""
    given = {}

    def record(*arguments, **options):
        given.update(options)
        raise Killed

    monkeypatch.setattr(train, "fit", record)
    with pytest.raises(Killed):
        train_model(torch.zeros(4, 2), Network("mlp", (2,), 8, [], 1.0), Training(steps, 2, 1e-3), 0, RUN)
    assert all(k * (steps // 5) % given["every"] for k in range(1, 5))


def test_another_guidance_weight_trains_nothing_again(monkeypatch, tmp_path):
    """Nor does another sweep, another number of samples or the name of the scale: a key is made of what goes in."""
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    fit, trained = train.fit, []

    def counted(*arguments, **options):
        trained.append(options.get("title", "model"))
        return fit(*arguments, **options)

    monkeypatch.setattr(train, "fit", counted)

    alone = changed(TINY, {"networks": 1})

    def stage(settings, run=RUN):
        before = len(trained)
        with experiment.in_dtype(settings):
            (one,) = experiment.set_stages(settings, run)
            arms_of.student(arms_of.surrogate("OL-TD", one.bench, one.run), one.bench, one.run)
        return trained[before:]

    first = stage(alone)
    assert {"model", "teacher", "distil OL-TD"} <= set(first)
    for values in ({"weight": 8.0}, {"own_weight": 1.0}, {"sweep": [0.0, 2.0]}, {"n_samples": 110}):
        assert stage(changed(alone, values)) == []
    assert stage(alone, Run("02_side", "book")) == []
    assert "model" in stage(changed(alone, {"train_steps": 15}))
    for values in ({"student_steps": 4}, {"student_lr": 1e-3}):
        assert "teacher" in stage(changed(alone, values))


def test_an_arm_that_sees_nothing_is_unchanged_when_members_change():
    """The students of CL-TD, CL-TI and RL-TD, of one model, where the members are poisoned."""
    with experiment.in_dtype(TINY):
        bench = experiment.set_stages(TINY, RUN)[0].bench
        world = bench.world
        poisoned = dataclasses.replace(world, members=torch.full_like(world.members, math.nan), labels=-world.labels)
        for arm in ("CL-TD", "CL-TI", "RL-TD"):
            clean = arms_of.student(arms_of.surrogate(arm, bench, RUN), bench, RUN)
            other = dataclasses.replace(bench, world=poisoned)
            given = arms_of.surrogate(arm, other, RUN)
            assert given.sees == "nothing"
            points = torch.randn(5, *bench.synthetic.shape[1:], dtype=bench.synthetic.dtype, generator=generator())
            said = (net(points, torch.tensor(0.7).to(points)) for net in (clean, arms_of.student(given, other, RUN)))
            assert torch.equal(*said)
        assert not arms_of.surrogate("RL-TD (oracle)", other, RUN).images.isfinite().any()  # the poison works


def test_the_papers_ti_is_the_teacher_itself():
    """It is asked about samples as a DDPM holds them; its labels are those that OL-TD's student learns."""
    with experiment.in_dtype(TINY):
        bench = experiment.set_stages(TINY, RUN)[0].bench
        given = arms_of.surrogate("OL-TD", bench, RUN)
        net = arms_of.guide("OL-TI", given, bench, RUN)
        clean = net(bench.synthetic, torch.tensor(0.0).to(bench.synthetic)).softmax(1)
        torch.testing.assert_close(clean, given.targets)
        noisy = net(2 * bench.synthetic, torch.tensor(3.0).sqrt().to(bench.synthetic)).softmax(1)
        torch.testing.assert_close(noisy, given.targets)  # sqrt(1 + 3) = 2


def test_what_a_larger_scale_overrules_is_said():
    def kept(scale, **verdicts):
        return {"claims": {name: {"verdict": one, "scale": scale} for name, one in verdicts.items()}}

    small = kept("fast", S1="reproduced", S2="needs data or scale", S3="trend only")
    large = kept("book", S1="trend only", S2="reproduced", S3="trend only", S7="reproduced")
    said = curves.overruled(small, large)
    assert said == "Overruled by the larger scale: S1 (reproduced at fast, trend only at book)."
    assert curves.overruled(large, large).endswith("none.")


def test_top_means_of_halves_leave_out_those_of_too_few():
    values = torch.arange(400.0)
    found = arms_of.top_half(values)
    assert found.shape == (2, 5) and found[:, :3].isnan().all()  # 5 % of 200 are ten
    assert found[0, 3:].tolist() == [389.0, 379.0] and found[1, 3:].tolist() == [390.0, 380.0]


def test_seconds_by_hand():
    """A plain sample costs 1 s and every second one copies; the attack waits 10 s and copies with each."""
    plain = torch.arange(40).where(torch.arange(40) % 2 == 0, -1).int()
    found = Seconds(1.0, {"OL-TD": 10.0}, {"OL-TD": 2.0}, 30, {"Random": plain, "OL-TD": torch.arange(10).int()})
    curves = bought(found, torch.tensor([5.0, 12.0, 20.0, 40.0]))
    assert curves["Random"].tolist() == [3, 6, 10, 20]
    assert curves["OL-TD"][:3].tolist() == [0, 1, 5] and curves["OL-TD"][3].isnan()  # only ten were drawn
    assert equal_seconds(found)[1] == ["OL-TD", "30.0", "10", "10", "10", "30", "15", "15", "5"]


def test_the_ratio_of_theorem_1_by_hand_and_in_its_limits():
    """Two classes at -1 and 1, each of two points at a distance of .5 from its centre: own spread .25 and .25, whole
    1.25 and 1.25. One label for all is 1, one for each point 0."""
    z = torch.tensor([[-1.5], [-0.5], [0.5], [1.5]])
    assert theory.ratio(z, torch.tensor([0, 0, 1, 1])) == pytest.approx((4 * 0.25 + 4 * 0.25) / (5 + 4 * 1.25))
    assert theory.ratio(z, torch.zeros(4)) == pytest.approx(1) and theory.ratio(z, torch.arange(4)) == 0


def test_random_labels_follow_their_closed_form():
    """Of m points each, a random class keeps 1 - 1/m of the spread: half for pairs, nearly all for large classes."""
    z = torch.randn(3000, 5, generator=generator())
    for m in (2, 5, 60):
        assert theory.ratio(z, torch.arange(3000) % (3000 // m)) == pytest.approx(1 - 1 / m, abs=0.02)


def test_counts_survive_the_results(tmp_path):
    save(tmp_path / "a.safetensors", dataclasses.replace(arms(), l2_ratio={"Random": Count(1, 3)}))
    assert load(tmp_path / "a.safetensors").l2_ratio == {"Random": Count(1, 3)}
    save(tmp_path / "b.safetensors", thresholds())
    assert load(tmp_path / "b.safetensors").edges["high"] == Joint(0.9, 1.0)
