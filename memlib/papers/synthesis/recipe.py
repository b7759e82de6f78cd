"""The settings of Stable Diffusion with LoRA: those of Real-Fake's appendix, and those of its released code.

The two differ. "Released" is `finetune/train_lora.sh`, `train_text_to_image_lora.py` and `generate.py` of
github.com/BAAI-DCAI/Training-Data-Synthesis, commit 6e07872. Not taken from there: AdamW's weight decay of 0.01 (Adam
here), random crops (central ones here), float16, and the silent loss of half of the data. Its sampling calls a modified
pipeline that is not in the repository, so where that one puts the visual token is unknown; here it is as in training.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal, get_args

from memlib.errors import Refused

Matching = Literal["none", "printed", "unbiased", "released"]
"""Which distribution-matching term is added to the diffusion loss, see `lora.objective`."""


@dataclass(frozen=True)
class Training:
    """How adapters are trained. The defaults are those of Real-Fake, table 7 and eq. 21, read a column to the left.

    Table 7 lacks a value: the model's name stands under "Rank", and all others are shifted.

    Attributes:
        lr: learning rate, constant. Table 7.
        batch: images a backward pass, over which the matching term takes its mean. Table 7: "8 x 8".
        accumulate: backward passes a step. Table 7 does not say whether its second 8 is this or the number of GPUs.
        epochs: passes over the images. Table 7.
        snr_gamma: the gamma of min-SNR weights. Table 7; None for no weights.
        size: pixels a side. Table 7.
        rank: of the adapters. Not stated; ours is the default of the released code.
        matching: the matching term. Eq. 21.
        weight: of that term, the gamma of eq. 21. Appendix E.
        flip: mirror half of the images drawn. Not stated; the released code does.
    """

    lr: float = 1e-4
    batch: int = 8
    accumulate: int = 8
    epochs: float = 300
    snr_gamma: float | None = 0.75
    size: int = 512
    rank: int = 4
    matching: Matching = "printed"
    weight: float = 0.05
    flip: bool = False

    def __post_init__(self) -> None:
        if self.matching not in get_args(Matching):
            raise Refused(f"matching is {', '.join(get_args(Matching))}, not {self.matching!r}")
        if min(self.batch, self.accumulate, self.rank) < 1 or not self.epochs > 0:
            raise Refused(
                f"batch, accumulate, rank and epochs are above 0, not {self.batch}, {self.accumulate}, {self.rank}, "
                f"{self.epochs}"
            )
        if self.snr_gamma is not None and not self.snr_gamma > 0:
            raise Refused(f"snr_gamma is above 0, or None for no weights, not {self.snr_gamma}")
        if self.matching == "unbiased" and self.batch < 2:
            raise Refused("unbiased matching needs a batch of 2 or more: one residual has no pairs")

    def steps(self, images: int) -> int:
        """Optimiser steps for so many images, rounded up."""
        return ceil(self.epochs * images / (self.batch * self.accumulate))


@dataclass(frozen=True)
class Sampling:
    """How images are drawn. The defaults are those of Real-Fake, table 6 and appendix E.

    Attributes:
        steps: of the scheduler, of which a strength of s takes the last s. Table 6.
        guidance: weight of classifier-free guidance, 1 is none; the convention of diffusers. Table 6.
        strength: of image-to-image, above 0 and at most 1; see `image_to_image.start_level`. Table 6.
        size: pixels a side. Table 6.
        scale: of the adapters, 0 is the base model. Not stated.
        captioned: the prompt of an image with a caption. Appendix E; the visual token follows it.
        plain: the prompt of an image without one. Appendix E.
        negative: the negative prompt. Appendix E.
        batch: images drawn together, ours.
    """

    steps: int = 30
    guidance: float = 2.0
    strength: float = 0.75
    size: int = 512
    scale: float = 1.0
    captioned: str = "photo of {name}, {caption}"
    plain: str = "photo of {name}"
    negative: str = "distorted, unrealistic, blurry, out of frame"
    batch: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1 or int(self.steps * self.strength) < 1:
            raise Refused(
                f"a strength of {self.strength} in {self.steps} steps takes none: give one above 0 and at most 1, and "
                "more steps"
            )
        if self.batch < 1 or not (self.guidance >= 1 and self.scale >= 0):
            raise Refused(
                f"give batch >= 1, guidance >= 1 and scale >= 0, not {self.batch}, {self.guidance}, {self.scale}"
            )


def recipe(as_released: bool = False) -> tuple[Training, Sampling]:
    """The settings of the appendix, or with `as_released` those of the released code, where it has others.

    The released code trains for 100 epochs of batches of 8, with min-SNR gamma 5, its own matching term at weight
    0.003, and mirrored images. It draws with adapters at half scale and with longer prompts. It does not say on how
    many GPUs it ran.
    """
    if not as_released:
        return Training(), Sampling()
    training = replace(
        Training(), accumulate=1, epochs=100, snr_gamma=5.0, matching="released", weight=0.003, flip=True
    )
    sampling = replace(
        Sampling(),
        scale=0.5,
        captioned="photo of {name}, {caption}, best quality",
        plain="{name}, photo, best quality",
        negative="distorted, unrealistic, blurry, out of frame, cropped, deformed",
        batch=24,
    )
    return training, sampling
