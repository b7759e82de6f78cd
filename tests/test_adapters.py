"""Foreign networks: against diffusers' own schedulers step by step, against closed forms, and out again by export."""

import json
import subprocess
import sys
from copy import deepcopy
from functools import partial

import numpy
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, EDMEulerScheduler, LCMScheduler, UNet2DModel

from memlib import adapters, data, likelihood, losses, nets, noise, sample, train
from memlib.analytic import GaussianMixture
from memlib.denoiser import pair
from memlib.errors import Refused

STEPS = 50
SCHEDULES = {
    "linear": {"beta_start": 1e-3, "beta_end": 0.2},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.2},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "trained": {"trained_betas": torch.linspace(0.01, 0.1, STEPS).tolist()},
    "zero_snr": {"beta_start": 1e-3, "beta_end": 0.2, "rescale_betas_zero_snr": True},
}
PREDICTS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
MIXTURE = GaussianMixture(torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), std=0.3)


def unet(**options):
    """A UNet2DModel with random weights, small enough for a test."""
    torch.manual_seed(0)
    widths = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": 4}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return UNet2DModel(**{"sample_size": 8, "in_channels": 1, "out_channels": 1, **widths, **blocks, **options})


def saved(folder, schedule="linear", prediction="epsilon", kind=DDIMScheduler, **options):
    """A pipeline's folder written by diffusers alone, and the scheduler in it."""
    scheduler = kind(num_train_timesteps=STEPS, prediction_type=prediction, clip_sample=False, **SCHEDULES[schedule])
    unet(**options).save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return scheduler


def drive(scheduler, net, n, eta=None):
    """diffusers' own loop in float64; the start, the states divided by alpha, and the noise it was fed."""
    scheduler.alphas_cumprod = bar = scheduler.alphas_cumprod.double()
    scheduler.set_timesteps(n)
    t = scheduler.timesteps
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start, states, used = x / bar[t[0]].sqrt(), [], []
    for i, step in enumerate(t):
        output = net(x, step).sample
        used.append(torch.randn(x.shape, generator=torch.Generator().manual_seed(100 + i), dtype=x.dtype))
        if eta is None:
            x = scheduler.step(output, step, x, generator=torch.Generator().manual_seed(100 + i)).prev_sample
        else:
            x = scheduler.step(output, step, x, eta=eta, variance_noise=used[-1]).prev_sample
        states.append(x / (bar[t[i + 1]].sqrt() if i + 1 < n else 1.0))
    return start, states, iter(used)


@pytest.mark.parametrize("prediction", PREDICTS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@torch.no_grad()
def test_sampling_is_that_of_diffusers_step_by_step(tmp_path, schedule, prediction):
    scheduler = saved(tmp_path, schedule, prediction)
    denoiser = adapters.from_diffusers(tmp_path).double()
    assert denoiser.predicts == PREDICTS[prediction] and denoiser.shape == (1, 8, 8) and not denoiser.training
    net = UNet2DModel.from_pretrained(tmp_path / "unet", low_cpu_mem_usage=False).double()
    sigmas = noise.discrete(denoiser.alphas_cumprod, 10)
    for kind, eta in ((DDIMScheduler, 0.0), (DDIMScheduler, 0.5), (DDPMScheduler, None)):
        start, theirs, used = drive(kind.from_config(scheduler.config), net, 10, eta)
        draws = partial(lambda used, x: next(used), used)
        ours = list(sample.ancestral_path(denoiser, start, sigmas, 1.0 if eta is None else eta, draws))
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)  # their coefficients pass through float32


@torch.no_grad()
def test_clipping_is_a_denoiser_around_a_denoiser(tmp_path):
    scheduler = saved(tmp_path, "linear", "v_prediction", DDPMScheduler)
    denoiser = adapters.from_diffusers(tmp_path).double()
    clipping = DDPMScheduler.from_config(scheduler.config, clip_sample=True)
    start, theirs, used = drive(clipping, denoiser.net, 10)
    sigmas = noise.discrete(denoiser.alphas_cumprod, 10)

    def clipped(x, sigma):
        return denoiser(x, sigma).clamp(-1, 1)

    torch.testing.assert_close(sample.ancestral(clipped, start, sigmas, 1.0, lambda x: next(used)), theirs[-1])
    assert theirs[-1].abs().max() <= 1


# The algebra, on a mixture whose eps, v and x0 are known.


def as_network(predicts, alphas_cumprod):
    """The mixture as a network of integer or fractional t in VP coordinates, by the definitions of eps, v and x0."""
    logs = (1 / alphas_cumprod - 1).log() / 2

    def net(x_t, t):
        low = t.long().clamp(max=len(logs) - 2)
        sigma = torch.lerp(logs[low], logs[low + 1], t.double() - low).exp()[:, None]
        alpha, std = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
        x0 = MIXTURE(x_t / alpha, sigma[:, 0])
        eps = (x_t - alpha * x0) / std
        return {"eps": eps, "v": alpha * eps - std * x0, "x0": x0}[predicts]

    return net


BAR = DDPMScheduler().alphas_cumprod.double()


@pytest.mark.parametrize("predicts", PREDICTS.values())
def test_every_prediction_type_gives_the_posterior_mean(predicts):
    denoiser = adapters.from_discrete(as_network(predicts, BAR), BAR, predicts)
    assert torch.equal(denoiser.sigmas, noise.discrete(BAR))
    sigma = denoiser.sigmas[:-1]  # every level, one a sample
    x = sigma[:, None] * torch.randn(1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(denoiser(x, sigma), MIXTURE(x, sigma), rtol=1e-9, atol=1e-9)
    for form in (sigma[700].item(), sigma[700], sigma[700:701], sigma[700].float()):
        torch.testing.assert_close(denoiser(x[:5], form), MIXTURE(x[:5], sigma[700]), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("predicts", PREDICTS.values())
def test_weighted_loss_is_the_networks_own_error(predicts):
    """For a network that always answers 0.3, against the target of its prediction type."""
    denoiser = adapters.from_discrete(lambda x, t: torch.full_like(x, 0.3), BAR, predicts)
    x0 = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = denoiser.sigmas[[0, 100, 300, 600, 900, 999]]
    eps_hat, eps = pair(denoiser, x0, sigma, noise.noise_from(torch.Generator().manual_seed(1)))
    alpha, std = (1 + sigma**2).rsqrt()[:, None], (sigma / (1 + sigma**2).sqrt())[:, None]
    target = {"eps": eps, "v": alpha * eps - std * x0, "x0": x0}[predicts]
    torch.testing.assert_close(losses.denoising(eps_hat, eps, denoiser.weight(sigma)), (0.3 - target).square().sum(1))


def test_grids_of_ddpm_in_either_precision_are_the_same_levels():
    """noise.ddpm is float64, a checkpoint's alpha_bar float32: at t = 0 their sigmas differ by 1e-4."""
    denoiser = adapters.from_discrete(as_network("eps", BAR), BAR, "eps")
    x = torch.randn(2, 3, dtype=torch.float64)
    exact = MIXTURE(x, noise.ddpm(1000)[-2])
    for sigma in (noise.ddpm(1000)[-2], noise.ddpm(1000)[-2].float()):
        torch.testing.assert_close(denoiser(x, sigma), exact, rtol=1e-3, atol=1e-3)
    for sigma in noise.ddpm(50)[:-1].bfloat16():  # eight bits: refused by none
        torch.testing.assert_close(denoiser(x, sigma), MIXTURE(x, sigma.double()), rtol=0.1, atol=0.1)


# Where it was not trained.


@pytest.mark.parametrize("sigma", [0.0099, 157.7, 0.0, float("inf"), float("nan"), torch.tensor([1.0, 1e3])])
@pytest.mark.parametrize("between", ["refuse", "interpolate"])
def test_outside_the_trained_sigmas_the_range_is_named(sigma, between):
    denoiser = adapters.from_discrete(as_network("eps", BAR), BAR, "eps", between=between)
    with pytest.raises(Refused, match=r"sigma=\S+ is outside the levels .*, 0\.0100013 to 157\.407"):
        denoiser(torch.zeros(2, 3), sigma)


def test_between_levels_only_when_asked_by_name():
    seen = []

    def net(x, t):
        seen.append(t)
        return x

    low, high = (1 / BAR[[300, 301]] - 1).sqrt()
    middle, x = (low * high).sqrt(), torch.zeros(2, 3)
    with pytest.raises(Refused, match=r"none of the 1000 levels .*0\.0100013 to 157\.407.*between='interpolate'"):
        adapters.from_discrete(net, BAR, "v")(x, middle)
    adapters.from_discrete(net, BAR, "v")(x, high)
    denoiser = adapters.from_discrete(net, BAR, "v", between="interpolate")
    denoiser(x, middle)
    denoiser(x, torch.stack([low, (1 / BAR[999] - 1).sqrt()]))
    assert torch.equal(seen[0], torch.tensor([301, 301]))  # exact integers, as diffusers feeds
    torch.testing.assert_close(seen[1], torch.tensor([300.5, 300.5]))
    torch.testing.assert_close(seen[2], torch.tensor([300.0, 999.0]))
    denoiser(x, torch.tensor([0.00999, 157.5]) * torch.tensor([1.0005, 1.0]))  # a rounding error beyond the ends
    assert torch.equal(seen[3], torch.tensor([0.0, 999.0]))


def test_a_continuous_likelihood_needs_interpolation():
    x0 = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    ends, net = (0.0101, 150.0), as_network("v", BAR)
    with pytest.raises(Refused, match="between='interpolate'"):
        likelihood.log_likelihood(adapters.from_discrete(net, BAR, "v"), x0, *ends)
    denoiser = adapters.from_discrete(net, BAR, "v", between="interpolate")
    got = likelihood.log_likelihood(denoiser, x0, *ends, terminal=lambda x: MIXTURE.log_prob(x, ends[1])).value
    torch.testing.assert_close(got, MIXTURE.log_prob(x0, ends[0]), rtol=0, atol=1e-3)


def test_a_level_of_pure_noise_is_left_out():
    bar = DDPMScheduler(rescale_betas_zero_snr=True).alphas_cumprod
    denoiser = adapters.from_discrete(lambda x, t: x, bar, "v")
    assert bar[-1] == 0 and len(denoiser.sigmas) == 1000 and denoiser.sigmas[0] == (1 / bar[-2].double() - 1).sqrt()
    assert torch.equal(denoiser.sigmas, noise.discrete(bar)) and denoiser.sigmas[0].isfinite()
    with pytest.raises(Refused, match="sigma=inf is outside"):
        denoiser(torch.zeros(1, 3), float("inf"))


@pytest.mark.parametrize(
    "bar",
    [
        torch.tensor([0.9, 0.5, 0.6]),
        torch.tensor([1.0, 0.5]),
        torch.tensor([0.5, -0.1]),
        torch.tensor(0.5),
        torch.tensor([[0.9, 0.5]]),
        torch.tensor([0.9]),
        1 - BAR,
    ],
)
def test_what_is_no_alpha_bar_is_refused(bar):
    with pytest.raises(Refused, match="alphas_cumprod must be"):
        adapters.from_discrete(lambda x, t: x, bar, "eps")


def test_other_names_are_refused():
    with pytest.raises(Refused, match="'epsilon'"):
        adapters.from_discrete(lambda x, t: x, BAR, "epsilon")
    with pytest.raises(Refused, match="'nearest'"):
        adapters.from_discrete(lambda x, t: x, BAR, "eps", between="nearest")


# The network.


def test_the_network_keeps_its_type_and_the_caller_his(tmp_path):
    denoiser = adapters.from_discrete(unet(), BAR, "eps")
    x, sigma = torch.randn(2, 1, 8, 8, dtype=torch.float64), denoiser.sigmas[400]
    got = denoiser(x, sigma)
    assert got.dtype == torch.float64 and denoiser.net.dtype == torch.float32
    torch.testing.assert_close(denoiser(x.float(), sigma).double(), got, rtol=1e-4, atol=1e-4)
    halved = deepcopy(denoiser).bfloat16()
    assert halved(x.float(), sigma).dtype == torch.float32 and halved.sigmas.dtype == torch.float64
    torch.testing.assert_close(halved(x.float(), sigma).double(), got, rtol=0.1, atol=0.1)
    assert denoiser(x.bfloat16(), sigma).dtype == torch.bfloat16


def test_gradients_reach_x_and_the_weights():
    denoiser = adapters.from_discrete(unet(), BAR, "v")
    x = torch.randn(2, 1, 8, 8, requires_grad=True)
    denoiser(x, denoiser.sigmas[500]).sum().backward()
    assert x.grad.abs().min() > 0 and all(p.grad is not None for p in denoiser.parameters())
    with torch.no_grad():
        assert not denoiser(x, denoiser.sigmas[500]).requires_grad


def test_labels_are_bound_before(tmp_path):
    saved(tmp_path, num_class_embeds=3)
    denoiser = adapters.from_diffusers(tmp_path)
    x, sigma = torch.randn(2, 1, 8, 8), denoiser.sigmas[10]
    with pytest.raises(Refused, match=r"class-conditional: .*partial\(denoiser, y=y\)"):
        denoiser(x, sigma)
    both = partial(denoiser, y=torch.tensor([2, 0]))(x, sigma)
    torch.testing.assert_close(both[:1], partial(denoiser, y=2)(x[:1], sigma))
    torch.testing.assert_close(both[1:], partial(denoiser, y=0)(x[1:], sigma))
    assert (both - partial(denoiser, y=1)(x, sigma)).abs().amin((1, 2, 3)).max() > 0


def test_a_learned_variance_is_dropped_and_other_shapes_refused(tmp_path):
    saved(tmp_path, out_channels=2)
    denoiser = adapters.from_diffusers(tmp_path)
    x, sigma = torch.randn(2, 1, 8, 8), denoiser.sigmas[30]
    alpha = (1 + sigma**2).rsqrt()
    mean = denoiser.net((alpha * x).float(), STEPS - 1 - 30).sample[:, :1]
    torch.testing.assert_close(denoiser(x, sigma), x - sigma.float() * mean)
    with pytest.raises(Refused, match="keep the shape"):
        adapters.from_discrete(lambda x, t: x[:, :, 1:], BAR, "eps")(x, 1.0004 * 0.0100013)
    with pytest.raises(ValueError, match="2 values for a batch of 3"):
        adapters.from_discrete(lambda x, t: x, BAR, "eps")(torch.zeros(3, 2), noise.discrete(BAR)[:2])


# Folders and names.


@pytest.mark.parametrize("layout", ["pipeline", "flat", "unet of a pipeline"])
def test_the_layouts_that_exist(tmp_path, layout):
    if layout == "flat":  # as google/ddpm-cifar10-32 lies on the hub
        unet().save_pretrained(tmp_path)
        DDPMScheduler(num_train_timesteps=STEPS).save_pretrained(tmp_path)
    elif layout == "pipeline":
        DDPMPipeline(unet(), DDPMScheduler(num_train_timesteps=STEPS)).save_pretrained(tmp_path)
    else:  # of a pipeline in latents, too, where the folder as a whole is refused
        saved(tmp_path)
        (tmp_path / "vqvae").mkdir()
        with pytest.raises(Refused, match="latents of its vqvae"):
            adapters.from_diffusers(tmp_path)
    denoiser = adapters.from_diffusers(tmp_path / "unet" if layout == "unet of a pipeline" else str(tmp_path))
    assert len(denoiser.sigmas) == STEPS + 1
    weights = zip(denoiser.net.parameters(), unet().parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


def test_a_name_on_the_hub_and_none_without_a_network(tmp_path, monkeypatch):
    """The hub's own cache stands in for it: what was fetched before loads by name; what was not is one sentence."""
    import huggingface_hub.constants as hub

    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / ("0" * 40)
    DDPMPipeline(unet(), DDPMScheduler(num_train_timesteps=STEPS)).save_pretrained(snapshot)
    (tmp_path / "models--someone--tiny" / "refs").mkdir()
    (tmp_path / "models--someone--tiny" / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    assert adapters.from_diffusers("someone/tiny").shape == (1, 8, 8)
    with pytest.raises(Refused, match="no folder 'someone/else', and the hub gave no model") as refusal:
        adapters.from_diffusers("someone/else")
    assert "\n" not in str(refusal.value)
    with pytest.raises(Refused, match="no folder '/no/such/folder'"):
        adapters.from_diffusers("/no/such/folder")


def rewrite(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def no_scheduler(folder):
    (folder / "scheduler" / "scheduler_config.json").unlink()


def pickled(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(unet().state_dict(), folder / "unet" / "diffusion_pytorch_model.bin")


def truncated(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def no_weights(folder):
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def half_json(folder):
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name":')


def continuous(folder):
    EDMEulerScheduler().save_pretrained(folder / "scheduler")


def network(**changes):
    return lambda folder: rewrite(folder / "unet" / "config.json", **changes)


def scheduler(**changes):
    return lambda folder: rewrite(folder / "scheduler" / "scheduler_config.json", **changes)


@pytest.mark.parametrize(
    "spoil, sentence",
    [
        (lambda folder: (folder / "unet" / "config.json").unlink(), "neither unet/config.json nor config.json"),
        (no_scheduler, "no scheduler_config.json"),
        (half_json, "scheduler_config.json' cannot be read as JSON"),
        (continuous, "a EDMEulerScheduler with prediction_type='epsilon': give a model with a discrete-time"),
        (scheduler(_class_name="Mine"), "names the scheduler 'Mine'"),
        (scheduler(_class_name="UNet2DModel"), "names the scheduler 'UNet2DModel'"),
        (scheduler(beta_schedule="wild"), "diffusers cannot read .*wild is not implemented"),
        (scheduler(prediction_type="flow"), "prediction_type='flow'"),
        (network(_class_name="UNet2DConditionModel"), "a UNet2DConditionModel, asks for a text"),
        (network(_class_name="VQModel"), "a VQModel, is not a U-Net"),
        (network(sample_size=None), "sample_size=None"),
        (network(block_out_channels=[8, 24]), "no weights could be read|are not those of its config.json"),
        (network(add_attention=False), "are not those of its config.json: .* differ"),
        (network(num_class_embeds=3), "are not those of its config.json: 1 differ, such as 'class_embedding.weight'"),
        (pickled, r"as a pickle.*use_safetensors=False\).save_pretrained"),
        (truncated, "no weights could be read"),
        (no_weights, "no weights could be read"),
    ],
)
def test_what_is_wrong_with_a_folder_is_one_sentence(tmp_path, spoil, sentence):
    saved(tmp_path)
    adapters.from_diffusers(tmp_path)
    spoil(tmp_path)
    with pytest.raises(Refused, match=sentence) as refusal:
        adapters.from_diffusers(tmp_path)
    assert "\n" not in str(refusal.value)


def test_diffusers_is_imported_only_where_it_is_used():
    check = "import sys, memlib.adapters; assert not {'diffusers', 'huggingface_hub'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


# Out again.

OUTSIDER = """
import sys
sys.modules["memlib"] = None    # an import of it would fail
import numpy, torch
from diffusers import DDIMScheduler, DDPMPipeline
pipeline = DDPMPipeline.from_pretrained(sys.argv[1])
for scheduler in (pipeline.scheduler, DDIMScheduler.from_config(pipeline.scheduler.config)):
    pipeline = DDPMPipeline(pipeline.unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    images = pipeline(4, generator, num_inference_steps=10, output_type="np").images
    numpy.save(f"{sys.argv[1]}-{type(scheduler).__name__}.npy", images)
"""


@pytest.fixture(scope="module")
def trained():
    """A network of the book, trained for a few steps on digits at the levels of a cosine schedule."""
    digits = data.load("digits").images[:300]
    torch.manual_seed(0)
    bar = DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    denoiser = adapters.from_discrete(nets.UNet(8, 1, (16, 32), layers=1, attention=4).unet, bar, "v")

    def loss(net, generator):
        x0 = digits[torch.randint(len(digits), (32,), generator=generator)]
        sigma = noise.uniform_step(32, net.sigmas, generator)
        return losses.denoising(*pair(net, x0, sigma, noise.noise_from(generator)), net.weight(sigma)).mean()

    ema = deepcopy(denoiser)
    curve = [step.loss.item() for step in train.fit(denoiser, loss, 60, lr=3e-3, ema=ema, decay=0.9)]
    assert sum(curve[-10:]) < 0.7 * sum(curve[:10])
    return ema


@torch.no_grad()
def test_others_sample_what_we_sample(trained, tmp_path):
    folder = adapters.to_diffusers(trained, tmp_path / "digits")
    subprocess.run([sys.executable, "-c", OUTSIDER, str(folder)], check=True, capture_output=True, cwd=tmp_path)
    sigmas = noise.discrete(trained.alphas_cumprod, 10)
    for name, eta in (("DDPMScheduler", 1.0), ("DDIMScheduler", 0.0)):
        draw = noise.noise_from(torch.Generator().manual_seed(3))
        start = draw(torch.empty(4, 1, 8, 8)) * (1 + sigmas[0] ** 2).sqrt()
        ours = sample.ancestral(trained, start.float(), sigmas, eta, draw)
        theirs = torch.from_numpy(numpy.load(f"{folder}-{name}.npy")).permute(0, 3, 1, 2)
        assert theirs.std() > 0.2
        torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=2e-4)


def test_a_round_trip_is_exact(trained, tmp_path):
    first = adapters.from_diffusers(adapters.to_diffusers(trained, tmp_path / "first"))
    again = adapters.from_diffusers(adapters.to_diffusers(first, tmp_path / "deeper" / "again"))
    for copy in (first, again):
        assert torch.equal(copy.alphas_cumprod, trained.alphas_cumprod) and copy.predicts == "v"
        old, new = trained.net.state_dict(), copy.net.state_dict()
        assert list(old) == list(new) and all(torch.equal(old[name], new[name]) for name in old)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert not [path for path in files if path.suffix == ".json" and str(tmp_path) in path.read_text()]


@pytest.mark.parametrize("predicts", PREDICTS.values())
@pytest.mark.parametrize("schedule", [{}, {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True}])
def test_levels_survive_export(tmp_path, schedule, predicts):
    bar = DDPMScheduler(**schedule).alphas_cumprod
    adapters.to_diffusers(adapters.from_discrete(unet(), bar, predicts), tmp_path / "model")
    back = adapters.from_diffusers(tmp_path / "model")
    assert back.predicts == predicts
    torch.testing.assert_close(back.alphas_cumprod, bar.double(), rtol=1e-7, atol=1e-10)


def test_options_of_a_foreign_scheduler_are_kept(tmp_path):
    saved(tmp_path / "old")
    rewrite(tmp_path / "old" / "scheduler" / "scheduler_config.json", steps_offset=1, clip_sample=True)
    adapters.to_diffusers(adapters.from_diffusers(tmp_path / "old"), tmp_path / "new")
    kept = DDPMPipeline.from_pretrained(tmp_path / "new").scheduler
    assert isinstance(kept, DDPMScheduler) and kept.config.steps_offset == 1 and kept.config.clip_sample
    # Its defaults are not those of DDPMScheduler.
    (tmp_path / "old" / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "LCMScheduler"}')
    adapters.to_diffusers(adapters.from_diffusers(tmp_path / "old"), tmp_path / "newer")
    kept = DDPMPipeline.from_pretrained(tmp_path / "newer").scheduler
    assert torch.equal(kept.alphas_cumprod, LCMScheduler().alphas_cumprod)


@pytest.mark.parametrize(
    "denoiser, named",
    [
        (MIXTURE, "a GaussianMixture cannot"),
        (nets.Preconditioned(nets.UNet(8, 1, (16,), layers=1)), "a Preconditioned around a UNet cannot"),
        (adapters.from_discrete(nets.UNet(8, 1, (16,), layers=1), BAR, "v"), "a Discrete around a UNet cannot"),
    ],
)
def test_what_is_no_pipeline_is_not_exported(tmp_path, denoiser, named):
    with pytest.raises(Refused, match=rf"{named}.*train adapters.from_discrete\(nets.UNet\(...\).unet"):
        adapters.to_diffusers(denoiser, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_export_takes_an_empty_place_and_leaves_all_or_nothing(tmp_path, monkeypatch):
    denoiser = adapters.from_discrete(unet(), BAR, "eps")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").touch()
    with pytest.raises(Refused, match="exists already"):
        adapters.to_diffusers(denoiser, full)
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]

    def interrupted(self, folder, **options):
        self.unet.save_pretrained(folder / "unet")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DDPMPipeline, "save_pretrained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            adapters.to_diffusers(denoiser, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    (tmp_path / "model").mkdir()
    assert adapters.to_diffusers(denoiser, tmp_path / "model") == tmp_path / "model"
    assert adapters.from_diffusers(tmp_path / "model").shape == (1, 8, 8)
