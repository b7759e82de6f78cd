"""One set of versions: pyproject.toml says what, constraints.txt which version, environment.yml points at both."""

import ast
import importlib
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
NEEDED = [text for texts in (PROJECT["dependencies"], *EXTRAS.values()) for text in texts]
DIRECT = [Requirement(text) for text in NEEDED if not text.startswith("memlib[")]
PINS = {
    canonicalize_name(name): version
    for name, version in (
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf8").splitlines()
        if line and not line.startswith("#")
    )
}


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_direct_dependency_is_pinned_and_installed(requirement):
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin, prereleases=True)
    assert metadata.version(requirement.name).split("+")[0] == pin, "run `make install` again"


def test_transitive_dependencies_are_pinned():
    """Whatever the direct ones bring on this platform has a pin too, so that two installations agree."""
    todo, seen = list(DIRECT), set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # what another platform would need
        extras = requirement.extras or {""}
        for need in map(Requirement, needs):
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(need)
    accelerator = ("nvidia-", "cuda-", "triton")  # pinned by torch itself, and absent from a CPU installation
    unpinned = {name for name, _ in seen if name not in PINS and not name.startswith(accelerator)}
    assert unpinned == set()


def test_imports_are_declared():
    """Every third-party package that the library, the tests or the book's extensions import is a direct dependency."""
    declared = {canonicalize_name(requirement.name) for requirement in DIRECT}
    provides = metadata.packages_distributions()
    beside = [path.stem for path in [*ROOT.glob("book/_ext/*.py"), *ROOT.glob("tests/*.py")]]
    own = {"memlib", "benchmarks", "faults", *beside}
    for path in [*ROOT.glob("memlib/**/*.py"), *ROOT.glob("tests/*.py"), *ROOT.glob("book/_ext/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - sys.stdlib_module_names - own:
                homes = {canonicalize_name(home) for home in provides.get(top, [top])}
                assert homes & declared, f"{path.relative_to(ROOT)} imports {top}: declare it in pyproject.toml"


def test_the_core_needs_little():
    """Who builds on the library gets torch and the usual numerics; checkpoints, plots and the book are extras."""
    core = {Requirement(text).name for text in PROJECT["dependencies"]}
    small = {"threadpoolctl", "safetensors", "pillow", "tqdm", "filelock"}  # scikit-learn needs the first as well
    assert core == {"torch", "numpy", "scipy", "scikit-learn", *small}
    torch = next(Requirement(text) for text in PROJECT["dependencies"] if text.startswith("torch"))
    assert torch.specifier.contains("2.9.0") and "==" not in str(torch)


def test_conda_environment_points_at_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf8"))
    by_conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    (by_pip,) = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    assert by_pip == ["-c constraints.txt", "-e .[book,test]"]
    (python,) = [item.removeprefix("python=") for item in by_conda if item.startswith("python=")]
    assert SpecifierSet(PROJECT["requires-python"]).contains(python)
    assert f"python{python}" in (ROOT / "Makefile").read_text(encoding="utf8")


def test_versions_agree():
    import memlib

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf8"))
    assert PROJECT["version"] == memlib.__version__ == citation["version"]
    assert PROJECT["license"] == citation["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text(encoding="utf8")


def test_the_command_exists():
    """`memlib` on the command line is a function that is there."""
    module, _, function = PROJECT["scripts"]["memlib"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))
