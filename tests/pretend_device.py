"""`torch.device("pretend")`: the CPU behind a wall, so that code for a GPU is tested on a machine without one.

A tensor there is a `Walled` around the CPU tensor that holds its numbers. Work goes through `_perform`, which raises
where CUDA would: tensors of both sides in one operation, a CPU generator that draws behind the wall, a numpy array or
a plot of a tensor that was not brought to the CPU. Importing this module registers the device, and `with filled():`
lets it be filled from Python numbers. It cannot show what only a real GPU shows: rounding, asynchrony, autocast,
operations without a kernel.

The hooks are torch's own but private (`torch.utils.backend_registration`), so this file is for tests alone.
"""

import contextlib
import functools

import torch
from torch.utils._pytree import tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

DEVICE = "pretend"
_OPS = torch.ops.aten
_CROSSING = {_OPS._to_copy.default, _OPS.copy_.default, _OPS._copy_from.default, _OPS._local_scalar_dense.default}
_INDEXED = {_OPS.index.Tensor, _OPS.index_put.default, _OPS.index_put_.default, _OPS._index_put_impl_.default}
_NO_SCALARS = {_OPS.cat.default, _OPS.stack.default}  # elsewhere CUDA takes a CPU tensor of no dimension as a number


class Walled(torch.Tensor):
    """A tensor of any shape on the device; `inner` is the CPU tensor with its numbers."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # results are what `_perform` makes of them

    @classmethod
    def around(cls, inner: torch.Tensor) -> "Walled":
        """The tensor that shows `inner` on the device, without a copy."""
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, device=torch.device(DEVICE, 0), **layout)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return _perform(op, args, kwargs or {})

    def tolist(self):
        return self.inner.tolist()

    def __getitem__(self, index):
        return super().__getitem__(_without_lists(index))

    def __setitem__(self, index, value):
        super().__setitem__(_without_lists(index), value)

    def new_tensor(self, data, **options):
        return torch.tensor(data, **({"dtype": self.dtype, "device": self.device} | options))

    def numpy(self, **_):
        raise TypeError(f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, dtype=None):
        return self.numpy()

    def __format__(self, spec):
        return format(self.inner, spec)

    def __repr__(self, **_):
        return f"{self.inner!r} on {DEVICE}"


def _without_lists(index):
    """An index whose lists are tensors: torch would make these on the device, through a pointer."""
    if isinstance(index, tuple):
        return tuple(map(_without_lists, index))
    return torch.tensor(index) if isinstance(index, list) else index


def _perform(op, args, kwargs):
    """Run an operation on the inner tensors, and put its results on the side where CUDA would have them."""
    met: list[torch.Tensor] = []
    indexed = op in _INDEXED and isinstance(args[0], Walled)  # then its indices may lie on the CPU
    inside = [_inside(one, [] if indexed and k == 1 else met) for k, one in enumerate(args)]
    named = {name: _inside(one, met) for name, one in kwargs.items()}
    walled = [one for one in met if isinstance(one, Walled)]
    target = kwargs.get("device")
    target = None if target is None else torch.device(target).type
    if walled or target == DEVICE:
        if kwargs.get("generator") is not None:
            raise RuntimeError(f"Expected a '{DEVICE}' device type for generator but found 'cpu': {op}")
        least = 0 if op in _NO_SCALARS else 1
        for one in met if walled and op not in _CROSSING else ():
            if not isinstance(one, Walled) and one.dim() >= least:
                raise RuntimeError(f"{op} expects all tensors on one device, and met a CPU tensor {tuple(one.shape)}")
    if op is _OPS._copy_from.default:
        return args[1].copy_(args[0])
    if target == DEVICE:
        named["device"] = "cpu"
    result = op(*inside, **named)
    if op is _OPS.copy_.default:
        return args[0]  # which side was written to, not which was read
    if op is _OPS._local_scalar_dense.default or target == "cpu" or not (walled or target == DEVICE):
        return result
    return _outside(result, walled)


def _inside(value, met):
    """The inner tensors of an argument; all tensors in it are added to `met`."""
    if isinstance(value, torch.Tensor):
        met.append(value)
        return value.inner if isinstance(value, Walled) else value
    return [_inside(one, met) for one in value] if isinstance(value, list | tuple) else value


def _outside(value, given):
    """A result on the device; an operation in place returns the very tensor that it was given."""
    if isinstance(value, torch.Tensor):
        same = [one for one in given if one.inner is value]
        return same[0] if same else Walled.around(value)
    return type(value)(_outside(one, given) for one in value) if isinstance(value, list | tuple) else value


class _Module(_DummyBackendModule):
    """`torch.pretend`: the generator of the device is that of the CPU, and nothing is asynchronous."""

    def get_rng_state(self, device=0):
        return torch.zeros(16, dtype=torch.uint8)

    def set_rng_state(self, state, device=0): ...

    def manual_seed_all(self, seed): ...

    def synchronize(self, device=None): ...


@contextlib.contextmanager
def filled():
    """Within it, `torch.tensor(numbers, device="pretend")` works, which torch does through a pointer.

    Functions are exchanged and not watched by a `TorchFunctionMode`, which would slow every operation down.
    """
    names = ("tensor", "as_tensor")
    before = {name: getattr(torch, name) for name in names}

    def make(name, data, dtype=None, device=None, **options):
        if name == "tensor":  # a list of scalars on the device is read number by number, as on CUDA
            data = tree_map_only(Walled, lambda one: one.inner, data)
        away = device is not None and torch.device(device).type == DEVICE
        made = before[name](data, dtype=dtype, device=None if away else device, **options)
        return made.to(DEVICE) if away else made

    for name in names:
        setattr(torch, name, functools.partial(make, name))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(torch, name, function)


_setup_privateuseone_for_python_backend(DEVICE, backend_module=_Module())
_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda op, *args, **kwargs: _perform(op, args, kwargs), "PrivateUse1")
_factories = torch.library.Library("aten", "IMPL")
for _name in ("arange", "arange.start", "arange.start_step", "eye", "eye.m"):  # torch would resize an empty tensor
    _op = getattr(getattr(_OPS, _name.partition(".")[0]), _name.partition(".")[2] or "default")
    _factories.impl(_name, lambda *args, _op=_op, **kwargs: _perform(_op, args, kwargs), "PrivateUse1")
