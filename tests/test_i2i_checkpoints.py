"""A reader's own inpainter, read by its path: its library's forward pass, one step of every method, and the study."""

import copy
import dataclasses
import functools
import json

import pytest
import tiny_mage
import torch
from torch import nn

from memlib.errors import Refused
from memlib.papers.i2i import MAE, MAGE, VQGAN, Inpainter, checkpoints, masks, methods, study, unlearn
from memlib.papers.i2i.study import models
from memlib.papers.i2i.study.settings import Settings
from memlib.run import Run

SIZE, PATCH = 16, 4
CENTRE = masks.centre(SIZE, PATCH, 2)
METHODS = [
    methods.li2024, methods.random_encoder, methods.max_loss, methods.noisy_label, methods.retain_label,
]  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def jolted(net):
    """Every weight drawn: fresh networks have zeros in them, and much of a wrong forward pass would not show."""
    for p in net.parameters():
        nn.init.normal_(p, std=0.2, generator=generator())
    return net.eval()


def vit_mae():
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    return jolted(ViTMAEForPreTraining(ViTMAEConfig(
        num_channels=3, image_size=SIZE, patch_size=PATCH, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=32, mask_ratio=0.25,
    )))  # fmt: skip


def unet(told=7, **more):
    from diffusers import UNet2DModel

    parts = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return jolted(UNet2DModel(**{
        "sample_size": SIZE, "in_channels": told, "out_channels": 3, "block_out_channels": (8, 16),
        "layers_per_block": 2, "norm_num_groups": 8, "attention_head_dim": 8, **parts, **more,
    }))  # fmt: skip


def saved(family, folder):
    """A folder of a tiny model of the family, as its library saves it; the library's own network."""
    from diffusers import DDPMScheduler

    folder.mkdir()
    if family == "mae":
        net = vit_mae()
    elif family == "diffusion":
        net = unet()
        DDPMScheduler(num_train_timesteps=50, clip_sample=False).save_pretrained(folder)
    else:
        for name, state in zip(("vqgan.ckpt", "mage.pth"), tiny_mage.states(), strict=True):
            torch.save({"model": state}, folder / name)
        return None
    net.save_pretrained(folder)
    return net


@pytest.fixture(params=["mae", "vqgan", "diffusion"])
def family(request):
    return request.param


@pytest.fixture
def images():
    return torch.randn(6, 3, SIZE, SIZE, generator=generator(1))


class TestForward:
    """MAGE's is in `test_mage`."""

    def test_vit_mae_patches_masks_and_decodes_as_transformers(self, tmp_path, images):
        net = saved("mae", tmp_path / "net")
        model = checkpoints.load("mae", tmp_path / "net")
        mask = masks.mask("random", SIZE, PATCH, 0.25, n=6, generator=generator(2))
        rank = (
            masks.hidden_tokens(mask, 6, PATCH).float() + torch.arange(16) / 100
        )  # known ones first, in reading order
        with torch.no_grad():
            codes = net.vit(images, noise=rank).last_hidden_state
            theirs = net.unpatchify(net(images, noise=rank).logits)
            ours = model.encode(model.inputs(images, mask))
        torch.testing.assert_close(ours, codes, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(model.decode(ours, mask), theirs, rtol=1e-4, atol=1e-4)
        assert theirs.flatten(2).std(2).min() > 0.1

    @pytest.mark.parametrize("told", [6, 7])
    def test_an_inpainter_predicts_what_its_unet_does(self, tmp_path, images, told):
        from diffusers import DDPMScheduler

        net = unet(told)
        net.save_pretrained(tmp_path)
        DDPMScheduler(num_train_timesteps=50, clip_sample=False).save_pretrained(tmp_path)
        model = checkpoints.load("diffusion", tmp_path)
        inputs = model.inputs(images, CENTRE, generator())
        stacked = [inputs.noisy, images.masked_fill(CENTRE, 0), *([CENTRE.float().expand(6, -1, -1, -1)] * (told - 6))]
        with torch.no_grad():
            theirs = net(torch.cat(stacked, 1), inputs.t).sample
            torch.testing.assert_close(model.decode(model.encode(inputs), inputs.t), theirs, rtol=1e-4, atol=1e-5)
        assert theirs.std() > 0.1
        assert torch.equal(model.alphas_cumprod.float(), DDPMScheduler(num_train_timesteps=50).alphas_cumprod)


class TestUnlearning:
    @pytest.mark.parametrize("method", METHODS)
    def test_one_step_of_every_method(self, tmp_path, images, family, method):
        """The paper's method and Random Encoder move the encoder alone; the others the decoder too."""
        saved(family, tmp_path / "net")
        model = checkpoints.load(family, tmp_path / "net")
        before = copy.deepcopy(model.state_dict())

        def noise(n, generator):
            return torch.randn(n, 3, SIZE, SIZE, generator=generator)

        steps = unlearn(model, method, images[:3], images[3:], lambda _: CENTRE, noise, steps=1, batch=2, lr=1e-3)
        *_, (after, step) = steps
        moved = {name for name, value in after.state_dict().items() if not torch.equal(value, before[name])}
        assert {name.partition(".")[0] for name in moved} == set(method.trains)
        assert float(step.loss) == pytest.approx(float(step.loss)) and not after.training
        done = after.complete(images, CENTRE)
        assert torch.equal(done.masked_select(~CENTRE), images.masked_select(~CENTRE)) and done.isfinite().all()

    def test_gradients_reach_the_encoder_and_end_before_the_decoder(self, tmp_path, images, family):
        saved(family, tmp_path / "net")
        model = checkpoints.load(family, tmp_path / "net").requires_grad_(False)
        model.encoder.requires_grad_(True)
        batch = methods.UnlearningBatch(images[:3], images[3:], torch.randn(3, 3, SIZE, SIZE), CENTRE)
        kept, sent = methods.li2024(model, copy.deepcopy(model), batch, generator())
        assert kept.abs().max() < 1e-3 < sent.mean()  # nothing has moved yet
        sent.sum().backward()
        assert all(p.grad is None for p in model.decoder.parameters())
        assert all(p.grad is not None and p.grad.any() for name, p in model.encoder.named_parameters())


class TestFolders:
    def test_the_kind_is_told_by_what_is_in_it(self, tmp_path):
        kinds = {"mae": MAE, "vqgan": MAGE, "diffusion": Inpainter}
        for name, kind in kinds.items():
            saved(name, tmp_path / name)
            assert type(checkpoints.load(name, str(tmp_path / name))) is kind
        VQGAN.small((3, 8, 8), 2, codes=16, channels=8, width=16, depth=1, heads=2).save(tmp_path / "ours")
        assert type(checkpoints.load("vqgan", tmp_path / "ours")) is VQGAN

    def test_refusals_are_one_sentence(self, tmp_path, family):
        saved("mae" if family == "diffusion" else "diffusion", tmp_path / "other")
        (tmp_path / "empty").mkdir()
        (tmp_path / "file").write_text("")
        for place in ("nowhere", "file", "empty", "other"):
            with pytest.raises(Refused) as caught:
                checkpoints.load(family, tmp_path / place)
            assert str(tmp_path / place) in str(caught.value) and "\n" not in str(caught.value)
            assert str(caught.value).count(". ") == 0

    def test_weights_that_are_no_safetensors_are_refused(self, tmp_path):
        for family, name in (("mae", "model.safetensors"), ("diffusion", "diffusion_pytorch_model.safetensors")):
            saved(family, tmp_path / family)
            torch.save({}, (tmp_path / family / name).with_suffix(".bin"))
            (tmp_path / family / name).unlink()
            with pytest.raises(Refused, match="cannot be read as a ViTMAE|has its weights as a pickle"):
                checkpoints.load(family, tmp_path / family)

    def test_other_refusals(self, tmp_path):
        saved("vqgan", tmp_path / "both")
        (tmp_path / "both" / "transformer.json").write_text("{}")
        with pytest.raises(Refused, match="holds both 'mage.pth' and transformer.json"):
            checkpoints.load("vqgan", tmp_path / "both")
        with pytest.raises(Refused, match="family 'palette' .* one of mae, vqgan, diffusion first"):
            checkpoints.load("palette", tmp_path / "both")

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"told": 5}, "6 channels or with the mask 7, and no label; this U-Net takes 5"),
            ({"sample_size": (16, 8)}, "sample_size is one number"),
            ({"center_input_sample": True}, "center_input_sample"),
            ({"mid_block_type": None}, "without a mid block"),
            ({"down_block_types": ("SkipDownBlock2D",) * 2, "block_out_channels": (32, 32)}, "with Skip blocks"),
        ],
    )
    def test_a_unet_that_is_no_plain_inpainter(self, more, words):
        with pytest.raises(Refused, match=words):
            Inpainter(unet(**more), torch.linspace(0.9, 0.1, 10))


class TestStandard:
    def of(self, family, folder):
        mean, std = checkpoints.standard(family, folder)
        return mean.flatten().tolist(), std.flatten().tolist()

    def test_each_family_has_its_own(self, tmp_path):
        for name in ("mae", "vqgan", "diffusion"):
            saved(name, tmp_path / name)
        imagenet = pytest.approx([-0.03, -0.088, -0.188]), pytest.approx([0.458, 0.448, 0.45])
        assert self.of("mae", tmp_path / "mae") == imagenet == self.of("vqgan", tmp_path / "vqgan")
        assert self.of("diffusion", tmp_path / "diffusion") == ([0.0], [1.0])
        VQGAN.small((3, 8, 8), 2, codes=16, channels=8, width=16, depth=1, heads=2).save(tmp_path / "ours")
        assert checkpoints.standard("vqgan", tmp_path / "ours") is None

    @pytest.mark.parametrize("family", ["mae", "diffusion"])
    def test_a_processors_numbers_come_first(self, tmp_path, family):
        told = {"image_mean": [0.5, 0.25, 0.5], "image_std": [0.5, 0.25, 1]}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(told))
        assert self.of(family, tmp_path) == ([0, -0.5, 0], [1, 0.5, 2])

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("{", "no image_mean and image_std"),
            ("{}", "no image_mean and image_std"),
            ('{"image_mean": 0.5, "image_std": 0.5}', "no image_mean and image_std"),
            ('{"image_mean": [0.5], "image_std": [0.5, 1]}', "a positive deviation for each mean"),
            ('{"image_mean": [0.5], "image_std": [0]}', "a positive deviation for each mean"),
        ],
    )
    def test_one_without_numbers_is_refused(self, tmp_path, text, words):
        (tmp_path / "preprocessor_config.json").write_text(text)
        with pytest.raises(Refused, match=words):
            checkpoints.standard("mae", tmp_path)


class TestStudy:
    def settings(self, family, folder, **more):
        return Settings(
            data="faces:n=1000,identities=10", size=SIZE, half="explore", families=(family,), checkpoint=str(folder),
            n_seeds=2, judge_steps=3, batch=4, width=32, **more,
        )  # fmt: skip

    def test_the_study_unlearns_the_model_of_the_folder(self, tmp_path, monkeypatch, family):
        monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))
        saved(family, tmp_path / "net")
        settings = self.settings(family, tmp_path / "net")
        world = study.worlds(settings, Run("03"))[0]
        plan = dataclasses.replace(models.plan_for(settings, family, world), unlearn_steps=2)
        mask = models.centre(plan, 2)
        first = models.original(Run("03"), plan, world, lambda g: mask)
        stored = checkpoints.load(family, tmp_path / "net").state_dict()
        assert all(torch.equal(value, stored[name]) for name, value in first.state_dict().items())
        for method in models.METHODS:
            after = models.unlearned(Run("03"), plan, world, first, functools.partial(models.fixed, mask), method, 0.25)
            parts = {
                name.partition(".")[0] for name, v in after.state_dict().items() if not torch.equal(v, stored[name])
            }
            assert parts == set(models.METHODS[method].trains)

    def test_images_are_standardised_for_the_model(self, tmp_path, monkeypatch):
        for family in ("mae", "vqgan", "diffusion"):
            saved(family, tmp_path / family)
            settings = self.settings(family, tmp_path / family)
            world = study.worlds(settings, Run("03"))[0]
            wanted = checkpoints.standard(family, tmp_path / family)
            assert torch.equal(world.mean, wanted[0]) and torch.equal(world.std, wanted[1])
            assert world.pixels(world.of("R")).max() <= 1 and world.shape == (3, SIZE, SIZE)

    def test_a_model_for_other_images_is_refused(self, tmp_path, family):
        saved(family, tmp_path / "net")
        settings = self.settings(family, tmp_path / "net")
        world = study.worlds(settings, Run("03"))[0]
        plan = dataclasses.replace(models.plan_for(settings, family, world), shape=(3, 8, 8))
        with pytest.raises(Refused, match=r"completes \(3, 16, 16\) and images are \(3, 8, 8\): give a size"):
            models.build(plan)
