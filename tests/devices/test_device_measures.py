"""The rooms of the core that keep and measure what was sampled, on the device as on the CPU."""

import functools
import os

import pytest
import torch
from alike import HERE, LOOSE, check, mover, seeded, takers
from torch import nn

from memlib import analytic, cache, features, membership, metrics
from memlib.features import alterations
from memlib.nets import MLP, Preconditioned
from memlib.random import seeded as noise_of

IMAGES = (torch.rand(24, 1, 8, 8, generator=seeded(1)) * 2 - 1).round(decimals=3)
ROWS = torch.randn(24, 5, generator=seeded(2))
MORE = torch.cat([ROWS[:8] + 0.01, torch.randn(22, 5, generator=seeded(3))])
TWICE = torch.cat([ROWS, ROWS[:6], ROWS[:6]])
LABELS = torch.arange(24) % 3
ONE = torch.rand(24, generator=seeded(4))
HITS = torch.tensor([3, 1, 1, 0, 5, 2])
FIRST = torch.tensor([0, 1, 1, -1, 2])
SECOND = torch.tensor([0, 0, -1, -1, 3])
WIDTHS = [0.5, 1.0, 3.0]
SEEN = torch.tensor([[1, 0, 0, 1, 1, 0], [0, 1, 1, 0, 0, 1]]).repeat(3, 4).bool()
SCORES = torch.randn(6, 24, generator=seeded(5)) + SEEN
LOG_P = nn.functional.logsigmoid(SCORES)
GROUPS = torch.arange(24) // 2


class Stub(nn.Module):
    """What Inception's file looks like to its wrapper."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1 / 255))

    def forward(self, levels, return_features=False, no_output_bias=False):
        pooled = self.scale * nn.functional.adaptive_avg_pool2d(levels, 4).flatten(1)
        return pooled if return_features else pooled.softmax(1)


def embedded(to, make):
    return make(to(IMAGES))(to(IMAGES[:5]))


def learnt(to):
    return features.learn_copies(to(IMAGES), steps=2)


def described(to):
    state = features.learn_copies(IMAGES, steps=1)
    return features.copies(to(IMAGES), to(state))(to(IMAGES[:5]))


def judged(to):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = to(features.ClassifierFeatures(1, 8, 3, width=4).eval())
    held = features.held_out(net, to(IMAGES), to(LABELS))
    return net(to(IMAGES)), net.logits(IMAGES), net.probabilities(to(IMAGES)), net.embed(to(IMAGES)), held


def remembered(to, statistic, *given):
    return statistic(analytic.Empirical(to(ROWS[:12])), to(ROWS), *given)


def sloped(to):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = to(Preconditioned(MLP(5, width=8, depth=1)))
    return membership.gradient_norm(net, to(ROWS), to(ONE + 0.1), noise_of(range(24)), chunk=10)


CASES = {
    "features.pixels": lambda to: features.pixels(to(IMAGES)),
    "features.centred": lambda to: embedded(to, features.centred),
    "features.half_whitened": lambda to: embedded(to, features.half_whitened),
    "features.latents": lambda to: features.latents(to(IMAGES), 4)[1](features.latents(to(IMAGES), 4)[0](to(IMAGES))),
    "features.copies": described,
    "features.copy_loss": lambda to: features.copy_loss(to(ROWS)),
    "features.recall": lambda to: features.recall(
        features.pixels, to(IMAGES[:12]), to(IMAGES[12:]), {"same": to(IMAGES[:12])}, fpr=0.1
    ),
    "features.ClassifierFeatures": judged,
    "features.held_out": judged,
    "features.Inception": lambda to: [
        part for how in ("network", "clean") for one in [features.Inception(to(Stub()), how)]
        for part in (one.embed(to(IMAGES)), one.probabilities(IMAGES))
    ],
    "features.augment": lambda to: features.augment(to(IMAGES), 0.5, seeded(), flips=True),
    "features.planted": lambda to: features.planted(to(IMAGES), seeded()),
    "features.alterations.moved": lambda to: alterations.moved(to(IMAGES), to(ONE), to(ONE), to(ONE), to(ONE)),
    "features.alterations.blurred": lambda to: [alterations.blurred(to(IMAGES), one) for one in (ONE, to(ONE))],
    "features.alterations.covered": lambda to: alterations.covered(to(IMAGES), seeded()),
    "metrics.nearest": lambda to: [metrics.nearest(to(MORE), to(TWICE), k) for k in (1, 4)],
    "metrics.closest": lambda to: metrics.closest(
        to(IMAGES[:6]), to(IMAGES[:6].flatten(1)), to(IMAGES[6:]), to(IMAGES[6:].flatten(1))
    ),
    "metrics.matches": lambda to: metrics.matches(to(MORE), to(ROWS), 0.5),
    "metrics.l2_ratio": lambda to: [metrics.l2_ratio(to(MORE), to(TWICE), far) for far in (0.0, 0.1)],
    "metrics.adaptive_l2": lambda to: [
        metrics.adaptive_l2(to(MORE), to(ROWS), 5, around=centre) for centre in ("query", "match")
    ],
    "metrics.cliques": lambda to: metrics.cliques(to(TWICE), 0.999, 3),
    "metrics.medoids": lambda to: metrics.medoids(to(MORE), [to(torch.arange(4)), to(torch.arange(7, 12))]),
    "metrics.authentic": lambda to: metrics.authentic(to(MORE), to(TWICE)),
    "metrics.copying_score": lambda to: metrics.copying_score(to(ONE[:12]), to(ONE[12:])),
    "metrics.nearer_to_train": lambda to: metrics.nearer_to_train(to(ONE), to(ONE.flip(0)), 20, 10),
    "metrics.in_band": lambda to: metrics.in_band(to(ONE), 0.2, 0.6),
    "metrics.ams": lambda to: metrics.ams(to(ONE), 0.3),
    "metrics.ums": lambda to: metrics.ums(to(LABELS), 24),
    "metrics.threshold": lambda to: metrics.threshold(to(ONE), 0.1),
    "metrics.top_means": lambda to: metrics.top_means(to(ONE), (0.1, 0.5)),
    "metrics.roc": lambda to: metrics.roc(to(ONE[:12]), to(ONE[12:])),
    "metrics.tpr_at_fpr": lambda to: metrics.tpr_at_fpr(to(ONE[:12]), to(ONE[12:]), 0.25),
    "metrics.auc": lambda to: [metrics.auc(to(ONE[:12]), to(ONE[12:])), metrics.auc(to(ONE[:4]), to(ONE[:4] + 2))],
    "metrics.expected_unique": lambda to: metrics.expected_unique(to(ONE / 24), to(HITS)),
    "metrics.extrapolate_unique": lambda to: metrics.extrapolate_unique(to(HITS), 20, to(torch.tensor([5, 20, 50]))),
    "metrics.unique_difference": lambda to: metrics.unique_difference(to(FIRST), to(SECOND)),
    "metrics.label_ratio": lambda to: metrics.label_ratio(to(ROWS), to(LABELS)),
    "metrics.joint_threshold": lambda to: metrics.joint_threshold(to(ONE), to(ONE.flip(0)), 0.25),
    "metrics.theorem_limit": lambda to: metrics.theorem_limit(to(ONE), to(ONE), to(ONE)),
    "metrics.frechet_distance": lambda to: [
        metrics.frechet_distance(to(ROWS), to(MORE)), metrics.frechet_distance(to(ROWS[:4]), to(MORE[:4]))
    ],
    "metrics.Moments": lambda to: [
        (one.mean, one.covariance, metrics.frechet_distance(one, to(MORE)))
        for one in [metrics.Moments(5, to(ROWS).device).update(to(ROWS)).merge(metrics.Moments(5).update(to(MORE)))]
    ],
    "metrics.mmd2": lambda to: [metrics.mmd2(to(ROWS), to(MORE), WIDTHS, fair) for fair in (True, False)],
    "metrics.mmd2_difference": lambda to: metrics.mmd2_difference(to(ROWS), to(MORE), to(TWICE), 1.0),
    "metrics.mmd2_p_value": lambda to: metrics.mmd2_p_value(to(ROWS), to(MORE), 1.0, 99, seeded()),
    "metrics.kid": lambda to: [metrics.kid(to(ROWS), to(MORE)), metrics.kid(to(ROWS), to(MORE), unbiased=False)],
    "metrics.median_distance": lambda to: metrics.median_distance(to(ROWS), to(MORE), 500, seeded()),
    "metrics.precision_recall": lambda to: metrics.precision_recall(to(ROWS), to(MORE)),
    "metrics.density_coverage": lambda to: metrics.density_coverage(to(ROWS), to(MORE)),
    "metrics.inception_score": lambda to: metrics.inception_score(to(ROWS).softmax(1), 2),
    "metrics.paired_interval": lambda to: metrics.paired_interval(to(ONE), to(ONE.roll(1)), generator=seeded()),
    "metrics.mean_interval": lambda to: metrics.mean_interval(to(ONE)),
    "membership.margin": lambda to: membership.margin(to(ROWS), to(LABELS)),
    "membership.lira": lambda to: [
        membership.lira(to(SCORES[0]), to(SCORES[2:]), to(SEEN[2:]), offline=offline, variance=variance)
        for offline in (False, True) for variance in ("fixed", "example")
    ],
    "membership.rmia": lambda to: [
        membership.rmia(to(LOG_P[0]), to(LOG_P[2:]), to(SEEN[2:]), to(LOG_P[1]), to(LOG_P[2:]), **how)
        for how in ({}, {"offline_a": 0.3}, {"gamma": None})
    ],
    "membership.calibrated": lambda to: [
        membership.calibrated(to(SCORES[0]), to(SCORES[2:]), side) for side in (None, to(SEEN[2:]))
    ],
    "membership.loss_statistic": lambda to: remembered(to, membership.loss_statistic, 0.5, noise_of(range(24)), 2),
    "membership.conditional_discrepancy": lambda to: membership.conditional_discrepancy(
        analytic.Empirical(to(MORE)), analytic.Empirical(to(ROWS[:12])), to(ROWS), 0.5, noise_of(range(24))
    ),
    "membership.secmi": lambda to: remembered(to, membership.secmi, 1.0, 0.3),
    "membership.pia": lambda to: remembered(to, membership.pia, to(ONE + 0.1), 0.5),
    "membership.gradient_norm": sloped,
    "membership.sima": lambda to: remembered(to, membership.sima, 0.5),
    "membership.local_dimension": lambda to: remembered(to, membership.local_dimension, 1.0, noise_of(range(24))),
    "membership.curvature": lambda to: remembered(to, membership.curvature, 1.0, noise_of(range(24))),
    "membership.blind": lambda to: membership.blind(to(ROWS), to(MORE)),
    "membership.conformal": lambda to: membership.conformal(to(ONE[:12]), to(ONE[12:])),
    "membership.discoveries": lambda to: membership.discoveries(to(ONE / 4), 0.2),
    "membership.set_p_value": lambda to: membership.set_p_value(to(ONE[:12]), to(ONE[12:])),
    "membership.nearest_distance": lambda to: [
        membership.nearest_distance(to(ROWS), to(MORE[:24]), labels, labels) for labels in (None, to(LABELS))
    ],
    "membership.threshold": lambda to: membership.threshold(to(ONE), 0.1),
    "membership.transferred": lambda to: membership.transferred(to(SCORES), to(SEEN), 0.1, to(ONE > 0.2)),
    "membership.crossed_interval": lambda to: membership.crossed_interval(to(SCORES > 0.5), to(SEEN)),
}  # fmt: skip
SKIPPED = {
    "features.clip": "a test of its own",
    "features.dinov2": "a test of its own, as clip",
    "features.inception": "a file of 100 MB; Inception is tested with another network",
    "features.sscd": "a TorchScript file, whose device only a real one can be: the test below",
}


@pytest.mark.parametrize("name", CASES)
def test_on_the_device_as_on_the_cpu(name, device):
    check(CASES[name], device)


def test_a_descriptor_and_a_classifier_learn_on_the_device(device):
    check(learnt, device, LOOSE)
    net = features.classifier(IMAGES.to(device), LABELS.to(device), steps=3, width=4)
    assert net.embed(IMAGES.to(device)).device.type == device.type and not net.training


@pytest.mark.skipif(
    os.environ.get("MEMLIB_DEVICE", "pretend") == "pretend", reason="transformers loads onto real devices"
)
def test_clip_on_the_device(device, tmp_path):
    transformers = pytest.importorskip("transformers", reason="CLIP is transformers'")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**sizes, "vocab_size": 20, "max_position_embeddings": 8, "bos_token_id": 1, "eos_token_id": 2}
    settings = {"text_config": text, "vision_config": {**sizes, "image_size": 16, "patch_size": 8}}
    transformers.CLIPModel(transformers.CLIPConfig(**settings, projection_dim=12)).save_pretrained(tmp_path)
    check(lambda to: features.clip(tmp_path, device=to(IMAGES).device)(IMAGES), device)


@pytest.mark.skipif(os.environ.get("MEMLIB_DEVICE", "pretend") == "pretend", reason="TorchScript needs a real device")
def test_a_torchscript_file_on_the_device(device, tmp_path):
    import hashlib

    path = tmp_path / "net.pt"
    torch.jit.trace(nn.Flatten(), torch.zeros(1, 3, 9, 9)).save(path)
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    check(lambda to: features.sscd(path, known, size=9, device=to(IMAGES).device)(to(IMAGES)), device)


def test_halves_take_groups_from_the_device_and_lie_on_the_cpu(device):
    check(lambda to: membership.halves(24, 2, seeded(), to(GROUPS)), device, HERE)


# Kept on disk.


def test_a_tree_on_disk_comes_back_to_its_device(device, tmp_path):
    def kept(to):
        cache.save(tmp_path / "tree.safetensors", {"a": [to(ROWS), 1.5], "b": to(LABELS)})
        return cache.load(tmp_path / "tree.safetensors")

    check(kept, device)


def test_results_are_cached_and_networks_trained_on_the_device(device, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))

    def doubled(x):
        return 2 * x

    def fit(net, x):
        net.weight.data.fill_(float(x.sum()))

    def twice(to):
        results = [cache.cached("doubled", doubled, to(ROWS)) for _ in range(2)]
        return *results, cache.trained(lambda: to(nn.Linear(2, 1)), fit, to(ROWS))

    check(twice, device)
    assert len(list(tmp_path.glob("doubled-*.safetensors"))) == 2, "one from each device"


def test_a_fingerprint_sees_the_values_and_not_the_copy(device):
    x = ROWS.to(device)
    assert cache.fingerprint(x) == cache.fingerprint(x.clone()) != cache.fingerprint(x + 1)


@pytest.mark.parametrize("dtype", [None, torch.float64, torch.uint8])
def test_shards_are_drawn_on_the_device_and_read_on_the_cpu(device, tmp_path, dtype):
    def stored(to):
        def draw(seeds):
            images = noise_of(seeds)(to(torch.zeros(len(seeds), 3))).clamp(-1, 1)
            return {"images": images, "labels": to(seeds % 3)}

        shards = cache.stream(draw, 7, tmp_path / f"{to(ROWS).device.type}", key="k", batch=3, dtype=dtype)
        rows = shards[to(torch.tensor([5, 0, 2]))]
        return shards.load(), rows, shards[1:4], list(shards)

    check(stored, device, HERE)


@pytest.mark.parametrize("room", ["features", "features.alterations", "metrics", "membership", "cache"])
def test_no_function_that_takes_tensors_is_forgotten(room):
    apart = {"features.learn_copies", "features.classifier", "cache.stream", "cache.trained"}
    apart |= {"membership.Transferred", "membership.halves"}  # a result; tested below
    apart |= {"features.alterations.augment", "features.alterations.planted"}  # cases of features
    assert takers(room) - {*CASES, *SKIPPED, *apart} == set()


def test_the_device_is_another(device):
    assert mover(device)(ROWS).device.type != "cpu" or os.environ.get("MEMLIB_DEVICE") == "cpu"
    assert functools.reduce(lambda a, b: a + b, [mover(device)(ROWS)] * 2).device.type == device.type
