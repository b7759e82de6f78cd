"""Masks by their geometry: which patches, how many, and nothing cut."""

import pytest
import torch

from memlib import inpaint, noise
from memlib.errors import Refused
from memlib.papers.i2i import MAE, VQGAN, Inpainter, masks
from memlib.papers.sgu.study import measures


def patches(mask, patch):
    """The mask on the grid of patches, (n, grid, grid), after a look that none is cut."""
    low, high = (-torch.nn.functional.max_pool2d(s * mask.float(), patch) * -s for s in (1.0, -1.0))
    assert torch.equal(low, high), "a patch is hidden in part"
    return low[:, 0].bool()


def test_the_papers_centres_hide_a_quarter_and_a_sixteenth():
    for k, share in ((8, 1 / 4), (4, 1 / 16)):  # tables 1 and 2: of 16 x 16 patches of 16 pixels
        mask = masks.centre(256, 16, k)
        assert mask.shape == (1, 1, 256, 256) and mask.dtype == torch.bool
        assert mask.float().mean() == share
        assert torch.equal(mask, mask.flip(2)) and torch.equal(mask, mask.flip(3))  # in the middle
        edge = 128 - 8 * k
        assert mask[0, 0, edge, edge] and not mask[0, 0, edge - 1, edge]


def test_outpainting_is_the_rest():
    assert torch.equal(masks.outpaint(16, 2, 4), ~masks.centre(16, 2, 4))


@pytest.mark.parametrize(("side", "seen"), [("up", (8, 0)), ("down", (0, 8)), ("left", (0, 15)), ("right", (15, 0))])
def test_extensions_hide_the_side_they_are_named_after(side, seen):
    mask = masks.extension(side, 16, 2, 0.5)
    assert mask.float().mean() == 0.5
    across = mask if side in ("up", "down") else mask.mT
    assert torch.equal(across, across[..., :1].expand_as(across))  # whole rows, or columns
    first_hidden = across[0, 0, 0, 0].item()
    assert first_hidden == (side in ("up", "left"))
    assert not mask[0, 0, seen[0], seen[1]]
    assert not torch.equal(mask, masks.extension({"up": "left", "left": "up"}.get(side, "up"), 16, 2, 0.5))


def test_random_masks_hide_equally_many_and_every_patch_equally_often():
    mask = masks.scattered(8, 2, 0.25, 4000, torch.Generator().manual_seed(0))
    grid = patches(mask, 2)
    assert mask.shape == (4000, 1, 8, 8) and (grid.flatten(1).sum(1) == 4).all()
    often = grid.double().mean(0)
    assert (often - 0.25).abs().max() < 5 * (0.25 * 0.75 / 4000) ** 0.5
    pairs = grid.flatten(1).double().T.cov()  # drawn without return: any two patches at covariance -p(1-p)/15
    torch.testing.assert_close(pairs[~torch.eye(16, dtype=bool)].mean().item(), -0.1875 / 15, rtol=0.05, atol=0)
    again = masks.scattered(8, 2, 0.25, 4000, torch.Generator().manual_seed(0))
    assert torch.equal(mask, again) and len(mask.unique(dim=0)) > 1000


@pytest.mark.parametrize("task", masks.TASKS)
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 0.75, 0.9])
def test_every_task_hides_about_its_ratio_in_whole_patches(task, ratio):
    mask = masks.mask(task, 32, 2, ratio, generator=torch.Generator().manual_seed(1))
    grid = patches(mask, 2)
    # The side of a square moves by whole patches, and so does a row.
    assert abs(grid.double().mean() - ratio) < (1e-9 + 0.5 / 256 if task == "random" else 1 / 16)


def test_the_tasks_are_seven_and_differ():
    made = [masks.mask(task, 16, 2, 0.25, generator=torch.Generator().manual_seed(0)) for task in masks.TASKS]
    assert len(made) == 7 and len(torch.stack(made).unique(dim=0)) == 7


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: masks.mask("corner", 16, 2, 0.5), "no task 'corner': give one of centre, random"),
        (lambda: masks.mask("centre", 16, 3, 0.5), "do not fill an image of 16"),
        (lambda: masks.mask("centre", 16, 0, 0.5), "do not fill"),
        (lambda: masks.mask("up", 16, 2, 1.0), "both excluded, not 1.0"),
        (lambda: masks.mask("centre", 8, 4, 0.01), "0 x 0 patches"),
        (lambda: masks.centre(8, 2, 4), "4 x 4 patches fits no grid of 4 x 4: give 1 to 3"),
        (lambda: masks.extension("up", 8, 2, 0.05), "is 0: give one that hides 1 to 3"),
        (lambda: masks.scattered(8, 2, 0.99), "is 16: give one that hides 1 to 15"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(Refused, match=words.replace("(", r"\(")):
        call()


# One convention in every room.

MAKERS = {  # each hides the upper half, or three quarters of the pixels
    "inpaint.upper_half": lambda: inpaint.upper_half(8),
    "inpaint.scattered": lambda: inpaint.scattered(8, 0.25, 2, torch.Generator().manual_seed(0)),
    "inpaint.central_box": lambda: inpaint.central_box(8, 0.75),
    "i2i.extension": lambda: masks.extension("up", 8, 2, 0.5),
    "i2i.scattered": lambda: masks.scattered(8, 2, 0.75, 2, torch.Generator().manual_seed(0)),
    "i2i.outpaint": lambda: masks.outpaint(8, 2, 2),
    "i2i.mask": lambda: masks.mask("up", 8, 2, 0.5),
    "sgu.hidden": lambda: measures.hidden("upper half", 8, 2),
    "sgu.hidden, box": lambda: measures.hidden("box", 10, 2),
}
HIDDEN = {"inpaint.central_box": 0.5625, "sgu.hidden, box": 0.36, "i2i.outpaint": 0.75}


@pytest.mark.parametrize("name", MAKERS)
def test_true_is_hidden_wherever_a_mask_is_made(name):
    """`scattered` was True for known pixels in one room and for hidden ones in the other."""
    mask = MAKERS[name]()
    assert mask.dtype == torch.bool
    assert mask.float().mean() == pytest.approx(HIDDEN.get(name, 0.75 if "scattered" in name else 0.5))
    if "scattered" not in name and "out" not in name:
        upper = mask.reshape(-1, *mask.shape[-2:])[0]
        assert upper[len(upper) // 4].any() and not upper[-1].any()


@pytest.mark.parametrize("name", [name for name in MAKERS if "box" not in name or "sgu" not in name])
def test_true_is_hidden_wherever_a_mask_is_used(name):
    """Every filler changes hidden pixels alone, and no known one, with the masks of every room."""
    mask = MAKERS[name]()
    mask = mask if mask.ndim == 4 else mask[None]
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 5
    there = mask.expand(x.shape)
    made = {
        "inpaint": inpaint.inpaint(lambda y, sigma: 0 * y, x, mask, noise.karras(5)),
        "hide": masks.hide(x, mask),
        "paste": masks.paste(x, torch.zeros_like(x), mask),
    }
    if name != "inpaint.scattered" and "box" not in name:  # whole patches, for a transformer
        torch.manual_seed(0)
        for family in (MAE.small((1, 8, 8), 2, 16, 1, 2), VQGAN.small((1, 8, 8), 2, 16, 8, 16, 1, 2)):
            made[type(family).__name__] = family.eval().complete(x, mask)
        assert torch.equal(masks.hidden_tokens(mask, 2, 2), there[:, 0, ::2, ::2].flatten(1))
    made["Inpainter"] = Inpainter.small((1, 8, 8), (8, 16)).eval().complete(x, mask, steps=3)
    for filler, filled in made.items():
        assert torch.equal(filled[~there], x[~there]), filler
        assert (filled[there] - x[there]).abs().min() > 1e-3, filler
