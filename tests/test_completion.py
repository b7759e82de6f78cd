"""Completers and unlearning: known pixels stay, nobody peeks at hidden ones, every method's forget loss moves the
encoder on forget data, what must be frozen is, and i2i is its formula."""

import copy
import functools
import math
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from memlib import noise, train
from memlib.errors import Refused
from memlib.papers.i2i import MAE, VQGAN, Inpainter, MaskedCodeInpainter, i2i, mae, masks, methods, unlearn
from memlib.papers.i2i.diffusion import Noisy
from memlib.papers.i2i.evaluation import Judge, quality
from memlib.papers.i2i.masks import hidden_tokens, hide, paste

SHAPE, PATCH = (1, 8, 8), 2
CENTRE = masks.centre(8, PATCH, 2)
FAMILIES = {
    "mae": lambda: MAE.small(SHAPE, PATCH, width=16, depth=2, heads=2),
    "vqgan": lambda: VQGAN.small(SHAPE, PATCH, codes=16, channels=8, width=16, depth=2, heads=2),
    "diffusion": lambda: Inpainter.small(SHAPE, widths=(8, 16)),
    "masked code": lambda: MaskedCodeInpainter.small(SHAPE, widths=(8, 16)),
}
METHODS = [
    methods.li2024, methods.li2024_released, methods.max_loss, methods.noisy_label, methods.retain_label,
    methods.random_encoder, methods.random_encoder_released,
]  # fmt: skip
ENCODER_ALONE = {name for name in METHODS if name.__name__.startswith(("li2024", "random_encoder"))}


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return FAMILIES[request.param]().eval()


@pytest.fixture
def images():
    return torch.randn(24, *SHAPE, generator=torch.Generator().manual_seed(1))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(n, generator):
    return torch.randn(n, *SHAPE, generator=generator)


def batch(images, mask=CENTRE):
    return methods.UnlearningBatch(images[:4], images[4:8], gaussian(4, generator(5)), mask)


def moved(before, after):
    return {name for name, p in after.state_dict().items() if not torch.equal(p, before.state_dict()[name])}


class TestFamilies:
    @pytest.mark.parametrize("task", masks.TASKS)
    def test_known_pixels_are_kept_exactly_and_hidden_ones_filled(self, model, images, task):
        mask = masks.mask(task, 8, PATCH, 0.5, n=len(images), generator=generator())
        done = model.complete(images, mask, noise.seeded(range(24)))
        assert done.shape == images.shape
        known = (~mask).expand_as(images)
        assert torch.equal(done[known], images[known])
        assert (done != images)[~known].all()

    @pytest.mark.parametrize("ratio", [0.25, 0.75])
    def test_every_image_is_completed_under_its_own_mask(self, model, images, ratio):
        mask = masks.mask("random", 8, PATCH, ratio, n=24, generator=generator())
        assert len(mask.unique(dim=0)) > 20
        done = model.complete(images, mask, noise.seeded(range(24)))
        known = (~mask).expand_as(images)
        assert torch.equal(done[known], images[known]) and (done != images)[~known].all()
        for i in (0, 7, 23):
            alone = model.complete(images[i : i + 1], mask[i, 0], noise.seeded([i]))
            torch.testing.assert_close(alone[0], done[i], rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("task", ["centre", "random", "outpaint"])
    def test_nobody_peeks_under_the_mask(self, model, images, task):
        mask = masks.mask(task, 8, PATCH, 0.5, n=len(images), generator=generator())
        other = torch.where(mask, 9.0, images)
        first, second = (model.complete(x, mask, noise.seeded(range(24))) for x in (images, other))
        assert torch.equal(torch.where(mask, first, 0.0), torch.where(mask, second, 0.0))

    def test_nothing_hidden_takes_part_when_a_completion_begins(self, model, images):
        other = torch.where(CENTRE, images.flip(0), images)
        first, second = (
            methods.flatten_codes(model.encode(model.initial_inputs(x, CENTRE, generator()))) for x in (images, other)
        )
        assert torch.equal(first, second)
        shown = methods.flatten_codes(model.encode(model.initial_inputs(images.flip(0), CENTRE, generator())))
        assert ((first - shown).norm(dim=1) > 1e-3 * first.norm(dim=1)).all()  # what is known does
        trained = [methods.flatten_codes(model.encode(model.inputs(x, CENTRE, generator()))) for x in (images, other)]
        assert torch.equal(*trained) != (type(model) is Inpainter)

    def test_an_inpainter_begins_with_pure_noise_at_the_highest_level(self, images):
        model = FAMILIES["diffusion"]()
        known, mask, noisy, t = model.initial_inputs(images, CENTRE, generator(4))
        assert torch.equal(noisy, torch.randn(images.shape, generator=generator(4)))
        assert torch.equal(known, hide(images, CENTRE)) and mask is CENTRE
        assert t.shape == (24,) and model.alphas_cumprod[t].unique().tolist() == [model.alphas_cumprod.min()]

    def test_completion_depends_on_what_is_known(self, model, images):
        first, second = (model.complete(x, CENTRE, noise.seeded(range(24))) for x in (images, images.flip(0)))
        assert not torch.equal(first[:, :, 2:6, 2:6], second[:, :, 2:6, 2:6])

    def test_training_lowers_the_loss(self, model, images):
        def loss(model, generator):
            return model.loss(images, images, CENTRE, generator).mean()

        steps = [float(step.loss) for step in train.fit(model, loss, 60, lr=3e-3)]
        assert sum(steps[-10:]) < 0.95 * sum(steps[:10])

    def test_a_mask_of_one_batch_and_one_per_image_agree(self, model, images):
        whole, each = CENTRE[0, 0], CENTRE.expand(24, -1, -1, -1)
        done = [model.complete(images, mask, noise.seeded(range(24))) for mask in (whole, CENTRE, each)]
        assert torch.equal(done[0], done[1]) and torch.equal(done[1], done[2])

    def test_the_noise_target_is_noise_masked_alike(self, model, images):
        inputs = model.inputs(images[:4], CENTRE, generator())
        with_noise = model.with_noise(inputs, images[4:8])
        if isinstance(model, MaskedCodeInpainter):
            assert torch.equal(with_noise.known, hide(images[4:8], CENTRE))
            assert torch.equal(with_noise.noisy, inputs.noisy) and torch.equal(with_noise.t, inputs.t)
        elif isinstance(model, Inpainter):  # eq. C.25: the noisy image is replaced, T(x) and the level are not
            assert torch.equal(with_noise.noisy, images[4:8]) and torch.equal(
                with_noise.known, hide(images[:4], CENTRE)
            )
            assert torch.equal(with_noise.t, inputs.t)
        else:
            fresh = model.inputs(images[4:8], CENTRE, generator())
            assert all(torch.equal(a, b) for a, b in zip(with_noise, fresh, strict=True))

    def test_the_released_target_differs_from_the_printed_one_in_an_inpainter_alone(self, model, images):
        inputs = model.inputs(images[:4], CENTRE, generator())
        printed, released = model.with_noise(inputs, images[4:8]), model.with_hidden_noise(inputs, images[4:8])
        if type(model) is Inpainter:
            assert torch.equal(released.noisy, torch.where(CENTRE, images[4:8], inputs.noisy))
            printed, released = printed._replace(noisy=0), released._replace(noisy=0)
        for a, b in zip(printed, released, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class TestMaskedCode:
    @pytest.fixture
    def painter(self):
        torch.manual_seed(0)
        return FAMILIES["masked code"]().eval()

    def test_the_code_is_of_the_masked_image_alone(self, painter, images):
        inputs = painter.inputs(images, CENTRE, generator())
        other = inputs._replace(noisy=inputs.noisy + 1, t=inputs.t.flip(0))
        assert all(map(torch.equal, painter.encode(inputs), painter.encode(other)))
        assert not torch.equal(painter.predict(inputs), painter.predict(other))
        shown = painter.encode(inputs._replace(known=inputs.known.flip(0)))
        assert all((a != b).any() for a, b in zip(shown, painter.encode(inputs), strict=True))

    def test_the_code_reaches_the_prediction(self, painter, images):
        inputs = painter.inputs(images, CENTRE, generator())
        hidden = inputs._replace(known=torch.zeros_like(inputs.known))
        assert not torch.allclose(painter.predict(inputs), painter.predict(hidden))

    def test_odd_sizes_are_refused(self):
        with pytest.raises(Refused, match="give fewer widths"):
            MaskedCodeInpainter.small((1, 6, 6), widths=(8, 8, 8))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
class TestMethods:
    def test_the_forget_term_moves_the_encoder_on_forget_data(self, model, images, method):
        frozen = copy.deepcopy(model)
        nn.init.normal_(next(p for p in model.encoder.parameters() if p.requires_grad), std=0.1)
        leaf = batch(images)
        for part in (leaf, leaf._replace(forget=images[8:12])):
            model.zero_grad()
            method(model, frozen, part, generator())[1].mean().backward()
            gradients = torch.cat([p.grad.flatten() for p in model.encoder.parameters() if p.grad is not None])
            if part is leaf:
                first = gradients.clone()
        assert first.norm() > 0
        assert (gradients - first).norm() > 1e-3 * first.norm()  # it depends on which images are to be forgotten

    def test_the_retain_term_is_there_and_about_retain_images(self, model, images, method):
        frozen = copy.deepcopy(model)
        for p in model.encoder.parameters():
            p.data.add_(0.05 * torch.randn(p.shape, generator=generator(3)))
        kept, lost = method(model, frozen, batch(images), generator())
        assert kept.shape == lost.shape == (4,)
        assert (kept > 0).all() and kept.requires_grad
        other_forget = method(model, frozen, batch(images)._replace(forget=images[12:16]), generator())[0]
        other_retain = method(model, frozen, batch(images)._replace(retain=images[12:16]), generator())[0]
        torch.testing.assert_close(other_forget, kept)
        assert not torch.allclose(other_retain, kept)

    def test_budgets_are_equal_and_the_decoder_is_frozen_where_it_should_be(self, model, images, method):
        before = copy.deepcopy(model)
        drawn = []

        def noted(n, generator):
            drawn.append(n)
            return gaussian(n, generator)

        *_, (unlearned, step) = unlearn(
            model, method, images[:10], images[10:], lambda g: CENTRE, noted, alpha=0.5, steps=3, batch=6, lr=1e-2
        )
        assert step.index == 2 and drawn == [6, 6, 6]
        assert moved(before, model) == set()
        rooms = {name.split(".")[0] for name in moved(before, unlearned)}
        assert rooms == ({"encoder"} if method in ENCODER_ALONE else {"encoder", "decoder"}) == set(method.trains)

    def test_unlearning_repeats_itself(self, model, images, method):
        runs = []
        for _ in range(2):
            steps = unlearn(model, method, images[:10], images[10:], lambda g: CENTRE, gaussian, steps=2, batch=4)
            *_, (unlearned, _) = steps
            runs.append(unlearned)
        assert moved(*runs) == set()


class TestI2I:
    def test_is_the_formula_of_equation_10(self):
        weight = torch.randn(6, 5, dtype=torch.float64, generator=generator(), requires_grad=True)
        retain, forget, target = torch.randn(3, 4, 5, dtype=torch.float64, generator=generator(2))
        eye = torch.eye(6, 5, dtype=torch.float64)
        kept, lost = (t.tolist() for t in i2i(lambda x: x @ weight.T, lambda x: x @ eye.T, retain, forget, target))
        weight = weight.detach()
        for i in range(4):
            assert kept[i] == pytest.approx(math.dist((weight @ retain[i]).tolist(), (eye @ retain[i]).tolist()))
            assert lost[i] == pytest.approx(math.dist((weight @ forget[i]).tolist(), (eye @ target[i]).tolist()))

    def test_the_distances_by_hand(self):
        a = (torch.tensor([[3.0, 4.0]]), torch.tensor([[[1.0], [2.0]]]))
        zero = tuple(torch.zeros_like(stage) for stage in a)
        assert methods.joint_norm(a, zero).tolist() == pytest.approx([math.sqrt(30)])
        assert methods.mean_square(a, zero).tolist() == pytest.approx([25 / 2 + 5 / 2])  # stage by stage
        assert methods.mean_square(a[0], zero[0]).tolist() == pytest.approx([12.5])

    def test_joins_stages_and_gives_the_original_no_gradient(self):
        scale = torch.tensor(2.0, requires_grad=True)
        stages = lambda x: (scale * x, scale * x[:, :1])  # noqa: E731
        x = torch.tensor([[3.0, 4.0]])
        kept, lost = i2i(stages, stages, x, x, 0 * x)
        assert float(kept) == 0 and float(lost) == pytest.approx(2 * math.sqrt(9 + 16 + 9))
        lost.sum().backward()
        assert float(scale.grad) == pytest.approx(math.sqrt(34))

    def test_at_the_start_the_retain_term_has_no_gradient_and_no_nan(self):
        layer = nn.Linear(5, 5)
        x = torch.randn(4, 5, generator=generator())
        i2i(layer, copy.deepcopy(layer), x, x, -x)[0].mean().backward()
        assert float(layer.weight.grad.norm()) == 0


class TestTerms:
    """Both terms of every method, written out; `frozen` differs from `model`, so neither can stand in for the other."""

    @pytest.fixture
    def frozen(self, model):
        other = copy.deepcopy(model)
        for p in other.encoder.parameters():
            p.data.add_(0.05 * torch.randn(p.shape, generator=generator(3)))
        return other

    @staticmethod
    def rows(codes):
        return codes.flatten(1) if isinstance(codes, torch.Tensor) else torch.cat([c.flatten(1) for c in codes], 1)

    def between(self, a, b):
        return (self.rows(a) - self.rows(b)).square().sum(1).sqrt()

    @pytest.mark.parametrize(("method", "truth", "sign"), [
        (methods.max_loss, "forget", -1), (methods.retain_label, "retain", 1),
    ])  # fmt: skip
    def test_a_baseline_trains_forget_images_towards_its_own_truth(self, model, frozen, images, method, truth, sign):
        part = batch(images)
        terms = method(model, frozen, part, generator())
        follow = generator()
        torch.testing.assert_close(terms[0], model.loss(part.retain, part.retain, CENTRE, follow))
        torch.testing.assert_close(terms[1], sign * model.loss(part.forget, getattr(part, truth), CENTRE, follow))

    def test_noisy_label_predicts_the_noise_that_it_shows(self, model, frozen, images):
        part = batch(images)
        lost = methods.noisy_label(model, frozen, part, generator())[1]
        follow = generator()
        model.loss(part.retain, part.retain, CENTRE, follow)
        if not isinstance(model, Inpainter):
            return torch.testing.assert_close(lost, model.loss(part.forget, part.noise, CENTRE, follow))
        t = torch.randint(len(model.alphas_cumprod), (4,), generator=generator(9))
        lost = model.loss_to_noise(part.forget, part.noise, CENTRE, generator(9))
        shown = Noisy(hide(part.forget, CENTRE), CENTRE, part.noise, t)
        return torch.testing.assert_close(lost, (model.predict(shown) - part.noise).flatten(1).norm(dim=1))

    def test_the_released_random_encoder_has_the_codes_mean_and_deviation(self, model, frozen, images):
        part = batch(images)
        kept, lost = methods.random_encoder_released(model, frozen, part, generator())
        follow = generator()
        retain, forget = (model.inputs(x, CENTRE, follow) for x in (part.retain, part.forget))
        stages = [codes if isinstance(codes, tuple) else (codes,) for codes in map(frozen.encode, (retain, forget))]
        aims = [s.mean() + s.std() * torch.randn(s.shape, generator=follow) for s in stages[1]]
        made = [codes if isinstance(codes, tuple) else (codes,) for codes in map(model.encode, (retain, forget))]
        for term, mine, aim in ((kept, made[0], stages[0]), (lost, made[1], aims)):
            squares = [(a - b).square().flatten(1).mean(1) for a, b in zip(mine, aim, strict=True)]
            torch.testing.assert_close(term, sum(squares))

    def test_random_encoder_aims_at_what_its_generator_draws(self, model, frozen, images):
        part = batch(images)
        kept, lost = methods.random_encoder(model, frozen, part, generator())
        follow = generator()
        retain, forget = (model.inputs(x, CENTRE, follow) for x in (part.retain, part.forget))
        codes = self.rows(model.encode(forget))
        torch.testing.assert_close(kept, self.between(model.encode(retain), frozen.encode(retain)))
        torch.testing.assert_close(lost, self.between(codes, torch.randn(codes.shape, generator=follow)))
        other = methods.random_encoder(model, frozen, part, generator(1))[1]
        assert ((lost - other).abs() > 1e-4 * lost).all()

    def test_ours_is_equation_10_and_for_diffusion_c_25(self, model, frozen, images):
        part = batch(images)
        kept, lost = methods.li2024(model, frozen, part, generator())
        follow = generator()
        retain, forget = (model.inputs(x, CENTRE, follow) for x in (part.retain, part.forget))
        if isinstance(model, MaskedCodeInpainter):
            target = forget._replace(known=hide(part.noise, CENTRE))
        elif isinstance(model, Inpainter):
            target = Noisy(part.forget.masked_fill(CENTRE, 0), CENTRE, part.noise, forget.t)
        else:
            target = frozen.inputs(part.noise, CENTRE, follow)
        torch.testing.assert_close(kept, self.between(model.encode(retain), frozen.encode(retain)))
        torch.testing.assert_close(lost, self.between(model.encode(forget), frozen.encode(target)))
        assert (kept > 0.01).all() and (lost > 0.01).all()


class TestMethodsOnTheirOwn:
    def test_ours_sends_forget_codes_to_noise_and_leaves_retain_codes(self, images):
        torch.manual_seed(0)
        model = FAMILIES["mae"]()
        retain, forget = images[:12] + 2, images[12:] - 2
        target = lambda n, g: torch.randn(1, *SHAPE, generator=generator(7)).expand(n, -1, -1, -1)  # noqa: E731
        before = _terms(model, model, retain, forget, target)
        steps = unlearn(model, methods.li2024, retain, forget, lambda g: CENTRE, target, alpha=1.0, steps=200, lr=5e-3)
        *_, (unlearned, _) = steps
        after = _terms(unlearned, model, retain, forget, target)
        assert after[1] < 0.5 * before[1]
        assert after[0] < 0.25 * before[1]

    def test_the_images_of_a_step_are_varied_in_both_sets_and_by_its_generator(self, images):
        seen, given = [], []

        def vary(part, generator):
            given.append(part)
            return part + torch.rand(len(part), 1, 1, 1, generator=generator)

        def noted(model, frozen, batch, generator):
            seen.append((batch.retain, batch.forget))
            return methods.li2024(model, frozen, batch, generator)

        model = FAMILIES["mae"]()
        noted = methods.Method(noted, methods.li2024.trains)
        list(unlearn(model, noted, images[:10], images[10:], lambda g: CENTRE, gaussian, vary=vary, steps=2, batch=4))
        assert len(given) == 4 and len(seen) == 2
        shifts = [after - before for before, after in zip(given, [part for step in seen for part in step], strict=True)]
        assert all((s > 0).all() and s.flatten(1).std(1).max() < 1e-6 for s in shifts)  # each image by its own amount
        assert len({float(s[0, 0, 0, 0]) for s in shifts}) == 4  # drawn anew for either set and every step
        assert all(any(torch.equal(row, image) for image in images[:10]) for row in given[0])
        assert all(any(torch.equal(row, image) for image in images[10:]) for row in given[1])

    def test_a_loss_around_the_papers_must_say_what_it_trains(self, model, images):
        """A wrapper, a partial, a lambda: none of them may train the decoder in silence."""

        def doubled(model, frozen, batch, generator):
            return tuple(2 * term for term in methods.li2024(model, frozen, batch, generator))

        def moved_by(method):
            rest = images[:10], images[10:], lambda g: CENTRE, gaussian
            *_, (unlearned, _) = unlearn(model, method, *rest, steps=2, batch=4, lr=1e-2)
            return {name.partition(".")[0] for name in moved(model, unlearned)}

        around = [doubled, functools.partial(methods.li2024), lambda *all_of_it: methods.li2024(*all_of_it)]
        for loss in around:
            with pytest.raises(Refused, match=r"does not say what it trains: give Method\("):
                moved_by(loss)
            assert moved_by(methods.Method(loss, trains=methods.li2024.trains)) == {"encoder"}
        assert moved_by(methods.Method(methods.max_loss, trains=("encoder", "decoder"))) == {"encoder", "decoder"}
        assert moved_by(methods.Method(methods.max_loss, trains=("encoder",))) == {"encoder"}
        with pytest.raises(Refused, match="trains 'head', which the model does not have: name some of .*encoder"):
            moved_by(methods.Method(doubled, trains=("head",)))
        assert methods.li2024.__doc__.startswith("Send the codes")

    def test_unlike_sets_are_refused(self, model, images):
        with pytest.raises(Refused, match="one shape"):
            next(unlearn(model, methods.li2024, images, images[:0], lambda g: CENTRE, gaussian))


def _terms(model, frozen, retain, forget, target):
    with torch.no_grad():
        part = methods.UnlearningBatch(retain, forget, target(len(forget), generator()), CENTRE)
        return [float(term.mean()) for term in methods.li2024(model, frozen, part, generator())]


def vit_mae(channels):
    """transformers' own, every weight drawn: fresh, it would place no patch and answer with almost nothing."""
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    net = ViTMAEForPreTraining(ViTMAEConfig(
        num_channels=channels, image_size=8, patch_size=PATCH, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=16, decoder_hidden_size=16, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2, decoder_intermediate_size=16, mask_ratio=0.25,
    )).eval()  # fmt: skip
    for p in net.parameters():
        nn.init.normal_(p, std=0.3, generator=generator())
    return net


class TestPatches:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_pixels_are_laid_out_as_transformers_has_them(self, channels):
        net = vit_mae(channels)
        model = MAE(net)
        x = torch.randn(4, channels, 8, 8, generator=generator(1))
        seen = model.encode(model.inputs(x, CENTRE))
        model.decoder.forward = lambda codes, place: SimpleNamespace(logits=net.patchify(x))
        assert torch.equal(model.decode(seen, CENTRE), x)
        patches = torch.randn(4, 16, PATCH**2 * channels, generator=generator(2))
        model.decoder.forward = lambda codes, place: SimpleNamespace(logits=patches)
        assert torch.equal(model.decode(seen, CENTRE), net.unpatchify(patches))


class TestFolders:
    @pytest.mark.parametrize("layers", ["decoder.decoder_layers.", "as transformers saves them"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_an_mae_comes_from_a_folder_and_completes_as_transformers_does(self, tmp_path, channels, layers):
        net = vit_mae(channels)
        net.save_pretrained(tmp_path)
        keys = load_file(tmp_path / "model.safetensors")
        assert "vit.encoder.layer.0.attention.attention.query.weight" in keys  # as in the hub's folders
        if layers.startswith("decoder"):  # so the hub's folders have it; transformers 5 saves another name
            hub = {key.replace("decoder.decoder_encoder.layer.", layers): value for key, value in keys.items()}
            save_file(hub, tmp_path / "model.safetensors", {"format": "pt"})
        model = MAE.load(tmp_path)
        x = torch.randn(6, channels, 8, 8, generator=generator(1))
        mask = masks.mask("random", 8, PATCH, 0.25, n=6, generator=generator(2))
        # Theirs keeps the patches of least noise, in that order; known ones in reading order are ours.
        rank = hidden_tokens(mask, 6, PATCH).float() + torch.arange(16) / 100
        with torch.no_grad():
            theirs = net.unpatchify(net(x, noise=rank).logits)
        assert theirs.flatten(2).std(2).min() > 0.1  # not one colour: a wrong place or channel would show
        torch.testing.assert_close(model.complete(x, mask), paste(x, theirs, mask), rtol=1e-4, atol=1e-5)

    def test_an_mae_that_lacks_a_weight_is_refused(self, tmp_path):
        vit_mae(3).save_pretrained(tmp_path)
        keys = load_file(tmp_path / "model.safetensors")
        del keys["decoder.decoder_pred.weight"]
        save_file(keys, tmp_path / "model.safetensors", {"format": "pt"})
        with pytest.raises(Refused, match=r"lacks 1 weights of a ViTMAE, the first is 'decoder\.decoder_pred\.weight'"):
            MAE.load(tmp_path)

    def test_a_vqgan_comes_back_from_its_folder(self, tmp_path, images):
        torch.manual_seed(0)
        model = FAMILIES["vqgan"]().eval()
        model.save(tmp_path)
        done = [m.complete(images, CENTRE, noise.seeded(range(24))) for m in (model, VQGAN.load(tmp_path))]
        assert torch.equal(*done)

    def test_an_inpainter_comes_from_a_diffusers_folder(self, tmp_path, images):
        from diffusers import DDPMScheduler, UNet2DModel

        torch.manual_seed(0)
        net = UNet2DModel(
            sample_size=8, in_channels=2, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
            down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2, norm_num_groups=8,
        ).eval()  # fmt: skip
        net.save_pretrained(tmp_path)
        DDPMScheduler().save_pretrained(tmp_path)
        model = Inpainter.load(tmp_path)
        inputs = model.inputs(images, CENTRE, generator())
        with torch.no_grad():
            whole = net(torch.cat([inputs.noisy, inputs.known], 1), inputs.t).sample
            torch.testing.assert_close(model.decode(model.encode(inputs), inputs.t), whole)

    @pytest.mark.parametrize("family", [MAE, VQGAN, Inpainter])
    def test_an_empty_folder_is_refused(self, tmp_path, family):
        with pytest.raises(Refused):
            family.load(tmp_path)

    def test_unfit_networks_are_refused(self):
        from diffusers import UNet2DModel

        net = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 8), norm_num_groups=8,
                          down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip
        with pytest.raises(Refused, match="inpainter"):
            Inpainter(net, torch.linspace(0.9, 0.1, 10))
        with pytest.raises(Refused, match="power of two"):
            VQGAN.small((1, 9, 9), 3)


def test_images_of_a_source_are_standardised_as_for_imagenet():
    """The same numbers as transformers makes for its checkpoints, m = (0.485, 0.456, 0.406) on pixels of [0, 1]."""
    from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

    pixels = torch.rand(2, 3, 4, 4, dtype=torch.float64, generator=generator())
    m, s, mean, std = (
        torch.tensor(values, dtype=torch.float64).view(3, 1, 1)
        for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, mae.IMAGENET_MEAN, mae.IMAGENET_STD)
    )
    torch.testing.assert_close((2 * pixels - 1 - mean) / std, (pixels - m) / s)


class TestHidden:
    def test_patches_in_reading_order(self):
        mask = torch.zeros(4, 6, dtype=torch.bool)
        mask[:2, 2:4] = mask[2:, 4:] = True
        assert hidden_tokens(mask, 2, 2).tolist() == [[False, True, False, False, False, True]] * 2

    def test_cut_patches_and_ragged_batches_are_refused(self):
        mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
        mask[0, 0, :2, :2] = True
        with pytest.raises(Refused, match="equally many"):
            hidden_tokens(mask, 2, 2)
        mask[0, 0, 0, 0] = False
        with pytest.raises(Refused, match="cuts"):
            hidden_tokens(mask, 2, 2)
        with pytest.raises(Refused, match="fill"):
            hidden_tokens(mask, 2, 3)


class TestQuality:
    def test_only_the_hidden_region_counts(self, images):
        made = torch.where(CENTRE, images.flip(0), images)
        embed = lambda x: x.flatten(1)[:, 18:46] + 1  # noqa: E731
        judge = Judge(embed, lambda x: x.flatten(1).softmax(1), embed)
        first = quality(made, images, CENTRE, judge)
        other = torch.where(CENTRE, images, images.roll(1, 0))
        second = quality(torch.where(CENTRE, made, other), other, CENTRE, judge)
        assert first.frechet == second.frechet and first.inception == second.inception
        assert torch.equal(first.cosine, second.cosine)
        hidden = (made - images)[:, 0, 2:6, 2:6]
        torch.testing.assert_close(first.error, hidden.square().mean((1, 2)))

    def test_a_perfect_completion(self, images):
        judge = Judge(lambda x: x.flatten(1), lambda x: x.flatten(1).softmax(1), lambda x: x.flatten(1))
        best = quality(images, images, CENTRE, judge)
        assert best.frechet < 1e-6 and torch.allclose(best.cosine, torch.ones(24)) and best.error.abs().max() == 0

    def test_every_image_is_judged_under_its_own_mask(self):
        truth, made = torch.randn(2, 24, 3, 8, 8, generator=generator(1))
        mask = torch.rand(24, 1, 8, 8, generator=generator(2)) < torch.linspace(0.2, 0.9, 24).view(24, 1, 1, 1)
        judge = Judge(lambda x: x.flatten(1)[:, ::9], lambda x: x.flatten(1).softmax(1), lambda x: x.flatten(1))
        found = quality(made, truth, mask, judge)
        for i in range(24):
            inside = mask[i].expand(3, 8, 8)
            a, b = made[i][inside], truth[i][inside]
            torch.testing.assert_close(found.error[i], (a - b).square().mean())
            torch.testing.assert_close(found.cosine[i], (a @ b) / (a.norm() * b.norm()))
        elsewhere = quality(torch.where(mask, made, 5.0), torch.where(mask, truth, -5.0), mask, judge)
        assert elsewhere.frechet == found.frechet and elsewhere.inception == found.inception
        assert torch.equal(elsewhere.cosine, found.cosine) and torch.equal(elsewhere.error, found.error)
