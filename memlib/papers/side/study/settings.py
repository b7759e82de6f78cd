"""What a reader may turn in the study of chapter 2, and its value at each scale."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from memlib.settings import Between


@dataclass(frozen=True)
class Settings:
    """The defaults are those of `fast`, chosen on the explore half unless a source is given."""

    data: str = "faces"  # images trained on: digits, folder:PATH, celeba:PATH, ...
    size: Annotated[int, Between(0, 256)] = 0  # pixels a side; 0: the model's own, 8 for the digits, 16 for all else
    held_out: str = ""  # a source of images that the model never saw; empty: a part of data
    model: str = ""  # a diffusers folder (or a name on the hub) to attack; empty: a model is trained here
    half: Literal["explore", "report"] = "report"  # settings are chosen on explore, numbers printed from report
    n_train: Annotated[int, Between(0, 10**6)] = 0  # members; 0: two sevenths of the half, at most 300

    network: Literal["mlp", "unet"] = "mlp"  # mlp on principal components, or unet on pixels
    latent: Annotated[int, Between(1, 4096)] = 40  # principal components, where the images have more coordinates
    width: Annotated[int, Between(8, 4096)] = 192  # units of a layer of the mlp
    widths: Annotated[list[int], Between(1, 4096)] = field(default_factory=lambda: [64, 128])  # channels of the unet
    train_steps: Annotated[int, Between(5, 10**7)] = 1600  # optimiser steps of the model
    batch: Annotated[int, Between(1, 10**5)] = 128  # images a step
    lr: Annotated[float, Between(1e-7, 1.0)] = 3e-3  # learning rate of Adam, falling to 0 along a cosine

    n_samples: Annotated[int, Between(100, 10**7)] = 1000  # samples of each arm, N_G of SIDE sec. 4.1
    n_random: Annotated[int, Between(100, 10**8)] = 2500  # unguided samples of the first network
    n_synthetic: Annotated[int, Between(100, 10**7)] = 2500  # generated images that classifiers are distilled on
    clusters: Annotated[int, Between(2, 10**5)] = 400  # K of the k-means that labels them; SIDE leaves it open
    share: Annotated[float, Between(0.01, 1.0)] = (
        1.0  # fraction of the clusters that is kept, largest and tightest first
    )
    student_steps: Annotated[int, Between(1, 10**6)] = 300  # optimiser steps of each classifier
    student_lr: Annotated[float, Between(1e-7, 1.0)] = 5e-3  # learning rate of teachers and students
    weight: Annotated[float, Between(0.0, 1000.0)] = 4.0  # guidance weight lambda of arms with uniform labels, eq. 10
    own_weight: Annotated[float, Between(0.0, 1000.0)] = 0.5  # lambda of arms with each sample's own label
    sweep: Annotated[list[float], Between(0.0, 1000.0)] = field(default_factory=list)  # weights; empty: no sweep
    networks: Annotated[int, Between(1, 100)] = (
        3  # models attacked, each with a deal of the images and a seed of its own
    )
    second: str = ""  # a second source of images, attacked in the same way; empty: none
    class_sizes: Annotated[list[int], Between(2, 10**4)] = field(  # members of a class, of labels that theorem 1 orders
        default_factory=lambda: [2, 15]
    )
    theories: Annotated[int, Between(0, 100)] = 1  # networks on which theorem 1 stands beside the attack
    pairs: Annotated[int, Between(0, 1000)] = 0  # S8: deals of digits that networks with and without labels train on
    decisive: bool = False  # also train on fewer and more images, and with planted duplicates

    descriptor: Literal["half_whitened", "centred", "copies", "sscd"] = "half_whitened"  # space of the similarities
    sscd: str = ""  # path of the official TorchScript file, for the descriptor sscd
    copy_steps: Annotated[int, Between(1, 10**6)] = 150  # optimiser steps of the descriptor copies
    fpr: Annotated[float, Between(0.0, 0.19)] = 0.0  # fraction of held-out images above the high edge; 0: 1 %
    dtype: Literal["float32", "float64"] = "float64"  # float64: the figures survive another processor


SCALES: dict[str, Settings] = {
    "fast": Settings(),
    "book": Settings(
        n_random=10_000,
        sweep=[0.5, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 16.0, 32.0],
        networks=5,
        class_sizes=[2, 5, 15, 60],
        theories=5,
        second="digits",
        pairs=8,
        decisive=True,
        dtype="float32",
    ),
    "gpu": Settings(
        data="faces:identity,n=8000",
        size=32,
        network="unet",
        n_train=1000,
        widths=[64, 128, 128],
        train_steps=20_000,
        lr=3e-4,
        n_samples=5000,
        n_random=50_000,
        n_synthetic=10_000,
        clusters=1500,
        student_steps=3000,
        sweep=[0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0],
        dtype="float32",
    ),
    # SIDE sec. 4.1, with data=celeba:PATH. Its learning rate for the model is that of the training example that it
    # names; it gives neither the number of synthetic images nor that of clusters.
    "paper": Settings(
        size=128,
        n_train=25_000,
        network="unet",
        widths=[128, 128, 256, 256, 512, 512],
        train_steps=390_000,
        batch=64,
        lr=1e-4,
        n_samples=50_000,
        n_random=200_000,
        n_synthetic=50_000,
        clusters=7500,
        student_steps=50_000,
        student_lr=1e-4,
        weight=7.0,
        sweep=[float(weight) for weight in range(51)],
        descriptor="sscd",
        dtype="float32",
    ),
}
