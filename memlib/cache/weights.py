"""Weights that come from a file: a network takes them whole and finite, or names the entry that does not fit."""

from collections.abc import Iterable, Mapping

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
    told = {
        "missing_keys": [name for name in own if name not in state],
        "unexpected_keys": [name for name in state if name not in own],
        "mismatched_keys": [name for name, old in own.items() if name in state and state[name].shape != old.shape],
    }
    refuse_misfits(place, told)
    require_finite(state, place)
    net.load_state_dict(state)


def refuse_misfits(place: str, told: Mapping[str, Iterable], wanted: str = "this network") -> None:
    """Refuse weights by the first entry that is missing, of another shape or unexpected.

    Arguments:
        place: where they come from, for the sentence.
        told: what diffusers and transformers return for `output_loading_info`: names by `missing_keys`,
            `mismatched_keys` (a name, or a tuple that begins with one) and `unexpected_keys`.
        wanted: whose weights they should be, for the sentence.
    """
    kinds = {"missing": "missing_keys", "of another shape": "mismatched_keys", "unexpected": "unexpected_keys"}
    found = [(kind, entry) for kind, key in kinds.items() for entry in sorted(told[key])]
    if found:
        kind, entry = found[0]
        name = entry if isinstance(entry, str) else entry[0]
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
