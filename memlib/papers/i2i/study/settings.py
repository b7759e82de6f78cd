"""What can be set in the study of image-to-image unlearning, and its values at each scale."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from memlib.settings import Between

FIRST_SEED = 20  # of the first repetition, for a run with seed 0; 0 to 2 and 10 to 13 were used up by earlier openings
TASKS_SEED = 30  # the same for the models of several tasks (I6, I7), which were opened once more

Family = Literal["mae", "vqgan", "diffusion", "masked code"]
Ablation = Literal["crops", "alpha", "noise", "data", "tasks", "second", "probe"]
Classes = Annotated[tuple[int | str, ...], Between(0, 100_000)]  # by number or by name


@dataclass(frozen=True)
class Settings:
    """The settings; the defaults are those of the `fast` scale."""

    data: str = "faces:n=4000,identities=10,seed=11"  # labelled images, as `memlib.data.load` names them
    size: Annotated[int, Between(0, 512)] = 16  # pixels a side; 0: as stored
    half: Literal["explore", "report"] = "report"  # settings were chosen on explore; numbers come from report
    retain: Classes = (4, 5, 6, 7)  # classes whose completions must not suffer; the paper has 100 of ImageNet
    forget: Classes = (0, 1, 2, 3)  # classes that must no longer be completed; the paper has 100 others
    proxy: Classes = (8, 9)  # further classes, trained on, that can replace the retain set (paper: sec. 4.3)
    families: tuple[Family, ...] = ("mae",)  # the ablations use the first
    checkpoint: str = ""  # local folder with a trained model of the first family; empty: it is trained here
    patch: Annotated[int, Between(0, 64)] = 0  # pixels a side of a token; 0: a quarter of the image (paper: 16)
    task_patch: Annotated[int, Between(0, 64)] = 2  # the same in the models of several tasks, where patch is 0
    crops: Annotated[tuple[int, ...], Between(1, 64)] = (2, 1, 3)  # k of the k x k hidden patches; the first is main
    width: Annotated[int, Between(8, 2048)] = 64  # units of the transformers; the U-Net has a quarter and a half
    n_seeds: Annotated[int, Between(2, 50)] = 3  # repetitions; the arms are paired within each
    train_steps: Annotated[int, Between(1, 10**6)] = 800  # optimiser steps of an original model
    diffusion_steps: Annotated[tuple[int, ...], Between(1, 10**6)] = (500, 200)  # to train and to unlearn, diffusion
    train_lr: Annotated[float, Between(1e-7, 1.0)] = 3e-3  # Adam's, falling along a cosine
    unlearn_steps: Annotated[int, Between(1, 10**6)] = 200  # optimiser steps of each unlearning arm
    batch: Annotated[int, Between(1, 4096)] = 12  # retain and as many forget images a step; training takes twice
    unlearn_lr: Annotated[float, Between(1e-7, 1.0)] = 3e-4  # for the MAE (paper: 1e-4, appendix C.3)
    vqgan_lr: Annotated[float, Between(1e-7, 1.0)] = 3e-4  # for the VQ-GAN (paper: 1e-4)
    diffusion_lr: Annotated[float, Between(1e-7, 1.0)] = 1e-3  # for diffusion (paper: 1e-5)
    task_lr: Annotated[float, Between(0.0, 1.0)] = 0.0  # for the model of all tasks (I6, I7a); 0: as the family's
    second_weight: Annotated[float, Between(0.0, 100.0)] = 4.0  # alpha of the VQ-GAN of two holes (I7)
    second_lr: Annotated[float, Between(1e-7, 1.0)] = 3e-3  # learning rate of its unlearning
    second_steps: Annotated[int, Between(1, 10**6)] = 2400  # optimiser steps of its unlearning
    weights: Annotated[tuple[float, ...], Between(0.0, 100.0)] = (0.25, 2.0, 0.5, 0.5, 0.5, 4.0)  # alpha, by method
    factors: Annotated[tuple[float, ...], Between(0.0, 100.0)] = ()  # multiples of its own that each tries; empty: 1
    margin: Annotated[float, Between(0.0, 1.0)] = 0.05  # cosine: a smaller loss counts as none, a larger as some
    judge_steps: Annotated[int, Between(1, 10**6)] = 150  # optimiser steps of the classifier that judges
    ablations: tuple[Ablation, ...] = ()  # parts of a whole run that cost more; one asked for by its claim runs anyway
    inception: str = ""  # file of Inception-v3's weights, the paper's judge; empty: a classifier trained here
    clip: str = ""  # folder of CLIP's weights, for the cosine; empty: features of the judge


_WHOLE = replace(
    Settings(),
    families=("mae", "vqgan", "diffusion", "masked code"),
    train_steps=1000,
    unlearn_steps=300,
    judge_steps=300,
    task_lr=1e-3,
    ablations=("crops", "alpha", "noise", "data", "tasks", "second", "probe"),
)

SCALES: dict[str, Settings] = {
    "fast": Settings(),
    "book": _WHOLE,
    "gpu": replace(_WHOLE, factors=(0.5, 1.0, 2.0), n_seeds=5, train_steps=4000, diffusion_steps=(4000, 500)),
    # Appendix C.3 for the MAE: 100 + 100 classes, 100 images each to unlearn, 5 epochs of 16 a GPU on 4 GPUs.
    "paper": replace(
        Settings(),
        size=224,
        patch=16,
        crops=(8, 4),
        n_seeds=3,
        train_steps=1000,
        judge_steps=300,
        batch=64,
        unlearn_steps=781,
        unlearn_lr=1e-4,
        vqgan_lr=1e-4,
        diffusion_lr=1e-5,
        weights=(0.25,) * 6,
        retain=tuple(range(100)),
        forget=tuple(range(100, 200)),
        proxy=tuple(range(200, 300)),
    ),
}
