"""Networks: shapes, the preconditioning's promises, and that each can be trained to beat the linear denoiser."""

import copy

import pytest
import torch
from diffusers import EDMEulerScheduler

from memlib import losses, nets, noise
from memlib.denoiser import pair
from memlib.errors import Refused

NETS = {
    "mlp": lambda: (nets.MLP(3), (3,)),
    "residual": lambda: (nets.ResidualMLP((1, 4, 4), width=64), (1, 4, 4)),
    "unet": lambda: (nets.UNet(8, 1, (16, 32), layers=1), (1, 8, 8)),
}


@pytest.mark.parametrize("name", NETS)
def test_levels_as_float_scalar_or_per_sample(name):
    torch.manual_seed(0)
    net, shape = NETS[name]()
    denoise = nets.Preconditioned(net).eval()
    for parameter in denoise.parameters():  # some layers start at 0; the time code must reach the output
        torch.nn.init.normal_(parameter, std=0.1)
    x = torch.randn(3, *shape)
    for level in (0.5, torch.tensor(0.5), torch.tensor([0.5])):
        torch.testing.assert_close(denoise(x, level), denoise(x, torch.full((3,), 0.5)))
    assert denoise(x, 0.5).shape == x.shape and torch.equal(denoise(x, 0.0), x)
    bare = [net(x, torch.full((3,), t)) for t in (-1.0, 0.5)]
    assert (bare[0] - bare[1]).abs().max() > 1e-4


@pytest.mark.parametrize(
    "net", [nets.Preconditioned(nets.ResidualMLP((3,), width=8)), nets.Classifier(nets.LabelMLP(2, (3,), width=8))]
)
def test_the_time_is_computed_once_for_a_batch_at_one_level(net):
    rows = []
    net.net.code.register_forward_hook(lambda *call: rows.append(len(call[2])))
    for level in (0.5, torch.tensor(0.5), torch.full((5,), 0.5)):
        net(torch.randn(5, 3), level)
    assert rows == [1, 1, 5]


def test_preconditioning_is_karras_table_1():
    """Coefficients against diffusers' EDM scheduler; the weight makes F's error count equally."""
    theirs = EDMEulerScheduler(sigma_data=0.5)
    x, sigma = torch.randn(4, 2, dtype=torch.float64), 0.37
    seen = {}

    class Constant(torch.nn.Module):
        def forward(self, scaled, t):
            seen.update(x=scaled, t=t)
            return torch.full_like(scaled, 0.3)

    wrapped = nets.Preconditioned(Constant(), 0.5)
    got = wrapped(x, sigma)
    torch.testing.assert_close(seen["x"], theirs.precondition_inputs(x, sigma))
    torch.testing.assert_close(got, theirs.precondition_outputs(x, torch.full_like(x, 0.3), sigma))
    torch.testing.assert_close(seen["t"], torch.full((4,), sigma, dtype=torch.float64).log() / 4)
    level = torch.tensor([sigma], dtype=torch.float64)
    c_out = sigma * 0.5 / (sigma**2 + 0.25) ** 0.5
    torch.testing.assert_close(wrapped.weight(level), (sigma / c_out) ** 2 * torch.ones_like(level))


@pytest.mark.parametrize("name", NETS)
def test_a_few_steps_beat_the_linear_denoiser(name):
    """The data are two clusters: the best linear denoiser cannot tell them apart, a network soon does."""
    torch.manual_seed(0)
    net, shape = NETS[name]()
    denoise = nets.Preconditioned(net, sigma_data=0.5)
    centre = torch.full(shape, 0.5)
    optimiser = torch.optim.Adam(denoise.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        sign = torch.randint(2, (64,), generator=generator) * 2 - 1
        x0 = sign.reshape(-1, *[1] * len(shape)) * centre
        sigma = noise.lognormal(64, -0.5, 1.0, generator)
        loss = losses.denoising(*pair(denoise, x0, sigma, noise.noise_from(generator)), denoise.weight(sigma)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    x0 = torch.cat([centre[None], -centre[None]]).repeat(64, *[1] * len(shape))
    sigma = torch.full((128,), 0.5)
    with torch.no_grad():
        eps_hat, eps = pair(denoise, x0, sigma, noise.noise_from(generator))
        x = x0 + 0.5 * eps
        linear = (x - 0.25 / (0.25 + 0.25) * x) / 0.5
    assert losses.denoising(eps_hat, eps).mean() < 0.8 * losses.denoising(linear, eps).mean()


def test_unet_refuses_what_cannot_be_halved():
    with pytest.raises(ValueError, match="10 pixels cannot be halved 2 times"):
        nets.UNet(10, widths=(32, 32, 32))


CLASSIFIERS = {
    "resnet": lambda time: (nets.ResNet(5, 2, (8, 16), (1, 2), time=time), (2, 8, 8)),
    "imagenet": lambda time: (nets.ResNet(5, 3, (8, 16, 32), (1, 1, 1), "7x7", time), (3, 32, 32)),
    "mlp": lambda time: (nets.LabelMLP(5, (6,), 32, time=time), (6,)),
}


def classifier(name, time=True):
    """One in eval mode, with weights and running statistics as if trained, and a batch for it."""
    torch.manual_seed(0)
    net, shape = CLASSIFIERS[name](time)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for key, buffer in net.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            torch.nn.init.uniform_(buffer, 0.5, 1.5)
    return nets.Classifier(net, 0.5).double().eval(), torch.randn(4, *shape, dtype=torch.float64)


@pytest.mark.parametrize("name", CLASSIFIERS)
class TestEveryClassifier:
    """Of noisy samples: with time and without."""

    def test_levels_as_float_scalar_or_per_sample(self, name):
        net, x = classifier(name)
        for level in (0.7, torch.tensor(0.7), torch.tensor([0.7])):
            torch.testing.assert_close(net(x, level), net(x, torch.full((4,), 0.7)))
        assert net(x, 0.7).shape == (4, 5) and (net(x, 0.7) - net(x, 0.9)).abs().max() > 1e-3
        assert torch.isfinite(net(x, 0.0)).all()

    def test_without_time_sigma_does_nothing(self, name):
        net, x = classifier(name, time=False)
        assert not net.time and not any("code" in key or "film" in key for key in net.state_dict())
        assert torch.equal(net(x, 0.01), net(x, torch.tensor([0.0, 1, 20, 80]).double()))

    def test_a_row_is_judged_alone(self, name):
        net, x = classifier(name)
        before = {key: buffer.clone() for key, buffer in net.named_buffers()}
        sigma = torch.tensor([0.1, 0.5, 2, 20], dtype=torch.float64)
        together = net(x, sigma)
        for i in range(4):
            torch.testing.assert_close(net(x[i : i + 1], sigma[i : i + 1])[0], together[i])
        assert all(torch.equal(buffer, before[key]) for key, buffer in net.named_buffers())

    @pytest.mark.parametrize("time", [True, False])
    def test_gradients_reach_the_sample_and_every_weight(self, name, time):
        net, x = classifier(name, time)
        x.requires_grad_()
        net(x, 0.7)[range(4), [0, 1, 2, 3]].sum().backward()
        assert x.grad.flatten(1).norm(dim=1).min() > 0
        assert all(p.grad is not None and p.grad.any() for p in net.parameters())

    def test_bf16_autocast_runs_it(self, name):
        net, x = classifier(name)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.isfinite(net.float()(x.float(), 0.7)).all()


def test_a_classifier_is_scaled_like_a_denoiser():
    x, sigma = torch.randn(4, 2, dtype=torch.float64), torch.tensor([0.0, 0.1, 3, 80], dtype=torch.float64)
    seen = []

    class Listening(torch.nn.Module):
        time = True

        def forward(self, scaled, t):
            seen.append((scaled, t))
            return scaled

    net = Listening()
    nets.Classifier(net, 0.5)(x, sigma)
    nets.Preconditioned(net, 0.5)(x, sigma)
    (ours, code), (theirs, wanted) = seen
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(code[1:], wanted[1:])
    assert code[0] == -2  # sigma = 0, as far down as the time code tells levels apart
    net.time = False
    nets.Classifier(net, 0.5)(x, sigma)
    torch.testing.assert_close(seen[-1][0], 2 * x)


def test_resnet34_is_that_of_he_et_al():
    """Parameter count of the published network with 1,000 classes (torchvision's resnet34), its sizes, and time."""
    plain, timed = nets.resnet34(1000, time=False), nets.resnet34(1000)
    count = {net: sum(p.numel() for p in net.parameters()) for net in (plain, timed)}
    assert count[plain] == 21_797_672
    channels = 3 * 64 + 4 * 128 + 6 * 256 + 3 * 512
    assert count[timed] - count[plain] == (64 + 1) * 128 + (128 + 1) * 2 * channels
    sizes = []
    for block in plain.blocks:
        block.register_forward_hook(lambda _module, _given, out: sizes.append(tuple(out.shape[1:])))
    plain.eval()(torch.randn(1, 3, 128, 128), torch.zeros(1))
    stages = [(64, 32, 32)] * 3 + [(128, 16, 16)] * 4 + [(256, 8, 8)] * 6 + [(512, 4, 4)] * 3
    assert sizes == stages


def test_one_time_module_a_block_right_after_its_first_batch_norm():
    """Appendix C of SIDE, seen by hooks: the first norm's output comes in, the activation comes after."""
    net = nets.ResNet(3, 1, (8, 16), (2, 2)).eval()
    for block in net.blocks:
        torch.nn.init.normal_(block.time.film.weight)
        order = []
        for module in block.modules():
            if not list(module.children()) or isinstance(module, nets.TimeModule):
                module.register_forward_hook(lambda m, given, out, order=order: order.append((m, given, out)))
        net(torch.randn(2, 1, 8, 8), torch.zeros(2))
        kinds = [type(m).__name__ for m, *_ in order]
        main = [kind for kind in kinds if kind not in ("Linear", "Identity", "SiLU")][:5]
        assert main == ["Conv2d", "BatchNorm2d", "TimeModule", "Conv2d", "BatchNorm2d"]
        assert kinds.count("TimeModule") == 1
        (_, _, normed), (_, given, timed), (_, second, _) = (
            next(entry for entry in order if entry[0] is m) for m in (block.norm1, block.time, block.conv2)
        )
        assert given[0] is normed and torch.equal(second[0], torch.nn.functional.silu(timed))
        scale, shift = block.time.film(given[1])[..., None, None].chunk(2, 1)
        torch.testing.assert_close(timed, (1 + scale) * normed + shift)


def test_resnet_refuses_widths_without_blocks():
    with pytest.raises(ValueError, match="3 widths and 2 counts"):
        nets.ResNet(5, 1, (8, 16, 32), (1, 1))


def test_time_modules_start_as_the_identity():
    """So the weights of a teacher without time are a student's start."""
    torch.manual_seed(0)
    teacher, student = (nets.Classifier(nets.ResNet(4, time=time)).eval() for time in (False, True))
    missing, unexpected = student.load_state_dict(teacher.state_dict(), strict=False)
    assert not unexpected and all(".time." in key or ".code." in key for key in missing)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(student(x, 0.0), teacher(x, 0.0))


def test_a_stack_is_its_networks_and_they_train_apart():
    torch.manual_seed(0)
    singles = [nets.Preconditioned(nets.ResidualMLP((1, 2, 2), width=16, blocks=1)).double() for _ in range(3)]
    for net in singles:
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    stack = nets.Stack(singles)
    assert sum(p.numel() for p in stack.parameters()) == 3 * sum(p.numel() for p in singles[0].parameters())
    x, sigma = torch.randn(12, 1, 2, 2, dtype=torch.float64), torch.rand(12, dtype=torch.float64) + 0.1
    blocks = list(zip(singles, x.split(4), sigma.split(4), strict=True))
    torch.testing.assert_close(stack(x, sigma), torch.cat([net(*block) for net, *block in blocks]))
    torch.testing.assert_close(stack(x, 0.5), torch.cat([net(block, 0.5) for net, block, _ in blocks]))

    stack(x, sigma).square().sum().backward()
    for i, (net, *block) in enumerate(blocks):
        net(*block).square().sum().backward()
        for name, weight in zip(stack.names, stack.weights, strict=True):
            torch.testing.assert_close(weight.grad[i], dict(net.named_parameters())[name].grad)

    with torch.no_grad():
        stack.weights[0][1] += 1
    for i, (net, *block) in enumerate(blocks):
        same = torch.equal(stack.unstack()[i](*block), net(*block))
        assert same == (i != 1)  # a copy of its own weights, and of no other's
    copied = copy.deepcopy(stack)
    assert torch.equal(copied(x, sigma), stack(x, sigma))
    with pytest.raises(ValueError, match="one architecture"):
        nets.Stack([nets.MLP(2, 8), nets.MLP(2, 9)])


@pytest.mark.parametrize("make", [
    lambda spread: nets.Preconditioned(nets.MLP(3), spread),
    lambda spread: nets.Classifier(nets.LabelMLP(2, (3,)), spread),
], ids=["denoiser", "classifier"])  # fmt: skip
def test_the_spread_of_the_data_is_saved_with_the_weights(make):
    """A model of 0.5 that is loaded into one built for 5.0 stays the model of 0.5."""
    torch.manual_seed(0)
    one, other = make(0.5), make(5.0)
    for parameter in one.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(4, 3)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(x, 0.7), other.eval()(x, 0.7))
    assert dict(other.named_buffers())["sigma_data"] == 0.5 and "sigma_data" not in dict(other.named_parameters())
    for dtype in (torch.float64, torch.float32):
        torch.testing.assert_close(copy.deepcopy(one).to(dtype)(x.to(dtype), 0.7).float(), one(x, 0.7))
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(Refused, match="sigma_data is .*: give a finite number above 0"):
            make(wrong)
    assert make(torch.tensor(0.3)).sigma_data == torch.tensor(0.3)


def test_a_stack_of_networks_keeps_a_spread_for_each():
    torch.manual_seed(0)
    singles = [nets.Preconditioned(nets.MLP(3, 8, 1), spread) for spread in (0.5, 5.0)]
    stack, x = nets.Stack(singles), torch.randn(6, 3)
    expected = torch.cat([net(part, 0.7) for net, part in zip(singles, x.split(3), strict=True)])
    torch.testing.assert_close(stack(x, 0.7), expected)
    assert [float(net.sigma_data) for net in stack.unstack()] == [0.5, 5.0]
    empty = nets.Stack([nets.Preconditioned(nets.MLP(3, 8, 1), 1.0) for _ in range(2)])
    empty.load_state_dict(stack.state_dict())  # a checkpoint of it holds them too
    assert torch.equal(empty(x, 0.7), stack(x, 0.7))


class Buffered(torch.nn.Module):
    """One weight, a saved and an unsaved buffer."""

    def __init__(self, shift):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.inner = torch.nn.Module()
        self.inner.register_buffer("shift", torch.tensor(float(shift)))
        self.inner.register_buffer("unsaved", torch.tensor(10.0 * shift), persistent=False)

    def forward(self, x, sigma):
        return self.weight * x + self.inner.shift + self.inner.unsaved


def test_a_stack_keeps_frozen_what_is_frozen():
    singles = [nets.MLP(2, 8) for _ in range(2)]
    for net in singles:
        next(net.parameters()).requires_grad_(False)
    stack = nets.Stack(singles)
    assert [w.requires_grad for w in stack.weights] == [p.requires_grad for p in singles[0].parameters()]
    assert sum(not w.requires_grad for w in stack.weights) == 1


def test_a_stack_moves_its_buffers_and_what_it_unstacks():
    """To another dtype, and to another device: `meta` stands for one where there is no GPU."""
    stack = nets.Stack([Buffered(1), Buffered(2)]).double()
    x = torch.zeros(4, 2, dtype=torch.float64)
    assert stack(x, 1.0)[:, 0].tolist() == [11, 11, 22, 22] and stack(x, 1.0).dtype == torch.float64
    nets_again = stack.unstack()
    assert [net(x, 1.0)[0, 0].item() for net in nets_again] == [11, 22]
    assert {t.dtype for net in nets_again for t in (*net.parameters(), *net.buffers())} == {torch.float64}
    moved = copy.deepcopy(stack).to("meta")
    assert {t.device.type for t in (*moved.parameters(), *moved.buffers())} == {"meta"}
    assert moved(x.to("meta"), torch.empty(4, device="meta")).device.type == "meta"
    assert {t.device.type for t in moved.unstack()[0].buffers()} == {"meta"}
    with pytest.raises(Refused, match="these have 0"):
        nets.Stack([])
