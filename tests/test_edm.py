"""Networks in EDM's preconditioning: against diffusers' own loop, against `nets.Preconditioned`, and in an audit."""

import json
from functools import partial

import pytest
import torch
from diffusers import DDPMScheduler, EDMDPMSolverMultistepScheduler, EDMEulerScheduler, UNet2DModel

from memlib import adapters, losses, nets, noise, sample
from memlib.analytic import Empirical
from memlib.audit import sources
from memlib.denoiser import pair
from memlib.errors import Refused


def unet(**options):
    """A UNet2DModel with random weights, small enough for a test."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        widths = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": 4}
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        return UNet2DModel(**{"sample_size": 8, "in_channels": 1, "out_channels": 1, **widths, **blocks, **options})


def saved(folder, scheduler, **options):
    unet(**options).save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["karras", "exponential"])
@torch.no_grad()
def test_sampling_is_that_of_diffusers_step_by_step(tmp_path, prediction, spacing):
    scheduler = EDMEulerScheduler(
        sigma_data=0.3, sigma_max=20.0, prediction_type=prediction, sigma_schedule=spacing, rho=5.0
    )
    denoiser = adapters.from_edm(saved(tmp_path, scheduler))
    assert denoiser.shape == (1, 8, 8) and denoiser.sigma_data == 0.3 and not denoiser.training
    net = UNet2DModel.from_pretrained(tmp_path / "unet", low_cpu_mem_usage=False)
    scheduler.set_timesteps(8)
    x = start = 20.0 * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs = []
    for t in scheduler.timesteps:
        x = scheduler.step(net(scheduler.scale_model_input(x, t), t).sample, t, x).prev_sample
        theirs.append(x)
    sigmas = denoiser.grid(8)
    assert len(sigmas) == 9 and sigmas[-1] == 0
    if spacing == "karras":
        torch.testing.assert_close(sigmas, noise.karras(8, 0.002, 20.0, 5.0), rtol=1e-5, atol=0)
    for a, b in zip(sample.ancestral_path(denoiser, start, sigmas), theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("classes", [0, 3])
@torch.no_grad()
def test_a_network_of_the_book_is_the_same_denoiser(tmp_path, classes):
    ours = nets.Preconditioned(nets.UNet(8, 1, (8, 16), layers=1, classes=classes), 0.4).eval()
    ours.net.unet.save_pretrained(tmp_path)
    theirs = adapters.from_edm(tmp_path, 0.4, clock=lambda code: 250 * (code + 2))
    bare = adapters.from_preconditioned(ours.net, 0.4)
    x, sigma = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.01, 0.5, 40.0])
    condition = {"y": torch.tensor([2, 0, 1])} if classes else {}
    torch.testing.assert_close(partial(theirs, **condition)(x, sigma), ours(x, sigma, **condition))
    torch.testing.assert_close(bare(x, sigma, **condition), ours(x, sigma, **condition))
    torch.testing.assert_close(bare.weight(sigma), ours.weight(sigma))
    assert torch.equal(bare(x, 0.0, **condition), x) and torch.equal(bare.grid(5), noise.karras(5))


def test_the_network_of_known_points_gives_their_exact_denoiser_and_loss():
    points = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = Empirical(points)

    def net(seen, code):
        """F of Karras et al. 2022, eq. 7, solved for the posterior mean of x0."""
        sigma = (4 * code).exp()[:, None]
        total = sigma**2 + 0.25
        x = seen * total.sqrt()
        return (exact(x, sigma[:, 0]) - 0.25 / total * x) * total.sqrt() / (0.5 * sigma)

    denoiser = adapters.from_preconditioned(net, 0.5)
    x = torch.randn(10, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for sigma in (0.05, 0.7, 30.0, torch.full((10,), 0.7)):
        torch.testing.assert_close(denoiser(x, sigma), exact(x, sigma))
    noises = noise.noise_from(torch.Generator().manual_seed(2))
    assert losses.denoising(*pair(denoiser, x, torch.full((10,), 0.5).double(), noises)).isfinite().all()


def test_gradients_reach_the_network_and_labels_are_checked(tmp_path):
    denoiser = adapters.from_edm(saved(tmp_path, EDMDPMSolverMultistepScheduler(), num_class_embeds=3))
    x = torch.randn(2, 1, 8, 8)
    denoiser(x, 0.5, torch.tensor([0, 2])).sum().backward()
    assert all(parameter.grad is not None for parameter in denoiser.net.conv_in.parameters())
    with pytest.raises(Refused, match=r"class-conditional: .*partial\(denoiser, y=y\)"):
        denoiser(x, 0.5)
    with pytest.raises(Refused, match="labels 0 to 2, not"):
        denoiser(x, 0.5, 3)


@pytest.mark.parametrize(
    "scheduler, sigma_data, sentence",
    [
        (None, None, "does not say its sigma_data"),
        (DDPMScheduler(), 0.5, "a DDPMScheduler, which is not EDM's: read the network by from_diffusers"),
        (EDMEulerScheduler(), -1.0, "sigma_data is -1.0: give a finite number above 0"),
    ],
)
def test_what_is_not_of_edm_is_one_sentence(tmp_path, scheduler, sigma_data, sentence):
    unet().save_pretrained(tmp_path / "unet")
    if scheduler is not None:
        scheduler.save_pretrained(tmp_path / "scheduler")
    with pytest.raises(Refused, match=sentence):
        adapters.from_edm(tmp_path, sigma_data)
    if scheduler is None:
        assert adapters.from_edm(tmp_path, 0.25).sigma_data == 0.25 and not adapters.is_edm(tmp_path)


def test_other_clocks_are_refused(tmp_path):
    saved(tmp_path, EDMEulerScheduler())
    file = tmp_path / "unet" / "config.json"
    config = json.loads(file.read_text()) | {"time_embedding_type": "learned", "num_train_timesteps": 9}
    file.write_text(json.dumps(config))
    with pytest.raises(Refused, match=r"a learned time embedding, which takes no ln\(sigma\) / 4"):
        adapters.from_edm(tmp_path)
    with pytest.raises(Refused, match="2 steps or more, not 1"):
        adapters.from_preconditioned(lambda x, t: x, 0.5).grid(1)
    with pytest.raises(Refused, match="with prediction_type='epsilon'.*or read this one by from_edm"):
        adapters.from_diffusers(saved(tmp_path / "other", EDMEulerScheduler()))


def test_it_can_be_audited_by_its_folder(tmp_path):
    saved(tmp_path, EDMEulerScheduler(sigma_data=0.3, final_sigmas_type="sigma_min"))
    model = sources.read(str(tmp_path), steps=6)
    assert isinstance(model.denoiser, adapters.Edm) and model.denoiser.sigma_data == 0.3
    assert len(model.sigmas) == 6 and model.levels is None and model.lowest == pytest.approx(0.002)
    assert sources.read(tmp_path, sigma_data=0.7).denoiser.sigma_data == 0.7
