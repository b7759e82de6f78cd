"""Every parameter: settings of every study, sources with options, and those of training, streaming and grids."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import torch
from hypothesis import strategies as st

from faults import fuzz
from memlib import data, nets, noise, papers, train
from memlib.cache import stream
from memlib.chapters import parameters
from memlib.cli import chapters, studies
from memlib.settings import SCALES, Between, changed

WORDS = st.one_of(
    st.sampled_from(
        ["", "fast", "cosine", "bf16", "folder:/none", "digits", "1e3", "nan", "None", "[1, 2]", "{'a': 1}", "$(id)"]
    ),
    st.sampled_from(["; rm x", "../..", "\0", "é", "[[", "1" * 400]),
    st.text(max_size=12),
)
ATOMS = st.one_of(st.none(), st.booleans(), st.integers(-5, 60), st.integers(), st.floats(), WORDS, st.just(10**400))
VALUES = st.one_of(
    ATOMS,
    st.lists(ATOMS, max_size=3),
    st.tuples(ATOMS, ATOMS),
    st.dictionaries(WORDS, ATOMS, max_size=2),
    st.binary(max_size=3),
)
FIELDS = [(study, name) for study in papers.studies().values() for name in get_type_hints(type(study.SCALES["fast"]))]


class Setting(NamedTuple):
    """A setting of a study: the study's chapter, a scale, the name, and a value as such or as text."""

    chapter: str
    scale: str
    name: str
    value: Any
    text: bool


def settings() -> st.SearchStrategy[Setting]:
    """A known setting as a rule, with any value."""
    known = st.sampled_from([(study.CHAPTER, name) for study, name in FIELDS])
    unknown = st.tuples(st.sampled_from(sorted({study.CHAPTER for study, _ in FIELDS})), WORDS)
    pairs, scales = st.one_of(known, known, known, unknown), st.sampled_from(SCALES)
    return st.builds(
        lambda pair, scale, *rest: Setting(pair[0], scale, pair[1], *rest), pairs, scales, VALUES, st.booleans()
    )


def read_setting(folder: Path, given: Setting) -> None:
    """As `memlib study --set` and a notebook's parameters do: what is taken has its type and lies in its range."""
    study = papers.find(given.chapter)
    before = studies.at(study, given.scale)
    values = {given.name: given.value}
    if given.text:
        values = chapters.assigned([f"{given.name}={given.value}"], before)
    after = changed(before, values)
    (name, value), hints = next(iter(values.items())), get_type_hints(type(before), include_extras=True)
    taken = getattr(after, name)
    others = [field.name for field in dataclasses.fields(before) if field.name != name]
    assert all(getattr(after, other) == getattr(before, other) for other in others)
    for low, high in [extra for extra in getattr(hints[name], "__metadata__", ()) if isinstance(extra, Between)]:
        for one in taken if isinstance(taken, list | tuple) else [taken]:
            assert one is None or isinstance(one, str) or low <= one <= high
    plain = get_args(hints[name])[0] if hasattr(hints[name], "__metadata__") else hints[name]
    assert plain not in (int, float, str, bool) or type(taken) is plain, f"{taken!r} is no {plain}, from {value!r}"


OPTIONS = (
    "limit", "seed", "duplicates", "split", "skip_broken", "bits", "label", "crop", "subset", "classes", "per_class",
    "transposed", "n", "",
)  # fmt: skip
LOCAL = ("digits", "folder", "mnist", "cifar10", "celeba", "imagenet", "stl10", "places365")
NUMBERS = ("0", "1", "3", "-1", "1e1", "2x3", "10x5", "9" * 30, "yes", "no", "train", "test", "1.5", "½", "٣")
PLACES = ("", "{at}", "{at}/none", "~", "~no-such-user/x", "\0", "a" * 300)


class Source(NamedTuple):
    """The text of a source, and a size."""

    kind: str
    place: str
    options: list[tuple[str, str]]
    size: Any


def sources() -> st.SearchStrategy[Source]:
    """Sources that need no network."""
    kinds = st.one_of(st.sampled_from(LOCAL), st.sampled_from(LOCAL), WORDS)
    options = st.lists(st.tuples(st.sampled_from(OPTIONS), st.one_of(st.sampled_from(NUMBERS), WORDS)), max_size=2)
    sizes = st.one_of(st.none(), st.integers(-2, 12))
    return st.builds(Source, kinds, st.sampled_from(PLACES), options, sizes)


def read_source(folder: Path, given: Source) -> None:
    """From an empty folder, or the digits that come along."""
    if given.kind.startswith(("hub", "lfw", "olivetti", "faces")):
        return
    options = ",".join(f"{name}={value}" for name, value in given.options)
    place = given.place.format(at=folder) if given.place != "~" else str(folder)
    source = given.kind + (f":{place}" if place or options else "") + ("," if place and options else "") + options
    data.check(source)
    found = data.load(source, given.size)
    assert len(found) and (given.size is None or found.images.shape[-1] == given.size)


class Call(NamedTuple):
    """A function of the library, and some of its parameters."""

    function: str
    values: dict[str, Any]


WHOLE = st.one_of(st.integers(-3, 30), st.sampled_from([0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**30]), st.floats(0, 9))
REAL = st.one_of(st.floats(), st.floats(-2, 100), st.integers(-3, 30), st.sampled_from([0.0, 1e-300, 1e300]))
FUNCTIONS: dict[str, dict[str, st.SearchStrategy]] = {
    "fit": {
        "steps": WHOLE, "lr": REAL, "schedule": WORDS, "warmup": WHOLE, "clip": st.none() | REAL, "decay": REAL,
        "seed": WHOLE, "every": WHOLE, "precision": st.none() | WORDS,
    },
    "stream": {
        "n": st.integers(-3, 30), "batch": st.integers(-3, 30), "first": WHOLE, "key": WORDS,
        "dtype": st.sampled_from([None, torch.uint8, torch.float16, torch.int64, torch.bool, torch.complex64]),
    },
    "karras": {"n": st.integers(-3, 30), "sigma_min": REAL, "sigma_max": REAL, "rho": REAL},
    "ddpm": {"n": st.integers(-3, 30), "beta_min": REAL, "beta_max": REAL, "steps": st.integers(-3, 2000)},
    "vp": {"n": st.integers(-3, 30), "beta_min": REAL, "beta_max": REAL, "t_min": REAL},
    "ve": {"n": st.integers(-3, 30), "sigma_min": REAL, "sigma_max": REAL},
}  # fmt: skip


def calls() -> st.SearchStrategy[Call]:
    """A function with up to two parameters of the right type, and of any value."""

    def some(name: str) -> st.SearchStrategy[Call]:
        kinds = FUNCTIONS[name]
        chosen = st.lists(st.sampled_from(sorted(kinds)), max_size=2, unique=True)
        values = chosen.flatmap(lambda names: st.fixed_dictionaries({one: kinds[one] for one in names}))
        return st.builds(Call, st.just(name), values)

    return st.sampled_from(sorted(FUNCTIONS)).flatmap(some)


def read_call(folder: Path, given: Call) -> None:
    """Three steps of a training, seven samples, or a grid of levels, with some parameters of another kind."""
    if given.function == "fit":
        torch.manual_seed(0)
        net, values = nets.ResidualMLP((2,), width=4), {"steps": 3} | given.values

        def loss(net: torch.nn.Module, generator: torch.Generator) -> torch.Tensor:
            return net(torch.randn(4, 2, generator=generator), torch.ones(4)).square().mean()

        for step, _ in zip(train.fit(net, loss, values.pop("steps"), **values), range(3), strict=False):
            assert step.loss.isfinite()
    elif given.function == "stream":
        values = {"n": 7, "batch": 4, "key": "fuzz"} | given.values
        shards = stream(lambda seeds: seeds[:, None].float(), values.pop("n"), folder / "samples", **values)
        assert len(shards) and len(shards.load()) == len(shards)
    else:
        sigmas = getattr(noise, given.function)(**({"n": 5} | given.values))
        assert sigmas.isfinite().all() and sigmas[-1] == 0 and (sigmas.diff() < 0).all(), f"no grid of levels: {sigmas}"


YAML = ("a: [", "!!python/name:os.system", "- 1", "n: 3", "&a [*a]", "1")
TEXTS = st.one_of(WORDS, st.text(max_size=40), st.sampled_from(YAML))


def read_text(folder: Path, given: str) -> None:
    """A YAML file of settings."""
    (folder / "settings.yaml").write_bytes(given.encode("utf8", "surrogatepass"))
    found = parameters.further(str(folder / "settings.yaml"))
    assert isinstance(found, dict)


KINDS = {
    "settings of every study": fuzz.kind(settings, read_setting, 16),
    "sources and their options": fuzz.kind(sources, read_source, 10),
    "parameters of functions": fuzz.kind(calls, read_call, 12),
    "files of settings": fuzz.kind(lambda: TEXTS, read_text, 4),
}
