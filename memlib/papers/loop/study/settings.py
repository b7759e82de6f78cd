"""The settings of the closed loop, and their values at each scale. All are our choice, made on the explore half."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from memlib.settings import Between

Practice = Literal[
    "each image once",
    "half of the images",
    "last weights",
    "longer average",
    "matching",
    "own samples",
    "own samples, no copies",
]


@dataclass(frozen=True)
class Settings:
    """What the study is run with, together with a `Run`. The defaults are those of the scale `fast`."""

    # Images
    half: Literal["explore", "report"] = "report"  # settings are chosen on explore, numbers are printed from report
    data: str = "digits"  # a source with labels, as `data.load` takes it
    others: tuple[str, ...] = ()  # sources on which the loop is repeated, for the last of `kinds`
    size: Annotated[int, Between(0, 256)] = 0  # pixels a side; 0: as stored for digits, 16 for all else
    n_pool: Annotated[int, Between(80, 10**6)] = 120  # images that a coin deals: each model is trained on half
    n_reference: Annotated[int, Between(20, 10**6)] = 160  # images at most that fit the descriptor
    n_test: Annotated[int, Between(100, 10**6)] = 400  # held-out images at most: thresholds of copies, and quality
    latent: Annotated[int, Between(2, 4096)] = 64  # principal components that the models work in, where pixels are more

    # Models
    pairs: Annotated[int, Between(4, 64)] = 4  # halves of the pool with their complements; intervals run over pairs
    width: Annotated[int, Between(8, 4096)] = 96  # units of a model, a residual MLP of two blocks
    train_steps: Annotated[int, Between(10, 10**7)] = 1500  # optimiser steps of a model
    batch: Annotated[int, Between(8, 10**5)] = 64  # images a step
    lr: Annotated[float, Between(1e-7, 1.0)] = 3e-3  # Adam, falling to 0 along a cosine

    # Unlearning
    kinds: tuple[Literal["images", "label"], ...] = ("images",)  # what is forgotten: members by chance, or a label
    forget: Annotated[int, Between(2, 10**5)] = 8  # members that each model is asked to forget, at most
    times: Annotated[int, Between(1, 1000)] = 8  # how often a model sees these, where it sees other members once
    tune_steps: Annotated[int, Between(1, 10**7)] = 300  # optimiser steps of each unlearning arm
    tune_lr: Annotated[float, Between(1e-7, 1.0)] = 1e-3  # Adam, falling to 0 along a cosine
    alpha_orthogonal: Annotated[float, Between(0.01, 1.0)] = 0.9  # SGU eq. 11
    alpha_obtuse: Annotated[float, Between(0.01, 1.0)] = 0.9  # the same, other loss
    alpha_ascent: Annotated[float, Between(0.01, 1.0)] = 0.9  # the same, minus the denoising loss
    level: Annotated[float, Between(0.01, 20.0)] = 0.5  # sigma about which images are forgotten

    # Attacks
    n_samples: Annotated[int, Between(50, 10**7)] = 400  # samples of each model
    sampling_steps: Annotated[int, Between(2, 1000)] = 18  # of Heun's method
    fpr: Annotated[float, Between(1e-5, 0.5)] = 0.01  # of a copy, among held-out images; of membership as well
    levels: Annotated[tuple[float, ...], Between(0.01, 20)] = (0.1, 0.2, 0.4, 0.8)  # sigma of the membership statistic
    draws: Annotated[int, Between(1, 100)] = 4  # noises of each image in it
    view: Annotated[float, Between(0.01, 20.0)] = 1.0  # sigma of the noisy view of an image that an adversary holds
    known: Annotated[int, Between(1, 1000)] = 3  # forgotten images that an adversary has, to relearn the others
    relearn_steps: Annotated[int, Between(1, 10**6)] = 60  # optimiser steps of relearning, at `tune_lr`
    n_guided: Annotated[int, Between(0, 10**7)] = 0  # samples of each model by each guided attack; 0: none is run
    clusters: Annotated[int, Between(2, 10_000)] = 10  # of a model's own samples, the labels of SIDE's guidance
    guide_width: Annotated[int, Between(4, 4096)] = 64  # units of the classifiers that guide
    guide_steps: Annotated[int, Between(1, 10**6)] = 300  # optimiser steps of their distillation
    guidance: Annotated[float, Between(0.0, 100.0)] = 1.0  # lambda of SIDE eq. 10

    # The frontier of quality and extraction
    rates: Annotated[tuple[float, ...], Between(1e-7, 1.0)] = (1e-2,)  # compared with `lr`; the last decides
    looks: Annotated[tuple[int, ...], Between(1, 10**7)] = (
        500,
        750,
        1000,
        1250,
        1500,
    )  # steps at which they are judged
    practices: tuple[Practice, ...] = ()  # further changes to a training, each compared with the usual one


_FAST = Settings()
_LOOKS = (250, 500, 750, 1000, 1250, 1500)
_PRACTICES: tuple[Practice, ...] = get_args(Practice)
SCALES: dict[str, Settings] = {
    "fast": _FAST,
    "book": replace(
        _FAST, kinds=("images", "label"), pairs=12, n_samples=1000, n_guided=500, draws=8, rates=(1e-3, 1e-2),
        looks=_LOOKS, others=("faces:n=4000,identities=10,seed=31",), practices=_PRACTICES,
    ),
    "gpu": replace(
        _FAST, data="faces:smiling,n=20000", kinds=("images", "label"), n_pool=2000, n_reference=2000, n_test=4000,
        pairs=16, width=512, latent=256, train_steps=20_000, batch=256, forget=50, n_samples=20_000, n_guided=5000,
        looks=_LOOKS,
    ),
}  # fmt: skip
