"""The rooms of the core that make, noise, denoise, train and sample, on the device as on the CPU."""

import copy
import functools

import pytest
import torch
from alike import LOOSE, check, seeded, takers

from memlib import adapters, analytic, denoiser, inpaint, likelihood, losses, nets, noise, random, sample, train

ROOMS = [
    "random",
    "noise",
    "denoiser",
    "analytic",
    "losses",
    "sample",
    "inpaint",
    "likelihood",
    "train",
    "nets",
    "adapters",
]

X = torch.randn(6, 1, 8, 8, generator=seeded(1))
POINTS = torch.randn(6, 2, generator=seeded(2))
SIGMA = torch.rand(6, generator=seeded(3)) + 0.5
LABELS = torch.arange(6) % 3
GRID = noise.karras(5, 0.02, 5.0)
BAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 50, dtype=torch.float64), 0)
COVARIANCES = torch.stack([torch.eye(2), torch.tensor([[2.0, 0.5], [0.5, 1.0]])])
HIDDEN = inpaint.upper_half(8)


def made(build):
    """A network with random weights everywhere, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build().eval()
        for parameter in net.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return net


NET = made(lambda: nets.Preconditioned(nets.ResidualMLP((1, 8, 8), width=16, blocks=1)))
TOY = made(lambda: nets.Preconditioned(nets.MLP(2, width=8, depth=2)))
JUDGE = made(lambda: nets.Classifier(nets.LabelMLP(3, (1, 8, 8), width=16, blocks=1)))
F = made(lambda: nets.ResNet(3, 1, (4, 8), (1, 1)))
TIMELESS = made(lambda: nets.ResNet(3, 1, (4,), (1,), time=False))


def log_p(to):
    judge, labels = to(JUDGE), to(LABELS)
    return lambda x, sigma: judge(x, sigma).log_softmax(1).gather(1, labels[:, None])[:, 0]


def mixture(to, **options):
    return analytic.GaussianMixture(to(POINTS[:2]), **options)


def eps(to):
    return to(X), to(X.roll(1, 0))


def loss(net, generator, z):
    x0 = random.choose(z, 4, generator)
    sigma = noise.as_level(noise.lognormal(4, generator=generator), z)
    return losses.denoising(*denoiser.pair(net, x0, sigma, noise.noise_from(generator)), net.weight(sigma)).mean()


def trained(to):
    net, steps = to(NET), []
    ema = copy.deepcopy(net)
    run = train.fit(net, functools.partial(loss, z=to(X)), 30, ema=ema, precision="fp32")
    steps = [step.loss for step in run]
    return steps, net, ema


def resumed(to, tmp_path):
    folder = tmp_path / str(to(X).device.type)
    for steps in (3, 6):
        net = to(NET)
        options = {"checkpoint": folder, "schedule": "constant", "precision": "fp32"}
        list(train.fit(net, functools.partial(loss, z=to(X)), steps, **options))
    return net


def unet(to):
    pytest.importorskip("diffusers", reason="a U-Net is diffusers'")
    net = made(lambda: nets.UNet(8, 1, (8, 8), layers=1))
    return to(net)(to(X), to(SIGMA))


def folder(to, tmp_path):
    pytest.importorskip("diffusers", reason="a folder of diffusers")
    net = made(lambda: nets.UNet(8, 1, (8, 8), layers=1).unet)
    path = adapters.to_diffusers(adapters.from_discrete(net, BAR, "eps"), tmp_path / to(X).device.type)
    again = adapters.from_diffusers(path, device=to(X).device)
    return again(to(X), again.sigmas[3])


def coded(to):
    diffusers = pytest.importorskip("diffusers", reason="the autoencoder is diffusers'")
    net = made(lambda: diffusers.AutoencoderKL(1, 1, norm_num_groups=4, block_out_channels=(4,)))
    coder = to(adapters.Autoencoder(net))
    latents = coder.encode(to(X))
    return latents, coder.decode(latents)


def preconditioned(to, tmp_path):
    pytest.importorskip("diffusers", reason="a folder of diffusers")
    made(lambda: nets.UNet(8, 1, (8, 8), layers=1).unet).save_pretrained(tmp_path)
    return adapters.from_edm(tmp_path, 0.5, device=to(X).device)(to(X), to(SIGMA))


def discrete(to, predicts, sigma, **options):
    net = to(F.enter[0])  # a convolution

    def network(x, t):
        return net(x)[:, :1] + t.view(-1, 1, 1, 1) / 50

    return adapters.from_discrete(network, BAR, predicts, **options)(to(X), to(sigma))


CASES = {
    "random.noise_from": lambda to: random.noise_from(seeded())(to(X)),
    "random.seeded": lambda to: [random.seeded(range(6))(to(X)), random.seeded(to(torch.arange(6)))(to(X))],
    "random.choose": lambda to: random.choose(to(X), 4, seeded()),
    "random.to_device": lambda to: random.to_device(X, to(X).device, torch.float64),
    "noise.choose": lambda to: noise.choose(to(X), 4, seeded()),
    "noise.expand_sigma": lambda to: [noise.expand_sigma(s, to(X)) for s in (2.0, SIGMA, to(SIGMA))],
    "noise.as_level": lambda to: [noise.as_level(s, to(X)) for s in (2, SIGMA.double(), to(SIGMA))],
    "noise.add_noise": lambda to: noise.add_noise(to(X), 0.5, noise.seeded(range(6))),
    "noise.discrete": lambda to: noise.discrete(to(BAR), 10),
    "noise.strength": lambda to: noise.strength(to(BAR), 0.5),
    "noise.discrete_levels": lambda to: noise.discrete_levels(to(BAR)),
    "noise.levels_of": lambda to: noise.levels_of(to(GRID)),
    "noise.vp_sigma": lambda to: noise.vp_sigma(to(SIGMA) / 2),
    "noise.uniform_step": lambda to: noise.uniform_step(9, to(GRID), seeded()),
    "denoiser.score": lambda to: denoiser.score(to(NET), to(X), 0.5),
    "denoiser.eps": lambda to: denoiser.eps(to(NET), to(X), to(SIGMA)),
    "denoiser.pair": lambda to: denoiser.pair(to(NET), to(X), SIGMA, noise.noise_from(seeded())),
    "denoiser.guided": lambda to: [
        denoiser.guided(to(NET), log_p(to), w)(to(X), to(SIGMA)) for w in (2.0, SIGMA, to(SIGMA))
    ],
    "denoiser.classifier_free": lambda to: denoiser.classifier_free(to(NET), to(NET), 2.0)(to(X), to(SIGMA)),
    "denoiser.limited": lambda to: denoiser.limited(to(NET), lambda x0: x0.clamp(-1, 1))(to(X), to(SIGMA)),
    "denoiser.evaluated": lambda to: denoiser.evaluated(to(NET))(to(X), to(SIGMA)),
    "denoiser.gradient": lambda to: denoiser.gradient(log_p(to), to(X), 1.0),
    "analytic.GaussianMixture": lambda to: [
        (one(to(POINTS), 0.3), one.log_prob(to(POINTS), to(SIGMA)), one.posterior(to(POINTS), 1.0),
         one.sample(5, seeded())[one.spectrum is not None :])
        for one in (mixture(to, std=1.0), mixture(to, std=to(SIGMA[:2])), mixture(to, covariances=to(COVARIANCES)),
                    mixture(to, weights=SIGMA[:2], std=0.5))
    ],  # fmt: skip
    "analytic.Empirical": lambda to: [analytic.Empirical(to(X))(to(X) + 0.1, s) for s in (1e-3, 0.5, to(SIGMA))],
    "losses.denoising": lambda to: losses.denoising(*eps(to), to(SIGMA)),
    "losses.matching": lambda to: losses.matching(*eps(to)),
    "losses.matching_unbiased": lambda to: losses.matching_unbiased(*eps(to)),
    "losses.ascent": lambda to: losses.ascent(*eps(to)),
    "losses.orthogonal": lambda to: losses.orthogonal(*eps(to), to(SIGMA)),
    "losses.orthogonal_elementwise": lambda to: losses.orthogonal_elementwise(*eps(to)),
    "losses.obtuse": lambda to: losses.obtuse(*eps(to)),
    "losses.obtuse_bounded": lambda to: losses.obtuse_bounded(*eps(to)),
    "losses.alignment": lambda to: losses.alignment(*eps(to)),
    "losses.erase": lambda to: losses.erase(*eps(to)),
    "losses.ddpm_weight": lambda to: losses.ddpm_weight(to(GRID[:3].float()), GRID),
    "sample.start_from": lambda to: sample.start_from(to(X), GRID, range(len(X))),
    "sample.start": lambda to: sample.start(GRID, range(6), (1, 8, 8), device=to(X).device),
    "sample.ancestral": lambda to: [
        sample.ancestral(to(NET), to(5 * X), grid, eta, noise.seeded(range(6)))
        for grid in (GRID, to(GRID)) for eta in (0, 1)
    ],  # fmt: skip
    "sample.ancestral_path": lambda to: list(sample.ancestral_path(to(NET), to(5 * X), GRID)),
    "sample.encode": lambda to: sample.encode(to(NET), to(X), GRID[:-1]),
    "sample.heun": lambda to: sample.heun(to(NET), to(5 * X), GRID),
    "sample.heun_path": lambda to: list(sample.heun_path(to(NET), to(5 * X), GRID)),
    "inpaint.inpaint": lambda to: [
        inpaint.inpaint(to(NET), to(X), mask, GRID, 2, noise.seeded(range(6))) for mask in (HIDDEN, to(HIDDEN))
    ],
    "inpaint.inpaint_path": lambda to: list(
        inpaint.inpaint_path(to(NET), to(X), HIDDEN, GRID, noise=noise.seeded(range(6)))
    ),
    "inpaint.reconstruct": lambda to: inpaint.reconstruct(to(NET), to(X), 0.5, GRID, noise.seeded(range(6))),
    "likelihood.log_likelihood": lambda to: [
        likelihood.log_likelihood(to(TOY), to(POINTS), 0.1, 10.0, probes, likelihood.prior(10.0), tol=1e-3)
        for probes in (None, 3, to(torch.ones(2, 6, 2)))
    ],
    "likelihood.variational_bound": lambda to: [
        likelihood.variational_bound(to(TOY), to(POINTS), noise.ve(4, 0.1, 10.0), noise.seeded(range(6)), 2, terminal)
        for terminal in (None, likelihood.prior(10.0))
    ],
    "likelihood.bits_per_dim": lambda to: likelihood.bits_per_dim(to(SIGMA), 64, 8),
    "likelihood.dequantise": lambda to: likelihood.dequantise(to(X.sign()), 1, seeded()),
    "nets.MLP": lambda to: to(TOY)(to(POINTS), to(SIGMA)),
    "nets.ResidualMLP": lambda to: to(NET)(to(X), 0.5),
    "nets.Preconditioned": lambda to: to(NET).weight(to(SIGMA)),
    "nets.LabelMLP": lambda to: to(JUDGE)(to(X), to(SIGMA)),
    "nets.Classifier": lambda to: nets.Classifier(to(TIMELESS))(to(X), 1.0),
    "nets.ResNet": lambda to: to(F)(to(X), to(SIGMA)),
    "nets.TimeCode": lambda to: to(nets.TimeCode(8))(to(SIGMA)),
    "nets.LabelCode": lambda to: to(made(lambda: nets.LabelCode(3, 4)))(to(LABELS)),
    "nets.dropped": lambda to: nets.dropped(to(LABELS), 3, 0.5, seeded()),
    "nets.FiLMBlock": lambda to: to(made(lambda: nets.FiLMBlock(4)))(to(X[:, 0, 0, :4]), to(X[:, 0, 1, :4])),
    "nets.TimeModule": lambda to: to(made(lambda: nets.TimeModule(4, 1)))(to(X), to(X[:, 0, 1, :4])),
    "nets.Stack": lambda to: nets.Stack([to(NET), to(NET)])(to(X), to(SIGMA)),
    "adapters.from_discrete": lambda to: [
        discrete(to, predicts, noise.discrete(BAR)[k], **how)
        for predicts in ("eps", "v", "x0") for k in (4, [3, 4, 5, 6, 7, 8]) for how in ({}, {"between": "interpolate"})
    ],
    "adapters.from_preconditioned": lambda to: adapters.from_preconditioned(to(NET.net), 0.5)(to(X), to(SIGMA)),
    "adapters.Edm": lambda to: [adapters.Edm(to(NET.net), 0.5)(to(X), s) for s in (0.0, 0.3)],
    "adapters.Autoencoder": coded,
    "adapters.from_flow": lambda to: adapters.from_flow(lambda x, t: x * t[:, None, None, None])(to(X), to(SIGMA)),
    "adapters.Flow": lambda to: adapters.Flow(lambda x, t: x * t[:, None, None, None], 1.0)(to(X), 0.5),
    "adapters.Discrete": lambda to: adapters.Discrete(to(F), BAR, "v").weight(to(SIGMA)),
}  # fmt: skip
SKIPPED = {
    "nets.resnet34": "a ResNet of other sizes",
    "adapters.to_diffusers": "diffusers asks for pointers, which only a real device has",
    "denoiser.evaluating": "a context; evaluated is tested",
    "likelihood.LogLikelihood": "a tuple",
    "likelihood.VariationalBound": "a tuple",
    "train.Step": "a tuple",
    "noise.noise_from": "that of random",
    "noise.seeded": "that of random",
    "noise.to_device": "that of random",
    "sample.seeded": "that of random",
}


@pytest.mark.parametrize("name", CASES)
def test_on_the_device_as_on_the_cpu(name, device):
    check(CASES[name], device)


def test_training_on_the_device_follows_that_on_the_cpu(device):
    check(trained, device, LOOSE)


def test_a_checkpoint_of_the_device_is_gone_on_from(device, tmp_path):
    check(functools.partial(resumed, tmp_path=tmp_path), device, LOOSE)


def test_dropout_on_the_device_is_repeatable_and_leaves_the_global_generator(device):
    def once():
        torch.manual_seed(1)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.5), torch.nn.Linear(64, 1)).to(device)
        x = X.to(device)
        list(train.fit(net, lambda net, _: net(x).square().mean(), 3, precision="fp32"))
        return net[2].weight.detach().cpu()

    torch.testing.assert_close(once(), once(), rtol=1e-5, atol=1e-6)


def test_a_unet_on_the_device(device):
    check(unet, device)


def test_a_folder_of_diffusers_on_the_device(device, tmp_path):
    check(functools.partial(folder, tmp_path=tmp_path), device)


def test_a_folder_of_edm_on_the_device(device, tmp_path):
    check(functools.partial(preconditioned, tmp_path=tmp_path), device)


@pytest.mark.parametrize("room", ROOMS)
def test_no_function_that_takes_tensors_is_forgotten(room):
    own = {
        "nets.UNet",
        "train.fit",
        "train.train",
        "adapters.compiled",
        "adapters.from_edm",
    }  # tests of their own; the last in benchmarks/sampling.py
    assert takers(room) - {*CASES, *SKIPPED, *own} == set()
