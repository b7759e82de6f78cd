"""Errors that are the user's to correct, such as a wrong value or a missing package: one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager


class Refused(ValueError):
    """A user's mistake in one sentence: the wrong thing, its value, and how to correct it.

    Raise it for a wrong parameter, a missing file, a missing package or unusable data. The command line prints the
    sentence alone. In a script or a notebook it comes with its traceback, which shows the caller's own line.
    """


def reason(error: BaseException) -> str:
    """The first sentence of what a library says, for a sentence of ours; its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0].rstrip(".:")


@contextmanager
def needs(extra: str) -> Iterator[None]:
    """Import an optional package, or tell the user how to install it.

        with needs("models"):
            from diffusers import UNet2DModel

    Arguments:
        extra: the extra of memlib that installs the package: "models" for networks of others, "book" for chapters.

    Raises:
        Refused: if a package imported inside is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or str(error)).partition(".")[0]
        raise Refused(f"{package} is not installed: pip install 'memlib[{extra}]'") from error


@contextmanager
def usable(device: object) -> Iterator[None]:
    """Move something to a device, or tell the user that this torch cannot use it.

        with usable(device):
            net.to(device)

    Raises:
        Refused: for a device that torch does not know, was not built for, or does not see.
    """
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise Refused(
            f"device {str(device)!r} cannot be used ({reason}): choose 'cpu' or one that torch sees"
        ) from None
