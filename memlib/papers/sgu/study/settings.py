"""The settings of the study, and their values at each scale."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from memlib.settings import Between


@dataclass(frozen=True)
class Settings:
    """What the study is run with, together with a `Run`. The defaults are those of the scale `fast`.

    "As published" means SGU, section 4 and appendix B; where the paper states nothing, the value is our choice, made on
    the explore half.
    """

    # Images
    half: Literal["explore", "report"] = "report"  # settings are chosen on explore, numbers are printed from report
    data: str = "faces:pair,pair=bangs+eyeglasses,alone=70,pose=30,n=4500"  # what most claims are asked on
    forget: Annotated[tuple[int | str, ...], Between(0, 10**6)] = ("bangs and eyeglasses",)  # labels or their names
    beside: str = "faces:hat,pair=bangs+eyeglasses,alone=70,pose=30,n=4500"  # the same images, another label; or none
    far: str = ""  # `data` with fewer retained images like the forgotten ones, for U3; empty: none
    control: str = ""  # source with classes, on which U1 is asked once more; empty: none
    control_forget: Annotated[tuple[int | str, ...], Between(0, 10**6)] = (3, 7)  # its labels; MNIST's as published
    size: Annotated[int, Between(0, 256)] = 0  # pixels a side; 0: as stored for digits, 16 for all else
    n_train: Annotated[int, Between(50, 10**6)] = 1500  # training images of a task, at most two thirds of the half
    image_dtype: Literal["float32", "float64"] = "float64"  # of images and their networks
    judge_steps: Annotated[int, Between(10, 10**6)] = 150  # optimiser steps of each judge

    # Networks
    processes: tuple[Literal["VE", "VP", "DDPM"], ...] = ("VE",)  # of the image models; the first decides U1 to U5
    n_seeds: Annotated[int, Between(2, 20)] = 3  # independent image networks of each arm
    n_side: Annotated[int, Between(2, 20)] = 2  # the same, at most, for further losses and tasks, and for fine-tuning
    n_frontier: Annotated[int, Between(0, 20)] = 0  # of the networks, how many are trained at further alphas too
    network: Literal["mlp", "unet"] = "mlp"  # residual MLP on coordinates, or U-Net on pixels
    width: Annotated[int, Between(8, 1024)] = 96  # units of the MLP, or channels of the U-Net's first resolution
    latent: Annotated[int, Between(1, 4096)] = 48  # principal components that the MLP works in, where pixels are more
    train_steps: Annotated[int, Between(10, 10**7)] = 300  # optimiser steps from scratch, the same for every arm
    batch: Annotated[int, Between(8, 10**5)] = 128  # images a step, the same for every arm
    lr: Annotated[float, Between(1e-7, 1.0)] = 3e-3  # Adam from scratch, falling to 0 along a cosine

    # Unlearning
    alpha_obtuse: Annotated[tuple[float, ...], Between(0.01, 1.0)] = (0.85, 0.85, 0.85)  # eq. 11, for VE, VP, DDPM
    alpha_orthogonal: Annotated[tuple[float, ...], Between(0.01, 1.0)] = (0.85, 0.85, 0.85)  # the same, other loss
    all_losses: bool = False  # beside those as printed: weighted by level, of the released code, ascent
    tune_steps: Annotated[tuple[int, ...], Between(1, 10**7)] = (100,)  # budgets of fine-tuning, optimiser steps
    tune_lr: Annotated[float, Between(1e-7, 1.0)] = 3e-3  # Adam, falling to 0 along a cosine
    neighbours: bool = False  # fine-tune with ascent too

    # Measures
    n_levels: Annotated[int, Between(4, 1000)] = 20  # DDIM steps
    n_samples: Annotated[int, Between(100, 10**7)] = 600  # samples of each image network
    n_likely: Annotated[int, Between(2, 10**5)] = 16  # test images of each side whose likelihood is computed
    n_fills: Annotated[int, Between(1, 100)] = 1  # fillings of each inpainted image

    # Toy
    toy_steps: Annotated[int, Between(10, 10**6)] = 400  # optimiser steps of each toy network
    toy_seeds: Annotated[int, Between(2, 50)] = 3  # independent toy networks of each arm
    dtype: Literal["float32", "float64"] = "float64"  # of the toy, and of what random generators draw


_FAST = Settings()
_PAIR = "pair=bangs+eyeglasses,pose=30,n=9000,seed=28"
_BOOK = replace(
    _FAST,
    data=f"faces:pair,alone=70,{_PAIR}",
    beside=f"faces:hat,alone=70,{_PAIR}",
    far=f"faces:pair,alone=20,{_PAIR}",
    control="digits",
    processes=("VE", "VP", "DDPM"),
    n_seeds=8,
    n_side=4,
    n_frontier=1,
    n_train=3000,
    width=128,
    image_dtype="float32",
    judge_steps=300,
    train_steps=800,
    all_losses=True,
    tune_steps=(200,),
    neighbours=True,
    n_levels=30,
    n_samples=1000,
    n_likely=32,
    n_fills=2,
    toy_steps=3000,
    toy_seeds=3,
)

SCALES: dict[str, Settings] = {
    "fast": _FAST,
    "book": _BOOK,
    "gpu": replace(
        _BOOK, network="unet", width=64, tune_steps=(200,), lr=5e-4, tune_lr=5e-4, n_seeds=2, n_side=2, n_samples=5000
    ),
    # Section 4, with data=cifar10:PATH, or data=celeba:PATH,label=Bangs, forget=[1] at size=64. Fine-tuning as
    # published; network and steps from scratch are not stated, so they are those of Song et al. 2021; alpha is ours.
    "paper": replace(
        _FAST,
        data="cifar10:PATH",
        forget=("automobile", "dog"),
        beside="",
        size=32,
        n_train=25_000,
        image_dtype="float32",
        judge_steps=300,
        network="unet",
        width=128,
        train_steps=400_000,
        processes=("VP", "DDPM"),
        all_losses=True,
        tune_steps=(30_000, 80_000),
        neighbours=True,
        lr=2e-4,
        tune_lr=2e-4,
        n_levels=1000,
        n_samples=10_000,
        n_likely=1000,
        toy_steps=20_000,
    ),
}
