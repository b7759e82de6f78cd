"""What a run would cost: operations by hand, against those of a run that is counted, and the table of the command."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from memlib import cost
from memlib.cli import main
from memlib.papers.sgu import study as sgu
from memlib.papers.sgu.study import arms
from memlib.papers.sgu.study.images import networks_of
from memlib.papers.side import study
from memlib.papers.side.study.model import Network
from memlib.run import begin
from memlib.settings import changed

SMALL = {
    "data": "digits", "n_train": 60, "latent": 12, "width": 128, "train_steps": 200, "n_samples": 100, "n_random": 100,
    "n_synthetic": 100, "clusters": 20, "student_steps": 40, "networks": 1, "class_sizes": [5], "dtype": "float32",
}  # fmt: skip


class Linear(nn.Module):
    """(B, 3) -> (B, 5) -> (B, 3), which ignores the noise level."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 3)

    def forward(self, x, sigma):
        return self.last(self.first(x).relu())


class Counted(TorchDispatchMode):
    """All operations of what runs inside."""

    total = 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        out = function(*arguments, **(named or {}))
        if (count := flop_registry.get(function._overloadpacket)) is not None:
            self.total += count(*arguments, **(named or {}), out_val=out)
        return out


def test_operations_of_two_layers_by_hand():
    assert cost.operations(Linear, (3,)) == 2 * (3 * 5 + 5 * 3)
    assert cost.operations(Linear, (3,), gradient=True) == 2 * 2 * (3 * 5 + 5 * 3)  # back through both layers
    assert cost.weights(Linear) == 4 * (3 * 5 + 5 + 5 * 3 + 3)


def test_a_sweep_of_the_paper_is_as_large_as_is_known():
    """51 weights x 50,000 images x 50 steps of a network of 114 M weights at 128 pixels: 1.6e19 operations."""
    paper = study.SCALES["paper"]
    network = Network("unet", (3, 128, 128), 0, paper.widths, 0.5)
    assert 51 * 50_000 * 50 * cost.operations(network.build, (3, 128, 128)) == pytest.approx(1.6e19, rel=0.1)
    assert cost.weights(network.build) == pytest.approx(4 * 114e6, rel=0.1)


def test_the_estimate_is_what_a_run_does(tmp_path, monkeypatch):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    settings, counted = changed(study.SCALES["fast"], SMALL), Counted()
    with counted:
        study.run(settings, begin("test", processes=1), ["arms", "theory"])
    estimate = sum(one.operations for one in study.work(settings))
    assert 0.75 * estimate < counted.total < 1.15 * estimate


@pytest.mark.parametrize("arm", ["unseen", "obtuse, printed"])
def test_a_training_of_sgu_costs_what_is_estimated(arm):
    settings = changed(sgu.SCALES["fast"], {"train_steps": 20, "latent": 48})
    z, counted = torch.randn(40, 48), Counted()
    with counted:
        arms.trained(begin("test"), arms.plan(arm, "VE", 0, settings), z, torch.arange(40) < 10, 1.0)
    (estimate,) = (one.operations for one in sgu.work(settings) if one.stage == "training from scratch")
    known = len(networks_of(settings, [name for name in sgu.GROUPS if name != "toy"], range(settings.n_seeds)))
    assert 0.75 * estimate / known < counted.total < 1.1 * estimate / known


def test_hours_are_shared_by_devices():
    work = cost.Work("sampling", 7.2e18)
    assert work.hours(rate=1e15) == 2 and work.hours(devices=8, rate=1e15) == 0.25


def test_the_command_prints_a_table(capsys):
    assert main(["cost", "02", "--devices", "8"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["stage", "operations", "hours", "GB"] and lines[5].split()[0] == "all"
    total = sum(one.operations for one in study.work(study.SCALES["paper"]))
    assert float(lines[5].split()[2]) == pytest.approx(total / (8 * 4e14) / 3600, rel=0.06)
    assert main(["cost", "02", "--scale", "fast", "-s", "n_samples=10"]) == 1
    assert main(["cost", "02", "--devices", "0"]) == 1
    assert main(["cost", "01"]) == 1
    assert "chapter 01_gaussian_mixtures has no estimate" in capsys.readouterr().err


def test_a_network_is_counted_without_memory():
    """A layer of 40 GB."""

    class Huge(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(100_000, 100_000)

        def forward(self, x, sigma):
            return self.layer(x)

    assert cost.operations(Huge, (100_000,)) == 2e10
    assert torch.empty(0).device.type == "cpu"
