"""What each paper adds to the core, and its claims as an experiment.

A paper is a package. Its `study` module has `CHAPTER` (the notebook that shows it), `GROUPS` (groups of claims that are
measured together), `SCALES` (a `Settings` for each scale), `run(settings, run, groups)` -> `Results` and
`verdicts(results)` -> claims. It may have `check_sources(settings, run)`, which refuses images that do not fit it, and
`work(settings)`, what its stages cost.
`memlib study` lists the studies.
"""

import importlib
import importlib.util
import pkgutil
from types import ModuleType

from memlib.errors import Refused


def studies() -> dict[str, ModuleType]:
    """The study of every paper that has one, by the name of its package, in the order of the chapters."""
    found = {}
    for package in pkgutil.iter_modules(__path__):
        home = importlib.import_module(f"{__name__}.{package.name}") if package.ispkg else None
        if home and importlib.util.find_spec(f"{home.__name__}.study"):
            found[package.name] = importlib.import_module(f"{home.__name__}.study")
    return dict(sorted(found.items(), key=lambda pair: pair[1].CHAPTER))


def known(chapter: str) -> ModuleType | None:
    """The study that a notebook of this name shows, or None."""
    return next((study for study in studies().values() if chapter == study.CHAPTER), None)


def find(name: str) -> ModuleType:
    """The study called `name`: a paper's package ("side"), or its chapter ("02", "02_side"). Raises Refused."""
    every = studies()
    for package, study in every.items():
        if name in (package, study.CHAPTER, study.CHAPTER.partition("_")[0]):
            return study
    raise Refused(f"there is no study {name!r}: choose {' or '.join(map(repr, every))}")


def groups_of(study: ModuleType, claims: list[str]) -> tuple[str, ...]:
    """The groups in which a study measures these claims; all of them if `claims` is empty.

    Raises Refused for a claim that the study does not measure.
    """
    known = [one for group in study.GROUPS.values() for one in group]
    if wrong := [one for one in claims if one not in known]:
        raise Refused(f"the study of chapter {study.CHAPTER} has no claim {wrong[0]}: choose among {', '.join(known)}")
    return tuple(name for name, group in study.GROUPS.items() if not claims or set(claims) & set(group))
