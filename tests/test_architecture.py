"""The rules of the house, read from the source: who may import whom, docstrings with shapes, no seeds from a clock.

Every rule is a function of source text, so that each is also shown a snippet that breaks it.
"""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import memlib

PACKAGE = Path(__file__).parents[1] / "memlib"
WINGS = ("core", "papers", "audit", "chapters", "cli")  # an import runs from right to left, never back
LAYERS = [  # inside the core, from below
    {"errors", "shapes"},
    {"stored"},
    {"random", "claim", "cost", "settings", "assets", "metrics", "cache"},
    {"noise", "shards", "data"},
    {"denoiser"},
    {"analytic", "losses", "nets", "adapters", "sample", "inpaint", "likelihood", "train"},
    {"features", "membership", "run"},
]
LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}
COMPOSED = {"synthesis", "loop"}  # papers that may import other papers
RESERVED = {  # what only these may import
    "matplotlib": {"chapters.plots"},
    "seaborn": {"chapters.plots"},
    "ipywidgets": {"chapters.interactive"},
    "papermill": {"cli"},
    "IPython": {"chapters"},
    "nbformat": {"cli"},
    "yaml": {"chapters"},
}
FORBIDDEN = {"pickle", "dill", "notebooks", "notebook", "jupyterlab", "jupyter_book", "jupyter_client", "nbclient"}
SHAPE = re.compile(r"\((?:\*?[A-Z]\w*|[a-z]|[nTNK] \+ 1)(?:,|\))|\(\d|\(\)|\bscalar\b|\b(?:any|same) shape\b")
CLOCK = {"time", "time_ns", "now", "utcnow", "perf_counter", "perf_counter_ns", "monotonic"}
SEEDED = {"manual_seed", "seed", "default_rng", "RandomState", "Random", "SeedSequence", "PRNGKey"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def place_of(path: Path) -> str:
    """`memlib/papers/side/attack.py` is `papers.side.attack`, and `memlib/__init__.py` is the empty name."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def wing_of(place: str) -> str:
    """The wing of a module; entry points (`__main__`) belong to the command line, what stands in no wing is core."""
    first = place.partition(".")[0]
    return "cli" if place.endswith("__main__") else first if first in WINGS else "core"


def imports(source: str, place: str) -> list[tuple[str, bool]]:
    """Every imported dotted name, function-level ones too, and whether it runs when the module is imported."""
    found = []

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"memlib.{place}.{node.module or ''}".rstrip(".") if node.level else node.module
            of_package = base.split(".")[0] == "memlib"
            found.extend((f"{base}.{alias.name}" if of_package else base, at_import) for alias in node.names)
        inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), True)
    return found


def layer_faults(source: str, place: str) -> list[str]:
    """Imports that run upwards, between papers, of what is reserved to another module, of what nobody may import."""
    faults, wing, room = [], wing_of(place), place.partition(".")[0]
    for name, at_import in imports(source, place):
        top, _, target = name.partition(".")
        if top == "memlib" and target and target != "__version__":
            there, first = wing_of(target), target.partition(".")[0]
            if WINGS.index(there) > WINGS.index(wing):
                faults.append(f"{place or '__init__'} imports {target}: {wing} may not import {there}")
            elif there == wing == "core" and first != room and LAYER.get(first, 9) >= LAYER.get(room, -1):
                faults.append(f"{place or '__init__'} imports {target}, which stands in layer {LAYER.get(first)}")
            elif there == wing == "papers":
                mine, theirs = (f"{one}..".split(".")[1] for one in (place, target))
                if mine and theirs and mine != theirs and mine not in COMPOSED:
                    faults.append(f"{place} imports {target}: a paper imports no other paper")
        if top in RESERVED and not any(f"{place}.".startswith(f"{owner}.") for owner in RESERVED[top]):
            faults.append(f"{place} imports {top}, which only {sorted(RESERVED[top])} may")
        if top == "papermill" and at_import:
            faults.append(f"{place} imports papermill at import time; do it inside the command that needs it")
        if top in FORBIDDEN:
            faults.append(f"{place} imports {top}")
    return faults


def public(source: str) -> list[tuple[str, ast.AST]]:
    """Public functions and classes of a module and the public methods of its public classes, with `__call__`; not the
    signatures of an overloaded function, which its docstring covers."""
    names = []
    for node in ast.parse(source).body:
        if any(getattr(one, "id", "") == "overload" for one in getattr(node, "decorator_list", [])):
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            names.append((node.name, node))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            shown = [item for item in methods if not item.name.startswith("_") or item.name == "__call__"]
            names.extend((f"{node.name}.{item.name}", item) for item in shown)
    return names


def takes_tensors(node: ast.AST) -> bool:
    """Whether a function's signature, or that of a class's __init__, names Tensor."""
    if isinstance(node, ast.ClassDef):
        return any(takes_tensors(item) for item in node.body if getattr(item, "name", "") == "__init__")
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    hints = [argument.annotation for argument in arguments] + [node.returns]
    return any("Tensor" in ast.unparse(hint) for hint in hints if hint is not None)


def docstring_faults(source: str) -> list[str]:
    """Public names without a docstring, and those that handle tensors whose docstring names no shape."""
    faults = []
    for name, node in public(source):
        text = ast.get_docstring(node)
        if not text:
            faults.append(f"{name} has no docstring")
        elif takes_tensors(node) and not SHAPE.search(text):
            faults.append(f"{name} handles tensors and its docstring names no shape such as (B,)")
    return faults


def randomness_faults(source: str) -> list[str]:
    """Generators seeded from a clock or from nothing, and unsafe loading."""
    faults = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = [*call.args, *[keyword.value for keyword in call.keywords]]
        if name in SEEDED and not given:
            faults.append(f"line {call.lineno}: {name}() without a seed")
        inner = [getattr(n, "attr", getattr(n, "id", "")) for argument in given for n in ast.walk(argument)]
        if name in SEEDED and CLOCK & set(inner):
            faults.append(f"line {call.lineno}: {name} seeded from a clock")
        if ast.unparse(call.func) == "torch.load" and not any(
            keyword.arg == "weights_only" and getattr(keyword.value, "value", None) is True for keyword in call.keywords
        ):
            faults.append(f"line {call.lineno}: torch.load without weights_only=True runs what a file tells it to")
    return faults


def renaming_faults(source: str) -> list[str]:
    """Files renamed into place: only `cache.atomic` may, which flushes them first."""
    faults = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        moved = name in ("os.replace", "os.rename", "os.renames", "shutil.move")
        # `path.replace(target)` has one argument, and that of a text two.
        moved |= isinstance(call.func, ast.Attribute) and call.func.attr == "rename"
        moved |= isinstance(call.func, ast.Attribute) and call.func.attr == "replace" and len(call.args) == 1
        if moved and not call.keywords:
            faults.append(f"line {call.lineno}: {name} renames a file that may be empty on disk: use cache.atomic")
    return faults


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
class TestEverySource:
    """The rules, on each file of the package."""

    def test_stands_in_a_known_room(self, path):
        first = place_of(path).partition(".")[0]
        assert first in {*LAYER, *WINGS, ""}, "a new room: give it a layer here and in CONTRIBUTING.md"
        assert "util" not in path.stem and path.stem not in {"common", "misc"}

    def test_imports_only_from_below(self, path):
        assert layer_faults(path.read_text(encoding="utf8"), place_of(path)) == []

    def test_public_names_have_docstrings_with_shapes(self, path):
        source = path.read_text(encoding="utf8")
        assert ast.get_docstring(ast.parse(source)), "a module says what it is about"
        assert docstring_faults(source) == []

    def test_randomness_and_loading(self, path):
        assert randomness_faults(path.read_text(encoding="utf8")) == []

    def test_files_are_flushed_before_they_are_renamed(self, path):
        if place_of(path) != "cache.atomic":
            assert renaming_faults(path.read_text(encoding="utf8")) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("noise", "from memlib.denoiser import pair"),
        ("noise", "from memlib import denoiser"),
        ("noise", "def f():\n    import memlib.sample"),
        ("losses", "from memlib import analytic"),
        ("sample", "from memlib.papers import side"),
        ("run", "from memlib import chapters"),
        ("papers.side.attack", "from memlib.chapters import claims"),
        ("papers.side.attack", "from memlib.papers.sgu import objective"),
        ("papers.side.attack", "from memlib.papers import sgu"),
        ("papers.side.attack", "import memlib.audit"),
        ("chapters.claims", "from memlib.cli import main"),
        ("metrics", "import matplotlib.pyplot as plt"),
        ("chapters.claims", "import matplotlib.pyplot as plt"),
        ("chapters.plots", "import ipywidgets"),
        ("chapters", "def f():\n    import papermill"),
        ("cli", "import papermill"),
        ("data", "import pickle"),
        ("train", "from IPython.display import display"),
    ],
)
def test_a_forbidden_import_is_noticed(place, source):
    assert layer_faults(source, place)


def test_allowed_imports_pass():
    assert not layer_faults("from memlib.errors import Refused\nfrom memlib import noise", "denoiser")
    assert not layer_faults("from memlib.data.folder import load\nfrom .digits import digits\nfrom . import x", "data")
    assert not layer_faults("def run():\n    import papermill", "cli")
    assert not layer_faults("from memlib import metrics\nfrom memlib.papers.side import students", "papers.side.attack")
    assert not layer_faults("from memlib.papers import sgu, side", "papers.loop.study")
    assert not layer_faults("from memlib.papers import find\nfrom memlib.claim import Claim", "chapters")
    assert not layer_faults("from memlib.cli.studies import listing", "papers.__main__")
    assert not layer_faults("import seaborn as sns", "chapters.plots")


def test_importing_memlib_costs_little_and_reaches_every_room():
    """`import memlib` reads no torch; `memlib.sample` loads at its first use."""
    check = "import sys, memlib; assert 'torch' not in sys.modules; memlib.sample.ancestral; print(*memlib.__all__)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == set(LAYER)
    with pytest.raises(AttributeError, match="no attribute 'samplee'"):
        memlib.samplee  # noqa: B018


@pytest.mark.parametrize(
    "source",
    ["os.replace(a, b)", "os.rename(a, b)", "beside.rename(path)", "beside.replace(path)", "shutil.move(a, b)"],
)
def test_an_unflushed_rename_is_noticed(source):
    assert renaming_faults(source)
    assert not renaming_faults("text.replace('a', 'b')\nreplace(images, source=source)\nreplace_file(path, write)")


def test_no_module_is_shadowed_by_what_its_package_exports():
    """`import memlib.metrics.roc` must yield a module: one that is named like an export is private, `_roc`."""
    names = [info.name for info in pkgutil.walk_packages(memlib.__path__, "memlib.") if "__main__" not in info.name]
    modules = {name: importlib.import_module(name) for name in names}
    assert len(names) > 100
    for name, module in modules.items():
        parent, _, last = name.rpartition(".")
        found = getattr(importlib.import_module(parent), last)
        assert isinstance(found, ModuleType) and found is module, f"{name} is hidden by {found!r}"


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: Tensor) -> Tensor:\n    '''Doubles the tensor.'''",
        "def f():\n    pass",
        "class A:\n    '''State.'''\n    def step(self):\n        pass",
        "class A:\n    '''State.'''\n    def __init__(self, x: Tensor):\n        pass",
    ],
)
def test_a_missing_docstring_or_shape_is_noticed(source):
    assert docstring_faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.manual_seed(int(time.time()))",
        "np.random.default_rng()",
        "generator.manual_seed(time_ns())",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_clock_seeds_and_unsafe_loading_are_noticed(source):
    assert randomness_faults(source)
