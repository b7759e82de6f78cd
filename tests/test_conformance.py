"""The conformance vectors, `tests/conformance/*.json`, against memlib and against others where these are right."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from scipy.stats import binomtest, bootstrap, norm
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.neighbors import NearestNeighbors
from torch import nn
from torchmetrics.functional.classification import binary_auroc
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from memlib import analytic, membership, metrics, noise, sample

FOLDER = Path(__file__).parent / "conformance"
FILES = {path.stem: json.loads(path.read_text(encoding="utf8")) for path in sorted(FOLDER.glob("*.json"))}


def rows(values):
    return torch.tensor(values, dtype=torch.float64)


def paired(n, b, c):
    """Values (n,) of pairs of which b say yes to the first alone, c to the second alone, and none to both."""
    first, second = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    first[:b], second[b : b + c] = True, True
    return first, second


def ddim(alpha_bar, steps, s):
    sigmas = torch.tensor([math.sqrt(1 / alpha_bar[step] - 1) for step in steps] + [0.0], dtype=torch.float64)
    exact = analytic.GaussianMixture(torch.zeros(1, 1, dtype=torch.float64), std=s)
    start = torch.ones(1, 1, dtype=torch.float64) / alpha_bar[steps[0]] ** 0.5
    return sample.ancestral(exact, start, sigmas).item()


def density(real, fake, k):
    found = metrics.density_coverage(rows(real), rows(fake), k)
    return [found.density, found.coverage.k, found.coverage.n]


def precision(real, fake, k):
    found = metrics.precision_recall(rows(real), rows(fake), k)
    return [found.precision.k, found.precision.n, found.recall.k, found.recall.n]


def margin(logits, label):
    return membership.margin(rows(logits), torch.tensor(label)).item()


def lira(values, shadows, inside, **how):
    return membership.lira(rows(values), rows(shadows), rows(inside).bool(), **how)


def rmia(p, shadows, inside, population, population_shadows, **how):
    given = rows(p).log(), rows(shadows).log(), rows(inside).bool()
    return membership.rmia(*given, rows(population).log(), rows(population_shadows).log(), **how)


def counted(count):
    return [count.k, count.n]


MEMLIB = {
    "auc": lambda members, others: metrics.auc(members, others)[0],
    "binomial_interval": lambda k, n: metrics.Count(k, n).interval(),
    "ddim_gaussian": ddim,
    "density_coverage": density,
    "expected_unique": metrics.expected_unique,
    "frechet_distance": lambda a, b: metrics.frechet_distance(rows(a), rows(b)),
    "inception_score": lambda probabilities, splits: metrics.inception_score(probabilities, splits)[0],
    "karras": noise.karras,
    "kid": lambda a, b: metrics.kid(rows(a), rows(b)),
    "l2_ratio": lambda queries, train: metrics.l2_ratio(rows(queries), rows(train)),
    "lira": lira,
    "margin": margin,
    "paired_difference": lambda n, b, c: metrics.paired_interval(*paired(n, b, c)),
    "precision_recall": precision,
    "rmia": rmia,
    "tpr_at_fpr": lambda members, others, fpr: counted(metrics.tpr_at_fpr(members, others, fpr)),
    "ums": lambda hits, n: counted(metrics.ums(hits, n)),
}


class Given(nn.Module):
    """A network for torchmetrics that takes features for images."""

    def __init__(self, width):
        super().__init__()
        self.num_features = width

    def forward(self, x):
        return x


def fid(a, b):
    peer = FrechetInceptionDistance(Given(len(a[0])), input_img_size=(len(a[0]),)).set_dtype(torch.float64)
    for side, real in ((a, True), (b, False)):
        peer.update(rows(side), real=real)
    return float(peer.compute())


def torchmetrics_inception(probabilities, splits):
    peer = InceptionScore(Given(len(probabilities[0])), splits=splits)
    peer.update(rows(probabilities).clamp(min=1e-30).log())
    return float(peer.compute()[0])


def on_the_curve(members, others, fpr):
    """The highest corner of scikit-learn's ROC curve at most at this rate."""
    truth = [1] * len(members) + [0] * len(others)
    x, y, _ = roc_curve(truth, np.array([*members, *others], dtype=float), drop_intermediate=False)
    return [round(float(y[x <= fpr + 1e-12].max()) * len(members)), len(members)]


def scipy_lira(values, shadows, inside, offline, variance):
    """Image by image, with the normal distribution of SciPy and the moments of NumPy."""
    values, shadows, inside, scores = np.array(values), np.array(shadows), np.array(inside, dtype=bool), []
    laws = []
    for side in (inside, ~inside):
        parts = [shadows[side[:, i], i] for i in range(len(values)) if side[:, i].any()]
        own = [part.std(ddof=1) for part in parts]
        laws.append(
            [
                norm(part.mean(), np.mean(np.square(own)) ** 0.5 if variance == "fixed" else s)
                for part, s in zip(parts, own, strict=True)
            ]
        )
    for i, value in enumerate(values):
        out = laws[1][i]
        scores.append(out.logcdf(value) - out.logsf(value) if offline else laws[0][i].logpdf(value) - out.logpdf(value))
    return [float(score) for score in scores]


def truth_and_scores(members, others):
    return [1] * len(members) + [0] * len(others), [*members, *others]


def torchmetrics_auc(members, others):
    truth, scores = truth_and_scores(members, others)
    return float(binary_auroc(rows(scores), torch.tensor(truth)))


def diffusers_ddim(alpha_bar, steps, s):
    bars = np.array(alpha_bar)
    scheduler = DDIMScheduler(
        num_train_timesteps=len(bars),
        trained_betas=1 - bars / np.concatenate(([1.0], bars[:-1])),
        clip_sample=False,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(len(steps))
    assert scheduler.timesteps.tolist() == steps
    x = torch.ones(1, dtype=torch.float64)
    for step in scheduler.timesteps:
        bar = bars[int(step)]
        eps = x * (1 - bar) ** 0.5 / (bar * s**2 + 1 - bar)
        x = scheduler.step(eps, step, x).prev_sample
    return float(x)


def diffusers_karras(n, sigma_min, sigma_max, rho):
    assert rho == 7  # the only one that it has
    levels = EulerDiscreteScheduler()._convert_to_karras(np.array([sigma_max, sigma_min]), num_inference_steps=n)
    return [*levels, 0.0]


OTHERS = {
    ("auc", "scikit-learn"): lambda **given: roc_auc_score(*truth_and_scores(**given)),
    ("auc", "torchmetrics"): torchmetrics_auc,
    ("tpr_at_fpr", "scikit-learn"): on_the_curve,
    ("binomial_interval", "SciPy"): lambda k, n: [*binomtest(k, n).proportion_ci(0.95, method="exact")],
    ("lira", "SciPy"): scipy_lira,
    ("kid", "torchmetrics"): lambda a, b: float(poly_mmd(rows(a), rows(b))),
    ("frechet_distance", "torchmetrics"): fid,
    ("inception_score", "torchmetrics"): torchmetrics_inception,
    ("ddim_gaussian", "diffusers"): diffusers_ddim,
    ("karras", "diffusers"): diffusers_karras,
}
CASES = [(name, case) for name, file in FILES.items() for case in file["cases"]]
NAMES = [f"{name}: {case['why']}" for name, case in CASES]


def near(case, slack=0.0):
    return pytest.approx(case["want"], rel=case["tolerance"] + slack, abs=case["tolerance"] + slack)


def plain(found):
    return found.tolist() if isinstance(found, torch.Tensor) else list(found) if isinstance(found, tuple) else found


def test_every_file_says_what_it_is_and_has_a_function():
    assert set(FILES) == set(MEMLIB) and len(FILES) >= 12
    for name, file in FILES.items():
        assert set(file) == {"metric", "source", "others", "cases"} and file["metric"] and file["source"], name
        assert all(set(case) == {"why", "given", "want", "tolerance"} for case in file["cases"]), name


@pytest.mark.parametrize(("name", "case"), CASES, ids=NAMES)
def test_memlib(name, case):
    assert plain(MEMLIB[name](**case["given"])) == near(case)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "peer"), OTHERS, ids=[" by ".join(key) for key in OTHERS])
def test_others_where_they_are_right(name, peer):
    for case in FILES[name]["cases"]:
        assert plain(OTHERS[name, peer](**case["given"])) == near(case, 1e-6), case["why"]


class TestOthersWhereTheyAreNot:
    """What usual code gives instead; a mend elsewhere should be noticed here."""

    def test_a_quantile_as_threshold_finds_all_members(self):
        given = FILES["tpr_at_fpr"]["cases"][0]["given"]
        threshold = np.quantile(given["others"], 1 - given["fpr"])
        assert sum(member >= threshold for member in given["members"]) == 100

    def test_duplicates_as_neighbours_make_balls_of_radius_0(self):
        ones = np.ones((1024, 64))
        radii = NearestNeighbors(n_neighbors=6).fit(ones).kneighbors(ones)[0][:, -1]
        assert (radii == 0).all()
        inside = sum(int((np.abs(ones - row).sum(1) <= radii).sum()) for row in ones)
        assert inside / (5 * 1024) == 204.8

    @pytest.mark.filterwarnings("ignore")
    def test_a_margin_of_probabilities_is_infinite(self):
        given = FILES["margin"]["cases"][0]["given"]
        p = rows(given["logits"]).softmax(0)[given["label"]]
        assert p.log() - (1 - p).log() == math.inf

    def test_a_deviation_over_all_images_adds_the_spread_between_them(self):
        given = FILES["lira"]["cases"][2]["given"]
        assert np.array(given["shadows"])[:2].std() > 3, "where 1 is the spread of a model's values"

    @pytest.mark.filterwarnings("ignore")
    def test_a_bootstrap_of_zeros_has_no_width(self):
        found = bootstrap((np.zeros(100),), np.mean, method="percentile", rng=np.random.default_rng(0))
        assert tuple(found.confidence_interval) == (0, 0)

    def test_the_second_neighbour_of_a_duplicate_is_its_twin(self):
        given = FILES["l2_ratio"]["cases"][1]["given"]
        nearest = NearestNeighbors(n_neighbors=2).fit(given["train"]).kneighbors(given["queries"])[0][0]
        assert nearest[0] / nearest[1] == 1  # not memorized, it seems
