"""The settings of the study, and their values at each scale."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from memlib.settings import Between


@dataclass(frozen=True)
class Settings:
    """What the study is run with, together with a `Run`. The defaults are those of the scale `fast`.

    "Table 6" is that of the paper's appendix. Where the paper states nothing, the value is our choice, made on the
    explore half.
    """

    # Images
    half: Literal["explore", "report"] = "report"  # settings are chosen on explore, numbers are printed from report
    data: str = "digits"  # a source with labels, as `data.load` takes it; its figures are drawn
    others: tuple[str, ...] = ()  # sources that are measured as well
    size: Annotated[int, Between(0, 256)] = 0  # pixels a side; 0: as stored for digits, 32 for all else
    n_pool: Annotated[int, Between(200, 10**6)] = 600  # images that a coin deals, at most two thirds of the half
    n_test: Annotated[int, Between(100, 10**6)] = 218  # held-out images at most: accuracy, and thresholds of copies
    n_reference: Annotated[int, Between(20, 10**6)] = 80  # images at most that fit coordinates and descriptors
    mislabelled: Annotated[int, Between(2, 10**5)] = 48  # canaries with a wrong label
    repeated: Annotated[int, Between(2, 10**5)] = 32  # canaries that a pipeline sees `times` as often
    times: Annotated[int, Between(1, 1000)] = 8  # see repeated

    # Pipelines
    pairs: Annotated[int, Between(4, 64)] = 8  # halves of the pool with their complements; the paper has 16 models
    latent: Annotated[int, Between(2, 4096)] = 64  # principal components, where pixels are more
    width: Annotated[int, Between(8, 4096)] = 64  # units of a generator, a residual MLP of two blocks
    train_steps: Annotated[int, Between(10, 10**7)] = 2000  # optimiser steps of a generator
    batch: Annotated[int, Between(2, 10**5)] = 64  # images a step
    lr: Annotated[float, Between(1e-7, 1.0)] = 3e-3  # Adam, falling to 0 along a cosine
    guidance: Annotated[float, Between(0, 100)] = 2.0  # classifier-free, table 6
    strength: Annotated[float, Between(0.01, 1)] = 0.75  # of image-to-image from a pipeline's own members, table 6
    strengths: Annotated[tuple[float, ...], Between(0.01, 1)] = (0.25, 0.5, 1.0)  # others; 1 is from noise
    sampling_steps: Annotated[int, Between(2, 1000)] = 18  # of Heun's method; table 6 has 30 of UniPC
    sizes: Annotated[tuple[int, ...], Between(1, 100)] = (1, 2, 5, 10)  # synthetic images for each member
    seeds: Annotated[int, Between(3, 100)] = 3  # repetitions of one pipeline; the paper has three

    # Classifiers
    classifier_width: Annotated[int, Between(4, 4096)] = 128  # units of a residual MLP of one block
    classifier_steps: Annotated[int, Between(10, 10**7)] = 500  # of Adam, equal for every set and size
    classifier_lr: Annotated[float, Between(1e-7, 1.0)] = 2e-3  # constant
    looks: Annotated[tuple[float, ...], Between(0.01, 1)] = (0.1, 0.2, 0.4, 1.0)  # fractions of the steps, real data
    smoothing: Annotated[tuple[float, ...], Between(0, 0.9)] = (0.3,)  # of labels, real data
    jitter: Annotated[tuple[float, ...], Between(0, 10)] = (0.5,)  # noise on images, in their spread, real data

    # Attacks
    rates: Annotated[tuple[float, ...], Between(1e-5, 0.5)] = (0.01,)  # false-positive rates; the first decides
    shadows: Annotated[tuple[int, ...], Between(2, 126)] = (2, 4, 8, 14)  # compared; the largest decides
    levels: Annotated[tuple[float, ...], Between(0.01, 20)] = (0.1, 0.2, 0.4, 0.8, 1.6)  # of statistics, in the spread
    asked: Annotated[int, Between(1, 100)] = 5  # images for each member that an attacker asks the generator for
    draws: Annotated[int, Between(1, 100)] = 4  # noises of each image in the statistics of a generator

    # Theory, appendices A to C
    kernel_draws: Annotated[int, Between(8, 10**6)] = 1000  # pairs of samples whose discrepancy is estimated
    kernel_points: Annotated[int, Between(2, 10**5)] = 50  # points of each: few, so that a biased estimate shows
    fresh: Annotated[int, Between(1, 1000)] = 2  # fresh synthetic images for each member: the law of a synthetic set
    sets: Annotated[int, Between(2, 10**6)] = 1000  # training sets drawn from these laws, over all pipelines
    chain_levels: Annotated[tuple[int, ...], Between(2, 10**5)] = (4, 16, 64, 256, 1024)  # T of the variational bound
    chain_points: Annotated[int, Between(2, 10**6)] = 4000  # points of a mixture at which it is taken
    networks: Annotated[int, Between(2, 1000)] = 8  # denoisers trained on points of the mixture
    network_steps: Annotated[int, Between(1, 10**6)] = 1000  # optimiser steps of each

    # Fine-tuning with the matching term, and utility: left out at `fast`
    gammas: Annotated[tuple[float, ...], Between(0, 1000)] = ()  # weights of the matching term; the paper has 0.05
    tuned_width: Annotated[int, Between(8, 4096)] = 64  # units of the networks that are fine-tuned
    base_steps: Annotated[int, Between(1, 10**7)] = 1000  # of their bases, at `lr`
    tuned_steps: Annotated[int, Between(1, 10**7)] = 400  # of fine-tuning whole networks
    adapter_steps: Annotated[int, Between(1, 10**7)] = 400  # of fine-tuning adapters
    tuned_lr: Annotated[float, Between(1e-7, 1.0)] = 1e-3  # of whole networks; adapters take `lr`
    rank: Annotated[int, Between(1, 4096)] = 4  # of low-rank adapters; table 7 gives none
    guidances: Annotated[tuple[float, ...], Between(0, 100)] = ()  # of the ablation; effects are at the first
    ablation_steps: Annotated[int, Between(1, 10**7)] = 700  # of its generators, `tuned_width` wide
    # Attributes of drawn faces, `data.faces.ATTRIBUTES`, or sources with two labels such as celeba:PATH,label=Smiling
    attributes: tuple[str, ...] = ()
    n_faces: Annotated[int, Between(100, 10**6)] = 800  # of each part: base, training, test; half with the attribute
    face_latent: Annotated[int, Between(2, 3072)] = 64  # principal components of a face of 32 pixels
    utility: bool = False  # whether real and synthetic sets are compared on changed test images


_FAST = Settings()
_BOOK = replace(
    _FAST,
    others=("faces:smiling,n=4000",),
    n_pool=1300,
    n_test=500,
    n_reference=180,
    width=128,
    train_steps=3000,
    strengths=(0.25, 0.5, 0.9, 1.0),
    seeds=8,
    looks=(0.05, 0.1, 0.2, 0.4, 0.7, 1.0),
    smoothing=(0.1, 0.3, 0.6),
    jitter=(0.25, 0.5, 1.0),
    rates=(0.01, 0.001),
    asked=10,
    draws=16,
    gammas=(0.05, 0.5, 5.0, 50.0),
    guidances=(2.0, 1.0, 4.0),
    attributes=("smiling", "eyeglasses", "earrings"),
    utility=True,
)

SCALES: dict[str, Settings] = {
    "fast": _FAST,
    "book": _BOOK,
    # MNIST and CIFAR-10 by path, data=mnist:PATH, in principal components.
    "gpu": replace(
        _BOOK, data="faces:smiling,n=40000", others=(), n_pool=8000, n_test=2000, n_reference=2000, width=512,
        latent=256, train_steps=20_000, batch=256,
    ),
}  # fmt: skip
