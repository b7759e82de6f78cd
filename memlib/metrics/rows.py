"""Features as the statistical metrics take them: rows (N, D) that are finite, and enough of them."""

from torch import Tensor

from memlib.errors import Refused


def checked(rows: Tensor, name: str, least: int = 2, width: int | None = None) -> Tensor:
    """The rows (N, D) unchanged, after a look at them; `name` is what an error calls them.

    Raises Refused unless they have two dimensions, D >= 1 (= `width` if given), N >= `least` and finite values.
    """
    if rows.dim() != 2 or rows.shape[1] < 1 or (width is not None and rows.shape[1] != width):
        wanted = f"(N, {width})" if width else "(N, D)"
        raise Refused(f"{name} features must have shape {wanted}, not {tuple(rows.shape)}")
    if len(rows) < least:
        raise Refused(f"{name} features have {len(rows)} rows where at least {least} are needed: give more samples")
    finite = rows.isfinite().all(1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise Refused(f"{name} row {first} is not finite: look at the image or the features behind it")
    return rows
