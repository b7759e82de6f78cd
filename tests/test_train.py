"""Training against closed forms, PyTorch's own schedule and clipping, and against itself after a kill."""

import copy
import inspect
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from memlib import nets
from memlib.denoiser import pair
from memlib.errors import Refused
from memlib.noise import lognormal
from memlib.random import keyed
from memlib.train import Diverged, fit, learning_rate, train


def small_net(dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    first = nn.Linear(3, 8, bias=False)  # a bias here would have the gradient 0, and Adam would magnify its rounding
    return nn.Sequential(first, nn.BatchNorm1d(8), nn.Dropout(dropout), nn.SiLU(), nn.Linear(8, 1))


def noisy_loss(net: nn.Module, generator: torch.Generator) -> torch.Tensor:
    x = torch.randn(16, 3, generator=generator).to(next(net.parameters()).dtype)
    return (net(x) - x.sum(1, keepdim=True).sin()).square().mean()


def bits(*nets: nn.Module) -> list[bytes]:
    return [t.detach().numpy().tobytes() for net in nets for t in net.state_dict().values()]


def test_least_squares_reaches_the_normal_equations():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(50, 1, generator=generator, dtype=torch.float64)
    net = nn.Linear(3, 1, bias=False).double()
    steps = list(fit(net, lambda net, _: (net(x) - y).square().mean(), 600, lr=0.05))
    torch.testing.assert_close(net.weight.T, torch.linalg.lstsq(x, y).solution, atol=1e-5, rtol=0)
    assert [s.index for s in steps] == list(range(600))
    assert steps[-1].grad_norm < 1e-4 < steps[0].grad_norm


def test_the_steps_are_those_of_adam_on_the_clipped_gradient():
    net, peer = small_net().double(), small_net().double()
    optimiser = torch.optim.AdamW(peer.parameters(), 0.01, weight_decay=0.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=30)
    for k, step in enumerate(fit(net, noisy_loss, 30, lr=0.01, clip=0.3, seed=5)):
        optimiser.zero_grad()
        noisy_loss(peer, keyed(5, k)).backward()
        norm = nn.utils.clip_grad_norm_(peer.parameters(), 0.3)
        torch.testing.assert_close(step.grad_norm, norm)
        assert step.lr == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        scheduler.step()
    for ours, theirs in zip(net.state_dict().values(), peer.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_schedules():
    assert [learning_rate(k, 10, 2.0, "constant", warmup=4) for k in (0, 1, 3, 4, 9)] == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert learning_rate(4, 10, 2.0, warmup=4) == 2.0
    assert learning_rate(7, 10, 2.0, warmup=4) == pytest.approx(1.0)


def test_the_running_average_follows_its_recursion():
    net = small_net()
    ema = copy.deepcopy(net)
    expected = [p.detach().clone() for p in net.parameters()]
    for k, _ in enumerate(fit(net, noisy_loss, 40, ema=ema, decay=0.6)):
        keep = min(0.6, (1 + k) / (10 + k))
        expected = [keep * e + (1 - keep) * p.detach() for e, p in zip(expected, net.parameters(), strict=True)]
    for ours, e in zip(ema.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, e, atol=1e-6, rtol=1e-5)
    assert ema[1].num_batches_tracked == 40
    torch.testing.assert_close(ema[1].running_mean, net[1].running_mean)
    assert not ema.training


def test_neighbouring_seeds_and_steps_share_no_randomness():
    draws = {torch.randn((), generator=keyed(seed, step)).item() for seed in range(30) for step in range(30)}
    assert len(draws) == 900
    torch.testing.assert_close(torch.rand(5, generator=keyed(3, 4)), torch.rand(5, generator=keyed(3, 4)))


def test_dropout_is_keyed_and_the_global_generator_left_alone():
    first, second = small_net(0.5), small_net(0.5)
    list(fit(first, noisy_loss, 5))
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    list(fit(second, noisy_loss, 5))
    torch.testing.assert_close(torch.rand(3), expected)
    assert bits(first) == bits(second)
    third = small_net(0.5)
    list(fit(third, noisy_loss, 5, seed=1))
    assert bits(third) != bits(first)


def test_the_caller_may_evaluate_between_steps():
    plain, watched = small_net(), small_net()
    list(fit(plain, noisy_loss, 6))
    for _ in fit(watched, noisy_loss, 6):
        watched.eval()
    assert bits(plain) == bits(watched)


@pytest.mark.parametrize("stop", [1, 7, 13])
def test_resume_is_bitwise_equal(tmp_path, stop):
    whole, whole_ema = small_net(0.2), small_net(0.2)
    list(fit(whole, noisy_loss, 20, ema=whole_ema, seed=3))
    for _ in range(2):  # interrupted `stop` steps in; then, with other initial weights, to the end
        net = small_net(0.2)
        net[0].weight.data.add_(1.0)
        ema = copy.deepcopy(net)
        if not (tmp_path / "training.safetensors").exists():
            net, ema = small_net(0.2), small_net(0.2)
            steps = fit(net, noisy_loss, 20, ema=ema, seed=3, checkpoint=tmp_path, every=1)
            for _ in range(stop):
                next(steps)
            steps.close()
            continue
        steps = list(fit(net, noisy_loss, 20, ema=ema, seed=3, checkpoint=tmp_path, every=1))
    assert [s.index for s in steps] == list(range(stop, 20))
    assert bits(net, ema) == bits(whole, whole_ema)
    again, again_ema = small_net(0.2), small_net(0.2)
    assert list(fit(again, noisy_loss, 20, ema=again_ema, seed=3, checkpoint=tmp_path, every=1)) == []
    assert bits(again, again_ema) == bits(whole, whole_ema)


SCRIPT = """
import copy, sys, time, torch
sys.path[:0] = [{root!r}, {tests!r}]
from test_train import noisy_loss, small_net
from memlib.train import fit
net = small_net(0.2)
ema = copy.deepcopy(net)
def slow(net, generator):
    time.sleep(0.004)
    return noisy_loss(net, generator)
for step in fit(net, slow, 80, ema=ema, seed=8, checkpoint={checkpoint!r}, every=1):
    pass
torch.save([net.state_dict(), ema.state_dict()], {result!r})
"""


def step_of(checkpoint: Path) -> int:
    if not checkpoint.exists():
        return 0
    with safe_open(checkpoint, "pt") as file:
        return int(file.get_tensor("adam.0.step"))


def test_kill_nine_in_the_middle_leaves_the_same_bits(tmp_path):
    checkpoint, result = tmp_path / "training.safetensors", tmp_path / "result.pt"
    tests = Path(__file__).parent
    code = SCRIPT.format(root=str(tests.parent), tests=str(tests), checkpoint=str(tmp_path), result=str(result))
    environment = os.environ | {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 60
    while step_of(checkpoint) < 20 and time.monotonic() < deadline:
        assert run.poll() is None
        time.sleep(0.003)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert 20 <= step_of(checkpoint) < 80
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    whole, whole_ema = small_net(0.2), small_net(0.2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    list(fit(whole, noisy_loss, 80, ema=whole_ema, seed=8))
    torch.set_num_threads(threads)
    for expected, found in zip((whole, whole_ema), torch.load(result), strict=True):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, found[name]), name


@pytest.mark.parametrize("call", ["cache.checkpoints.save_file", "cache.atomic.os.fsync", "cache.atomic.os.replace"])
def test_a_save_that_dies_halfway_leaves_the_one_before(tmp_path, monkeypatch, call):
    whole = small_net()
    list(fit(whole, noisy_loss, 8))
    steps = fit(small_net(), noisy_loss, 8, checkpoint=tmp_path, every=2)
    for _ in range(3):
        next(steps)

    def killed(*args):
        if call.endswith("save_file"):
            Path(args[1]).write_bytes(b"half a file")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"memlib.{call}", killed)
        with pytest.raises(KeyboardInterrupt):
            next(steps)
    assert step_of(tmp_path / "training.safetensors") == 2
    net = small_net()
    assert len(list(fit(net, noisy_loss, 8, checkpoint=tmp_path, every=2))) == 6
    assert bits(net) == bits(whole)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_stops_with_a_sentence_and_keeps_the_last_good_state(tmp_path, bad):
    calls = []

    def loss(net, generator):
        calls.append(1)
        return noisy_loss(net, generator) * (bad if len(calls) == 6 else 1.0)

    net = small_net()
    with pytest.raises(Diverged, match=r"step 5, with loss (nan|inf), .* lr 0\.001.*holds the last good"):
        list(fit(net, loss, 20, schedule="constant", checkpoint=tmp_path, every=2))
    assert all(t.isfinite().all() for t in net.parameters())
    assert step_of(tmp_path / "training.safetensors") == 4


def test_an_infinite_gradient_of_a_finite_loss_stops_too():
    net = nn.Linear(1, 1)
    nn.init.zeros_(net.weight)
    with pytest.raises(Diverged, match="at step 0, with loss 0, gradient norm (nan|inf)"):
        list(fit(net, lambda net, _: net.weight.abs().sqrt().sum(), 3))


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    list(fit(small_net(), noisy_loss, 4, schedule="constant", checkpoint=tmp_path, ema=small_net()))

    def again(net=None, steps=4, ema=None, **changed):
        settings = {"schedule": "constant", "checkpoint": tmp_path, **changed}
        return list(fit(net or small_net(), noisy_loss, steps, ema=ema or small_net(), **settings))

    with pytest.raises(Refused, match="made with lr=0.001, not 0.01"):
        again(lr=0.01)
    with pytest.raises(Refused, match="made with seed=0, not 1"):
        again(seed=1)
    with pytest.raises(Refused, match="made with schedule=constant, not cosine"):
        again(schedule="cosine")
    with pytest.raises(Refused, match="of another network"):
        again(nn.Linear(3, 1), ema=nn.Linear(3, 1))
    with pytest.raises(Refused, match="at step 4, beyond steps=2"):
        again(steps=2)
    assert len(again(steps=6)) == 2  # a constant rate may go on for longer
    (tmp_path / "training.safetensors").write_bytes(b"half a file")
    with pytest.raises(Refused, match="is not a training checkpoint"):
        again()


def test_tied_weights_are_saved(tmp_path):
    def tied() -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
        net[2].weight = net[0].weight
        return net

    whole, net = tied(), tied()
    list(fit(whole, noisy_loss, 6))
    steps = fit(net, noisy_loss, 6, checkpoint=tmp_path / "tied.safetensors", every=1)
    next(steps), next(steps)
    net = tied()
    list(fit(net, noisy_loss, 6, checkpoint=tmp_path / "tied.safetensors", every=1))
    assert bits(net) == bits(whole)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"schedule": "linear"}, "cosine or constant, not 'linear'"),
        ({"warmup": 5}, "0 <= warmup < steps, not 5, 500, 5"),
        ({"lr": 0.0}, "need lr > 0"),
        ({"precision": "fp16"}, "bf16, fp32 or None, not 'fp16'"),
        ({"precision": "bf16"}, "needs a GPU with bfloat16"),
    ],
)
def test_settings_without_sense_are_refused(settings, sentence):
    with pytest.raises(Refused, match=sentence):
        list(fit(nn.Linear(3, 1), noisy_loss, 5, **settings))


def test_refusals_about_the_network_and_the_loss():
    net = nn.Linear(3, 1)
    with pytest.raises(Refused, match=r"scalar, not of shape \(16, 3\)"):
        list(fit(net, lambda net, g: net.weight * torch.ones(16, 3), 2))
    with pytest.raises(Refused, match="give a copy.deepcopy"):
        list(fit(net, noisy_loss, 2, ema=net))
    with pytest.raises(Refused, match="nothing to train"):
        list(fit(net.requires_grad_(False), noisy_loss, 2))


# As a statement, and what is checked at the call.


def test_a_statement_that_trains_nothing_says_so():
    """A newcomer writes `fit(...)` and goes on to sample: nothing is trained, and it is not silent."""
    net = small_net()
    before = bits(net)
    with pytest.warns(
        UserWarning, match=r"nothing was trained: iterate over fit\(\.\.\.\) of 200 steps, or call train.train"
    ):
        fit(net, noisy_loss, steps=200)
    with pytest.warns(UserWarning, match="nothing was trained"):
        steps = fit(net, noisy_loss, steps=200)
        assert "nothing was trained" in repr(steps)  # what a notebook shows, which keeps it for later
        del steps
    assert bits(net) == before


def test_a_training_that_was_begun_warns_of_nothing(recwarn):
    steps = fit(small_net(), noisy_loss, 3)
    next(steps)
    assert "nothing" not in repr(steps)
    del steps
    fit(small_net(), noisy_loss, 3).close()
    list(fit(small_net(), noisy_loss, 3))
    with pytest.raises(Refused):
        fit(small_net(), noisy_loss, 0)
    assert not recwarn.list


def test_train_is_the_whole_loop(tmp_path):
    looped, called = small_net(), small_net()
    looped_ema, called_ema = copy.deepcopy(looped), copy.deepcopy(called)
    for _ in fit(looped, noisy_loss, 20, seed=4, ema=looped_ema):
        pass
    assert train(called, noisy_loss, steps=20, seed=4, ema=called_ema, checkpoint=str(tmp_path)) is called_ema
    assert bits(called, called_ema) == bits(looped, looped_ema)
    assert train(called, noisy_loss, steps=2) is called


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (lambda net: {"loss": "no loss", "steps": -5}, "need steps >= 1, every >= 1 .*, not -5, 500, 0"),
        (lambda net: {"loss": "no loss"}, "the loss is 'no loss': give a function"),
        (lambda net: {"net": "unet"}, "fit trains a network, an nn.Module, not a str"),
        (lambda net: {"steps": 10.5}, "steps is 10.5: give a whole number"),
        (lambda net: {"steps": "10"}, "steps is '10': give a whole number"),
        (lambda net: {"lr": math.nan}, "need lr > 0 .*lr=nan"),
        (lambda net: {"clip": 0.0}, "clip is the largest norm of the gradient, above 0, or None .*, not 0.0"),
        (lambda net: {"seed": 2**64}, "seed is 18446744073709551616, beyond 64 bits"),
        (lambda net: {"ema": nn.Linear(3, 8)}, "ema has other tensors than the network: give a copy.deepcopy of it"),
        (lambda net: {"ema": copy.copy(net)}, "ema shares 0.weight with the network: give a copy.deepcopy"),
        (lambda net: {"schedule": "linear"}, "cosine or constant"),
        (lambda net: {"precision": "fp16"}, "bf16, fp32 or None"),
    ],
)
def test_arguments_are_checked_at_the_call(arguments, sentence):
    net = small_net()
    with pytest.raises(Refused, match=sentence):
        fit(**{"net": net, "loss": noisy_loss, "steps": 5} | arguments(net))


def test_a_loss_of_nothing_is_refused():
    net = small_net()
    with pytest.raises(Refused, match="scalar tensor, not a float"):
        train(net, lambda net, _: 1.0, 2)
    with pytest.raises(Refused, match="depends on no parameter of the network"):
        train(net, lambda net, _: torch.ones(()), 2)


# Randomness outside of the generator, and state outside of the weights.


def careless_loss(net: nn.Module, generator: torch.Generator) -> torch.Tensor:
    """Draws from torch's global generator, as `torch.randn_like` does."""
    x = torch.randn(16, 3)
    return (net(x) - torch.randn_like(x).sum(1, keepdim=True)).square().mean()


@pytest.mark.parametrize("loss", [careless_loss, lambda net, _: net(lognormal(48).reshape(16, 3)).square().mean()])
def test_a_loss_with_random_numbers_of_its_own_resumes_bitwise(tmp_path, loss):
    whole, net = small_net(), small_net()
    torch.manual_seed(1)
    list(fit(whole, loss, 12))
    torch.manual_seed(2)
    steps = fit(net, loss, 12, checkpoint=tmp_path, every=1)
    for _ in range(5):
        next(steps)
    steps.close()
    torch.manual_seed(3)
    again = small_net()
    assert len(list(fit(again, loss, 12, checkpoint=tmp_path, every=1))) == 7
    assert bits(again) == bits(whole)


def test_noise_has_no_default_in_training():
    parameter = inspect.signature(inspect.unwrap(pair)).parameters["noise"]
    assert parameter.default is inspect.Parameter.empty


def test_a_checkpoint_holds_the_spread_of_the_data(tmp_path):
    """A model of 0.5 that goes on in a network built for 5.0 is the model of 0.5; and so is its average."""

    def network(spread):
        torch.manual_seed(0)
        return nets.Preconditioned(nets.MLP(3, 8, 1), spread)

    def loss(net, generator):
        x0 = torch.randn(8, 3, generator=generator)
        return (net(x0, 0.5) - x0).square().mean()

    whole, ema = network(0.5), network(0.5)
    list(fit(whole, loss, 6, ema=ema))
    steps = fit(network(0.5), loss, 6, ema=network(0.5), checkpoint=tmp_path, every=1)
    next(steps), next(steps), steps.close()
    again, again_ema = network(5.0), network(5.0)
    list(fit(again, loss, 6, ema=again_ema, checkpoint=tmp_path, every=1))
    assert bits(again, again_ema) == bits(whole, ema) and again.sigma_data == 0.5


class Plain(nn.Module):
    """A network with settings that no state_dict holds."""

    def __init__(self, factor=1.0, kind="a", levels=(1.0, 2.0)):
        super().__init__()
        self.layer, self.factor, self.kind, self.levels = nn.Linear(3, 1), factor, kind, torch.tensor(levels)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.factor * self.layer(x)


@pytest.mark.parametrize("changed", [{"factor": 2.0}, {"kind": "b"}, {"levels": (1.0, 3.0)}])
def test_a_checkpoint_of_a_network_with_other_settings_is_refused(tmp_path, changed):
    net = Plain()
    list(fit(net, noisy_loss, 3, checkpoint=tmp_path))
    assert list(fit(net, noisy_loss, 3, checkpoint=tmp_path)) == []
    with pytest.raises(Refused, match="of another network"):
        list(fit(Plain(**changed), noisy_loss, 3, checkpoint=tmp_path))


def test_a_checkpoint_of_other_groups_is_of_another_network(tmp_path):
    for groups in (2, 4):
        net = nn.Sequential(nn.Linear(3, 8), nn.GroupNorm(groups, 8))
        run = fit(net, lambda net, g: net(torch.ones(2, 3)).square().mean(), 2, checkpoint=tmp_path)
        if groups == 4:
            with pytest.raises(Refused, match="of another network"):
                list(run)
        else:
            list(run)
