"""The device of these tests: `MEMLIB_DEVICE`, such as cuda, or else `pretend`, which every machine has."""

import contextlib
import os

import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def device():
    """The device, in plain float32; `pretend` exists from the first of these tests on."""
    kind = os.environ.get("MEMLIB_DEVICE", "pretend")
    filled = contextlib.nullcontext()
    if kind == "pretend":
        from pretend_device import FromData

        filled = FromData()
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    with filled:
        yield torch.device(kind)
    torch.backends.cudnn.allow_tf32 = before
