"""Every study, whole, on the device: it ends, its verdicts can be read, and its results are on the CPU and on disk."""

import dataclasses
import os

import pytest
import torch
from tiny import PAPERS, study_of
from torch import Tensor

from memlib import papers, run
from memlib.cache import store


def tensors(tree):
    """All tensors in a tree of results."""
    if isinstance(tree, Tensor):
        return [tree]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        tree = [getattr(tree, field.name) for field in dataclasses.fields(tree)]
    tree = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else []
    return [one for branch in tree for one in tensors(branch)]


def test_every_study_has_small_settings_that_it_knows():
    """And so has every chapter: a study that changes its settings must change them here."""
    assert sorted(PAPERS) == sorted(papers.studies())
    assert all(study_of(paper)[1] for paper in PAPERS)


@pytest.mark.skipif("MEMLIB_DEVICE" not in os.environ, reason="make devices runs the studies")
@pytest.mark.parametrize("paper", PAPERS)
def test_a_study_runs_on_the_device(paper, device, tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    study, settings = study_of(paper)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, getattr(settings, "dtype", "float32")))
    try:
        found = study.run(settings, run.begin(study.CHAPTER, "book", device=str(device)))
        claims = study.verdicts(found)
        assert tensors(found) and all(one.device.type == "cpu" for one in tensors(found))
        assert claims and study.tables(found)
    finally:
        torch.set_default_dtype(before)
    store.save(tmp_path / "results.safetensors", found)
    assert [claim.verdict for claim in study.verdicts(store.load(tmp_path / "results.safetensors"))] == [
        claim.verdict for claim in claims
    ]
