"""MAGE from its authors' files: the words, codes and scores that blocks of transformers and diffusers make of them."""

import argparse
import math

import pytest
import tiny_mage as tiny
import torch
from safetensors.torch import save_file

from memlib import noise
from memlib.errors import Refused
from memlib.papers.i2i import MAGE, mae, masks, methods, unlearn
from memlib.papers.i2i.mage import read_weights
from memlib.papers.i2i.masks import hide
from memlib.papers.i2i.tokenizer import Tokenizer

PATCH, SIZE = 4, 16
CENTRE = masks.centre(SIZE, PATCH, 2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def standardised(images):
    """Of [0, 1], as for ImageNet."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mae.IMAGENET_MEAN, mae.IMAGENET_STD))
    return (2 * images - 1 - mean) / std


def published(folder, seed=0):
    """The two files under their published names; their weights."""
    tokenizer, transformer = tiny.states(seed)
    torch.save({"model": transformer}, folder / "mage-vitb-1600.pth")
    torch.save({"state_dict": tokenizer}, folder / "vqgan_jax_strongaug.ckpt")
    return tokenizer, transformer


@pytest.fixture
def pixels():
    """A colour and a pattern of its own in every patch, or all words would be one."""
    colours = torch.rand(4, 3, 4, 4, generator=generator(3)).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return colours * (0.2 + 0.8 * torch.rand(4, 3, SIZE, SIZE, generator=generator(4)))


@pytest.fixture
def loaded(tmp_path):
    return MAGE.load(tmp_path) if published(tmp_path) else None


class TestForward:
    def test_sizes_are_read_off_the_file(self, loaded):
        assert loaded.shape == (3, SIZE, SIZE) and (loaded.patch, loaded.grid) == (PATCH, 4)
        assert (loaded.mask_word, loaded.encoder.first) == (tiny.MASK, tiny.CLASS)
        heads = [layer.self_attn.num_heads for layer in (*loaded.encoder.layers, *loaded.decoder.layers)]
        assert heads == [2, 2, 16]

    def test_words_are_the_nearest_codebook_entries(self, loaded, pixels):
        state, _ = tiny.states()
        wanted, margin = tiny.words(state, pixels)
        assert margin.min() > 1e-4 and len(wanted.unique()) > 4  # no tie, and not one word everywhere
        assert torch.equal(loaded.indices(standardised(pixels)), wanted)
        torch.testing.assert_close(loaded.tokenizer.encoder(pixels), tiny.codes(state, pixels), rtol=1e-3, atol=1e-4)

    def test_words_are_found_in_float32_where_the_rest_is_bfloat16(self, loaded, pixels):
        images = standardised(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            assert loaded.tokenizer.encoder(pixels).dtype == torch.bfloat16
            assert torch.equal(loaded.indices(images), tiny.words(tiny.states()[0], pixels)[0])

    def test_what_lies_outside_of_0_and_1_is_clamped_as_released(self, loaded, pixels):
        far = 4 * pixels - 1.5
        wanted, margin = tiny.words(tiny.states()[0], far.clamp(0, 1))
        assert margin.min() > 1e-4 and not torch.equal(wanted, tiny.words(tiny.states()[0], far)[0])
        assert torch.equal(loaded.indices(standardised(far)), wanted)

    def test_words_become_the_same_image(self, loaded):
        indices = torch.randint(tiny.WORDS, (3, 16), generator=generator(1))
        made = tiny.pixels(tiny.states()[0], indices)
        assert (made > 0.1).any() and made.std() > 0.1
        torch.testing.assert_close(loaded.tokenizer.decode(indices), made, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(loaded.pixels(indices), standardised(made.clamp(0, 1)), rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("training", [False, True])  # torch takes another path in evaluation, without gradients
    def test_codes_and_scores_are_those_of_the_file(self, loaded, pixels, training):
        _, state = tiny.states()
        mask = masks.mask("random", SIZE, PATCH, 0.25, n=4, generator=generator(2))
        loaded.train(training)
        with torch.set_grad_enabled(training):
            inputs = loaded.inputs(standardised(pixels), mask)
            codes = loaded.encode(inputs)
            scores = loaded.decode(codes, inputs.hidden)
        wanted = tiny.encoded(state, inputs.indices, inputs.hidden)
        torch.testing.assert_close(codes, wanted, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(scores, tiny.scores(state, wanted, inputs.hidden), rtol=1e-3, atol=1e-3)
        assert wanted.std() > 0.1 and scores.std(2).min() > 0.1

    def test_hidden_pixels_are_imagenets_mean_colour(self, loaded, pixels):
        images = standardised(pixels)
        grey = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        filled = torch.where(CENTRE, grey.expand_as(pixels), pixels)
        torch.testing.assert_close(hide(images, CENTRE), standardised(filled), atol=1e-2, rtol=0)
        assert torch.equal(loaded.inputs(images, CENTRE).indices, loaded.indices(hide(images, CENTRE)))

    def test_known_pixels_stay_and_hidden_ones_are_not_read(self, loaded, pixels):
        images = standardised(pixels)
        done = loaded.complete(images, CENTRE, noise.seeded(range(4)))
        known = (~CENTRE).expand_as(images)
        assert (
            torch.equal(done[known], images[known]) and (done != images)[~known].float().mean() > 0.9
        )  # some reach 0 or 1
        other = torch.where(CENTRE, images.roll(1, 0), images)
        assert torch.equal(loaded.complete(other, CENTRE, noise.seeded(range(4))), done)


class TestUnlearning:
    @pytest.mark.parametrize("method", [methods.li2024, methods.random_encoder])
    def test_the_encoder_alone_moves(self, loaded, pixels, method):
        images, frozen = standardised(pixels), {name: value.clone() for name, value in loaded.state_dict().items()}

        def gaussian(n, generator):
            return torch.randn(n, 3, SIZE, SIZE, generator=generator)

        rest = images[:2], images[2:], lambda g: CENTRE, gaussian
        *_, (model, step) = unlearn(loaded, method, *rest, steps=1, batch=2, lr=1e-2)
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, frozen[name])}
        assert {name.partition(".")[0] for name in moved} == {"encoder"} and math.isfinite(float(step.loss))
        assert {"encoder.words.weight", "encoder.layers.0.self_attn.in_proj_weight", "encoder.norm.weight"} <= moved
        assert torch.equal(model.decoder.words, frozen["encoder.words.weight"][: tiny.WORDS])

    @pytest.mark.parametrize("method", [methods.max_loss, methods.noisy_label, methods.retain_label])
    def test_the_baselines_move_the_decoder_too(self, loaded, pixels, method):
        images, frozen = standardised(pixels), {name: value.clone() for name, value in loaded.state_dict().items()}

        def gaussian(n, generator):
            return torch.randn(n, 3, SIZE, SIZE, generator=generator)

        rest = images[:2], images[2:], lambda g: CENTRE, gaussian
        *_, (model, _) = unlearn(loaded, method, *rest, steps=1, batch=2, lr=1e-2)
        moved = {name for name, value in model.state_dict().items() if not torch.equal(value, frozen[name])}
        assert {name.partition(".")[0] for name in moved} == {"encoder", "decoder"}
        assert "decoder.words" not in moved and "decoder.bias" in moved


class TestFiles:
    def same(self, folder, loaded):
        again = MAGE.load(folder)
        assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in again.state_dict().items())

    def test_safetensors_do_as_well(self, tmp_path, loaded):
        tokenizer, transformer = tiny.states()
        (other := tmp_path / "other").mkdir()
        save_file(transformer, other / "mage.safetensors")
        save_file(tokenizer, other / "vqgan.safetensors")
        self.same(other, loaded)

    def test_a_file_with_its_tokenizer_needs_no_other(self, tmp_path, loaded):
        """So the released code saves it; it overwrites the other file's weights with these."""
        tokenizer, transformer = tiny.states()
        (other := tmp_path / "other").mkdir()
        whole = transformer | {f"vqgan.{name}": value for name, value in tokenizer.items()}
        torch.save({"model": whole}, other / "mage.pth")
        self.same(other, loaded)
        torch.save(tiny.states(7)[0], other / "vqgan.ckpt")
        self.same(other, loaded)

    def test_the_options_and_the_optimiser_beside_the_weights_are_left(self, tmp_path, loaded):
        """As the training script of the authors saves them."""
        (other := tmp_path / "other").mkdir()
        tokenizer, transformer = tiny.states()
        optimizer = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
        saved = {"model": transformer, "optimizer": optimizer, "epoch": 3, "args": argparse.Namespace(lr=0.1)}
        torch.save(saved, other / "mage.pth")
        torch.save(tokenizer, other / "vqgan.ckpt")
        self.same(other, loaded)

    def test_it_comes_back_as_it_was_saved(self, tmp_path, loaded):
        (tmp_path / "other").mkdir()
        loaded.save(tmp_path / "other" / "mage-unlearned.safetensors")
        self.same(tmp_path / "other", loaded)
        tokenizer, transformer = tiny.states()
        wanted = {f"vqgan.{name}": value for name, value in tokenizer.items()} | transformer
        stored = read_weights(tmp_path / "other" / "mage-unlearned.safetensors")
        assert set(wanted) - set(stored) == set(tiny.UNUSED) and set(stored) <= set(wanted)
        assert all(torch.equal(value, wanted[name]) for name, value in stored.items())

    def test_half_precision_becomes_float32(self, tmp_path):
        _, transformer = tiny.states()
        save_file({name: value.half() for name, value in transformer.items()}, tmp_path / "mage.safetensors")
        assert {value.dtype for value in read_weights(tmp_path / "mage.safetensors").values()} == {torch.float32}


class Harmful:
    def __reduce__(self):
        return print, ("a pickle ran",)


class TestRefusals:
    @pytest.fixture
    def folder(self, tmp_path):
        published(tmp_path)
        return tmp_path

    def refused(self, folder, words):
        with pytest.raises(Refused, match=words) as caught:
            MAGE.load(folder)
        assert "\n" not in str(caught.value)

    def test_missing_files(self, tmp_path, folder):
        (folder / "vqgan_jax_strongaug.ckpt").unlink()
        self.refused(folder, r"holds no tokenizer, and .* no vqgan\*\.ckpt")
        (folder / "mage-vitb-1600.pth").unlink()
        self.refused(folder, r"has no mage\*\.safetensors and no mage\*\.pth")

    def test_two_of_a_kind(self, folder):
        torch.save({}, folder / "mage-vitl-1600.pth")
        self.refused(folder, "holds 'mage-vitb-1600.pth' and 'mage-vitl-1600.pth': keep the one")

    @pytest.mark.parametrize("content", [b"", b"<html>", b"PK\3\4 cut"])
    @pytest.mark.parametrize("name", ["mage-vitb-1600.pth", "vqgan_jax_strongaug.ckpt", "mage.safetensors"])
    def test_damaged_files(self, folder, name, content):
        if name == "mage.safetensors":
            (folder / "mage-vitb-1600.pth").unlink()
        (folder / name).write_bytes(content)
        self.refused(folder, f"{name}' is damaged")

    def test_a_pickle_runs_no_code(self, folder, capsys):
        torch.save({"model": tiny.states()[1], "more": Harmful()}, folder / "mage-vitb-1600.pth")
        self.refused(folder, "holds more than weights and plain values, which could run code")
        assert "a pickle ran" not in capsys.readouterr().out

    @pytest.mark.parametrize("held", [{}, {"model": {}}, [1], {"model": {"epoch": 3}}])
    def test_what_holds_no_weights(self, folder, held):
        torch.save(held, folder / "mage-vitb-1600.pth")
        self.refused(folder, "holds no weights by name")

    @pytest.mark.parametrize(
        "name",
        ["token_emb.word_embeddings.weight", "blocks.1.attn.qkv.bias", "decoder_pos_embed_learned", "mlm_layer.bias"],
    )
    @pytest.mark.parametrize("change", ["missing", "of another shape", "unexpected", "NaN"])
    def test_a_weight_that_does_not_fit_is_named_as_in_the_file(self, folder, name, change):
        _, state = tiny.states()
        if change == "missing":
            del state[name]
        elif change == "of another shape":
            state[name] = torch.cat([state[name], state[name]])
        elif change == "unexpected":
            state[name := f"{name}_2"] = torch.zeros(2)
        else:
            state[name].flatten()[0] = float("nan")
        torch.save({"model": state}, folder / "mage-vitb-1600.pth")
        self.refused(folder, f"'{name}'.*NaN" if change == "NaN" else rf"not those of MAGE.*'{name}' \({change}\)")

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("quantize.embedding.weight", "have no 'quantize.embedding.weight'"),
            ("encoder.conv_in.weight", "have no 'encoder.conv_in.weight'"),
            ("encoder.down.0.block.0.conv1.weight", "they are no VQ-GAN"),
            ("encoder.mid.block_2.norm1.bias", r"'vqgan\.encoder\.mid\.block_2\.norm1\.bias' \(missing\)"),
        ],
    )
    def test_a_tokenizer_that_lacks_a_weight(self, folder, name, words):
        state, _ = tiny.states()
        del state[name]
        torch.save(state, folder / "vqgan_jax_strongaug.ckpt")
        self.refused(folder, words)

    def test_the_tokenizer_of_taming_transformers_is_another(self, folder):
        """It has attention, and biases that this one lacks."""
        state, _ = tiny.states()
        state["encoder.mid.attn_1.q.weight"] = torch.zeros(64, 64, 1, 1)
        torch.save(state, folder / "vqgan_jax_strongaug.ckpt")
        self.refused(folder, r"'vqgan.encoder.mid.attn_1.q.weight' \(unexpected\)")

    def test_no_transformer_at_all(self, folder):
        torch.save(tiny.states()[0], folder / "mage-vitb-1600.pth")
        self.refused(folder, "not those of MAGE: 'token_emb.position_embeddings.weight' is missing")

    def test_widths_that_do_not_divide(self):
        words = Tokenizer(3, (32, 32), 1, 8, 4)
        with pytest.raises(Refused, match="widths of 96 and 64 do not divide"):
            MAGE(words, 4, 96, 1, 64, 1)
        with pytest.raises(Refused, match="48 channels do not divide"):
            Tokenizer(3, (32, 48), 1, 8, 4)
