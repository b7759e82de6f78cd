"""What a run would cost: operations by hand, against those of a run that is counted, and the table of the command."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from memlib import cost
from memlib.cli import main
from memlib.papers import studies
from memlib.papers.gaussian import study as gaussian
from memlib.papers.gaussian.study import labels, unlearning
from memlib.papers.i2i import study as i2i
from memlib.papers.i2i.study import ablations, comparison, models, tasks, world
from memlib.papers.learning_rate import study as learning_rate
from memlib.papers.learning_rate.study import experiment
from memlib.papers.learning_rate.study.inputs import inputs_of
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


def stages(study, settings):
    return {one.stage: one.operations for one in study.work(settings)}


def test_the_networks_of_chapter_1_cost_what_is_estimated(monkeypatch, tmp_path):
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    values = {"train_steps": 20, "n_samples": 100, "n_seeds": 2, "batch": 64, "n_labelled": 100}
    settings, run = changed(gaussian.SCALES["fast"], values), begin("test", processes=1)
    torch.set_default_dtype(torch.float64)
    try:
        with Counted() as trained:
            every = [(arm, seed) for arm in unlearning.ARMS for seed in range(2)]
            states = [unlearning.network(*unlearning.inputs(settings, run, *one)) for one in every]
        nets = [unlearning.load(state, settings.width, run.device) for state in states]
        grid = unlearning.karras(30, unlearning.LOW, unlearning.HIGH)
        with Counted() as drawn:
            for net in nets:
                unlearning.heun(net, unlearning.start(grid, range(settings.n_samples), (2,)), grid)
            labels.encode(nets[0], torch.zeros(settings.n_labelled, 2))
    finally:
        torch.set_default_dtype(torch.float32)
    estimate = stages(gaussian, settings)
    assert 0.85 * estimate["training"] < trained.total < 1.05 * estimate["training"]
    assert drawn.total == pytest.approx(estimate["samples"], rel=0.01)


@pytest.mark.parametrize("family", ["mae", "vqgan", "diffusion", "masked code"])
def test_the_models_of_chapter_3_cost_what_is_estimated(family, monkeypatch, tmp_path):
    """The main models and, in the first family, those that learn several holes, of which a step draws one."""
    pytest.importorskip("transformers")
    pytest.importorskip("diffusers")
    monkeypatch.setenv("MEMLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.backends.mha, "_is_fastpath_enabled", False)
    values = {
        "families": [family], "n_seeds": 2, "train_steps": 4, "unlearn_steps": 3, "diffusion_steps": [4, 3],
        "width": 32, "batch": 4, "ablations": ["crops", "alpha", "data", "noise", "tasks", "probe"],
    }  # fmt: skip
    settings, run = changed(i2i.SCALES["fast"], values), begin("test", processes=1)
    here = world.worlds(settings, run)[0]
    plan, judges = models.plan_for(settings, family, here), comparison.judges_of(settings)
    hole, many = comparison.main_hole(plan, judges), ablations.crops_hole(plan, settings.crops)
    finer = models.plan_for(tasks.on_finer_grid(settings), family, here)
    draw = partial(models.any_of, tuple(partial(tasks.hole, finer, *one, 0) for one in seven_tasks(finer)))
    with Counted() as trained, sdpa_kernel(SDPBackend.MATH):
        first, second = models.original(run, plan, here, hole), models.original(run, plan, here, many)
        models.original(run, plan, here, hole, groups="RP")
        third = models.original(run, finer, here, draw, steps=tasks.LONGER * plan.train_steps)
    methods = i2i.costs.parts_of(settings, plan)[0].methods
    longer = replace(finer, unlearn_steps=tasks.LONGER * plan.unlearn_steps)
    with Counted() as moved, sdpa_kernel(SDPBackend.MATH):
        for number, method in enumerate(methods):
            models.unlearned(run, plan, here, first, hole, method, 0.5 + number)
        for method in ("as released", "Max Loss", "Retain Label"):
            models.unlearned(run, plan, here, second, many, method, 0.5)
        models.unlearned(run, longer, here, third, draw, "as released", 0.5)
    estimate = stages(i2i, settings)
    # Methods and the retain term alone; then weights, kinds of noise and retain images that are not among them.
    assert len(methods) == 7 + (4 + 2) + 4 + 3
    assert trained.total == pytest.approx(estimate[f"training, {family}"] / 2, rel=0.1)
    assert moved.total == pytest.approx(estimate[f"unlearning, {family}"] / 2, rel=0.1)


def test_a_step_of_the_encoder_alone_costs_less_than_a_step_of_all():
    settings = changed(i2i.SCALES["fast"], {"width": 32})
    head, mine, whole = i2i.costs.of_a_step(settings)
    plan = i2i.costs._plan(settings, "mae")
    model = models.build(plan)
    both = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder)]
    assert mine == ["mae", "as released", "encoder", f"{both[0]:,}", "1.00"] and len(head) == 5
    assert whole[2:4] == ["encoder and decoder", f"{sum(both):,}"] and float(whole[4]) > 1.1


def seven_tasks(plan):
    return [(task, ratio) for (task, _), ratio in tasks.jobs_of(plan, 0).items()]


def test_a_checkpoint_is_counted_as_it_is_and_not_trained(tmp_path):
    """A ViT-MAE of the reader's, wider than what would be trained here."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTMAEConfig(
        image_size=16, patch_size=4, hidden_size=96, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
        decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )  # fmt: skip
    transformers.ViTMAEForPreTraining(config).save_pretrained(tmp_path)
    (found,) = i2i.work(changed(i2i.SCALES["fast"], {"checkpoint": str(tmp_path)}))
    assert found.stage == "unlearning, mae"
    assert found.operations > stages(i2i, i2i.SCALES["fast"])["unlearning, mae"]


class Elementwise(Counted):
    """As `Counted`; and products and sums over a large tensor, by which a network on a line does its layers."""

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        out = super().__torch_dispatch__(function, types, arguments, named)
        each = {"addcmul": 2, "mul": 1, "sum": 1}.get(function._overloadpacket.__name__, 0)
        large = next((x.numel() for x in (arguments[0], out) if isinstance(x, torch.Tensor) and x.dim() == 3), 0)
        self.total += each * max(large, out.numel() if isinstance(out, torch.Tensor) else 0)
        return out


@pytest.mark.parametrize(
    ("group", "call"),
    [
        ("gaps", "spacing 1.0"), ("edge", "leaving"), ("edge", "sharpness, mini-batch"), ("dimensions", "d 4"),
        ("digits", "SGD"), ("relaxations", "relaxed free first layer"), ("relaxations", "relaxed two hidden layers"),
    ],
)  # fmt: skip
def test_the_networks_of_chapter_5_cost_what_is_estimated(group, call):
    """A call of every kind; looks along so short a training cost up to a third more."""
    values = {
        "n_runs": 2, "n_levels": 4, "width": 16, "steps": 900, "dims": [4], "dim_width": 32, "dim_steps": 90,
        "image_steps": 200, "image_batch": 512, "sgd_rates": [0.1], "edge_steps": 40, "sharpness_at": [10, 20, 3000],
    }  # fmt: skip
    given = inputs_of(changed(learning_rate.SCALES["fast"], values), begin("test", processes=1))
    _, make, inputs = experiment.calls_of(given, [group])[call]
    with Elementwise() as counted:
        make(*inputs)
    estimate = learning_rate.costs.operations_of(make, inputs)
    assert 0.9 * estimate < counted.total < 1.35 * estimate


def test_what_two_groups_share_costs_once():
    found = stages(learning_rate, learning_rate.SCALES["fast"])
    assert list(found) == [name for name in learning_rate.GROUPS if name != "smoothness"]  # it reads L1's networks


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
    assert main(["cost", "06", "--scale", "gpu"]) == 1
    assert "chapter 06_synthesis has no estimate" in capsys.readouterr().err


def test_every_chapter_has_an_estimate_of_its_paper_scale_or_says_that_it_has_no_such_scale(capsys):
    for one in studies().values():
        chapter = one.CHAPTER
        ended = main(["cost", chapter])
        out, told = capsys.readouterr()
        if "paper" in one.SCALES:
            assert ended == 0 and out.splitlines()[-2].split()[0] == "all" and not told
        else:
            assert ended == 1 and f"chapter {chapter} has no scale 'paper': choose 'fast' or" in told


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


def test_the_page_has_every_chapter(monkeypatch):
    """With its stages and their sum, or the sentence that it has no scale `paper`."""
    pytest.importorskip("sphinx")
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(root / "book" / "_ext")
    page = importlib.import_module("cost")
    rows = page.body(root)
    assert {len(row) for row in rows} == {len(page.HEAD)}
    for name, one in studies().items():
        mine = [row for row in rows if row[0] == name]
        if "paper" in one.SCALES:
            assert [row[1] for row in mine] == [*stages(one, one.SCALES["paper"]), "all"] and mine[-1][-1]
        else:
            assert len(mine) == 1 and "no scale paper" in mine[0][1]
    told = (root / "book" / "howto-scale.md").read_text(encoding="utf8")
    assert all(f"`{name}`" in told for name in studies())
