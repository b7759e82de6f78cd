"""The table of losses against hand computations, and the sign of each against what it should do to a model."""

import pytest
import torch

from memlib import losses

torch.manual_seed(0)
EPS_HAT, EPS = torch.randn(2, 6, 3, 4, dtype=torch.float64)


def test_per_sample_values_by_hand():
    a, b = EPS_HAT.flatten(1), EPS.flatten(1)
    weight = torch.arange(1.0, 7.0, dtype=torch.float64)
    inner = torch.stack([u @ v for u, v in zip(a, b, strict=True)])
    distance = torch.stack([torch.dist(u, v) ** 2 for u, v in zip(a, b, strict=True)])
    torch.testing.assert_close(losses.denoising(EPS_HAT, EPS, weight), weight * distance)
    torch.testing.assert_close(losses.ascent(EPS_HAT, EPS), -distance)
    torch.testing.assert_close(losses.erase(EPS_HAT, EPS), distance)
    torch.testing.assert_close(losses.obtuse(EPS_HAT, EPS), inner)
    torch.testing.assert_close(losses.orthogonal(EPS_HAT, EPS, weight), weight * inner**2)


def test_eq_9_and_10_from_the_scores_themselves():
    """SGU writes the losses on scores s = -eps_hat / sigma and grad log p = -eps / sigma with lambda = sigma^2."""
    sigma = torch.rand(6, dtype=torch.float64) + 0.5
    column = sigma[:, None, None]
    product = ((-EPS_HAT / column) * (-EPS / column)).flatten(1).sum(1)
    torch.testing.assert_close(losses.orthogonal(EPS_HAT, EPS, weight=1 / sigma**2), sigma**2 * product**2)
    torch.testing.assert_close(losses.obtuse(EPS_HAT, EPS), sigma**2 * product)


@pytest.mark.parametrize("batch", [8, 64, 512])
def test_matching_falls_as_one_over_the_batch_and_its_unbiased_form_does_not(batch):
    g = torch.Generator().manual_seed(batch)
    mean, repeats, size = 0.5, 400, 12
    residual = mean + torch.randn(repeats, batch, size, generator=g, dtype=torch.float64)
    zero = torch.zeros(batch, size, dtype=torch.float64)
    plain = torch.stack([losses.matching(r, zero) for r in residual])
    fair = torch.stack([losses.matching_unbiased(r, zero) for r in residual])
    truth = size * mean**2
    assert plain.ndim == 1 and fair.ndim == 1
    assert abs(plain.mean() - (truth + size / batch)) < 5 * plain.std() / repeats**0.5
    assert abs(fair.mean() - truth) < 5 * fair.std() / repeats**0.5


def test_a_step_on_each_forget_loss_moves_the_pair_as_promised():
    """One small gradient step on eps_hat itself: obtuse lowers the product, orthogonal its size, ascent the fit."""
    effects = {losses.obtuse: "inner", losses.orthogonal: "size", losses.ascent: "fit", losses.erase: "noise"}
    for loss, effect in effects.items():
        model = EPS_HAT.clone().requires_grad_()
        target = torch.randn(6, 3, 4, dtype=torch.float64) if effect == "noise" else EPS
        loss(model, target).sum().backward()
        after = (model - 1e-4 * model.grad).detach()
        inner = [(m * EPS).flatten(1).sum(1) for m in (EPS_HAT, after)]
        if effect == "inner":
            assert (inner[1] < inner[0]).all()
        elif effect == "size":
            assert (inner[1].abs() < inner[0].abs()).all()
        elif effect == "fit":
            assert (losses.denoising(after, EPS) > losses.denoising(EPS_HAT, EPS)).all()
        else:
            assert (losses.denoising(after, target) < losses.denoising(EPS_HAT, target)).all()
