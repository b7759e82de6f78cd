"""Disks that are full or read-only, and files that were damaged: what `make faults` found once, each by itself."""

import errno
import json
import os
import sys
from pathlib import Path

import pytest
import tiny_study
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from memlib import data, noise
from memlib.cache import Shards, atomic, checkpoints, store, stream
from memlib.cli import main, studies
from memlib.errors import Refused
from memlib.settings import changed
from memlib.train import Diverged, fit

FULL = "No space left on device"


def full(*arguments, **options):
    """What a full disk says to whoever flushes a file."""
    raise OSError(errno.ENOSPC, FULL)


def full_for_safetensors(*arguments, **options):
    raise SafetensorError(f"Error while serializing: I/O error: {FULL} (os error 28) at path /x/.tmpAbc")


def net():
    torch.manual_seed(0)
    return nn.Linear(3, 1)


def loss(net, generator):
    return net(torch.randn(4, 3, generator=generator)).square().mean()


def trained(path, steps=4, **options):
    return [step.index for step in fit(net(), loss, steps, checkpoint=path, every=2, schedule="constant", **options)]


@pytest.mark.parametrize("failing", ["atomic.os.fsync", "checkpoints.save_file"])
def test_a_checkpoint_on_a_full_disk_is_a_sentence(failing, tmp_path, monkeypatch):
    assert trained(tmp_path) == [0, 1, 2, 3]
    with monkeypatch.context() as patch:
        patch.setattr(f"memlib.cache.{failing}", full if "fsync" in failing else full_for_safetensors)
        with pytest.raises(Refused, match=rf"cannot write .*training.safetensors \({FULL}\): make room or"):
            trained(tmp_path, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["training.safetensors"]
    assert trained(tmp_path, 6) == [4, 5]


def test_another_error_of_safetensors_stays_its_own(tmp_path):
    def invalid(path):
        raise SafetensorError("invalid dtype")

    with pytest.raises(SafetensorError, match="invalid dtype"):
        atomic.replace_file(tmp_path / "a", invalid)
    assert not list(tmp_path.iterdir())


def test_what_a_kill_left_inside_a_write_is_cleared(tmp_path):
    """safetensors writes into a file of a random name, which a kill leaves; and earlier versions left a file."""
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / ".tmpXyz").write_bytes(b"half")
    (tmp_path / "b.partial").write_bytes(b"half")
    for name in "ab":
        atomic.replace_file(tmp_path / f"{name}.safetensors", lambda path: path.write_text("whole"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_folder_on_a_full_disk_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "a").write_text("content")
    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(Refused, match="cannot write .*there"):
        atomic.place_folder(tmp_path / "filled", tmp_path / "there")


def test_a_cache_that_cannot_be_written_refuses_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    calls = []

    def make(n):
        calls.append(n)
        return torch.arange(n)

    store.cached("kept", make, 3)

    def refuse(lock, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(store.FileLock, "acquire", refuse)
    calls.clear()
    with pytest.raises(Refused, match=r"cannot write .*other-.* \(Permission denied\)"):
        store.cached("other", make, 4)
    assert not calls  # refused before anything slow was done


def test_a_result_that_is_there_is_read_without_its_lock(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    store.cached("kept", torch.arange, 3)

    def refuse(lock, *arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store.FileLock, "acquire", refuse)
    assert torch.equal(store.cached("kept", torch.arange, 3), torch.arange(3))


def test_a_copy_under_another_name_is_no_result(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    three, four = (store.place("kept", torch.arange, (n,)) for n in (3, 4))
    for n in (3, 4):
        store.cached("kept", torch.arange, n)
    four.write_bytes(three.read_bytes())
    assert torch.equal(store.cached("kept", torch.arange, 4), torch.arange(4))


def test_results_of_before_names_are_read(tmp_path):
    tree = [1, 2.5, "three"]
    told = {"tree": tree, "checksum": store.fingerprint(tree, {})}
    save_file({}, tmp_path / "old.safetensors", {"memlib": json.dumps(told)})
    assert store.load(tmp_path / "old.safetensors") == tree


@pytest.mark.parametrize("text", ["[]", "null", '{"tree": 1}', "{", '{"tree": {"tensor": "0"}, "checksum": 3}'])
def test_what_is_no_result_is_a_sentence(text, tmp_path):
    save_file({}, tmp_path / "a.safetensors", {"memlib": text})
    with pytest.raises(Refused, match="a.safetensors is damaged"):
        store.load(tmp_path / "a.safetensors")


def rewritten(path, change):
    """The checkpoint with a record and tensors that `change` has changed, and no checksum, as before 0.3."""
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["memlib"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    record.pop("checksum")
    other = change(record, state)
    save_file(state, path, {"memlib": json.dumps(record if other is None else other)})


@pytest.mark.parametrize("name", ["net.weight", "adam.0.exp_avg", "adam.1.step"])
@pytest.mark.parametrize("how", ["gone", "reshaped"])
def test_a_checkpoint_of_another_version_is_refused(name, how, tmp_path):
    trained(tmp_path)
    path = tmp_path / "training.safetensors"

    def change(record, state):
        tensor = state.pop(name)
        if how == "reshaped":
            state[name] = torch.zeros(*tensor.shape, 2)

    rewritten(path, change)
    with pytest.raises(Refused, match=f"of another version, which differs in '{name}': .* delete it to start over"):
        trained(tmp_path, 6)


def test_a_checkpoint_without_a_checksum_goes_on_if_it_is_complete(tmp_path):
    trained(tmp_path)
    rewritten(tmp_path / "training.safetensors", lambda record, state: None)
    assert trained(tmp_path, 6) == [4, 5]


@pytest.mark.parametrize("record", [[], None, {"step": 2}, {"step": "2", "settings": {}}, {"step": 0, "settings": {}}])
def test_a_header_that_is_no_record_is_no_checkpoint(record, tmp_path):
    trained(tmp_path)
    rewritten(tmp_path / "training.safetensors", lambda *_: record if record is not None else "null")
    with pytest.raises(Refused, match="is not a training checkpoint"):
        trained(tmp_path, 6)


@pytest.mark.parametrize("where", ["weights", "step"])
def test_a_damaged_checkpoint_is_refused(where, tmp_path):
    """One bit in the weights, or another number of steps, would end in other bits and no error."""
    trained(tmp_path)
    path = tmp_path / "training.safetensors"
    whole = path.read_bytes()
    flipped = whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:]
    path.write_bytes(flipped if where == "weights" else whole.replace(b'step\\": 4', b'step\\": 3'))
    assert path.read_bytes() != whole
    with pytest.raises(Refused, match="the checkpoint .* is damaged: give another folder, or delete it to start over"):
        trained(tmp_path, 6)
    path.write_bytes(whole)
    assert trained(tmp_path, 6) == [4, 5]


def test_a_parameter_that_no_loss_reaches_has_no_moments(tmp_path):
    def with_a_rest():
        torch.manual_seed(0)
        return nn.ModuleDict({"used": nn.Linear(3, 1), "rest": nn.Linear(2, 2)})

    def partial(net, generator):
        return loss(net["used"], generator)

    for steps, taken in ((2, 2), (4, 2)):
        assert len(list(fit(with_a_rest(), partial, steps, checkpoint=tmp_path, schedule="constant"))) == taken


def test_the_checksum_of_a_checkpoint_is_that_of_its_file(tmp_path):
    trained(tmp_path)
    record, state = checkpoints._read(tmp_path / "training.safetensors")
    assert record.pop("checksum") == checkpoints._checksum(record, state)


@pytest.mark.parametrize("name", ["07_tiny.json", "07_tiny.safetensors"])
@pytest.mark.parametrize("content", [b"", b"[]", b'{"provenance": []}'])
def test_a_study_names_the_damaged_file_of_an_earlier_run(name, content, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))

    def run(ids):
        return studies.run_study(tiny_study, "fast", ids=ids, processes=1, out=tmp_path)

    run(["X1"])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Refused, match=rf"{name} is damaged: delete it"):
        run(["X2"])
    (tmp_path / name).unlink()
    assert [claim["id"] for claim in run(["X2"])] == ["X2", "X3"]


@pytest.mark.parametrize(
    "manifest", ["[]", "false", '{"n": 4}', '{"n": [], "batch": 2, "first": 0, "key": "k", "dtype": null}']
)
def test_a_manifest_that_is_none_is_refused(manifest, tmp_path):
    def draw(seeds):
        return seeds[:, None].float()

    stream(draw, 4, tmp_path, key="k", batch=2)
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(Refused, match="holds no samples"):
        Shards(tmp_path)
    with pytest.raises(Refused, match=r"manifest.json is damaged: delete the folder"):
        stream(draw, 4, tmp_path, key="k", batch=2)


def test_two_runs_add_their_groups_one_after_the_other(tmp_path, monkeypatch):
    """Each reads the record, adds to it and writes it: at once, the second would lose the groups of the first."""
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path / "cache"))
    verdicts, tried = tiny_study.verdicts, []

    def inside(results):
        with pytest.raises(Timeout):
            FileLock(studies._lock_of(tmp_path / "07_tiny")).acquire(blocking=False)
        tried.append(1)
        return verdicts(results)

    monkeypatch.setattr(tiny_study, "verdicts", inside)
    studies.run_study(tiny_study, "fast", ids=["X1"], processes=1, out=tmp_path)
    assert tried and sorted(path.name for path in tmp_path.glob("07*")) == ["07_tiny.json", "07_tiny.safetensors"]


def test_a_shard_without_seeds_is_damaged(tmp_path):
    stream(lambda seeds: seeds[:, None].float(), 4, tmp_path, key="k", batch=2)
    save_file({"images": torch.zeros(2, 1)}, tmp_path / "000001.safetensors", {"checksum": ""})
    with pytest.raises(Refused, match="000001.safetensors is damaged"):
        Shards(tmp_path)


def test_seeds_beyond_63_bits_are_refused(tmp_path):
    for first in (2**63, -(2**63), 10**30, 0.5):
        with pytest.raises(Refused, match="first"):
            stream(lambda seeds: seeds[:, None].float(), 4, tmp_path, key="k", first=first)


@pytest.mark.parametrize(
    "grid",
    [
        lambda: noise.karras(5, rho=0),
        lambda: noise.karras(5, rho=-1e-109),
        lambda: noise.karras(5, rho=1e300),
        lambda: noise.vp(5, beta_min=0.0, beta_max=0.0),
        lambda: noise.vp(5, beta_max=1e16),
    ],
)
def test_a_grid_that_does_not_fall_is_refused(grid):
    with pytest.raises(Refused, match="give (one such as 7|less extreme ones)"):
        grid()


def test_values_that_are_too_large_are_refused_and_cut_short():
    with pytest.raises(Refused, match="it must be float") as told:
        changed(tiny_study.Settings(), {"weight": 10**400})
    assert len(str(told.value)) < 300


@pytest.mark.parametrize("kind", ["folder", "mnist", "cifar10"])
@pytest.mark.parametrize("place", ["a" * 300, "~no-such-user/x", "a\0b"])
def test_a_place_that_cannot_be_is_no_folder(kind, place):
    for ask in (data.check, data.load):
        with pytest.raises(Refused, match="there is no folder"):
            ask(f"{kind}:{place}")


@pytest.mark.parametrize("given", ["a\nb=1", "9" * 900, "a" * 900 + "=1", "a" * 900])
def test_a_text_of_the_users_is_told_in_one_short_line(given, capsys):
    assert main(["study", "gaussian", "--set", given]) == 1
    (told,) = capsys.readouterr().err.strip().splitlines()
    assert len(told) < 600
    for name in ("a\nb", "a" * 900):
        with pytest.raises(Refused) as refused:
            changed(tiny_study.Settings(), {name: 1})
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_a_training_that_diverges_is_a_sentence_on_the_command_line(capsys, monkeypatch):
    def diverge(*arguments, **options):
        raise Diverged("training diverged at step 3: lower lr")

    monkeypatch.setattr(studies, "run_study", diverge)
    assert main(["study", "gaussian"]) == 1
    assert capsys.readouterr().err.strip() == "training diverged at step 3: lower lr"


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(os, "geteuid"), reason="a device that is always full"
)
def test_a_real_full_disk(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(Refused, match="cannot write"):
        atomic.replace_file(tmp_path / "a", lambda path: (path.symlink_to("/dev/full"), path.write_bytes(b"x" * 9999)))
