"""Models of latents: against diffusers' own pipeline and loop, and in an audit on decoded images."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, LDMPipeline, UNet2DModel, VQModel

from memlib import adapters, sample
from memlib.audit import Model, audit, sources
from memlib.cli import main
from memlib.data import collect
from memlib.errors import Refused

BLOCKS = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1}


def made(build):
    """A model with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().eval()


def unet(**options):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    sizes = {"sample_size": 4, "in_channels": 4, "out_channels": 4, "add_attention": False}
    return made(lambda: UNet2DModel(**{**sizes, **BLOCKS, **blocks, **options}))


def vae(kind=AutoencoderKL, **options):
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    sizes = {"in_channels": 3, "out_channels": 3, "latent_channels": 4, "sample_size": 8}
    return made(lambda: kind(**{**sizes, **BLOCKS, **blocks, **options}))


def scheduler(**options):
    return DDIMScheduler(num_train_timesteps=50, clip_sample=False, beta_end=0.2, **options)


def saved(folder, coder, name="vae", **options):
    """The folder of a pipeline of latents."""
    unet(**options).save_pretrained(folder / "unet")
    scheduler().save_pretrained(folder / "scheduler")
    coder.save_pretrained(folder / name)
    return folder


def images(n=24):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1


CODERS = {
    "scaling": lambda: vae(scaling_factor=0.3),
    "scaling and shift": lambda: vae(scaling_factor=0.3, shift_factor=0.2),
    "mean and std": lambda: vae(
        scaling_factor=0.5, latents_mean=[0.1, 0.2, 0.3, 0.4], latents_std=[1.0, 2.0, 0.5, 4.0]
    ),
    "VQ": lambda: vae(VQModel, num_vq_embeddings=16, scaling_factor=0.7),
}


@pytest.mark.parametrize("kind", ["scaling", "VQ"])
@torch.no_grad()
def test_samples_are_those_of_the_pipeline_of_diffusers(tmp_path, kind):
    LDMPipeline(CODERS[kind](), unet(), scheduler()).save_pretrained(tmp_path)  # its autoencoder in vqvae/
    pipeline = LDMPipeline.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(3)
    want = torch.from_numpy(pipeline(3, generator, num_inference_steps=10, output_type="np").images)
    model = sources.read(tmp_path, steps=10)
    assert model.shape == (4, 4, 4) and model.image_shape == (3, 8, 8)
    start = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    ends = sample.ancestral(model.denoiser, start * (1 + model.sigmas[0] ** 2).sqrt().float(), model.sigmas)
    assert want.std() > 0.02
    torch.testing.assert_close(model.images(ends).permute(0, 2, 3, 1) / 2 + 0.5, want, rtol=0, atol=2e-4)


@pytest.mark.parametrize("label", [None, 2])
@pytest.mark.parametrize("kind", ["scaling and shift", "mean and std"])
@torch.no_grad()
def test_samples_are_those_of_a_ddim_loop_followed_by_the_decoder(tmp_path, kind, label):
    """Where a label is stated, every step of the loop is given it."""
    coder, steps, classes = CODERS[kind](), scheduler(), {} if label is None else {"num_class_embeds": 3}
    saved(tmp_path, coder, **classes)
    net, labels = unet(**classes), None if label is None else torch.full((3,), label)
    steps.set_timesteps(10)
    x = start = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    for t in steps.timesteps:
        x = steps.step(net(x, t, labels).sample, t, x).prev_sample
    if kind == "mean and std":  # as StableDiffusionXLPipeline does
        mean, std = (torch.tensor(coder.config[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
        want = coder.decode(x * std / coder.config.scaling_factor + mean).sample
    else:  # as StableDiffusion3Pipeline does
        want = coder.decode(x / coder.config.scaling_factor + coder.config.shift_factor).sample
    model = sources.read(tmp_path, steps=10, label=label)
    ends = sample.ancestral(model.denoiser, start * (1 + model.sigmas[0] ** 2).sqrt().float(), model.sigmas)
    torch.testing.assert_close(model.images(ends), want.clamp(-1, 1), rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", CODERS)
def test_a_latent_is_the_mode_and_comes_back(tmp_path, kind):
    net = CODERS[kind]()
    net.save_pretrained(tmp_path)
    coder = adapters.from_vae(tmp_path)
    x = images(3)
    assert (coder.channels, coder.latent_channels, coder.factor) == (3, 4, 2) and not coder.training
    z = coder.encode(x)
    assert z.shape == (3, 4, 4, 4) and not z.requires_grad and torch.equal(z, coder.encode(x))
    config, found = net.config, net.encode(x)
    mode = found.latents if kind == "VQ" else found.latent_dist.mean
    if kind == "mean and std":
        mean, std = (torch.tensor(config[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
        want = (mode - mean) * config.scaling_factor / std
    else:
        want = (mode - (config.get("shift_factor") or 0)) * config.scaling_factor
    torch.testing.assert_close(z, want)
    torch.testing.assert_close(coder.decode(z), net.decode(mode).sample)
    wide = coder.encode(x.double())
    assert wide.dtype == torch.float64 and coder.decode(wide).dtype == torch.float64
    inner = torch.nn.Parameter(z.clone())
    coder.decode(inner).sum().backward()
    assert inner.grad is not None and all(weight.grad is None for weight in coder.parameters())


def test_what_does_not_fit_is_one_sentence(tmp_path):
    place = saved(tmp_path / "model", vae())
    with pytest.raises(Refused, match=r"latents of its vae.*from_vae\('vae'\)"):
        adapters.from_diffusers(place)
    coder = adapters.from_vae(place)
    with pytest.raises(Refused, match="3 channels and sides that 2 divides"):
        coder.encode(images()[:, :1])
    with pytest.raises(Refused, match="3 channels and sides that 2 divides"):
        coder.encode(images()[:, :, :7])
    with pytest.raises(Refused, match="denoises 3 channels and the autoencoder has 4 of latents"):
        Model(lambda x, sigma: x, (3, 4, 4), torch.tensor([1.0, 0.0]), vae=coder)
    with pytest.raises(Refused, match="is a UNet2DModel: give one of AutoencoderKL, VQModel"):
        adapters.from_vae(place / "unet")
    with pytest.raises(Refused, match="neither vae/config.json nor config.json"):
        adapters.from_vae(tmp_path)
    (place / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(Refused, match="no weights could be read"):
        adapters.from_vae(place)
    file = place / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_class_name": "AsymmetricAutoencoderKL"}))
    with pytest.raises(Refused, match="a AsymmetricAutoencoderKL: give one of"):
        adapters.from_vae(place)


def collected(x):
    return collect(x, torch.zeros(len(x), dtype=torch.int64), ("",), "drawn")


class TestAudit:
    """With an autoencoder whose decoder shows the latents, and a memorizer of encoded images."""

    @pytest.fixture(autouse=True)
    def own_cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))

    class Pooled(torch.nn.Module):
        """An invertible autoencoder: four pixels of a square are four channels of a latent."""

        config = {  # noqa: RUF012
            "in_channels": 1, "latent_channels": 4, "block_out_channels": (8, 8), "scaling_factor": 0.5,
            "shift_factor": 0.1,
        }  # fmt: skip

        def encode(self, x):
            return type("Found", (), {"latents": torch.nn.functional.pixel_unshuffle(x, 2)})

        def decode(self, z):
            return type("Found", (), {"sample": torch.nn.functional.pixel_shuffle(z, 2)})

    def test_a_memorizer_in_latents_is_found_out_on_decoded_images(self):
        from memlib import analytic, noise

        everything = images(140).mean(1, keepdim=True).clamp(-1, 1)
        train, held_out = everything[:40], everything[40:]
        coder = adapters.Autoencoder(self.Pooled())
        latents = coder.encode(train)
        model = Model(analytic.Empirical(latents), (4, 4, 4), noise.karras(12, 0.01, 20), vae=coder)
        report = audit(
            model, collected(train), collected(held_out), None, samples=60, descriptor="pixels", extract=True
        )
        assert report.copies.copies.k == 60 and report.verdict.copies
        assert report.members.auc[1][0] > 0.5 and report.members.set_p < 0.01
        assert report.extraction.unguided.rate == 1

    @pytest.mark.parametrize("beside", [True, False])
    def test_by_the_command(self, tmp_path, capsys, beside):
        from PIL import Image

        place = saved(tmp_path / "model", vae(), num_class_embeds=3)
        coder = place / "vae"
        if not beside:
            coder = coder.rename(tmp_path / "coder")
        folder = tmp_path / "train"
        folder.mkdir()
        for number, image in enumerate(images()):
            levels = ((image + 1) * 127.5).round().byte().permute(1, 2, 0)
            Image.fromarray(levels.numpy()).save(folder / f"{number}.png")
        command = ["audit", str(place), "--train", str(folder), "--out", str(tmp_path / "out"), "--samples", "10",
                   "--steps", "5", "--label", "2"]  # fmt: skip
        assert main(command if beside else [*command, "--vae", str(coder)]) == 0
        told = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf8"))
        assert told["copies"]["n"] == 10 and told["provenance"]["settings"]["label"] == 2
        assert main([*command[:-2], "--vae", str(coder)]) == 1 and "give the label to audit" in capsys.readouterr().err
        assert main([*command[:1], str(folder), *command[2:], "--vae", str(coder)]) == 1
        assert "belong to a model" in capsys.readouterr().err
