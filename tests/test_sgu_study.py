"""The study of SGU: every rule on hand-made results and where nothing is there, and the experiment end to end."""

import dataclasses
from functools import partial

import pytest
import torch
from scipy.stats import binom

from memlib import cache, features
from memlib.errors import Refused
from memlib.papers.sgu import study
from memlib.papers.sgu.study import arms, bars, experiment, images, measures, rules, summary, tasks, toy
from memlib.papers.sgu.study.results import (
    SIDES,
    Answers,
    Inpainting,
    Judged,
    Likelihoods,
    Reconstruction,
    Results,
    Samples,
    Toy,
    Tuning,
)
from memlib.papers.sgu.study.settings import Settings
from memlib.run import Run
from memlib.settings import changed

ARMS = ("standard", "unseen", "orthogonal", "obtuse")


# Results made by hand.


def judged(found) -> Judged:
    one = torch.ones(len(found))
    return Judged(torch.tensor(found), one, one, one)


def samples(classes, attribute=None, n=2500) -> Samples:
    """Counts of forgotten content by arm, one for each seed."""
    found = {("classes", "VE", arm): judged(counts) for arm, counts in classes.items()}
    if attribute:
        found |= {("attribute", "VE", arm): judged(counts) for arm, counts in attribute.items()}
    names = ["classes", *(["attribute"] if attribute else [])]
    judges = dict.fromkeys(names, (0.98, 0.0, 0.98))
    return Samples("digits [3, 7]", ("VE",), tuple(classes), n, found, judges, {})


def likelihoods(bits) -> Likelihoods:
    """Bits per dimension by (arm, side), (S, images)."""
    found = {("VE", arm, side): value for (arm, side), value in bits.items()}
    return Likelihoods(("VE",), ARMS, found, None, dict.fromkeys(ARMS, (0.5, (0.4, 0.6))))


def answers(same) -> dict:
    """Fractions of the class kept by (arm, side), (images,)."""
    return {key: Answers(value, torch.ones_like(value)) for key, value in same.items()}


def inpainting(same) -> Inpainting:
    found = {("classes", "upper half", arm, side): one for (arm, side), one in answers(same).items()}
    return Inpainting(ARMS, ("upper half",), found, {})


def reconstruction(same) -> Reconstruction:
    found = {(0.02, arm, side): one for (arm, side), one in answers(same).items()}
    return Reconstruction(ARMS, (0.02,), (0.078,), found)


def tuning(tuned, scratch, n=2500) -> Tuning:
    """Counts by (process, arm), one for each seed."""
    found = {(*key, steps): judged(counts) for key, counts in tuned.items() for steps in (50, 200)}
    processes = tuple(dict.fromkeys(key[0] for key in tuned))
    plain = {key: torch.tensor(counts) for key, counts in scratch.items()}
    return Tuning(processes, ("rest",), (50, 200), n, found, plain, {})


def angles(turn) -> Toy:
    """Cosines at D_f by arm, one for each seed, at the level of U7."""
    levels = torch.tensor([0.1, 0.32, 1.0])
    cosine = {(arm, "D_f"): torch.tensor(values)[:, None].expand(-1, 3) for arm, values in turn.items()}
    none = torch.zeros(0)
    return Toy(ARMS, none, (), {}, (), {}, {}, levels, cosine, (), {}, {})


def about(*centres, spread=0.02):
    """Values near the centres, by arm, three seeds each."""
    return dict(zip(ARMS, [[c - spread, c, c + spread] for c in centres], strict=True))


# Each verdict word of each rule.


def test_u1_compares_unlearning_with_retraining_over_seeds():
    base = {"standard": [420, 430, 410, 425], "unseen": [80, 85, 78, 82]}
    less, more = [40, 45, 38, 41], [120, 125, 118, 121]
    for orthogonal, obtuse, verdict in [
        (less, less, "reproduced"),
        (less, more, "trend only"),
        (more, less, "trend only"),
        (more, more, "not reproduced"),
        (base["unseen"], base["unseen"], "not reproduced"),
    ]:
        claim = rules.u1(samples(base | {"orthogonal": orthogonal, "obtuse": obtuse}))
        assert (claim.verdict, claim.n) == (verdict, 4)
    unmoved = rules.u1(samples(base | {"unseen": base["standard"], "orthogonal": less, "obtuse": less}))
    assert unmoved.verdict == "needs data or scale"
    assert claim.figure["standard"] == pytest.approx(100 * 1685 / 10_000)
    single = {arm: counts[:1] for arm, counts in (base | {"orthogonal": less, "obtuse": less}).items()}
    claim = rules.u1(samples(single))  # one network of each arm is no repetition
    assert (claim.verdict, claim.n) == ("trend only", 2500)


def test_u2_wants_a_rise_beyond_retraining_that_the_retained_data_do_not_share():
    generator = torch.Generator().manual_seed(0)

    def found(unseen, *rises):
        bits = {("standard", side): torch.randn(1, 32, generator=generator) for side in SIDES}
        for arm, (g, f) in zip(ARMS[1:], [(0.0, unseen), *rises], strict=True):
            bits |= {(arm, "D_g"): bits["standard", "D_g"] + g, (arm, "D_f"): bits["standard", "D_f"] + f}
        return rules.u2(likelihoods(bits))

    assert found(0.3, (0.3, 2.7), (0.4, 6.0)).verdict == "reproduced"
    assert found(0.3, (0.3, 2.7), (2.0, 6.0)).verdict == "trend only"  # D_g pays too
    assert found(0.8, (0.3, 2.7), (0.4, 6.0)).verdict == "trend only"  # retraining does it as well
    assert found(0.3, (0.0, 0.1), (0.4, 6.0)).verdict == "trend only"
    assert found(0.3, (0.0, 0.1), (0.0, 0.2)).verdict == "not reproduced"
    assert found(0.3, (0.3, 2.7), (0.4, 6.0)).n == 32


def test_u3_wants_each_loss_ahead_on_its_own_task():
    base = {"standard": [400, 410], "unseen": [80, 82], "orthogonal": [100, 101]}
    up, down = {"obtuse": [120, 122]}, {"obtuse": [80, 82]}
    assert rules.u3(samples(base | up, base | down)).verdict == "reproduced"
    assert rules.u3(samples(base | up, base | up)).verdict == "trend only"
    assert rules.u3(samples(base | down, base | down)).verdict == "trend only"
    assert rules.u3(samples(base | down, base | up)).verdict == "not reproduced"
    assert rules.u3(samples(base | up)).verdict == "needs data or scale"
    single = {arm: counts[:1] for arm, counts in (base | up).items()}
    assert rules.u3(samples(single, single)).verdict == "needs data or scale"
    assert rules.u3(samples(single, single)).n == 1


@pytest.mark.parametrize(("rule", "made"), [(rules.u4, inpainting), (rules.u5, reconstruction)])
def test_u4_and_u5_want_the_class_lost_beyond_retraining_and_kept_elsewhere(rule, made):
    generator = torch.Generator().manual_seed(1)

    def found(*rates):
        """Kept fractions of D_g and D_f of the four arms."""
        keys = [(arm, side) for arm in ARMS for side in SIDES]
        flat = [rate for pair in rates for rate in pair]
        same = {key: (rate + 0.02 * torch.randn(60, generator=generator)) for key, rate in zip(keys, flat, strict=True)}
        return rule(made(same))

    assert found((0.6, 0.6), (0.6, 0.4), (0.6, 0.3), (0.6, 0.4)).verdict == "reproduced"
    assert found((0.6, 0.6), (0.6, 0.4), (0.4, 0.3), (0.6, 0.4)).verdict == "trend only"  # D_g is lost too
    assert found((0.6, 0.6), (0.6, 0.4), (0.6, 0.4), (0.6, 0.5)).verdict == "trend only"
    assert found((0.6, 0.6), (0.6, 0.4), (0.6, 0.6), (0.6, 0.7)).verdict == "not reproduced"
    assert found((0.6, 0.6), (0.6, 0.4), (0.6, 0.3), (0.6, 0.4)).n == 60


def test_u6_follows_the_papers_table_5():
    low, middle, high = [80, 83, 81], [120, 122, 121], [400, 402, 401]
    four = {(process, arm): low for process in ("VP", "DDPM") for arm in ("orthogonal", "obtuse")}
    scratch = {(p, arm): value for p in ("VP", "DDPM") for arm, value in {"standard": high, "unseen": middle}.items()}
    assert rules.u6(tuning(four, scratch)).verdict == "reproduced"
    assert rules.u6(tuning(four | {("DDPM", "orthogonal"): [300, 303, 301]}, scratch)).verdict == "reproduced"
    assert rules.u6(tuning(four | {("VP", "orthogonal"): [300, 303, 301]}, scratch)).verdict == "trend only"
    assert rules.u6(tuning(four | {("VP", "orthogonal"): high}, scratch)).verdict == "not reproduced"
    alone = {key: value for key, value in scratch.items() if key[0] == "VP"}
    assert rules.u6(tuning({("VP", "rest"): low}, alone)).verdict == "needs data or scale"
    single = tuning({key: value[:1] for key, value in four.items()}, {k: v[:1] for k, v in scratch.items()})
    assert rules.u6(single).verdict == "needs data or scale"
    assert rules.u6(tuning(four, scratch)).figure["VP, unseen"] == pytest.approx(100 * 121 / 2500)


def test_u7_wants_a_turn_that_retraining_lacks():
    assert rules.u7(angles(about(0.3, 0.28, 0.1, -0.3))).verdict == "reproduced"
    assert rules.u7(angles(about(0.3, 0.0, 0.0, -0.3))).verdict == "trend only"  # retraining turns it as well
    assert rules.u7(angles(about(0.3, 0.28, 0.1, 0.1))).verdict == "trend only"  # not away
    assert rules.u7(angles(about(0.3, 0.28, 0.1, 0.4))).verdict == "not reproduced"
    claim = rules.u7(angles(about(0.3, 0.28, 0.1, -0.3)))
    assert claim.n == 3 and claim.interval[1] < 0 and "σ = 0.32" in claim.text


# Null simulations: results as they come out where unlearning adds nothing to retraining, so that the unlearned arms are
# retrained networks with other noise. The noise is that of eight retrained networks of the fast scale (seeds 100 to
# 107) that share the noise of sampling, as arms do: 68 to 83 samples with content of 2,000 (standard deviation 4.7);
# fillings of an image differ by a third in 15 % of pairs of networks; bits per dimension differ by 0.06 on an image and
# by 0.005 on the mean; reconstructions from t = 0.02 do not differ on any image; cosines of toy seeds by 0.03.

RUNS = 300
RETRAINED = ("unseen", "orthogonal", "obtuse")


def reproduced_too_often(simulate) -> bool:
    """Whether "reproduced" comes in more than 5 % of null runs, beyond what chance explains (one in a thousand)."""
    generator = torch.Generator().manual_seed(0)
    hits = sum(simulate(generator).verdict == "reproduced" for _ in range(RUNS))
    return hits > binom.ppf(0.999, RUNS, 0.05)


def counts_without_effect(generator, arms=RETRAINED, seeds=4, n=2500):
    """Counts by arm: a binomial part for each seed that all arms share, as they share the noise of sampling, and one
    for each network."""
    common = torch.binomial(torch.full((seeds,), float(n)), torch.full((seeds,), 0.037), generator=generator)
    own = (4.7 * torch.randn(len(arms), seeds, generator=generator)).round()
    return {arm: (common + one).clamp_min(0).long().tolist() for arm, one in zip(arms, own, strict=True)}


@pytest.mark.parametrize("seeds", [2, 4])
def test_u1_null(seeds):
    def simulate(generator):
        found = counts_without_effect(generator, seeds=seeds)
        return rules.u1(samples({"standard": [420 + 3 * i for i in range(seeds)]} | found))

    assert not reproduced_too_often(simulate)


@pytest.mark.parametrize("rise", [0.0, 0.35])  # of D_f under retraining: none, and as measured
def test_u2_null(rise):
    def simulate(generator):
        level = {side: 0.2 * torch.randn(1, 32, generator=generator) for side in SIDES}
        bits = {("standard", side): values for side, values in level.items()}
        for arm in RETRAINED:
            for side, values in level.items():
                noise = 0.04 * torch.randn(1, 32, generator=generator) + 0.005 * torch.randn((), generator=generator)
                bits[arm, side] = values + noise + (rise if side == "D_f" else 0.0)
        return rules.u2(likelihoods(bits))

    assert not reproduced_too_often(simulate)


@pytest.mark.parametrize("seeds", [2, 4])
def test_u3_null(seeds):
    def simulate(generator):
        parts = [counts_without_effect(generator, ARMS, seeds) for _ in range(2)]
        return rules.u3(samples(*parts))

    assert not reproduced_too_often(simulate)


def fillings_without_effect(generator, arm_rate):
    """Kept fractions of three fillings, by arm and side; another network moves an image by a third now and then."""
    same = {}
    for side, size in (("D_g", 120), ("D_f", 62)):
        base = torch.binomial(torch.full((size,), 3.0), torch.rand(size, generator=generator), generator=generator) / 3
        for arm in RETRAINED:
            draw = torch.rand(size, generator=generator)
            step = (draw < arm_rate / 2).double() - (draw > 1 - arm_rate / 2).double()
            same[arm, side] = (base + step / 3).clamp(0, 1).double()
        same["standard", side] = base.double() if side == "D_g" else (base + 0.3).clamp(0, 1).double()
    return same


def test_u4_null():
    """Two arms may each pass by chance, at 2.5 to 3 % each: together 5.5 % in 20,000 runs, at the edge.

    Among the eight networks themselves no arm fell below another, in 56 pairs.
    """
    assert not reproduced_too_often(lambda generator: rules.u4(inpainting(fillings_without_effect(generator, 0.08))))


@pytest.mark.parametrize("rate", [0.01, 0.08])  # more than was measured, which is 0; as at larger noise
def test_u5_null(rate):
    assert not reproduced_too_often(
        lambda generator: rules.u5(reconstruction(fillings_without_effect(generator, rate)))
    )


@pytest.mark.parametrize("reference", ["unseen", "standard"])  # fine-tuning that equals retraining, or does nothing
def test_u6_null(reference):
    keys = [(process, arm) for process in ("VP", "DDPM") for arm in ("orthogonal", "obtuse")]

    def simulate(generator):
        tuned, scratch = {}, {}
        for process in ("VP", "DDPM"):
            found = counts_without_effect(generator)
            more = {"standard": [count + 300 for count in found["unseen"]], "unseen": found["unseen"]}
            scratch |= {(process, arm): value for arm, value in more.items()}
            lift = 300 if reference == "standard" else 0
            tuned |= {(process, arm): [count + lift for count in found[arm]] for arm in ("orthogonal", "obtuse")}
        return rules.u6(tuning({key: tuned[key] for key in keys}, scratch))

    assert not reproduced_too_often(simulate)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("level", [0.3, 0.02, -0.1])  # retraining turns nothing, as much as measured, more
def test_u7_null(seeds, level):
    def simulate(generator):
        centres = {"standard": 0.3 if level > 0 else level, **dict.fromkeys(RETRAINED, level)}
        values = {arm: (at + 0.03 * torch.randn(seeds, generator=generator)).tolist() for arm, at in centres.items()}
        return rules.u7(angles(values))

    assert not reproduced_too_often(simulate)


# The experiment end to end, with tiny settings.

TINY = dataclasses.replace(
    Settings(),
    data="digits:limit=240",
    n_train=60,
    network="mlp",
    width=8,
    train_steps=10,
    tune_steps=(2,),
    batch=16,
    n_levels=4,
    n_samples=100,
    n_likely=2,
    n_fills=1,
    toy_steps=10,
    toy_seeds=2,
)
WIDE = dataclasses.replace(
    TINY,
    processes=("VE", "VP", "DDPM"),
    attribute="faces:bangs,n=160",
    latent=8,
    n_seeds=2,
    as_printed=True,
    neighbours=True,
)


@pytest.fixture(scope="module")
def small():
    """Fewer points in the toy and a judge of a few steps, so that a whole study takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy, "SAMPLES", 50)
        patch.setattr(toy, "POINTS", 2)
        patch.setattr(toy, "ALPHAS", (0.9,))
        patch.setattr(features, "classifier", partial(features.classifier, steps=15))
        patch.setattr(arms, "_CHECKPOINT", 10)
        yield


@pytest.fixture(scope="module")
def everything(small) -> Results:
    return study.run(WIDE, Run("test_sgu"))


def test_the_study_runs_and_says_something_about_every_claim(everything):
    claims = study.verdicts(everything)
    assert [claim.id for claim in claims] == ["U1", "U2", "U3", "U4", "U5", "U6", "U7"]
    assert all(claim.n >= 1 for claim in claims)
    assert sorted(claim.id for claim in claims) == sorted(one for group in study.GROUPS.values() for one in group)
    assert "digits:limit=240, 1 x 8 x 8; 60 training images" in everything.description
    assert "attribute: faces:bangs,n=160" in everything.description
    made = study.tables(everything)
    assert len(made) == 10
    for rows in made.values():
        assert len(rows) > 1 and {len(row) for row in rows} == {len(rows[0])}
        assert all(isinstance(cell, str) for row in rows for cell in row)
    assert set(bars.ratios(everything.samples, "attribute")) == set(everything.samples.arms)
    assert len(bars.losses_of_class(rules.upper_half(everything.inpainting))) == 6
    assert all(low <= value <= high for value, (low, high) in bars.rises(everything.likelihoods).values())


def test_results_survive_a_file_and_are_small(everything, tmp_path):
    cache.save(tmp_path / "results.safetensors", everything)
    assert (tmp_path / "results.safetensors").stat().st_size < 1_000_000
    back = cache.load(tmp_path / "results.safetensors")
    assert study.verdicts(back) == study.verdicts(everything)
    assert study.tables(back) == study.tables(everything)


def test_groups_run_alone_and_say_the_same(everything, small):
    for group, ids in study.GROUPS.items():
        alone = study.run(WIDE, Run("test_sgu"), [group])
        assert {claim.id for claim in study.verdicts(alone)} == set(ids)
        whole = {claim.id: claim for claim in study.verdicts(everything)}
        assert all(claim == whole[claim.id] for claim in study.verdicts(alone))
    assert alone.samples is None and alone.description == ""  # the toy needs no image


def test_two_processes_give_the_same_bits(tmp_path, monkeypatch):
    z = torch.randn(40, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    forget, found = torch.arange(40) < 10, []
    for processes in (1, 2):
        monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / str(processes)))
        one = Run("test_sgu", processes=processes)
        plans = {arm: arms.plan(arm, "classes", "VE", 0, TINY) for arm in ("unseen", "obtuse")}
        calls = {arm: (arms.trained, one, plan, z, forget, 1.0) for arm, plan in plans.items()}
        found.append(experiment._each(one, "trained", calls))
    for arm, weights in found[0].items():
        assert all(torch.equal(value, found[1][arm][name]) for name, value in weights.items())


def test_the_default_dtype_is_left_as_it_was(small):
    before = torch.get_default_dtype()
    study.run(TINY, Run("test_sgu"), ["toy"])
    assert torch.get_default_dtype() == before


def test_a_u_net_works_on_pixels(small):
    z = torch.randn(4, 1, 8, 8)
    plan = dataclasses.replace(arms.plan("obtuse", "classes", "VE", 0, TINY), network="unet", width=8)
    assert arms.network(z, plan)(z, torch.ones(4)).shape == z.shape


def test_principal_components_give_back_what_they_span():
    images = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean, basis = tasks._principal(images, 16)
    z = tasks._encoded(images, mean, basis)
    encode, _ = features.latents(images, 16)
    torch.testing.assert_close(z, encode(images))
    torch.testing.assert_close((z @ basis).view_as(images) + mean, images)


def test_samples_of_photographs_are_not_kept(everything):
    assert ("attribute", "obtuse") in everything.samples.images  # procedural faces are drawn
    stand_in = dataclasses.replace(WIDE, data="cifar10:PATH")
    networks = images.Networks(stand_in, Run("test_sgu"), {}, {}, range(1))
    assert not images._drawn(networks, "classes") and images._drawn(networks, "attribute")


def test_hardly_any_sample_left_is_no_crash():
    assert all(value != value for value in measures._quality(torch.randn(20, 3), torch.randn(2, 3)))


def test_a_kept_run_in_three_sentences():
    figures = {"U1": dict.fromkeys(ARMS, 5.0), "U2": {f"{arm}, D_f": 2.0 for arm in ARMS}}
    figures["U7"] = dict.fromkeys(ARMS, 0.1)
    claims = {
        name: {"figure": figure, "n": 1000, "verdict": "trend only", "interval": [-0.3, -0.2]}
        for name, figure in figures.items()
    }
    sentences, rows = study.headline({"claims": claims, "tables": {}})
    assert len(sentences) == 3 and all("trend only" in one for one in sentences)
    assert rows["retrained (unseen)"][0] == 5.0 and rows["obtuse"][1] == pytest.approx((3.73, 6.54), abs=0.01)
    table = [["task", "process", "arm", "UR, %", "95 % interval"], ["classes", "VE", "obtuse", "5.0", "[4.0, 6.5]"]]
    _, rows = study.headline({"claims": claims, "tables": {summary.SAMPLES: table}})
    assert rows["obtuse"][1] == (4.0, 6.5)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"data": "nowhere"}, "no data source 'nowhere'"),
        ({"attribute": "folder:/no/such/place"}, "/no/such/place"),
        ({"forget": [11]}, "none to forget"),
        ({"forget": list(range(10))}, "none to retain"),
        ({"forget": ["cat"]}, "digits:limit=240 has no class 'cat': its classes are 0, 1, 2"),
        ({"data": "digits:limit=1,duplicates=1x299"}, "only 1 of its 300 images are distinct, and copies of one"),
        ({"attribute": "faces:bangs,n=1,duplicates=1x299"}, "only 1 of its 300 images are distinct, and copies of one"),
        ({"forget": []}, "forget is empty"),
        ({"processes": []}, "processes is empty"),
        ({"processes": ["SDE"]}, "choose 'VE'"),
        ({"alpha_obtuse": [0.5]}, "one number each"),
        ({"alpha_orthogonal": [0.0, 0.5, 0.5]}, "between 0.01 and 1"),
        ({"n_train": 1}, "between 50"),
        ({"widht": 8}, "unknown setting widht"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(values, sentence, monkeypatch):
    monkeypatch.setattr(experiment, "_each", None)  # nothing may come so far
    monkeypatch.setattr(tasks, "prepare", None)
    with pytest.raises(Refused, match=sentence):
        study.run(changed(TINY, values), Run("test_sgu"))


def test_classes_are_forgotten_by_number_or_by_name():
    by_number, by_name = (tasks.load(changed(TINY, {"forget": one}), Run("x"))[0] for one in ([3, 7], ["3", "7"]))
    assert by_number.wanted == by_name.wanted == (3, 7) and by_number.describe() == by_name.describe()


def test_copies_of_a_training_image_are_not_tested_on():
    """Every image twice, with options behind the name of the source."""
    parts = tasks.load(changed(TINY, {"data": "digits:limit=301,duplicates=301x1"}), Run("x"))[0]
    train, test = ({image.numpy().tobytes() for image in images} for images in (parts.train, parts.test))
    assert train and test and not train & test


def test_an_unknown_group_is_refused():
    with pytest.raises(Refused, match="no group 'U1'"):
        study.run(TINY, Run("test_sgu"), ["U1"])


def test_the_scales_are_those_of_the_chapter():
    assert set(study.SCALES) == {"fast", "book", "gpu", "paper"}
    assert study.SCALES["fast"] == Settings()
    for settings in study.SCALES.values():
        assert changed(settings, {name: getattr(settings, name) for name in vars(settings)}) == settings
