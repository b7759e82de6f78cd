"""Weights that come from a file: a network takes them whole and finite, or names the entry that does not fit."""

from collections.abc import Mapping

from torch import Tensor, nn

from memlib.errors import Refused


def load_weights(net: nn.Module, state: Mapping[str, Tensor], place: str) -> None:
    """Fill the network with a state dict whose tensors, of any shape, must be the network's own.

    Arguments:
        net: the network, changed in place.
        state: name -> weights.
        place: where they come from, for the sentence.

    Raises:
        Refused: for an entry that is missing, unexpected, of another shape or not finite, by its name.
    """
    own = net.state_dict()
    refuse_misfits(
        place,
        missing=[name for name in own if name not in state],
        unexpected=[name for name in state if name not in own],
        misshapen=[name for name, old in own.items() if name in state and state[name].shape != old.shape],
    )
    require_finite(state, place)
    net.load_state_dict(state)


def refuse_misfits(
    place: str, *, missing: list[str], unexpected: list[str], misshapen: list[str], wanted: str = "this network"
) -> None:
    """Refuse weights by the first entry that is missing, unexpected or of another shape than those of `wanted`."""
    kinds = {"missing": missing, "of another shape": misshapen, "unexpected": unexpected}
    found = [(name, kind) for kind, names in kinds.items() for name in names]
    if found:
        name, kind = found[0]
        raise Refused(
            f"the weights of {place!r} are not those of {wanted}: {len(found)} differ, such as {name!r} ({kind})"
        )


def require_finite(state: Mapping[str, Tensor], place: str) -> None:
    """Refuse weights, tensors of any shape, of which one is NaN or infinite, by its name."""
    for name, weights in state.items():
        if isinstance(weights, Tensor) and weights.is_floating_point() and not weights.isfinite().all():
            bad = int((~weights.isfinite()).sum())
            raise Refused(
                f"{bad} of {weights.numel()} numbers of {name!r} in {place!r} are NaN or infinite: a network that "
                "diverged or a damaged file; give another checkpoint"
            )
