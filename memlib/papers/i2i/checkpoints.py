"""A trained completer from a local folder, by its family, and how images must be standardised for it.

`mae` is ViT-MAE as transformers saves it; `vqgan` is MAGE as its authors publish it, or what `VQGAN.save` wrote;
`diffusion` is a Palette-like inpainter as diffusers saves it. Nothing is downloaded, and no code of a folder is run.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from memlib.errors import Refused
from memlib.papers.i2i.diffusion import Inpainter
from memlib.papers.i2i.mae import IMAGENET_MEAN, IMAGENET_STD, MAE
from memlib.papers.i2i.mage import MAGE, transformer_file
from memlib.papers.i2i.vqgan import VQGAN

_PROCESSOR = "preprocessor_config.json"  # where transformers keeps the mean and deviation of a checkpoint's images


def load(family: str, folder: str | Path) -> nn.Module:
    """The trained model of a folder, a `methods.Completer` in evaluation mode on the CPU, with trainable weights.

    Raises:
        Refused: for another family, a folder that is missing or holds no such model, and as `MAE.load`, `MAGE.load`,
            `VQGAN.load` and `Inpainter.load`.
    """
    readers: dict[str, Callable[[Path], nn.Module]] = {
        "mae": MAE.load,
        "vqgan": _words,
        "diffusion": Inpainter.load,
    }
    if family not in readers:
        raise Refused(f"no checkpoint of the family {family!r} can be read: name one of {', '.join(readers)} first")
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise Refused(f"there is no folder {str(folder)!r}: give that of a trained model")
    return readers[family](root)


def standard(family: str, folder: str | Path) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation that a folder's model wants of images in [-1, 1], each (1, C or 1, 1, 1); None: their own.

    `preprocessor_config.json`, if the folder has one, gives them as transformers does: image_mean and image_std, of
    images in [0, 1]. Otherwise they are ImageNet's for `mae`, 0 and 1 for `diffusion`, as diffusers has it, and
    None for what `VQGAN.save` wrote. MAGE's are always ImageNet's. An image of one channel becomes C equal ones.

    Raises:
        Refused: for a `preprocessor_config.json` without two lists of as many numbers, deviations positive.
    """
    root = Path(folder).expanduser()
    ours = family == "vqgan" and transformer_file(root) is None
    if family == "vqgan" and not ours:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    elif (file := root / _PROCESSOR).is_file():
        mean, std = _of_processor(file)
    elif ours:
        return None
    else:
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if family == "mae" else ((0.0,), (1.0,))
    return torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)


def _words(root: Path) -> nn.Module:
    theirs, ours = transformer_file(root), (root / "transformer.json").is_file()
    if theirs and ours:
        raise Refused(f"{str(root)!r} holds both {theirs.name!r} and transformer.json: keep the model to be read")
    if not theirs and not ours:
        raise Refused(
            f"{str(root)!r} holds no MAGE (mage*.pth or mage*.safetensors) and nothing that VQGAN.save wrote "
            "(transformer.json): give the folder of one"
        )
    return MAGE.load(root) if theirs else VQGAN.load(root)


def _of_processor(file: Path) -> tuple[list[float], list[float]]:
    try:
        told = json.loads(file.read_text(encoding="utf8"))
        mean, std = ([float(number) for number in told[name]] for name in ("image_mean", "image_std"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Refused(f"{str(file)!r} has no image_mean and image_std as lists of numbers: write them there") from error
    if len(mean) != len(std) or not mean or min(std) <= 0:
        raise Refused(f"{str(file)!r} has means {mean} and deviations {std}: give a positive deviation for each mean")
    return [2 * number - 1 for number in mean], [2 * number for number in std]
