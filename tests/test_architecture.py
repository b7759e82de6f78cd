"""The rules of the house, read from the source: who may import whom, docstrings with shapes, no seeds from a clock.

Every rule is a function of source text, so that each is also shown a snippet that breaks it.
"""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "memlib"
LAYERS = [
    {"errors"},
    {"noise", "metrics", "data", "assets", "plots", "interactive", "runs"},
    {"denoiser"},
    {"analytic", "losses", "nets", "adapters", "sample", "inpaint", "shards", "likelihood", "train"},
    {"features", "membership", "distill", "unlearn", "completion", "stability"},
    {"extract"},
    {"cli"},
]
LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}
RESERVED = {  # what only these rooms may import
    "matplotlib": {"plots"},
    "seaborn": {"plots"},
    "ipywidgets": {"interactive"},
    "papermill": {"cli"},
    "IPython": {"runs", "interactive"},
    "nbformat": {"runs", "cli"},
}
FORBIDDEN = {"pickle", "dill", "notebooks", "notebook", "jupyterlab", "jupyter_book", "jupyter_client", "nbclient"}
SHAPE = re.compile(r"\((?:\*?[A-Z]\w*|[a-z]|[nTNK] \+ 1)(?:,|\))|\(\d|\(\)|\bscalar\b|\b(?:any|same) shape\b")
CLOCK = {"time", "time_ns", "now", "utcnow", "perf_counter", "perf_counter_ns", "monotonic"}
SEEDED = {"manual_seed", "seed", "default_rng", "RandomState", "Random", "SeedSequence", "PRNGKey"}

SOURCES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """`memlib/sample.py` and `memlib/data/faces.py` stand in the rooms `sample` and `data`; `__init__` in none."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0] if parts[0] != "__init__" else ""


def imports(source: str, room: str) -> list[tuple[str, bool]]:
    """Every imported dotted name, function-level ones too, and whether it runs when the module is imported."""
    found = []

    def visit(node: ast.AST, at_import: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = f"memlib.{room}.{node.module or ''}".rstrip(".") if node.level else node.module
            of_package = base in ("memlib", f"memlib.{room}")
            found.extend((f"{base}.{alias.name}" if of_package else base, at_import) for alias in node.names)
        inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), True)
    return found


def layer_faults(source: str, room: str) -> list[str]:
    """Imports of a room in the same or a higher layer, of what is reserved to another, of what nobody may import."""
    faults = []
    for name, at_import in imports(source, room):
        top, _, rest = name.partition(".")
        if top == "memlib" and rest:
            target = rest.split(".")[0]
            if target != room and target in LAYER and LAYER[target] >= LAYER.get(room, -1):
                faults.append(f"{room or '__init__'} imports {target}, which stands in layer {LAYER[target]}")
        if room not in RESERVED.get(top, {room}):
            faults.append(f"{room} imports {top}, which only {sorted(RESERVED[top])} may")
        if top == "papermill" and at_import:
            faults.append(f"{room} imports papermill at import time; do it inside the command that needs it")
        if top in FORBIDDEN:
            faults.append(f"{room} imports {top}")
    return faults


def public(source: str) -> list[tuple[str, ast.AST]]:
    """Public functions and classes of a module and the public methods of its public classes, with `__call__`."""
    names = []
    for node in ast.parse(source).body:
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


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
class TestEverySource:
    """The rules, on each file of the package."""

    def test_stands_in_a_known_room(self, path):
        assert room_of(path) in {*LAYER, ""}, "a new room: give it a layer here and in CONTRIBUTING.md"
        assert "util" not in path.stem and path.stem not in {"common", "misc"}

    def test_imports_only_from_lower_layers(self, path):
        assert layer_faults(path.read_text(encoding="utf8"), room_of(path)) == []

    def test_public_names_have_docstrings_with_shapes(self, path):
        source = path.read_text(encoding="utf8")
        assert ast.get_docstring(ast.parse(source)), "a module says what it is about"
        assert docstring_faults(source) == []

    def test_randomness_and_loading(self, path):
        assert randomness_faults(path.read_text(encoding="utf8")) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("noise", "from memlib.denoiser import pair"),
        ("noise", "from memlib import denoiser"),
        ("noise", "def f():\n    import memlib.sample"),
        ("losses", "from memlib import analytic"),
        ("metrics", "import matplotlib.pyplot as plt"),
        ("plots", "import ipywidgets"),
        ("runs", "def f():\n    import papermill"),
        ("cli", "import papermill"),
        ("data", "import pickle"),
        ("train", "from IPython.display import display"),
    ],
)
def test_a_forbidden_import_is_noticed(room, source):
    assert layer_faults(source, room)


def test_allowed_imports_pass():
    assert not layer_faults("from memlib.errors import Refused\nfrom memlib import noise", "denoiser")
    assert not layer_faults("from memlib.data.folder import load\nfrom .digits import digits\nfrom . import x", "data")
    assert not layer_faults("def run():\n    import papermill", "cli")


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
