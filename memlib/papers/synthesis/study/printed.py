"""Tables 5 to 8 of the paper's appendix as data, with what is wrong in them, and what they leave out (R9).

Figures alone; the words of the columns are the paper's. A dash is the paper's own.
"""

from dataclasses import dataclass
from typing import NamedTuple

Table = dict[str, tuple[str, ...]]

SETS = ("IN-10", "IN-100", "IN-1K", "CUB", "Cars", "PETS", "EuroSAT")


def _alike(value: str, other: str | None = None) -> tuple[str, ...]:
    """A row of table 8: one value for all sets, or another for IN-1K."""
    return tuple((other if one == "IN-1K" and other is not None else value) for one in SETS)


TABLES: dict[int, Table] = {
    5: {
        "Dataset Size": ("14197", "141971", "1419712", "11788", "16185", "7349", "27000"),
        "Training Data Size": ("12811", "128116", "1281167", "5994", "8144", "3680", "21600"),
        "Test Data Size": ("1000", "10000", "100000", "5794", "8041", "3669", "5400"),
        "No. Classes": ("10", "100", "1000", "200", "196", "37", "7"),
    },
    6: {
        "Model": ("Stable Diffusion v1.5",),
        "Sampling steps": ("30",),
        "Scheduler": ("UniPC",),
        "Guidance scale": ("2.0",),
        "Img strength": ("0.75",),
        "Image size": ("512",),
    },
    7: {
        "Rank": ("Stable Diffusion v1.5",),
        "Epoch": ("300",),
        "Learning Rate": ("1e-4",),
        "Batch Size": ("8 x 8",),
        "SNR-gamma": ("0.75",),
        "Image size": ("512",),
    },
    8: {
        "Train Res and Test Res": ("224", "224", "224", "448", "448", "224", "448"),
        "Epochs": _alike("200", "300"),
        "Batch size": _alike("128 x 8", "512 x 8"),
        "Optimizer": _alike("SGD", "LAMB"),
        "LR": _alike("0.1", "5e-3"),
        "LR decay": _alike("multistep", "cosine"),
        "decay rate": _alike("0.2"),
        "decay epochs": _alike("50/100/150", "-"),
        "Weight decay": _alike("5e-4", "0.02"),
        "Warmup epochs": _alike("-", "5"),
        "Label smoothing": _alike("-", "0.1"),
        "Dropout": _alike("no"),
        "Stoch. Depth": _alike("no", "0.05"),
        "H. flip": _alike("-", "yes"),
        "Rand Augment": _alike("no", "7/0.5"),
        "Mixup alpha": _alike("no", "0.2"),
        "Cutmix alpha": _alike("no", "1.0"),
        "CE loss as BCE loss": _alike("no", "yes"),
        "Mixed precision": _alike("yes"),
    },
}
"""The printed values by table and row: tables 5 and 8 have a column for each of `SETS`, 6 and 7 a single one."""


class Misprint(NamedTuple):
    """A printed value that cannot be right; `told` if the right one is publicly known."""

    table: int
    row: str
    column: str
    told: bool
    why: str


def _of_imagenet(row: str, columns: str, why: str) -> list[Misprint]:
    return [Misprint(5, row, column, True, why) for column in columns.split()]


MISPRINTS: tuple[Misprint, ...] = (
    *_of_imagenet(
        "Dataset Size",
        "IN-10 IN-100 IN-1K",
        "14,197,122 is all of ImageNet: this is that over 1,000, 100 and 10; the parts below do not add up to it",
    ),
    *_of_imagenet("Training Data Size", "IN-10 IN-100", "the 1,281,167 of IN-1K over 100 and 10, not a count"),
    *_of_imagenet("Test Data Size", "IN-10 IN-100", "the 100,000 of IN-1K over 100 and 10, not a count"),
    Misprint(5, "Test Data Size", "IN-1K", True, "results are on the 50,000 validation images; test labels are secret"),
    Misprint(5, "No. Classes", "EuroSAT", True, "EuroSAT has 10 classes"),
    Misprint(7, "Rank", "", False, "the row is shifted: the name of the model stands where the rank should"),
    Misprint(7, "SNR-gamma", "", True, "0.75 is the image strength of table 6; the code has 5"),
)

MISSING: dict[str, str] = {
    "layers with adapters": "fine-tuning",
    "scale of the adapters": "fine-tuning",
    "optimiser, schedule and weight decay of fine-tuning": "fine-tuning",
    "images of an epoch of fine-tuning": "fine-tuning",
    "checkpoint and projection of the image embedding": "visual guidance",
    "checkpoint and prompt of the captions": "sampling",
    "momentum of SGD": "classifiers",
    "cropping of training images": "classifiers",
    "weights of the pre-trained classifiers": "classifiers",
    "images of each shadow model": "membership",
    "false-positive rate, and the rates found": "membership",
    "images of the subset of CelebA": "attributes",
}
"""What a repetition must set and neither the tables nor the appendix say, with where it is needed."""

RELEASED: dict[str, tuple[str, str]] = {
    "scale of the adapters at sampling": ("not stated", "0.5"),
    "epochs of fine-tuning": ("300", "100"),
    "SNR-gamma": ("0.75", "5"),
    "negative prompt": ("four words", "longer"),
    "shadow models": ("16", "10 splits"),
    "training images": ("all", "half of them dropped without a word"),
    "visual guidance": ("of the class", "the embedding of the same image; a mean of the class is overwritten"),
    "matching": ("mean over the batch, weight 0.05", "sum over a batch of 8, weight 0.003"),
}
"""Where the public code does something else: as printed, as released."""


@dataclass(frozen=True)
class Printed:
    """R9, counted: settings compared, which are all cells and what is missing."""

    compared: int
    wrong: int
    lost: int  # of those wrong, whose right value cannot be told
    missing: int
    otherwise: int  # released otherwise


def compared() -> Printed:
    """The counts of R9."""
    cells = sum(len(row) for table in TABLES.values() for row in table.values())
    lost = sum(not one.told for one in MISPRINTS)
    return Printed(cells + len(MISSING), len(MISPRINTS), lost, len(MISSING), len(RELEASED))


def rows(table: int) -> list[list[str]]:
    """A table as rows of text, the first of which names the columns; a misprint is marked by a star."""
    wrong = {(one.row, one.column) for one in MISPRINTS if one.table == table}
    columns = SETS if table in (5, 8) else ("",)
    found = [["", *(columns if table in (5, 8) else ("printed",))]]
    for name, values in TABLES[table].items():
        cells = zip(columns, values, strict=True)
        found.append([name, *(f"{value} *" if (name, column) in wrong else value for column, value in cells)])
    return found


def faults() -> list[list[str]]:
    """Misprints, what is missing, and what was released otherwise, as rows of text."""
    found = [["where", "setting", "what is the matter"]]
    for one in MISPRINTS:
        found.append([f"table {one.table}", f"{one.row} {one.column}".strip(), one.why])
    found += [[where, name, "not stated"] for name, where in MISSING.items()]
    return found + [
        ["released code", name, f"printed: {said}; released: {done}"] for name, (said, done) in RELEASED.items()
    ]
