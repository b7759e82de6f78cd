"""Draw a batch of samples from their seeds, in parts if it does not fit into memory."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from memlib.errors import Refused

Draw = Callable[[Tensor], Tensor | dict[str, Tensor]]
"""A function from seeds (B,) to images (B, *S), or to a dict of tensors (B, ...) that contains `images`."""


class WithinMemory:
    """A `draw` that goes through a batch, (B,) seeds, in parts, and halves these for good when memory runs out."""

    def __init__(self, draw: Draw, batch: int) -> None:
        self.draw, self.rows = draw, batch

    def __call__(self, seeds: Tensor) -> dict[str, Tensor]:
        """What the draw makes of seeds (B,), by name."""
        while True:
            try:
                parts = [_checked(self.draw(part), len(part)) for part in seeds.split(self.rows)]
                return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            except (RuntimeError, MemoryError) as error:
                if not _memory_ran_out(error):
                    raise
                if self.rows == 1:
                    raise Refused("not even one sample at a time fits into memory: take a smaller network") from error
            # Out here, the frames of the failed call and what they hold are gone.
            self.rows = -(-self.rows // 2)
            if torch.accelerator.is_available():
                torch.accelerator.empty_cache()
            warnings.warn(
                f"memory ran out: drawing {self.rows} samples at a time from here on, equal within rounding",
                stacklevel=6,  # at the caller of stream
            )


def _memory_ran_out(error: Exception) -> bool:
    told = ("out of memory", "can't allocate memory")  # GPUs; torch's allocator on the CPU
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in told)


def _checked(drawn: Tensor | dict[str, Tensor], rows: int) -> dict[str, Tensor]:
    """What a draw gave for some seeds, by name; Refused if that is not a row for each."""
    tensors = drawn if isinstance(drawn, dict) else {"images": drawn}
    if "images" not in tensors or "seeds" in tensors:
        named = ", ".join(tensors)
        raise Refused(f"draw gave tensors named {named}: call the images `images` and leave `seeds` to shards.stream")
    _check_rows(tensors, rows, "draw")
    return tensors


def _check_rows(tensors: dict[str, Tensor], rows: int, who: str) -> None:
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or len(tensor) != rows:
            raise Refused(f"{who} gave {name} of shape {tuple(tensor.shape)} for {rows} seeds: give one row a seed")


def kept_rows(tensors: dict[str, Tensor], seeds: Tensor, rows: int, who: str) -> dict[str, Tensor]:
    """What a file keeps of tensors (B, ...) of so many rows: a row for each of `seeds` (B',), on the CPU."""
    _check_rows(tensors, rows, who)
    # Copies, since safetensors refuses tensors that share memory.
    kept = {name: t[: len(seeds)].detach().cpu().contiguous().clone() for name, t in tensors.items()}
    return kept | {"seeds": seeds}
