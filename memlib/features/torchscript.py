"""TorchScript files. A TorchScript file is a program: it is run only if its SHA-256 is known."""

import hashlib
import io
import warnings
from pathlib import Path

import torch

from memlib.errors import Refused


def load_known(
    path: str | Path, known: str | None, wanted: str, device: torch.device | str = "cpu"
) -> torch.jit.ScriptModule:
    """The module in `path`, in eval mode; its bytes, of any shape, are hashed and loaded from one reading.

    Arguments:
        path: the file.
        known: the SHA-256 in hex that it must have; None is Refused.
        wanted: the published name of the file and where it comes from, for the error message if it is missing.
        device: where the module is loaded.

    Raises:
        Refused: for a file that is missing, has another SHA-256, or is not TorchScript.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise Refused(f"there is no file {path}: `memlib doctor` says how to get {wanted}")
    if known is None:
        raise Refused(f"no SHA-256 is on record for {wanted}: give the SHA-256 of a file that you trust")
    content, known = path.read_bytes(), known.lower()
    if (digest := hashlib.sha256(content).hexdigest()) != known:
        raise Refused(
            f"{path} has SHA-256 {digest} and not {known}: download it again or, if you trust this file as you would "
            "a program, give its SHA-256 (it was not run)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # torch recommends torch.export, but the authors published TorchScript
        try:
            return torch.jit.load(io.BytesIO(content), map_location=device).eval()
        except RuntimeError as error:
            raise Refused(f"{path} is not a TorchScript file: give one whose name ends in .torchscript.pt") from error
