"""What the papers add, on the device as on the CPU."""

import copy

import pytest
import torch
from alike import HERE, LOOSE, ROUGH, check, seeded, takers
from torch import nn

from memlib import losses, metrics, nets, noise
from memlib.analytic import GaussianMixture
from memlib.features import pixels
from memlib.papers import gaussian, i2i, learning_rate, sgu, side
from memlib.papers.gaussian import toys
from memlib.papers.i2i import bound, evaluation, masks, methods, targets
from memlib.papers.i2i.tokenizer import Tokenizer
from memlib.papers.side import attack

POINTS = torch.randn(12, 2, generator=seeded(1), dtype=torch.float64)
X = torch.randn(6, 2, generator=seeded(2), dtype=torch.float64)
SIGMA = torch.rand(6, generator=seeded(3), dtype=torch.float64) + 0.5
IMAGES = torch.rand(12, 1, 8, 8, generator=seeded(4)) * 2 - 1
LABELS = torch.arange(12) % 3
SCORES = torch.rand(6, 2, generator=seeded(5))
GRID = noise.karras(5, 0.02, 5.0)
HALF = masks.mask("up", 8, 2, 0.5)


def made(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = build().eval()
        for parameter in net.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return net


JUDGE = made(lambda: nets.Classifier(nets.LabelMLP(3, (1, 8, 8), width=16, blocks=1)))
CLEAN = made(lambda: nets.Classifier(nets.LabelMLP(3, (1, 8, 8), width=16, blocks=1, time=False)))
MODEL = made(lambda: nets.Preconditioned(nets.ResidualMLP((1, 8, 8), width=16, blocks=1)))
TOY = made(lambda: gaussian.toy_network(8)).double()


def here(to):
    return to(X).device


# Gaussian mixtures and SGU, whose closed forms are the same.


def optimum(of, to, **more):
    wide, narrow = (GaussianMixture(to(part), std=1.0) for part in (POINTS[:4], POINTS[4:6]))
    return [of(wide, narrow, 0.8, **more)(to(X), s) for s in (to(SIGMA), to(SIGMA[0]))]


def closed_form(to):
    kept, lost = gaussian.retain(here(to)), gaussian.forget(here(to))
    optimal = gaussian.obtuse_optimum(kept, lost, 0.9, gaussian.unlearning_weight)
    return optimal(to(X.float()), to(SIGMA[0].float()))


def objective(to):
    net, data = to(TOY), [sgu.rows(to(part)) for part in (POINTS, POINTS[:3])]

    def levels(n, generator):
        return noise.loguniform(n, 0.1, 5.0, generator)

    value = sgu.objective(*data, losses.obtuse, levels, batch=8)(net, seeded())
    value.backward()
    return value, [p.grad for p in net.parameters()]


# SIDE.


def surrogate(to, arm="CL-TD"):
    return side.Surrogate(arm, "nothing", to(IMAGES), nn.functional.one_hot(to(LABELS)).to(to(IMAGES)))


def clustered(to):
    centres = 4 * torch.randn(3, 64, generator=seeded(7))[LABELS]  # tight clusters, which shuffling would undo
    rows = to(centres + 0.1 * IMAGES.flatten(1))
    return side.cluster(rows, 3, smallest=1), side.prune(rows, to(LABELS), smallest=2)


def swept(to):
    weights = ([0.0, 1.0, 4.0], [2.0], to(torch.tensor([0.0, 3.0])), [0])
    each = (attack.sweep(to(MODEL), to(JUDGE), to(5 * IMAGES), LABELS, some, GRID) for some in weights)
    return list(each)


def similar(to):
    found = attack.similarities([to(IMAGES[:4]), to(IMAGES[4:])], pixels, to(IMAGES[:6]), to(IMAGES[6:]))
    return found, found.hits(metrics.Joint(0.0, 10.0)), found.resembles_others(metrics.Joint(0.0, 10.0))


# The learning rate.


def stack(to, dim=1, **options):
    sigma = torch.tensor([0.2, 0.4, 0.8])
    points = to(torch.linspace(-1, 1, 4 * dim).view(4, dim))
    task = learning_rate.problem(points, to(sigma), **options)
    net = learning_rate.two_layer(torch.tensor([1, 2, 2]), 6, dim).to(points)
    return task, net


def descended(to, optimiser="sgd", dim=1):
    task, net = stack(to, dim)
    seeds = torch.tensor([0, 1, 1])
    steps = learning_rate.minibatches(task, seeds, 8, 70)
    rates = to(torch.tensor([0.01, 0.02, 1e30]))
    return list(learning_rate.descend(net, task, rates, steps, bound=5.0, optimiser=optimiser, at=(3,))), net.trained


def deep(to):
    net = learning_rate.deep(torch.tensor([1, 2, 2]), 6, 1).to(to(SIGMA.float()))
    task, _ = stack(to)
    whole = learning_rate.quadrature(task, 9)
    return net.gradient(whole), net.members(torch.tensor([0, 2])).w2, learning_rate.sharpness(net, whole, iterations=4)


def sharp(to):
    task, net = stack(to)
    return learning_rate.sharpness(net, learning_rate.quadrature(task, 9), task, iterations=6)


def multilevel(to):
    sigma = torch.tensor([0.8, 0.4, 0.2] * 2)
    task = learning_rate.problem(to(torch.linspace(-1, 1, 4)[:, None]), to(sigma))
    net = learning_rate.two_layer(torch.arange(6), 6).to(task.points)
    denoiser, grid = learning_rate.multilevel_denoiser(net, task, 3)
    return denoiser(to(torch.ones(2, 5, 1)), grid[1]), grid


# Image to image.


def small(family):
    pytest.importorskip("transformers" if family == "mae" else "diffusers", reason=f"the {family} is built on it")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if family == "mae":
            return i2i.MAE.small((1, 8, 8), 2, width=16, depth=1, heads=2).eval()
        if family == "vqgan":
            return i2i.VQGAN.small((1, 8, 8), 2, codes=16, channels=8, width=16, depth=1, heads=2).eval()
        kind = i2i.Inpainter if family == "diffusion" else i2i.MaskedCodeInpainter
        return kind.small((1, 8, 8), widths=(8, 16)).eval()


def tokenizer():
    return made(lambda: Tokenizer(3, (32, 32), 1, 8, 16))


def mage(to):
    model = to(made(lambda: i2i.MAGE(tokenizer(), 4, 64, 1, 16, 1)))
    images, mask = to(IMAGES.expand(-1, 3, -1, -1)), to(HALF)
    codes = model.encode(model.initial_inputs(images, mask, seeded()))
    rest = images, images[:3], lambda _: mask, targets.gaussian(images)
    run = methods.unlearn(model, methods.li2024, *rest, steps=2, batch=4)
    filled = model.complete(images, mask, noise.seeded(range(12)))
    return filled, model.loss(images, images, mask, seeded()), codes, [step.loss for _, step in run]


def words(to):
    model, images = to(tokenizer()), to(IMAGES.expand(-1, 3, -1, -1))
    indices = model.encode((images + 1) / 2)
    return indices, model.decode(indices)


def completed(family):
    def case(to):
        model, mask = to(small(family)), to(HALF)
        filled = model.complete(to(IMAGES), mask, noise.seeded(range(12)))
        value = model.loss(to(IMAGES), to(IMAGES), mask, seeded())
        codes = model.encode(model.initial_inputs(to(IMAGES), mask, seeded()))
        return filled, value, codes

    return case


def unlearned(family, method):
    def case(to):
        model = to(small(family))
        target = targets.gaussian(to(IMAGES))
        frozen, material = (
            copy.deepcopy(model),
            methods.UnlearningBatch(*map(to, (IMAGES, IMAGES.flip(0), IMAGES, HALF))),
        )
        terms = method(model, frozen, material, seeded())
        run = methods.unlearn(model, method, to(IMAGES), to(IMAGES[:3]), lambda _: to(HALF), target, steps=2, batch=4)
        return terms, [step.loss for _, step in run]

    return case


def drawn(make):
    return lambda to: make(to(IMAGES))(5, seeded())


def quality(to):
    def probabilities(images):
        return images.flatten(1)[:, :4].softmax(1)

    judge = evaluation.Judge(pixels, probabilities, pixels)
    return evaluation.quality(to(IMAGES), to(IMAGES.roll(1, 0)), to(HALF), judge)


CASES = {
    "gaussian.mixture": lambda to: gaussian.mixture(here(to)).log_prob(to(X.float()), 1.0),
    "gaussian.means": lambda to: toys.means(here(to)),
    "gaussian.unlearning_weight": lambda to: gaussian.unlearning_weight(to(SIGMA)),
    "gaussian.obtuse_optimum": closed_form,
    "gaussian.kl_to_points": lambda to: gaussian.kl_to_points(
        to(X[0]), to(torch.eye(2).double()), to(POINTS), to(SIGMA[0])
    ),
    "sgu.rows": lambda to: sgu.rows(to(POINTS))(5, seeded()),
    "sgu.ones": lambda to: sgu.ones(to(SIGMA)),
    "sgu.mix": lambda to: sgu.mix(to(SIGMA), to(SIGMA), 0.9),
    "sgu.objective": objective,
    "sgu.obtuse_optimum": lambda to: optimum(sgu.obtuse_optimum, to),
    "sgu.bounded_optimum": lambda to: optimum(sgu.bounded_optimum, to, reach=2.0),
    "sgu.orthogonal_optimum": lambda to: optimum(sgu.orthogonal_optimum, to),
    "sgu.noise_moment": lambda to: sgu.noise_moment(GaussianMixture(to(POINTS), std=0.5), to(X), 0.5),
    "side.log_p": lambda to: side.log_p(to(JUDGE), LABELS)(to(IMAGES), to(SIGMA[0].float())),
    "side.as_ddpm": lambda to: side.as_ddpm(to(JUDGE))(to(IMAGES), 0.5),
    "side.accuracy": lambda to: side.accuracy(to(JUDGE), to(IMAGES), LABELS, [0.1, 1.0], noise.seeded(range(12))),
    "side.agreement": lambda to: side.agreement(to(X), to(X + SIGMA[:, None])),
    "side.agreement_on_points": lambda to: side.agreement_on_points(
        to(JUDGE), to(IMAGES), to(LABELS), [0.3, 1.0], noise.seeded(range(12))
    ),
    "side.bayes_direction": lambda to: side.bayes_direction(
        GaussianMixture(to(IMAGES)), [GaussianMixture(to(IMAGES[k::3])) for k in range(3)], to(LABELS), to(IMAGES), 0.7
    ),
    "side.cluster": clustered,
    "side.pair_cosine": lambda to: side.pair_cosine(nn.functional.normalize(to(IMAGES.flatten(1))), to(LABELS)),
    "side.partition": lambda to: side.partition(to(IMAGES.flatten(1)), 3),
    "side.prune": clustered,
    "side.cluster_labels": lambda to: side.cluster_labels(to(IMAGES), clustered(to)[1]),
    "side.random_labels": lambda to: side.random_labels(to(IMAGES), 3, seeded()),
    "side.teacher_labels": lambda to: side.teacher_labels(to(CLEAN), to(IMAGES)),
    "side.training_indices": lambda to: side.training_indices(to(IMAGES)),
    "side.tdkd": lambda to: side.tdkd(to(X), to(X).softmax(1), 2.0),
    "side.attack.sweep": swept,
    "side.attack.in_use": lambda to: attack.in_use(to(SCORES)),
    "side.attack.own_labels": lambda to: attack.own_labels(to(JUDGE), to(IMAGES), 0.1),
    "side.attack.similarities": similar,
    "learning_rate.problem": lambda to: stack(to, mu=to(torch.ones(3)))[0],
    "learning_rate.density": lambda to: learning_rate.density(stack(to)[0], to(torch.ones(3, 5, 1))),
    "learning_rate.optimal_score": lambda to: learning_rate.optimal_score(stack(to)[0], to(torch.ones(3, 5, 1))),
    "learning_rate.quadrature": lambda to: learning_rate.quadrature(stack(to)[0], 9),
    "learning_rate.minibatches": lambda to: list(
        learning_rate.minibatches(stack(to)[0], torch.tensor([0, 1, 1]), 4, 66, first=2)
    )[::20],
    "learning_rate.risk": lambda to: learning_rate.risk(stack(to)[1], learning_rate.quadrature(stack(to)[0], 9)),
    "learning_rate.excess_risk": lambda to: learning_rate.excess_risk(
        stack(to)[1], stack(to)[0], learning_rate.quadrature(stack(to)[0], 9)
    ),
    "learning_rate.zero_score_risk": lambda to: learning_rate.zero_score_risk(stack(to)[0]),
    "learning_rate.min_distance": lambda to: learning_rate.min_distance(stack(to)[0].points),
    "learning_rate.ramp": lambda to: learning_rate.ramp(to(torch.ones(3)), 1e-3, 1e-2, 2, 1, 2)(1),
    "learning_rate.rate_threshold": lambda to: learning_rate.rate_threshold(stack(to)[0]),
    "learning_rate.risk_bound": lambda to: learning_rate.risk_bound(stack(to)[0], to(torch.tensor([1.0, 2.0, 3.0]))),
    "learning_rate.descend": lambda to: [descended(to), descended(to, "adam"), descended(to, dim=2)],
    "learning_rate.two_layer": lambda to: stack(to)[1].members(torch.tensor([0, 2])).trained,
    "learning_rate.TwoLayer": lambda to: stack(to)[1].with_parameters(stack(to)[1].trained)(to(torch.ones(3, 5, 1))),
    "learning_rate.deep": deep,
    "learning_rate.Deep": deep,
    "learning_rate.sharpness": sharp,
    "learning_rate.multilevel_denoiser": multilevel,
    "i2i.masks.hide": lambda to: masks.hide(to(IMAGES), to(HALF)),
    "i2i.masks.paste": lambda to: masks.paste(to(IMAGES), to(-IMAGES), to(HALF)),
    "i2i.masks.hidden_tokens": lambda to: masks.hidden_tokens(to(HALF), 12, 2),
    "i2i.methods.flatten_codes": lambda to: methods.flatten_codes((to(X), to(X))),
    "i2i.methods.i2i": lambda to: methods.i2i(torch.sin, torch.cos, to(X), to(X), to(X)),
    "i2i.methods.joint_norm": lambda to: methods.joint_norm(to(X), to(X.flip(0))),
    "i2i.methods.mean_square": lambda to: methods.mean_square((to(X), to(X)), (to(X.flip(0)), to(X))),
    "i2i.targets.gaussian": drawn(targets.gaussian),
    "i2i.targets.uniform": drawn(targets.uniform),
    "i2i.targets.covariance": drawn(targets.covariance),
    "i2i.targets.low_rank": drawn(lambda images: targets.low_rank(images, 3)),
    "i2i.targets.off_diagonal": lambda to: targets.off_diagonal(to(IMAGES)),
    "i2i.targets.off_diagonal_by_chance": lambda to: targets.off_diagonal_by_chance(to(IMAGES), seeded()),
    "i2i.targets.nearly_zero": lambda to: targets.nearly_zero(to(IMAGES)),
    "i2i.bound.theorem1": lambda to: bound.theorem1(to(X), to(X.flip(0))),
    "i2i.bound.infonce": lambda to: bound.infonce(to(X), to(X)),
    "i2i.bound.matched": lambda to: bound.matched(to(SIGMA)),
    "i2i.bound.divergence": lambda to: bound.divergence(to(-SIGMA), to(-(SIGMA**2)), to(torch.linspace(0, 1, 6))),
    "i2i.evaluation.region": lambda to: evaluation.region(to(IMAGES), to(HALF)),
    "i2i.evaluation.quality": quality,
    "i2i.evaluation.interval": lambda to: evaluation.interval(to(SIGMA)),
    "i2i.evaluation.outcome": lambda to: evaluation.outcome(to(SCORES), to(SIGMA), 0.1),
    "i2i.evaluation.share_lost": lambda to: evaluation.share_lost(to(SCORES), to(SIGMA)),
    "i2i.evaluation.compare": lambda to: evaluation.compare(to(SCORES), to(SCORES.flip(0)), to(SIGMA), 0.1),
    "i2i.evaluation.counted": lambda to: evaluation.counted(to(LABELS > 0), to(LABELS), [0, 1]),
    "i2i.evaluation.truth_separation": lambda to: evaluation.truth_separation(
        *map(to, (X, X.flip(0), X, X.roll(1, 0)))
    ),
}  # fmt: skip
TRAINED = {"learning_rate.descend", "learning_rate.deep", "learning_rate.Deep", "learning_rate.sharpness"}
BY_FAMILY = {"li2024", "max_loss", "noisy_label", "retain_label", "random_encoder", "unlearn"}
BY_FAMILY |= {"li2024_released", "random_encoder_released"}


@pytest.mark.parametrize("name", CASES)
def test_on_the_device_as_on_the_cpu(name, device):
    check(CASES[name], device, *([LOOSE] if name in TRAINED else []))


def test_a_probe_answers_on_the_cpu(device):
    check(
        lambda to: evaluation.linear_probe(*map(to, (IMAGES, LABELS, IMAGES.roll(1, 0), LABELS.roll(1)))), device, HERE
    )


def test_labels_of_samples_are_drawn_on_the_cpu(device):
    check(lambda to: attack.uniform_labels(noise.seeded(to(torch.arange(6))), 6, 3), device, HERE)


def test_a_teacher_and_a_student_learn_on_the_device(device):
    def taught(to):
        return side.teach(to(CLEAN), to(IMAGES), to(LABELS), 3, lr=1e-4)

    def distilled(to):
        return side.distil(to(JUDGE), surrogate(to), 3, lr=1e-4)

    for case in (taught, distilled):
        check(case, device, LOOSE)


@pytest.mark.parametrize("family", ["mae", "vqgan", "diffusion", "masked code"])
def test_a_completer_on_the_device(family, device):
    check(completed(family), device, LOOSE)


@pytest.mark.parametrize(("case", "notes"), [(mage, [ROUGH]), (words, [])], ids=["mage", "tokenizer"])
def test_mage_on_the_device(case, notes, device):
    check(case, device, *notes)


@pytest.mark.parametrize("method", [getattr(methods, name) for name in sorted(BY_FAMILY - {"unlearn"})])
@pytest.mark.parametrize("family", ["mae", "diffusion"])
def test_unlearning_on_the_device(family, method, device):
    check(unlearned(family, method), device, ROUGH)


ROOMS = ["gaussian", "side", "side.attack", "sgu", "learning_rate"]
ROOMS += [f"i2i.{room}" for room in ("masks", "methods", "targets", "bound", "evaluation", "mage", "tokenizer")]


@pytest.mark.parametrize("room", ROOMS)
def test_no_function_that_takes_tensors_is_forgotten(room):
    apart = {
        "side.attack.uniform_labels",
        "side.teach",
        "side.distil",
        "i2i.evaluation.linear_probe",
        "i2i.mage.MAGE",
        "i2i.tokenizer.Tokenizer",
        *(f"i2i.methods.{name}" for name in BY_FAMILY),
    }
    tuples = {"Clusters", "Surrogate", "Similarities", "NoisyBatch", "Problem", "Progress", "UnlearningBatch", "Judge"}
    tuples |= {"Method", "Quality"}
    missed = takers(f"papers.{room}") - {f"papers.{name}" for name in {*CASES, *apart}}
    assert {name for name in missed if name.rpartition(".")[2] not in tuples} == set()
