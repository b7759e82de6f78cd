"""Chapter plumbing: checked parameters at four scales, artefacts kept by content, claims on the record.

A notebook's second cell is `run = runs.begin("02_side", globals(), scales=..., ranges=..., choices=...)`; after it
the parameters hold their effective values and `run.cached`, `run.claim` and `run.device` are there to use.
torch is imported late throughout, since the command line checks parameters and reads claims without it.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memlib.errors import Refused
from memlib.runs import claims, parameters
from memlib.runs.claims import claims_in, quote

if TYPE_CHECKING:
    import torch

__all__ = ["Run", "begin", "claims_in", "quote"]


@dataclass(frozen=True)
class Run:
    """One run of a chapter: its effective parameters, its device, and what it has claimed so far."""

    chapter: str
    params: dict[str, Any]
    device: "torch.device"
    provenance: dict[str, Any] = field(compare=False, repr=False)
    claimed: dict[str, dict[str, Any]] = field(compare=False, repr=False, default_factory=dict)
    tables: dict[str, list[list[str]]] = field(compare=False, repr=False, default_factory=dict)
    started: float = field(compare=False, repr=False, default_factory=time.perf_counter)

    @property
    def scale(self) -> str:
        """`fast`, `book`, `gpu` or `paper`."""
        return self.params.get("scale", "fast")

    @property
    def seed(self) -> int:
        """The chapter's seed."""
        return self.params.get("seed", 0)

    @property
    def folder(self) -> Path:
        """A folder for checkpoints, kept for the next run with the same parameters and the same memlib.

        Name a checkpoint by what else it depends on, such as `run.folder / f"net-{images.fingerprint[:8]}"`.
        """
        path = self._folder()
        path.mkdir(parents=True, exist_ok=True)
        return path

    def _folder(self) -> Path:
        from memlib.runs import artefacts
        from memlib.runs.fingerprint import fingerprint, surroundings

        key = fingerprint(self.chapter, self.params, self.device, surroundings())
        return artefacts.folder() / "checkpoints" / f"{self.chapter}-{key[:32]}"

    def cached(self, name: str, make: Callable[..., Any], *inputs: Any, fresh: bool | None = None) -> Any:
        """`make(*inputs)`, made once for this code, these inputs and this seed, then read: `artefacts.cached`."""
        from memlib.runs import artefacts

        return artefacts.cached(f"{self.chapter}-{name}", make, *inputs, seed=self.seed, fresh=fresh)

    def claim(
        self,
        id: str,
        verdict: str,
        *,
        figure: Any,
        interval: Sequence[float] | None = None,
        n: int | None = None,
        text: str = "",
    ) -> None:
        """Record what was found for claim `id` of `book/claims.yaml` and show it.

        `verdict` is "reproduced", "trend only", "not reproduced" or "needs data or scale"; `figure` what was
        measured (a number, or a list or dict of numbers), `interval` its (low, high), `n` the samples or runs behind
        it, `text` a sentence for the ledger. Raises ValueError for another verdict or a figure that is not finite.
        """
        self.claimed[id] = claims.record(id, self.scale, verdict, figure, interval, n, text)
        claims.show(self.claimed[id])
        self._keep()

    def table(self, title: str, rows: Sequence[Sequence[str]]) -> None:
        """Print a table that stands behind the claims, and keep it with the run, so that `quote` can show it.

        `rows` are of text, and the first names the columns.
        """
        self.tables[title] = [list(row) for row in rows]
        print(f"{title}\n{claims.aligned(rows)}")
        self._keep()

    def _keep(self) -> None:
        provenance = self.provenance | {"seconds": round(time.perf_counter() - self.started, 1)}
        claims.keep(self.chapter, self.scale, provenance, list(self.claimed.values()), self.tables)


def begin(
    chapter: str,
    namespace: MutableMapping[str, Any],
    *,
    scales: Mapping[str, Mapping[str, Any]] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    choices: Mapping[str, Iterable[Any]] | None = None,
) -> Run:
    """Check the parameters in `namespace` (the notebook's `globals()`), give them the values of the scale, and begin.

    `scales[scale]` holds the values of a scale beyond `fast`; what papermill injected stays as given. `ranges` are
    inclusive (low, high), `choices` the allowed values; elements of lists are checked alike. The effective values
    are written back, and one line says what differs from the parameters cell. Arithmetic becomes deterministic:
    seeded, one thread, deterministic kernels. `fast` runs on the CPU, larger scales on a GPU where there is one.
    Raises `Refused` for an unknown name or scale, a wrong type or value, or a scale that needs an absent GPU.
    """
    given = parameters.injected(namespace)
    values = parameters.settle(namespace, given, scales=scales or {}, ranges=ranges, choices=choices)
    device = _deterministic(values.get("seed", 0), values.get("scale", "fast"))
    told = [name for name in values if name != "scale" and (name in given or values[name] != namespace[name])]
    if told or values.get("scale", "fast") != "fast":
        changes = ", ".join(f"{name} = {values[name]!r}" for name in told)
        print(f"scale {values.get('scale', 'fast')}" + (f": {changes}" if changes else ""))
    namespace.update(values)
    provenance = {"commit": claims.commit(), "device": claims.machine(device), "seconds": 0.0}
    run = Run(chapter, values, device, provenance | {"versions": claims.versions(), "parameters": values})
    if _forced():
        shutil.rmtree(run._folder(), ignore_errors=True)  # a checkpoint left behind is no fresh start
    return run


def _deterministic(seed: int, scale: str) -> "torch.device":
    """Seed torch and make its arithmetic repeatable; the device that this scale runs on."""
    import torch

    if scale in ("gpu", "paper") and not torch.cuda.is_available():
        raise Refused(f"scale {scale!r} needs a CUDA GPU and torch sees none here: choose 'fast' or 'book'")
    device = torch.device("cuda" if scale != "fast" and torch.cuda.is_available() else "cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    torch.manual_seed(seed)
    # Some CUDA kernels (scatter, interpolation backwards) have no deterministic form: a warning there, not a stop.
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # One thread, since two sum in another order: the same bits whatever OMP_NUM_THREADS says. Two gain little on the
    # networks of a chapter, and on two busy cores they were ten times slower.
    torch.set_num_threads(1)
    return device


def _forced() -> bool:
    from memlib.runs import artefacts

    return artefacts.forced()
