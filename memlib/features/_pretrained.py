"""A network of transformers from a local folder: of the right kind, from safetensors, with every weight its own."""

import json
from pathlib import Path
from typing import Any

from memlib.cache.weights import refuse_misfits, require_finite
from memlib.errors import Refused, needs, reason


def pretrained(folder: str | Path, kind: str, class_name: str, called: str) -> Any:
    """The network of a folder, on the CPU. Any: transformers' classes are imported only here.

    Arguments:
        folder: has `config.json` and `*.safetensors`. Nothing is downloaded, and no code in the folder is run.
        kind: its `model_type`, such as "clip".
        class_name: the class of transformers, such as "CLIPModel".
        called: the model in words, for the sentence of an error.

    Raises:
        Refused: for a folder that is missing, damaged, or of another kind of model.
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.json").is_file():
        raise Refused(
            f"{str(folder)!r} is not a transformers folder, it has no config.json: give the folder of {called}"
        )
    try:
        found = dict(json.loads((folder / "config.json").read_text(encoding="utf8"))).get("model_type")
    except (OSError, ValueError, TypeError) as error:
        raise Refused(f"{str(folder / 'config.json')!r} cannot be read as JSON: download it again") from error
    if found != kind:
        raise Refused(f"{str(folder)!r} holds a model of type {found!r}, not {kind!r}: give the folder of {called}")
    with needs("models"):
        import transformers
        from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would warn of is refused below
    try:
        net, loaded = getattr(transformers, class_name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except Exception as error:  # a dozen kinds, for damaged files and for settings that make no network
        told = f"{str(folder)!r} cannot be read ({reason(error)})"
        raise Refused(f"{told}: give the folder with its *.safetensors") from error
    finally:
        logging.set_verbosity(verbosity)
    if lacking := sorted(loaded["missing_keys"]):
        raise Refused(f"{str(folder)!r} lacks {len(lacking)} weights, {lacking[0]} for one: download it again")
    if misshapen := sorted(loaded["mismatched_keys"]):
        raise Refused(f"{str(folder)!r} cannot be read: {misshapen[0][0]} has another shape than its config.json says")
    refuse_misfits(str(folder), loaded, "its config.json")
    require_finite(net.state_dict(), str(folder))
    return net
