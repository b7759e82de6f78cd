"""How a network of somebody else is called: in its own dtype, with its own labels, for its prediction alone."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from memlib.errors import Refused
from memlib.shapes import Shaped


def predicted(
    net: Callable[..., Tensor], x: Shaped[Tensor, " b *s"], t: Shaped[Tensor, " b"], labels: tuple[Tensor, ...]
) -> Shaped[Tensor, " b *s"]:
    """The network's prediction (B, *S) for its own input x (B, *S), its own times (B,) and labels, in its own dtype.

    Half of twice as many channels is a learned variance (Nichol & Dhariwal 2021), which is dropped.

    Raises:
        Refused: for a prediction of another shape.
    """
    if isinstance(net, nn.Module) and (parameter := next(net.parameters(), None)) is not None:
        x = x.to(parameter.dtype)
    output = net(x, t, *labels)
    output = getattr(output, "sample", output)
    if len(output) == len(x) and output.shape[1] == 2 * x.shape[1]:
        output = output[:, : x.shape[1]]
    if output.shape != x.shape:
        raise Refused(f"the network maps {tuple(x.shape)} to {tuple(output.shape)}: it must keep the shape")
    return output


class Labels:
    """The labels of a network as it takes them: none, or one for each of B samples."""

    def __init__(self) -> None:
        self._checked: Any = None  # the labels that were checked last

    def __call__(self, net: Callable[..., Tensor], y: Any, x: Shaped[Tensor, " b *s"]) -> tuple[Tensor, ...]:
        """() or one tensor (B,) for the network's input x (B, *S) from `y`, a label, (B,) or None.

        Raises:
            Refused: for labels that the network does not know, none where it needs some, and some where it takes none.
        """
        table = getattr(net, "class_embedding", y)
        if y is None:
            if table is not None:
                raise Refused("this network is class-conditional: bind labels first, functools.partial(denoiser, y=y)")
            return ()
        if table is None:
            raise Refused("this network takes no labels, so leave y out")
        classes = table.num_embeddings if isinstance(table, nn.Embedding) else None
        labels = _labels_of(y, x, classes)
        if classes and y is not self._checked:
            if not ((labels >= 0) & (labels < classes)).all():
                raise Refused(f"this network knows the labels 0 to {classes - 1}, not {labels.flatten().tolist()}")
            self._checked = y  # once for the same object: on a GPU the check costs a sync
        return (labels.expand(len(x)) if labels.ndim < 2 else labels,)


def _labels_of(y: Any, x: Tensor, classes: int | None) -> Tensor:
    """Labels on the device of x (B, *S), () or (B,); whole numbers where the network has `classes`. Refused if not."""
    wanted = f"labels are whole numbers from 0 to {classes - 1}" if classes else "labels are numbers"
    try:
        labels = torch.as_tensor(y, device=x.device)
    except (TypeError, ValueError, RuntimeError):
        raise Refused(f"{wanted}, not {y!r}") from None
    if classes and (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool):
        raise Refused(f"{wanted}, not {labels.dtype}")
    if (classes and labels.ndim > 1) or (labels.ndim > 0 and len(labels) not in (1, len(x))):
        raise Refused(f"labels of shape {tuple(labels.shape)} do not fit {len(x)} samples: give one, or one for each")
    return labels
