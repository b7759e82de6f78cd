"""A TorchScript file, which is a program: run only if what was read has a known SHA-256."""

import hashlib
import io
import warnings
from pathlib import Path

import torch

from memlib.errors import Refused


def load_known(path: Path, known: str, wanted: str, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """The module in `path`, in eval mode; what is hashed is what is loaded, as bytes of any shape.

    known: the hex SHA-256 that it must have. wanted: the file's published name, and where it comes from, for the
    sentence of one that is not there. Raises Refused for a file that is absent, another, or no TorchScript.
    """
    if not path.is_file():
        raise Refused(f"there is no file {path}: `memlib doctor` says how to get {wanted}")
    content, known = path.read_bytes(), known.lower()
    if (digest := hashlib.sha256(content).hexdigest()) != known:
        raise Refused(
            f"{path} has SHA-256 {digest} and not {known}: download it again or, if you trust this file as you would "
            "a program, give its SHA-256 (it was not run)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather export, but they published this
        try:
            return torch.jit.load(io.BytesIO(content), map_location=device).eval()
        except RuntimeError as error:
            raise Refused(f"{path} is no TorchScript file: give one whose name ends in .torchscript.pt") from error
