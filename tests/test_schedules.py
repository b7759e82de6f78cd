"""What a folder's scheduler says of sampling, honoured: against diffusers' own loops step by step, or DDIM's eq. 12.

And folders that cannot be right, or are more than they look: each read as meant, announced, or refused by name.
"""

import json
import warnings
from functools import partial

import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    PNDMScheduler,
    UNet2DModel,
)
from safetensors.torch import load_file, save_file

from memlib import adapters, noise, sample
from memlib.denoiser import classifier_free, guided, limited, variance_of
from memlib.errors import Refused

STEPS = 50


def unet(**options):
    """A UNet2DModel with random weights, small enough for a test."""
    torch.manual_seed(0)
    widths = {"block_out_channels": (8, 16), "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": 4}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return UNet2DModel(**{"sample_size": 8, "in_channels": 1, "out_channels": 1, **widths, **blocks, **options})


def saved(folder, kind=DDPMScheduler, net=None, **options):
    """A pipeline's folder of few, strong steps, written by diffusers alone, and its scheduler."""
    scheduler = kind(**{"num_train_timesteps": STEPS, "beta_start": 1e-3, "beta_end": 0.2, **options})
    (net or unet()).save_pretrained(folder / "unet")
    scheduler.save_pretrained(folder / "scheduler")
    return scheduler


def loaded(folder):
    """Its denoiser in float64, whatever it announces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return adapters.from_diffusers(folder).double()


def fresh(i):
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(100 + i), dtype=torch.float64)


def draws():
    """The noise of each step, in order, as a sampler takes it."""
    source = iter(range(1000))
    return lambda x: fresh(next(source))


@torch.no_grad()
def drive(scheduler, net, n, start, **step):
    """diffusers' own loop in float64 from noise (B, C, H, W); its timesteps, and its states x_t."""
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = getattr(scheduler, "final_alpha_cumprod", torch.ones(())).double()
    scheduler.set_timesteps(n)
    x, states = start, []
    for i, t in enumerate(scheduler.timesteps):
        given = {"generator": torch.Generator().manual_seed(100 + i)}
        if step.get("eta"):
            given = {"variance_noise": fresh(i)}
        x = scheduler.step(net(x, t).sample, t, x, **step, **given).prev_sample
        states.append(x)
    return scheduler.timesteps, states


def compare(denoiser, scheduler, n, ours, **step):
    """`ours(start)`, states divided by alpha, against diffusers' from the same noise."""
    start = fresh(-1)
    steps, theirs = drive(scheduler, denoiser.net, n, start, **step)
    bar = scheduler.alphas_cumprod
    scale = [*bar[steps].sqrt()[1:], scheduler.final_alpha_cumprod.sqrt()]
    states = ours(start / bar[steps[0]].sqrt())
    assert len(states) == len(theirs)
    for a, b, alpha in zip(states, theirs, scale, strict=True):
        torch.testing.assert_close(a, b / alpha, rtol=1e-6, atol=1e-6)
    return states[-1]


# The variance of DDPM's noise.


@pytest.mark.parametrize("schedule", [{}, {"beta_schedule": "squaredcos_cap_v2"}, {"timestep_spacing": "linspace"}])
@pytest.mark.parametrize("kind", ["fixed_small", "fixed_small_log", "fixed_large"])
def test_both_variances_are_diffusers_step_by_step(tmp_path, kind, schedule):
    scheduler = saved(tmp_path, variance_type=kind, clip_sample=False, **schedule)
    denoiser = loaded(tmp_path)
    sigmas = denoiser.grid(10)
    assert denoiser.variance == kind.split("_")[1]
    end = compare(denoiser, scheduler, 10, lambda x: list(sample.ancestral_path(denoiser, x, sigmas, 1.0, draws())))
    other = "small" if denoiser.variance == "large" else "large"
    start = fresh(-1) / scheduler.alphas_cumprod[scheduler.timesteps[0]].sqrt()
    given = sample.ancestral(denoiser, start, sigmas, 1.0, draws(), variance=denoiser.variance)
    torch.testing.assert_close(given, end, rtol=1e-6, atol=1e-6)
    assert (sample.ancestral(denoiser, start, sigmas, 1.0, draws(), variance=other) - end).abs().max() > 1e-2


def test_a_wrapped_adapter_keeps_its_variance_and_ddim_has_its_own(tmp_path):
    saved(tmp_path, variance_type="fixed_large")
    large = loaded(tmp_path)
    for wrapped in (
        partial(large, y=None),
        guided(large, lambda x, sigma: -x.flatten(1).square().sum(1), 0.5),
        classifier_free(large, partial(large, y=None), 2.0),
        limited(partial(large, y=None), large.limit),
    ):
        assert variance_of(wrapped) == "large"
    assert variance_of(lambda x, sigma: x) == variance_of(torch.nn.Linear(2, 2)) == "small"
    start, sigmas = 20 * fresh(0), large.grid(10)
    ddim = sample.ancestral(large, start, sigmas, 0.5, draws())  # eq. 16 of DDIM knows one variance
    torch.testing.assert_close(ddim, sample.ancestral(large, start, sigmas, 0.5, draws(), variance="small"))
    with pytest.raises(Refused, match="large variance belongs to DDPM, eta = 1, not to eta = 0.5"):
        sample.ancestral(large, start, sigmas, 0.5, draws(), variance="large")


def test_a_learned_variance_is_named(tmp_path):
    saved(tmp_path, net=unet(out_channels=2), variance_type="learned_range", clip_sample=False)
    with pytest.warns(UserWarning, match="takes the variance of new noise from the network"):
        assert adapters.from_diffusers(tmp_path).variance == "small"


# What is done to x0.


@pytest.mark.parametrize(
    "how",
    [
        {"clip_sample": True},
        {"clip_sample": True, "clip_sample_range": 0.3},
        {"thresholding": True, "dynamic_thresholding_ratio": 0.7, "sample_max_value": 1.5},
        {"clip_sample": False},
    ],
)
def test_the_clipping_of_every_pipeline(tmp_path, how):
    saved(tmp_path, DDIMScheduler, **how)
    denoiser = loaded(tmp_path)
    sigmas, clipped = denoiser.grid(10), limited(denoiser, denoiser.limit)
    make = DDIMScheduler.from_pretrained
    ways = [  # DDIMPipeline's default, with and without noise; the other DDIM; DDPMPipeline's default
        (make(tmp_path / "scheduler"), {}, lambda x: sample.ancestral_path(denoiser, x, sigmas, limit=denoiser.limit)),
        (
            make(tmp_path / "scheduler"),
            {"eta": 0.7},
            lambda x: sample.ancestral_path(denoiser, x, sigmas, 0.7, draws(), limit=denoiser.limit),
        ),
        (
            make(tmp_path / "scheduler"),
            {"use_clipped_model_output": True},
            lambda x: sample.ancestral_path(clipped, x, sigmas),
        ),
        (
            DDPMScheduler.from_pretrained(tmp_path / "scheduler", timestep_spacing="leading"),
            {},
            lambda x: sample.ancestral_path(clipped, x, sigmas, 1.0, draws()),
        ),
    ]
    ends = [compare(denoiser, one, 10, lambda x, ours=ours: list(ours(x)), **step) for one, step, ours in ways]
    if how != {"clip_sample": False}:
        assert (ends[0] - ends[2]).abs().max() > 1e-2  # they are not the same


@torch.no_grad()
def test_the_pipelines_own_images(tmp_path):
    """DDIMPipeline called as its users call it, against the how-to's two lines."""
    saved(tmp_path, DDIMScheduler, clip_sample=True)
    denoiser = loaded(tmp_path).float()
    pipeline = DDIMPipeline(denoiser.net, DDIMScheduler.from_pretrained(tmp_path / "scheduler"))
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(4, torch.Generator().manual_seed(3), num_inference_steps=10, output_type="pt").images
    sigmas = denoiser.grid(10)
    start = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * (1 + sigmas[0] ** 2).sqrt().float()
    ours = sample.ancestral(denoiser, start, sigmas, limit=denoiser.limit)
    torch.testing.assert_close((ours / 2 + 0.5).clamp(0, 1), torch.as_tensor(theirs), rtol=0, atol=1e-4)
    unclipped = sample.ancestral(denoiser, start, sigmas)
    assert ((unclipped - ours).abs().mean() / ours.abs().mean()) > 0.02


def test_clipping_is_announced_at_loading(tmp_path):
    saved(tmp_path / "clips")
    with pytest.warns(
        UserWarning, match=r"scheduler of '.*clips' clips its estimates of x0 \(here only by limit=D.limit"
    ):
        adapters.from_diffusers(tmp_path / "clips")
    saved(tmp_path / "thresholds", thresholding=True)
    with pytest.warns(UserWarning, match="thresholds its estimates"):
        adapters.from_diffusers(tmp_path / "thresholds")
    saved(tmp_path / "karras", DPMSolverMultistepScheduler, use_karras_sigmas=True)
    with pytest.warns(UserWarning, match="visits levels between the trained ones"):
        adapters.from_diffusers(tmp_path / "karras")
    saved(tmp_path / "plain", clip_sample=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapters.from_diffusers(tmp_path / "plain")


# The grid.


@pytest.mark.parametrize(
    "says",
    [
        {"timestep_spacing": "trailing"},
        {"steps_offset": 1},
        {"steps_offset": 1, "set_alpha_to_one": False},
        {"set_alpha_to_one": False},
        {"timestep_spacing": "trailing", "set_alpha_to_one": False},
        {"timestep_spacing": "trailing", "steps_offset": 1},  # the offset belongs to leading alone
    ],
)
@torch.no_grad()
def test_the_grid_is_what_the_scheduler_says(tmp_path, says):
    scheduler = saved(tmp_path, DDIMScheduler, clip_sample=False, **says)
    denoiser = loaded(tmp_path)

    def ours(x):
        states = list(sample.ancestral_path(denoiser, x, denoiser.grid(10)))
        return states if len(states) == 10 else [*states, states[-1]]  # the last step goes from a level to itself

    compare(denoiser, scheduler, 10, ours)


@torch.no_grad()
def test_linspace_is_equation_12_of_ddim_and_not_the_scheduler(tmp_path):
    """DDIMScheduler steps to t - T // n, where its own grid does not go (diffusers #12633): the paper is the oracle."""
    scheduler = saved(tmp_path, DDIMScheduler, clip_sample=False, timestep_spacing="linspace")
    denoiser = loaded(tmp_path)
    scheduler.set_timesteps(10)
    bar, x, expected = scheduler.alphas_cumprod.double(), fresh(-1), []
    for t, to in zip(scheduler.timesteps, [*scheduler.timesteps[1:], None], strict=True):
        here, there = bar[t], torch.ones(()).double() if to is None else bar[to]
        eps = denoiser.net(x, t).sample
        x = there.sqrt() * (x - (1 - here).sqrt() * eps) / here.sqrt() + (1 - there).sqrt() * eps
        expected.append(x / there.sqrt())
    start = fresh(-1) / bar[scheduler.timesteps[0]].sqrt()
    for a, b in zip(sample.ancestral_path(denoiser, start, denoiser.grid(10)), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)
    theirs = drive(DDIMScheduler.from_pretrained(tmp_path / "scheduler"), denoiser.net, 10, fresh(-1))[1][-1]
    assert (theirs - expected[-1]).abs().max() > 1e-2


def test_other_schedulers_end_where_they_say(tmp_path):
    saved(tmp_path / "pndm", PNDMScheduler, steps_offset=1)  # set_alpha_to_one is False by default
    grid = loaded(tmp_path / "pndm").grid(10)
    assert grid[-1] == loaded(tmp_path / "pndm").sigmas[-2] and len(grid) == 11
    saved(tmp_path / "solver", DPMSolverMultistepScheduler, final_sigmas_type="sigma_min")
    solver = loaded(tmp_path / "solver")
    assert solver.grid(10)[-1] == solver.sigmas[-2] > 0
    saved(tmp_path / "odd", DDIMScheduler, timestep_spacing="quadratic")
    with pytest.raises(Refused, match="spaces its timesteps 'quadratic': give 'leading', 'trailing' or 'linspace'"):
        adapters.from_diffusers(tmp_path / "odd")


def test_every_level_and_no_more(tmp_path):
    saved(tmp_path, DDIMScheduler, timestep_spacing="trailing", steps_offset=1)
    denoiser = loaded(tmp_path)
    assert torch.equal(denoiser.grid(), denoiser.sigmas) and torch.equal(denoiser.grid(STEPS), denoiser.sigmas)
    for n in (0, -1, STEPS + 1):
        with pytest.raises(Refused, match=f"{n} sampling steps do not fit a model of 50 noise levels: choose 1 to 50"):
            denoiser.grid(n)


def test_a_last_level_that_is_of_no_use_is_left_out(tmp_path):
    betas = [*torch.linspace(1e-3, 0.2, STEPS - 1).tolist(), 0.0]  # alpha_bar repeats at the end
    saved(tmp_path / "repeats", trained_betas=betas)
    denoiser = loaded(tmp_path / "repeats")
    assert len(denoiser.sigmas) == STEPS and (denoiser.sigmas.diff() < 0).all()
    underflow = DDPMScheduler(num_train_timesteps=1000, beta_end=0.5, rescale_betas_zero_snr=True)
    assert underflow.alphas_cumprod.isnan().any()
    saved(tmp_path / "nan", num_train_timesteps=1000, beta_end=0.5, rescale_betas_zero_snr=True)
    denoiser = loaded(tmp_path / "nan")
    assert denoiser.sigmas.isfinite().all() and len(denoiser.sigmas) > 500
    saved(tmp_path / "rises", trained_betas=[0.1] * 10 + [-0.1] * 10)
    with pytest.raises(Refused, match="alphas_cumprod must be"):
        adapters.from_diffusers(tmp_path / "rises")


# Which network, which weights.


def rewrite(file, **changes):
    file.write_text(json.dumps({k: v for k, v in (json.loads(file.read_text()) | changes).items() if v != "gone"}))


@pytest.mark.parametrize("named", ["gone", "sample"])
def test_predict_epsilon_of_old_folders(tmp_path, named):
    saved(tmp_path, clip_sample=False)
    file = tmp_path / "scheduler" / "scheduler_config.json"
    rewrite(file, predict_epsilon=False, prediction_type=named)
    denoiser = adapters.from_diffusers(tmp_path)
    assert denoiser.predicts == "x0"
    again = adapters.from_diffusers(adapters.to_diffusers(denoiser, tmp_path / "out"))
    assert again.predicts == "x0"
    rewrite(file, predict_epsilon=True, prediction_type="gone")
    assert adapters.from_diffusers(tmp_path).predicts == "eps"
    rewrite(file, predict_epsilon=False, prediction_type="epsilon")
    with pytest.raises(Refused, match="predict_epsilon=false and prediction_type='epsilon': remove the one"):
        adapters.from_diffusers(tmp_path)


def test_an_average_beside_the_weights_is_named_and_read(tmp_path):
    saved(tmp_path, clip_sample=False)
    average = unet()
    torch.nn.init.constant_(average.conv_in.bias, 0.25)
    average.save_pretrained(tmp_path / "unet_ema")
    with pytest.warns(UserWarning, match="has a unet_ema, the running average of its weights .* are read: give"):
        raw = adapters.from_diffusers(tmp_path)
    assert not (raw.net.conv_in.bias == 0.25).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (adapters.from_diffusers(tmp_path / "unet_ema").net.conv_in.bias == 0.25).all()


def test_weights_in_half_precision_alone_are_read(tmp_path):
    saved(tmp_path, clip_sample=False)
    whole = adapters.from_diffusers(tmp_path)
    plain = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    half = plain.with_name("diffusion_pytorch_model.fp16.safetensors")
    save_file({name: t.half() for name, t in load_file(plain).items()}, half, {"format": "pt"})
    assert torch.equal(
        adapters.from_diffusers(tmp_path).net.conv_in.weight, whole.net.conv_in.weight
    )  # both: the better
    plain.unlink()
    for place in (tmp_path, tmp_path / "unet"):
        net = adapters.from_diffusers(place).net
        assert net.dtype == torch.float32
        for a, b in zip(net.parameters(), whole.net.parameters(), strict=True):
            assert torch.equal(a, b.half().float())


@pytest.mark.parametrize("inside", [".", "./", "../unet", "../../{name}/unet", ".."])
def test_a_folder_by_its_place_from_inside(tmp_path, monkeypatch, inside):
    saved(tmp_path, clip_sample=False)
    monkeypatch.chdir(tmp_path / "unet")
    assert adapters.from_diffusers(inside.format(name=tmp_path.name)).shape == (1, 8, 8)


def test_a_stable_diffusion_root_is_refused_for_its_text(tmp_path):
    saved(tmp_path)
    rewrite(tmp_path / "unet" / "config.json", _class_name="UNet2DConditionModel")
    for part in ("vae", "text_encoder", "tokenizer"):
        (tmp_path / part).mkdir()
    for place in (tmp_path, tmp_path / "unet"):  # no advice that leads to the next refusal
        with pytest.raises(Refused, match="a UNet2DConditionModel, asks for a text"):
            adapters.from_diffusers(place)


@torch.no_grad()
def test_images_of_two_sides(tmp_path):
    saved(tmp_path, net=unet(sample_size=(16, 24)), clip_sample=False)
    denoiser = adapters.from_diffusers(tmp_path)
    assert denoiser.shape == (1, 16, 24)
    sigmas = denoiser.grid(5)
    assert sample.ancestral(denoiser, sample.start(sigmas, range(2), denoiser.shape), sigmas).shape == (2, 1, 16, 24)


def spoil(change):
    """Edit the weights in a folder."""

    def do(folder):
        file = folder / "unet" / "diffusion_pytorch_model.safetensors"
        change(weights := load_file(file))
        save_file(weights, file, {"format": "pt"})

    return do


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda w: w.pop("conv_in.bias"), r"1 differ, such as 'conv_in.bias' \(missing\)"),
        (lambda w: w.update(extra=torch.zeros(2)), r"1 differ, such as 'extra' \(unexpected\)"),
        (lambda w: w.update({"conv_in.bias": torch.zeros(9)}), r"such as 'conv_in.bias' \(of another shape\)"),
        (
            lambda w: w["conv_out.weight"].view(-1)[3:5].fill_(torch.nan),
            r"2 of 72 numbers of 'conv_out.weight' in .* NaN",
        ),
        (lambda w: w["conv_in.bias"][:1].fill_(torch.inf), "1 of 8 numbers of 'conv_in.bias'"),
    ],
)
def test_weights_that_cannot_be_right_are_refused_by_name(tmp_path, change, sentence):
    saved(tmp_path, clip_sample=False)
    spoil(change)(tmp_path)
    with pytest.raises(Refused, match=sentence) as refusal:
        adapters.from_diffusers(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_network_that_diverged_is_not_given_away(tmp_path):
    net = unet()
    net.conv_in.bias.data[0] = torch.nan
    with pytest.raises(Refused, match="1 of 8 numbers of 'conv_in.bias' in 'this network' are NaN"):
        adapters.to_diffusers(adapters.from_discrete(net, DDPMScheduler().alphas_cumprod, "eps"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_attention_weights_under_their_old_names(tmp_path):
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    saved(tmp_path, net=unet(**blocks), clip_sample=False)
    whole = adapters.from_diffusers(tmp_path).net
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(weights):
        for name in [name for name in weights if any(f".{new}." in name for new in names)]:
            new = next(new for new in names if f".{new}." in name)
            weights[name.replace(new, names[new])] = weights.pop(name)

    spoil(rename)(tmp_path)
    assert any("proj_attn" in name for name in load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors"))
    for a, b in zip(adapters.from_diffusers(tmp_path).net.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)


def test_time_embeddings_of_other_kinds(tmp_path):
    table = {"time_embedding_type": "learned", "num_train_timesteps": STEPS}
    saved(tmp_path / "table", net=unet(**table), clip_sample=False)
    denoiser = adapters.from_diffusers(tmp_path / "table")
    assert denoiser(torch.zeros(2, 1, 8, 8), denoiser.sigmas[:2]).isfinite().all()
    with pytest.raises(Refused, match="learned a table of 50 timesteps.* none in between"):
        adapters.from_diffusers(tmp_path / "table", between="interpolate")
    saved(tmp_path / "short", net=unet(**table | {"num_train_timesteps": 10}), clip_sample=False)
    with pytest.raises(Refused, match=r"learned a table of 10 timesteps.*alphas_cumprod has 50"):
        adapters.from_diffusers(tmp_path / "short")
    rewrite(tmp_path / "table" / "unet" / "config.json", num_train_timesteps=None)
    with pytest.raises(Refused, match="a learned time embedding and no num_train_timesteps"):
        adapters.from_diffusers(tmp_path / "table")
    saved(tmp_path / "sigmas", net=unet(time_embedding_type="fourier"), clip_sample=False)
    with pytest.raises(Refused, match="time_embedding_type='fourier': its network takes sigmas"):
        adapters.from_diffusers(tmp_path / "sigmas")


# Labels and devices.


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (torch.tensor([0.0, 1.0]), "labels are whole numbers from 0 to 2, not torch.float32"),
        (1.0, "not torch.float"),
        (torch.tensor([True, False]), "not torch.bool"),
        ("cat", "labels are whole numbers from 0 to 2, not 'cat'"),
        ([0, 1, 2], r"labels of shape \(3,\) do not fit 2 samples"),
        (torch.zeros(2, 1, dtype=torch.long), r"labels of shape \(2, 1\) do not fit 2 samples"),
        (torch.tensor([0, 3]), r"knows the labels 0 to 2, not \[0, 3\]"),
        (-1, r"knows the labels 0 to 2, not \[-1\]"),
    ],
)
def test_wrong_labels_are_refused(labels, sentence):
    denoiser = adapters.from_discrete(unet(num_class_embeds=3), DDPMScheduler().alphas_cumprod, "eps")
    with pytest.raises(Refused, match=sentence):
        denoiser(torch.zeros(2, 1, 8, 8), denoiser.sigmas[3], labels)


@torch.no_grad()
def test_right_labels_in_every_form():
    bar = DDPMScheduler().alphas_cumprod
    denoiser = adapters.from_discrete(unet(num_class_embeds=3), bar, "eps")
    x, sigma = torch.randn(2, 1, 8, 8), denoiser.sigmas[3]
    want = denoiser(x, sigma, torch.tensor([1, 1]))
    for labels in (1, [1, 1], (1, 1), torch.tensor(1), torch.tensor([1]), torch.tensor([1, 1]).numpy()):
        assert torch.equal(denoiser(x, sigma, labels), want)
    with pytest.raises(Refused, match="takes no labels"):
        adapters.from_discrete(unet(), bar, "eps")(x, sigma, 1)
    vectors = adapters.from_discrete(unet(class_embed_type="identity"), bar, "eps")
    assert vectors(x, sigma, torch.randn(2, 32)).shape == x.shape
    fractions = adapters.from_discrete(unet(class_embed_type="timestep"), bar, "eps")
    assert fractions(x, sigma, torch.tensor([0.5, 0.5])).shape == x.shape


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3", "tpu9"])
def test_a_device_that_is_not_here_is_one_sentence(tmp_path, device):
    saved(tmp_path, clip_sample=False)
    with pytest.raises(Refused, match=f"device '{device}' cannot be used .*choose 'cpu'"):
        adapters.from_diffusers(tmp_path, device=device)


def test_a_variance_named_by_hand_needs_no_adapter():
    """x1 | x0 under the forward variance, by hand: one step of a denoiser that always answers 0."""
    sigma, target, n = 3.0, 1.0, 20000
    x = sigma * torch.ones(n, 1, dtype=torch.float64)
    grid = torch.tensor([sigma, target], dtype=torch.float64)
    got = sample.ancestral(lambda x, s: 0 * x, x, grid, 1.0, noise.seeded(range(n)), variance="large")
    bar, there = 1 / (1 + sigma**2), 1 / (1 + target**2)
    beta = 1 - bar / there
    assert abs(got.std().item() / (beta / there) ** 0.5 - 1) < 0.02
    mean = bar**0.5 * sigma * (bar / there) ** 0.5 * (1 - there) / (1 - bar) / there**0.5  # eq. 7 of Ho et al. 2020
    assert abs(got.mean().item() - mean) < 0.03
