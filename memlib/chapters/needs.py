"""The GPU, images and weights that the chapters need at the larger scales."""

from pathlib import Path

NEEDS: dict[tuple[str, str], tuple[str, ...]] = {  # `cuda` is a GPU, the others are names of `memlib.assets`
    ("02_side", "gpu"): ("cuda",),
    ("02_side", "paper"): ("cuda", "celeba", "sscd"),
    ("03_i2i_unlearning", "gpu"): ("cuda",),
    ("03_i2i_unlearning", "paper"): (
        "cuda", "places365", "imagenet", "mage", "vit-mae-base", "inception-torchscript", "clip",
    ),
    ("04_sgu", "gpu"): ("cuda", "mnist", "cifar10"),
    ("04_sgu", "paper"): ("cuda", "mnist", "cifar10", "stl10", "celeba", "clip", "inception-torchscript"),
    ("05_learning_rate", "gpu"): ("cuda",),
    ("05_learning_rate", "paper"): ("cuda",),
}  # fmt: skip


def chapters(root: Path | None) -> list[str]:
    """The notebooks in the order of `_toc.yml` in `root`; without a project, those that need something."""
    if root is None:
        return list(dict.fromkeys(name for name, _ in NEEDS))
    lines = (root / "_toc.yml").read_text(encoding="utf8").splitlines()
    return [line.rpartition("notebooks/")[2].strip() for line in lines if "file: notebooks/" in line]
