"""Stable Diffusion with LoRA on a tiny pipeline of random weights: what moves, is loaded, and where sampling starts."""

import copy
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from memlib import data, losses, noise
from memlib.errors import Refused
from memlib.papers.synthesis import image_to_image, lora, stable_diffusion, visual_token
from memlib.papers.synthesis.recipe import Sampling, Training, recipe
from memlib.random import keyed

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

SIZE = 16
TRAINING = Training(batch=2, accumulate=1, epochs=1, size=SIZE, lr=1e-2)
SAMPLING = Sampling(steps=4, size=SIZE, batch=2)


def build(folder):
    """Save a pipeline as small as its classes allow: latents of 8 x 8, a text width of 32, a tokenizer of letters."""
    torch.manual_seed(0)
    letters = [chr(i) for i in range(97, 123)] + [","]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer({word: i for i, word in enumerate(vocabulary)}, [], model_max_length=77)
    text = transformers.CLIPTextConfig(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=len(vocabulary) - 2, eos_token_id=len(vocabulary) - 1, pad_token_id=len(vocabulary) - 1,
    )  # fmt: skip
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, cross_attention_dim=32, attention_head_dim=2, norm_num_groups=8,
        block_out_channels=(16, 32), layers_per_block=1, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=8, latent_channels=4, sample_size=SIZE,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "skip_prk_steps": True}
    diffusers.StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=transformers.CLIPTextModel(text), tokenizer=tokenizer,
        scheduler=diffusers.PNDMScheduler(**schedule, steps_offset=1, set_alpha_to_one=False),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def base(folder):
    """The pipeline without adapters; nothing may change it."""
    return stable_diffusion.load(folder)


@pytest.fixture
def pipeline(folder):
    return stable_diffusion.load(folder)


@pytest.fixture(scope="module")
def images():
    """Six images of two classes."""
    pixels = torch.rand(6, 3, SIZE, SIZE, generator=keyed(0, 0)) * 2 - 1
    return data.collect(pixels, [0, 1, 0, 1, 0, 1], ("cat", "dog"), "made here")


@pytest.fixture(scope="module")
def trained(folder, images):
    """A pipeline with adapters of two epochs, and its state before and after."""
    pipeline = stable_diffusion.load(folder)
    before = copy.deepcopy([part.state_dict() for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)])
    tokens = visual_token.tokens(torch.randn(6, 32, generator=keyed(0, 1)), images.labels)
    lora.fine_tune(pipeline, images, replace(TRAINING, epochs=2), captions=["a b"] * 6, tokens=tokens)
    return pipeline, before


def drawn(pipeline, images, how=SAMPLING, **options):
    texts = stable_diffusion.prompts(images)
    return image_to_image.draw(pipeline, images.images, texts, how, seeds=range(len(images)), **options)


class TestSettings:
    def test_the_appendix(self):
        training, sampling = recipe()
        assert (training.lr, training.batch * training.accumulate, training.epochs) == (1e-4, 64, 300)
        assert (training.snr_gamma, training.size, training.matching, training.weight) == (0.75, 512, "printed", 0.05)
        assert (sampling.steps, sampling.guidance, sampling.strength, sampling.size) == (30, 2.0, 0.75, 512)
        assert sampling.negative == "distorted, unrealistic, blurry, out of frame"
        assert training.steps(12_811) == 60_052  # 300 * 12811 / 64 = 60051.6

    def test_the_released_code_by_one_switch(self):
        training, sampling = recipe(as_released=True)
        assert (training.snr_gamma, training.epochs, training.matching, training.weight) == (5, 100, "released", 0.003)
        assert training.batch * training.accumulate == 8 and sampling.scale == 0.5
        assert sampling.negative.startswith(recipe()[1].negative + ", ")

    @pytest.mark.parametrize(
        ("kind", "wrong", "sentence"),
        [
            (Training, {"matching": "mmd"}, "matching is none, printed, unbiased, released, not 'mmd'"),
            (Training, {"rank": 0}, "batch, accumulate, rank and epochs are above 0, not 8, 8, 0, 300"),
            (Training, {"epochs": float("nan")}, "epochs are above 0"),
            (Training, {"snr_gamma": 0.0}, "snr_gamma is above 0, or None for no weights, not 0.0"),
            (Training, {"matching": "unbiased", "batch": 1}, "needs a batch of 2"),
            (Sampling, {"strength": 0.0}, "strength of 0.0 in 30 steps takes none"),
            (Sampling, {"strength": 1.5}, "strength of 1.5"),
            (Sampling, {"guidance": 0.5}, "guidance >= 1"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, kind, wrong, sentence):
        with pytest.raises(Refused, match=re.escape(sentence)):
            kind(**wrong)


class TestLoss:
    def residuals(self, size=8):
        generator = keyed(1, 0)
        eps_hat, eps = torch.randn(2, size, 4, 3, 3, generator=generator, dtype=torch.float64)
        bar = torch.rand(size, generator=generator, dtype=torch.float64) * 0.98 + 0.01
        return eps_hat, eps, bar

    @pytest.mark.parametrize("gamma", [0.75, 5.0])
    def test_min_snr_against_the_formula(self, gamma):
        levels = [0.999, 0.9, 0.5, 0.1]
        for bar, found in zip(levels, lora.min_snr(torch.tensor(levels, dtype=torch.float64), gamma), strict=True):
            snr = bar / (1 - bar)
            assert float(found) == pytest.approx(min(snr, gamma) / snr)
        assert lora.min_snr(torch.tensor(levels), None).tolist() == [1] * 4

    def test_min_snr_against_the_loss_in_x0(self):
        """Hang et al. weigh the residual of x0 by min(SNR, gamma); that of the noise is sqrt(SNR) times as long."""
        eps_hat, eps, bar = self.residuals()
        a, s = (t.view(-1, 1, 1, 1) for t in (bar.sqrt(), (1 - bar).sqrt()))
        x_t = torch.randn_like(eps)
        x0_hat, x0 = (x_t - s * eps_hat) / a, (x_t - s * eps) / a
        wanted = (bar / (1 - bar)).clamp(max=5) * (x0_hat - x0).square().flatten(1).sum(1)
        assert torch.allclose(losses.denoising(eps_hat, eps, lora.min_snr(bar, 5.0)), wanted)

    def test_each_term_against_loops(self):
        eps_hat, eps, bar = self.residuals()
        r = (eps_hat - eps).flatten(1)
        d, b = r.shape[1], len(r)
        w = [min(float(x / (1 - x)), 5.0) / float(x / (1 - x)) for x in bar]
        simple = sum(w[i] * float(r[i] @ r[i]) for i in range(b)) / b / d
        pairs = sum(float(r[i] @ r[j]) for i in range(b) for j in range(b) if i != j) / (b * (b - 1)) / d
        mean = float((sum(r) / b).square().sum()) / d
        summed = float(sum(w[i] * r[i] for i in range(b)).square().sum()) / d
        for matching, term in (("none", 0), ("printed", mean), ("unbiased", pairs), ("released", summed)):
            how = Training(matching=matching, weight=0.3, snr_gamma=5.0)
            assert float(lora.objective(eps_hat, eps, bar, how)) == pytest.approx(simple + 0.3 * term)

    def test_the_released_weight_is_that_of_eq_21_times_the_batch_squared(self):
        """0.003 on the sum over 8 images is 0.192 on their mean, about four times the 0.05 of the paper."""
        eps_hat, eps, _ = self.residuals()
        released = 0.003 * lora.matching_released(eps_hat, eps, torch.ones(8, dtype=torch.float64))
        assert float(released) == pytest.approx(0.192 * float(losses.matching(eps_hat, eps)))


class TestToken:
    labels = torch.tensor([0, 1, 0, 1, 0])

    def test_own_other_and_mean(self):
        e = torch.randn(5, 3, generator=keyed(0, 0))
        assert torch.equal(visual_token.tokens(e, self.labels), e)
        mean = visual_token.tokens(e, self.labels, "mean")
        assert torch.allclose(mean[2], (e[0] + e[2] + e[4]) / 3) and torch.equal(mean[1], mean[3])
        seen = set()
        for seed in range(20):
            other = visual_token.tokens(e, self.labels, "other", seed=seed)
            rows = [int((e == row).all(1).nonzero()) for row in other]
            assert all(i != j and self.labels[i] == self.labels[j] for i, j in enumerate(rows))
            seen |= set(enumerate(rows))
        assert len(seen) == 8  # every ordered pair of one class: 3 * 2 + 2 * 1

    def test_another_width_passes_a_linear_map(self):
        e = torch.randn(5, 8, generator=keyed(0, 0))
        wide, narrow = (visual_token.tokens(e, self.labels, width=w) for w in (20, 3))
        assert wide.shape == (5, 20) and narrow.shape == (5, 3)
        assert torch.allclose(wide @ wide.T, e @ e.T, atol=1e-5)  # lengths and angles are kept
        both = visual_token.tokens(torch.stack([e[0], e[1], e[0] + e[1]]), torch.zeros(3, dtype=int), width=3)
        assert torch.allclose(both[0] + both[1], both[2], atol=1e-6)

    def test_it_replaces_the_last_hidden_state_alone(self, base):
        token = torch.randn(2, 32, generator=keyed(0, 0))
        plain, told = (stable_diffusion.encode_text(base, ["a cat", "a dog"], t) for t in (None, token))
        assert plain.shape == (2, 77, 32) and torch.equal(told[:, -1], token)
        assert torch.equal(told[:, :-1], plain[:, :-1]) and not torch.equal(told[:, -1], plain[:, -1])

    @pytest.mark.parametrize(
        ("embeddings", "labels", "whose", "sentence"),
        [
            (torch.zeros(3, 2), torch.zeros(2, dtype=int), "own", r"not (3, 2) and (2,)"),
            (torch.tensor([[float("nan")]]), torch.zeros(1, dtype=int), "own", "NaN or infinite"),
            (torch.zeros(2, 2), torch.arange(2), "other", "class 0 has one image"),
            (torch.zeros(2, 2), torch.arange(2), "class", "own, other or mean, not 'class'"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, embeddings, labels, whose, sentence):
        with pytest.raises(Refused, match=re.escape(sentence)):
            visual_token.tokens(embeddings, labels, whose)


class TestPrompts:
    def test_templates(self, images):
        two = images[:2]
        assert stable_diffusion.prompts(two) == ["photo of cat", "photo of dog"]
        assert stable_diffusion.prompts(two, ["{asleep}", "on a mat"])[0] == "photo of cat, {asleep}"
        released = recipe(as_released=True)[1]
        told = stable_diffusion.prompts(two, ["asleep", "on a mat"], released.captioned, released.plain)
        assert told[1] == "photo of dog, on a mat, best quality"

    @pytest.mark.parametrize(
        ("captions", "sentence"),
        [
            (["one"], "captions are 1 for 6 images"),
            ("a text", "captions are one text for 6 images"),
            (["a"] * 5 + [" "], "1 captions are empty or no text, number 5 for one"),
        ],
    )
    def test_captions_that_do_not_pair_are_refused(self, images, captions, sentence):
        with pytest.raises(Refused, match=sentence):
            stable_diffusion.prompts(images, captions)

    def test_a_class_without_a_name_is_refused(self, images):
        with pytest.raises(Refused, match="no class names"):
            stable_diffusion.prompts(data.collect(images.images, [0] * 6, ("",), "loose"))


class TestLoad:
    def test_a_pipeline_without_safety_checker_and_with_unipc(self, base, folder):
        assert base.safety_checker is None and isinstance(base.scheduler, diffusers.UniPCMultistepScheduler)
        theirs = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, safety_checker=None)
        for name in ("unet", "vae", "text_encoder"):
            own, other = getattr(base, name).state_dict(), getattr(theirs, name).state_dict()
            assert own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)
        assert torch.allclose(base.scheduler.alphas_cumprod, theirs.scheduler.alphas_cumprod)

    def test_in_bfloat16(self, folder):
        pipeline = stable_diffusion.load(folder, dtype=torch.bfloat16)
        assert {p.dtype for p in pipeline.unet.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in pipeline.text_encoder.parameters()} == {torch.bfloat16}

    def test_a_missing_folder(self, tmp_path):
        with pytest.raises(Refused, match="there is no folder"):
            stable_diffusion.load(tmp_path / "nowhere")
        with pytest.raises(Refused, match="model_index.json"):
            stable_diffusion.load(tmp_path)

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
    def test_pickles_and_missing_weights(self, folder, tmp_path, part):
        place = shutil.copytree(folder, tmp_path / "copy")
        for file in (place / part).glob("*.safetensors"):
            file.unlink()
        with pytest.raises(Refused, match=f"no safetensors in .*{part}"):
            stable_diffusion.load(place)
        (place / part / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
        with pytest.raises(Refused, match=f"{part}' has its weights as a pickle, which can run code"):
            stable_diffusion.load(place)

    @pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
    @pytest.mark.parametrize("fault", ["missing", "nan"])
    def test_a_weight_that_is_missing_or_nan(self, folder, tmp_path, part, fault):
        place = shutil.copytree(folder, tmp_path / "copy")
        (file,) = (place / part).glob("*.safetensors")
        state = load_file(file)
        name = sorted(key for key in state if state[key].is_floating_point())[0]
        if fault == "nan":
            state[name].view(-1)[0] = float("nan")
        else:
            del state[name]
        save_file(state, file, {"format": "pt"})
        with pytest.raises(Refused, match="missing" if fault == "missing" else "NaN or infinite"):
            stable_diffusion.load(place)

    def test_another_kind_of_model(self, folder, tmp_path):
        place = shutil.copytree(folder, tmp_path / "copy")
        file = place / "scheduler" / "scheduler_config.json"
        file.write_text(file.read_text().replace('"epsilon"', '"v_prediction"'))
        with pytest.raises(Refused, match="predicts 'v_prediction'"):
            stable_diffusion.load(place)
        index = place / "model_index.json"
        index.write_text(index.read_text().replace("StableDiffusionPipeline", "FluxPipeline"))
        with pytest.raises(Refused, match="holds a FluxPipeline"):
            stable_diffusion.load(place)


class TestTraining:
    def test_only_adapters_move(self, trained):
        pipeline, before = trained
        for part, old in zip((pipeline.unet, pipeline.vae, pipeline.text_encoder), before, strict=True):
            state = part.state_dict()
            kept = {name.replace(".base_layer", ""): t for name, t in state.items() if ".lora_" not in name}
            assert kept.keys() == old.keys() and all(torch.equal(kept[name], old[name]) for name in old)
        second = [t for name, t in pipeline.unet.state_dict().items() if ".lora_B." in name]
        assert len(second) == 4 * 2 * 4  # blocks with attention, of self and of text, four layers each
        assert all(t.abs().max() > 0 for t in second)

    def test_the_network_is_given_what_ddpm_gives_it(self, pipeline, images, monkeypatch):
        """Noised latents, timesteps, token and loss of a step, against diffusers' own add_noise on the same draws."""
        tokens, seen, found = torch.randn(6, 32, generator=keyed(0, 1)), [], []
        pipeline.unet.register_forward_hook(lambda _, given, out: seen.append((*given, out.sample)))
        monkeypatch.setattr(lora.train, "train", lambda net, loss, steps, **_: found.append(loss(net, keyed(0, 0))))
        lora.fine_tune(pipeline, images, replace(TRAINING, batch=3), tokens=tokens)
        generator = keyed(0, 0)
        rows, _, steps = (torch.randint(high, (3,), generator=generator) for high in (6, 1, 1000))
        drawn, eps = torch.randn(2, 3, 4, 8, 8, generator=generator)
        law = pipeline.vae.encode(images.images[rows]).latent_dist
        ddpm = diffusers.DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        wanted = ddpm.add_noise(0.18215 * (law.mean + law.std * drawn), eps, steps)
        x, t, told, eps_hat = seen[0]
        assert torch.allclose(x, wanted, atol=1e-5) and torch.equal(t, steps) and torch.equal(told[:, -1], tokens[rows])
        texts = [stable_diffusion.prompts(images)[row] for row in rows]
        assert torch.allclose(told[:, :-1], stable_diffusion.encode_text(pipeline, texts)[:, :-1], atol=1e-5)
        r, snr = (eps_hat - eps).flatten(1), ddpm.alphas_cumprod[steps] / (1 - ddpm.alphas_cumprod[steps])
        simple = (snr.clamp(max=0.75) / snr * r.square().mean(1)).mean()
        assert float(found[0]) == pytest.approx(float(simple + 0.05 * r.mean(0).square().mean()), rel=1e-4)

    def test_the_rank_and_the_layers(self, trained):
        shapes = {tuple(t.shape)[:1] for name, t in trained[0].unet.state_dict().items() if ".lora_A." in name}
        layers = [name.split(".lora_A")[0] for name in trained[0].unet.state_dict() if ".lora_A" in name]
        names = {layer.split("attn")[-1][2:] for layer in layers}
        assert shapes == {(4,)} and names == {"to_q", "to_k", "to_v", "to_out.0"}

    def test_new_adapters_change_nothing(self, base, pipeline, images):
        pipeline.unet.requires_grad_(True)
        adapters = lora.attach(pipeline.unet, 4)
        trainable = [name for name, p in pipeline.unet.named_parameters() if p.requires_grad]
        assert len(adapters) == len(trainable) == 64 and all(".lora_" in name for name in trainable)
        assert {p.dtype for p in adapters} == {torch.float32}
        assert torch.equal(drawn(pipeline, images[:2]), drawn(base, images[:2]))

    @pytest.mark.parametrize(("matching", "same"), [("none", True), ("printed", False)])
    def test_accumulated_batches_are_one_batch_without_matching(self, folder, images, monkeypatch, matching, same):
        """Two passes of two images have the gradient of one pass of four, since the loss is a mean; matching is not."""
        found = []

        def one_step(adapters, loss, steps, **options):
            value = loss(adapters, keyed(0, 0))
            value.backward()
            found.append(torch.cat([value.detach().view(1), *(p.grad.flatten() for p in adapters)]))

        monkeypatch.setattr(lora.train, "train", one_step)
        for batch, accumulate in ((4, 1), (2, 2), (1, 4)):
            how = replace(TRAINING, batch=batch, accumulate=accumulate, matching=matching, weight=1.0)
            lora.fine_tune(stable_diffusion.load(folder), images, how)
        assert all(torch.allclose(found[0], other, atol=1e-6) is same for other in found[1:])

    def test_the_loss_of_fixed_noise_falls(self, folder, images):
        """The random base is worse than to predict none, whose loss is 1; adapters take half of the excess."""
        pipeline, two = stable_diffusion.load(folder), images[:2]

        def loss():
            with torch.no_grad():
                x0 = pipeline.vae.encode(two.images).latent_dist.mean.repeat(8, 1, 1, 1) * 0.18215
                eps, steps = torch.randn(x0.shape, generator=keyed(5, 0)), torch.arange(16) * 60
                a = pipeline.scheduler.alphas_cumprod[steps].view(-1, 1, 1, 1)
                told = stable_diffusion.encode_text(pipeline, stable_diffusion.prompts(two) * 8)
                return (pipeline.unet(a.sqrt() * x0 + (1 - a).sqrt() * eps, steps, told).sample - eps).square().mean()

        start = loss()
        lora.fine_tune(pipeline, two, replace(TRAINING, batch=8, epochs=240, snr_gamma=None))  # 60 steps
        assert start > 1.1 and loss() - 1 < (start - 1) / 2

    @pytest.mark.parametrize("matching", ["unbiased", "released"])
    def test_mirrored_images_and_other_terms_train(self, pipeline, images, matching):
        lora.fine_tune(pipeline, images, replace(TRAINING, matching=matching, flip=True, epochs=1 / 3))
        assert lora.attached(pipeline.unet)

    def test_in_bfloat16_adapters_are_float32(self, folder, images):
        pipeline = stable_diffusion.load(folder, dtype=torch.bfloat16)
        lora.fine_tune(pipeline, images, TRAINING)
        kinds = {".lora_" in name: p.dtype for name, p in pipeline.unet.named_parameters()}
        assert kinds == {True: torch.float32, False: torch.bfloat16}
        made = drawn(pipeline, images[:2])
        assert made.dtype == torch.float32 and made.shape == (2, 3, SIZE, SIZE) and made.abs().max() <= 1

    def test_an_interrupted_training_goes_on(self, folder, images, tmp_path):
        states = []
        for place, runs in ((None, [1]), (tmp_path / "kept", [1 / 3, 1])):
            for epochs in runs:
                pipeline = stable_diffusion.load(folder)
                lora.fine_tune(pipeline, images, replace(TRAINING, epochs=epochs), checkpoint=place)
            states.append(pipeline.unet.state_dict())
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert (tmp_path / "kept" / "training.safetensors").stat().st_size < 400_000  # no weight of the base

    def test_what_does_not_fit_is_refused(self, base, trained, images):
        with pytest.raises(Refused, match="images are 16 x 16 pixels, not 32: load them with data.load"):
            lora.fine_tune(base, images, replace(TRAINING, size=32))
        with pytest.raises(Refused, match="images of 17 pixels do not fit latents of 2 pixels: give a multiple of 2"):
            lora.fine_tune(base, images, replace(TRAINING, size=17))
        with pytest.raises(Refused, match=re.escape("visual tokens are (6, 8), not (6, 32)")):
            lora.fine_tune(base, images, TRAINING, tokens=torch.zeros(6, 8))
        with pytest.raises(Refused, match="captions are 2 for 6 images"):
            lora.fine_tune(base, images, TRAINING, captions=["a", "b"])
        with pytest.raises(Refused, match="there is no image"):
            lora.fine_tune(base, images[:0], TRAINING)
        with pytest.raises(Refused, match="has adapters already"):
            lora.fine_tune(trained[0], images, TRAINING)
        assert not lora.attached(base.unet)


class TestAdapters:
    def test_saved_and_reloaded_they_draw_the_same_image(self, trained, pipeline, images, tmp_path):
        place = lora.save(trained[0], tmp_path / "adapters")
        assert [file.name for file in place.iterdir()] == ["pytorch_lora_weights.safetensors"]
        lora.load_adapters(pipeline, place)
        assert torch.equal(drawn(pipeline, images[:2]), drawn(trained[0], images[:2]))

    def test_others_read_them_without_us(self, trained, folder, images, tmp_path):
        place = lora.save(trained[0], tmp_path / "adapters")
        theirs = diffusers.StableDiffusionImg2ImgPipeline.from_pretrained(folder, safety_checker=None)
        theirs.scheduler = trained[0].scheduler
        theirs.load_lora_weights(place)
        assert torch.equal(drawn(theirs, images[:2]), drawn(trained[0], images[:2]))

    def test_scale_0_is_the_base_and_1_is_not(self, trained, base, images):
        whole, half, none = (drawn(trained[0], images[:2], replace(SAMPLING, scale=s)) for s in (1.0, 0.5, 0.0))
        plain = drawn(base, images[:2])
        assert torch.equal(none, plain)
        assert (whole - plain).abs().max() > 1e-3 and (half - plain).abs().max() > 1e-4
        assert not torch.equal(half, whole)

    def test_what_does_not_fit_is_refused(self, base, trained, pipeline, tmp_path):
        with pytest.raises(Refused, match="no adapters to save"):
            lora.save(base, tmp_path)
        with pytest.raises(Refused, match="there is no pytorch_lora_weights.safetensors"):
            lora.load_adapters(base, tmp_path)
        (tmp_path / "pytorch_lora_weights.bin").write_bytes(b"pickle")
        with pytest.raises(Refused, match="there is no pytorch_lora_weights.safetensors"):
            lora.load_adapters(base, tmp_path)
        place = lora.save(trained[0], tmp_path / "adapters")
        with pytest.raises(Refused, match="has adapters already"):
            lora.load_adapters(trained[0], place)
        file = place / "pytorch_lora_weights.safetensors"
        state = load_file(file)
        save_file({name: t * float("nan") for name, t in state.items()}, file)
        with pytest.raises(Refused, match="NaN or infinite"):
            lora.load_adapters(pipeline, place)
        save_file({name: torch.cat([t, t], 1) for name, t in state.items()}, file)
        with pytest.raises(Refused, match="do not fit this pipeline"):
            lora.load_adapters(pipeline, place)


class TestSampling:
    @pytest.mark.parametrize("strength", [0.25, 0.5, 0.75, 1.0])
    def test_the_start_has_the_level_of_the_strength(self, base, images, strength):
        """The U-Net's first input is sqrt(alpha_bar) (x0 + sigma n), sigma of `noise.strength` or one timestep on."""
        seen = []
        hook = base.unet.register_forward_pre_hook(lambda _, given: seen.append((given[0], given[1])))
        how = replace(SAMPLING, steps=20, strength=strength, guidance=1.0)
        drawn(base, images[:1], how)
        hook.remove()
        assert len(seen) == 20 * strength
        bar, sigma = base.scheduler.alphas_cumprod, image_to_image.start_level(base, how)
        later = {0.25: 0.001, 0.5: 0.001}.get(strength, 0)  # UniPC rounds 249.75 and 499.5 up
        assert sigma == pytest.approx(noise.strength(bar, strength + later), rel=1e-5)
        generator = keyed(0, 0)
        law = base.vae.encode(images.images[:1]).latent_dist
        x0 = 0.18215 * (law.mean + law.std * torch.randn(law.mean.shape, generator=generator))
        wanted = (x0 + sigma * torch.randn(x0.shape, generator=generator)) / (1 + sigma**2) ** 0.5
        assert torch.allclose(seen[0][0], wanted.detach(), atol=1e-4)

    def test_the_papers_start_is_a_little_lower(self, base):
        """22 of 30 steps, not 22.5."""
        bar = base.scheduler.alphas_cumprod.double()
        assert image_to_image.start_level(base, Sampling()) == pytest.approx(float((1 / bar[733] - 1).sqrt()), rel=1e-5)
        assert (
            0.9 * noise.strength(bar, 0.75) < image_to_image.start_level(base, Sampling()) < noise.strength(bar, 0.75)
        )

    def test_one_image_is_the_pipelines_own_call(self, base, images):
        theirs = base(
            prompt="photo of cat", image=(images.images[:1] + 1) / 2, negative_prompt=SAMPLING.negative, strength=0.75,
            num_inference_steps=4, guidance_scale=2.0, generator=keyed(3, 0), output_type="pt",
        ).images  # fmt: skip
        assert torch.allclose(drawn(base, images[:1], seed=3), theirs * 2 - 1, atol=1e-5)

    def test_noise_belongs_to_the_image_and_tokens_and_prompts_matter(self, trained, images):
        pipeline, tokens = trained[0], torch.randn(2, 32, generator=keyed(0, 0))
        both = drawn(pipeline, images[:2])
        assert torch.allclose(drawn(pipeline, images[:1]), both[:1], atol=1e-4)
        assert not torch.allclose(drawn(pipeline, images[:2], tokens=tokens), both, atol=1e-4)
        assert not torch.allclose(drawn(pipeline, images[:2], replace(SAMPLING, negative="cat")), both, atol=1e-4)
        assert not torch.allclose(drawn(pipeline, images[:2], seed=1), both, atol=1e-4)

    def test_a_folder_comes_back_as_it_was_drawn(self, trained, images, tmp_path):
        place = image_to_image.synthesize(trained[0], images, tmp_path / "made", SAMPLING)
        back = data.load(place)
        order = [0, 2, 4, 1, 3, 5]  # by class, then by position
        assert back.names == images.names and back.labels.tolist() == images.labels[order].tolist()
        wanted = torch.cat([
            image_to_image.draw(trained[0], images.images[i : i + 2], stable_diffusion.prompts(images[i : i + 2]),
                                SAMPLING, seeds=[i, i + 1]) for i in (0, 2, 4)
        ])  # fmt: skip
        assert (back.images - wanted[order]).abs().max() <= 1 / 255 + 1e-6
        assert sorted(file.name for file in (place / "cat").iterdir()) == ["000000.png", "000002.png", "000004.png"]

    def test_it_goes_on_where_it_stopped_and_refuses_another_call(self, trained, images, tmp_path):
        pipeline, place = trained[0], tmp_path / "made"
        image_to_image.synthesize(pipeline, images, place, SAMPLING)
        first, last = place / "cat" / "000000.png", place / "dog" / "000005.png"
        bytes_of, age = last.read_bytes(), first.stat().st_mtime_ns
        last.unlink()
        image_to_image.synthesize(pipeline, images, place, SAMPLING)
        assert last.read_bytes() == bytes_of and first.stat().st_mtime_ns == age
        for options, differs in (
            ({"seed": 1}, "seed"), ({"captions": ["a"] * 6}, "texts"), ({"tokens": torch.zeros(6, 32)}, "tokens"),
        ):  # fmt: skip
            with pytest.raises(Refused, match=f"holds images of other {differs}"):
                image_to_image.synthesize(pipeline, images, place, SAMPLING, **options)
        with pytest.raises(Refused, match="other settings"):
            image_to_image.synthesize(pipeline, images, place, replace(SAMPLING, strength=0.5))
        with pytest.raises(Refused, match="other images"):
            image_to_image.synthesize(pipeline, images[:2], place, SAMPLING)

    def test_other_adapters_are_another_call(self, trained, base, images, tmp_path):
        image_to_image.synthesize(base, images[:2], tmp_path / "made", SAMPLING)
        with pytest.raises(Refused, match="other adapters"):
            image_to_image.synthesize(trained[0], images[:2], tmp_path / "made", SAMPLING)

    def test_what_does_not_fit_is_refused(self, base, images, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(Refused, match="holds something else"):
            image_to_image.synthesize(base, images, tmp_path, SAMPLING)
        with pytest.raises(Refused, match="not 512"):
            image_to_image.synthesize(base, images, tmp_path / "new")
        named = data.collect(images.images, [0] * 6, ("cat/dog",), "made here")
        with pytest.raises(Refused, match="cannot be a folder"):
            image_to_image.synthesize(base, named, tmp_path / "new", SAMPLING)
        assert not (tmp_path / "new").exists()


def test_the_code_on_the_page_runs(folder, tmp_path):
    """The script of the how-to page, with its three folders made here and settings that fit them."""
    text = (Path(__file__).parents[1] / "book" / "howto-stable-diffusion.md").read_text(encoding="utf8")
    (script,) = re.findall(r"^```python\n(.*?)^```", text, re.S | re.M)
    for i, name in enumerate(["cat", "cat", "dog"]):
        (tmp_path / "real" / name).mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(256, (20, 20, 3), generator=keyed(i, 0), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(tmp_path / "real" / name / f"{i}.png")
    half = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**half, "image_size": 8, "patch_size": 4}
    config = transformers.CLIPConfig(text_config={**half, "vocab_size": 9}, vision_config=vision, projection_dim=32)
    transformers.CLIPModel(config).save_pretrained(tmp_path / "clip")
    changed = {
        "folder:REAL": f"folder:{tmp_path / 'real'}",
        '"SD15"': repr(str(folder)), '"CLIP"': repr(str(tmp_path / "clip")),
        "RUN/": f"{tmp_path}/run/", 'device="cuda"': 'device="cpu"', "torch.bfloat16": "torch.float32",
        "size=512": f"size={SIZE}", "= recipe()": "= small",
    }  # fmt: skip
    for old, new in changed.items():
        assert old in script, old
        script = script.replace(old, new)
    namespace = {"small": (TRAINING, SAMPLING)}
    exec(compile(script, "howto-stable-diffusion", "exec"), namespace)
    assert namespace["synthetic"].images.shape == (3, 3, SIZE, SIZE)
    assert namespace["synthetic"].labels.tolist() == namespace["real"].labels.tolist() == [0, 0, 1]
