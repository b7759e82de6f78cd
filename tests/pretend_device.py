"""`torch.device("pretend")`: the CPU behind a wall, so that code for a GPU is tested on a machine without one.

A tensor there is a `Walled` around the CPU tensor that holds its numbers. Work goes through `_perform`, which raises
where CUDA would: tensors of both sides in one operation, a CPU generator that draws behind the wall, a numpy array or
a plot of a tensor that was not brought to the CPU. Importing this module registers the device, and `with FromData():` lets it be filled from Python
numbers. It cannot show what only a real GPU shows: rounding, asynchrony, autocast, operations without a kernel.

The hooks are torch's own but private (`torch.utils.backend_registration`), so this file is for tests alone.
"""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map_only
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
    target = kwargs.get("device")
    target = None if target is None else torch.device(target).type
    walled = [leaf for leaf in tree_iter((args, kwargs)) if isinstance(leaf, Walled)]
    _refuse(op, args, kwargs, bool(walled), target)
    if op is _OPS._copy_from.default:
        return args[1].copy_(args[0])
    inside, named = tree_map_only(Walled, lambda one: one.inner, (args, kwargs))
    result = op(*inside, **(named | {"device": "cpu"} if target == DEVICE else named))
    if op is _OPS.copy_.default:
        return args[0]  # which side was written to, not which was read
    if op is _OPS._local_scalar_dense.default or target == "cpu" or not (walled or target == DEVICE):
        return result
    written = {id(one.inner): one for one in walled}  # an operation in place returns the very tensor it was given

    def shown(one):
        return written[id(one)] if id(one) in written else Walled.around(one)

    return tree_map_only(torch.Tensor, shown, result)


def _refuse(op, args, kwargs, walled, target):
    """Raise RuntimeError for what a real device would not do."""
    if (walled or target == DEVICE) and any(isinstance(one, torch.Generator) for one in tree_iter((args, kwargs))):
        raise RuntimeError(f"Expected a '{DEVICE}' device type for generator but found 'cpu': {op}")
    if not walled or op in _CROSSING:
        return
    met = args[:1] + args[2:] if op in _INDEXED and isinstance(args[0], Walled) else args  # indices may be on the CPU
    least = 0 if op in _NO_SCALARS else 1
    for one in tree_iter((met, kwargs)):
        if isinstance(one, torch.Tensor) and not isinstance(one, Walled) and one.dim() >= least:
            raise RuntimeError(f"{op} expects all tensors on one device, and met {DEVICE} and cpu {tuple(one.shape)}")


class _Module(_DummyBackendModule):
    """`torch.pretend`: the generator of the device is that of the CPU, and nothing is asynchronous."""

    def get_rng_state(self, device=0):
        return torch.zeros(16, dtype=torch.uint8)

    def set_rng_state(self, state, device=0): ...

    def manual_seed_all(self, seed): ...

    def synchronize(self, device=None): ...


class FromData(TorchFunctionMode):
    """`torch.tensor(numbers, device="pretend")`: torch fills such a tensor through a pointer, and here there is none."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor, torch.asarray):
            args = tree_map_only(Walled, lambda one: one if function is not torch.tensor else one.inner, args)
            target = kwargs.get("device")
            if target is not None and torch.device(target).type == DEVICE:
                return function(*args, **(kwargs | {"device": None})).to(target)
        return function(*args, **kwargs)


_setup_privateuseone_for_python_backend(DEVICE, backend_module=_Module())
_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda op, *args, **kwargs: _perform(op, args, kwargs), "PrivateUse1")
_factories = torch.library.Library("aten", "IMPL")
for _name in ("arange", "arange.start", "arange.start_step", "eye", "eye.m"):  # torch would resize an empty tensor
    _op = getattr(getattr(_OPS, _name.partition(".")[0]), _name.partition(".")[2] or "default")
    _factories.impl(_name, lambda *args, _op=_op, **kwargs: _perform(_op, args, kwargs), "PrivateUse1")
