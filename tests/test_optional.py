"""Optional packages: the core imports without them, and what needs one says in a sentence how to install it."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import memlib
from memlib import adapters, nets
from memlib.chapters import parameters
from memlib.errors import Refused, needs
from memlib.papers.synthesis import lora, stable_diffusion

OPTIONAL = (  # what the extras `models`, `lora`, `book` and `test` install
    "diffusers", "transformers", "huggingface_hub", "peft", "accelerate",
    "matplotlib", "seaborn", "ipywidgets", "IPython", "nbformat", "papermill", "yaml",
    "jaxtyping", "beartype",
)  # fmt: skip
PACKAGE = Path(memlib.__file__).parent
OUTSIDE = {"papers", "audit"}  # wings that this test does not import
BOOK = {"chapters.plots", "chapters.interactive", "cli.outputs"}  # need the extra `book` at import


def modules() -> list[str]:
    """The dotted names, below memlib, of the core, `chapters` and `cli`, without entry points."""
    files = [path.relative_to(PACKAGE).with_suffix("") for path in sorted(PACKAGE.rglob("*.py"))]
    names = [".".join(part for part in file.parts if part != "__init__") for file in files if file.name != "__main__"]
    return [name for name in names if name and name.split(".")[0] not in OUTSIDE]


@pytest.mark.parametrize("room", ["data", "metrics", "membership", "cache", "sample", "train", "features", "adapters"])
def test_a_room_of_the_core_imports_nothing_slow(room):
    """scikit-learn and scipy.stats each take as long to import as torch."""
    check = f"import sys, memlib.{room}; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in printed and not {"sklearn", "scipy.stats", "pandas", "matplotlib"} & set(printed)


def test_the_core_imports_without_any_optional_package():
    """In a fresh process in which every optional package is missing."""
    names = [f"memlib.{name}" for name in modules() if name not in BOOK]
    check = (
        "import sys, importlib\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL}))\n"  # None: importing it raises ModuleNotFoundError
        f"for name in {names}: importlib.import_module(name)\n"
        "from memlib.errors import Refused\n"
        f"for name in {sorted(BOOK)}:\n"
        "    try: importlib.import_module(f'memlib.{name}')\n"
        "    except Refused as error: print(error)\n"
        "import torch\n"
        "from memlib import noise, sample\n"
        "x = sample.start(noise.karras(3), [1, 2], (4,))\n"
        "print(tuple(sample.heun(lambda x, sigma: 0 * x, x, noise.karras(3)).shape))\n"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *refusals, shape = done.stdout.splitlines()
    assert shape == "(2, 4)"
    assert refusals == [
        "ipywidgets is not installed: pip install 'memlib[book]'",
        "matplotlib is not installed: pip install 'memlib[book]'",
        "nbformat is not installed: pip install 'memlib[book]'",
    ]


@pytest.mark.parametrize(
    ("package", "extra", "use"),
    [
        ("diffusers", "models", lambda folder: nets.UNet(8)),
        ("diffusers", "models", lambda folder: adapters.from_diffusers(folder)),
        ("diffusers", "models", lambda folder: adapters.to_diffusers(lambda x, sigma: x, folder / "new")),
        ("diffusers", "lora", lambda folder: stable_diffusion.load(folder)),
        ("transformers", "lora", lambda folder: stable_diffusion.load(folder)),
        ("peft", "lora", lambda folder: lora.attach(torch.nn.Linear(1, 1), 4)),
        ("yaml", "book", lambda folder: parameters.further(str(folder / "settings.yml"))),
    ],
    ids=["U-Net", "from_diffusers", "to_diffusers", "SD: diffusers", "SD: transformers", "adapters", "settings"],
)
def test_a_missing_package_is_refused_with_its_extra(monkeypatch, tmp_path, package, extra, use):
    if package == "peft":
        importlib.import_module("diffusers.models.unets.unet_2d_condition")  # which asks for peft when it is imported
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Refused, match=rf"^{package} is not installed: pip install 'memlib\[{extra}\]'$"):
        use(tmp_path)


def test_needs_names_the_package_and_passes_everything_else_through():
    with pytest.raises(Refused, match="^no_such_package is not installed: pip install 'memlib"), needs("models"):
        importlib.import_module("no_such_package.inside")
    with pytest.raises(ImportError, match="cannot import name"), needs("models"):
        from math import no_such_name  # noqa: F401  # pyright: ignore[reportAttributeAccessIssue]
    with needs("models"):
        import math
    assert math.pi > 3
