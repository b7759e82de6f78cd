"""A compiled denoiser is the same function, for a network in sigma and for one of discrete levels."""

import pytest
import torch
from torch import nn

from memlib import nets, noise, sample
from memlib.adapters import compiled, from_discrete
from memlib.adapters.compile import _compiler
from memlib.analytic import Empirical
from memlib.denoiser import variance_of
from memlib.errors import Refused


class Shrinking(nn.Module):
    """A denoiser D(x, sigma). Not one of `nets`: tests check their shapes, which the compiler cannot see."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, sigma):
        return self.layer(x) / (1 + sigma**2)


class Linear(nn.Module):
    """A network of (x, t)."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, t):
        return self.layer(x) + t[:, None] / 1000


@pytest.mark.skipif(_compiler() is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_samples_as_the_network_itself_does(kind):
    torch.manual_seed(0)
    bar = torch.linspace(0.99, 0.01, 20).double()
    net = Shrinking() if kind == "continuous" else from_discrete(Linear(), bar, "eps")
    sigmas = noise.karras(3) if kind == "continuous" else noise.discrete(bar, 4)
    x = sample.start(sigmas, range(5), (2,))
    fast = compiled(net)
    # The compiler fuses, so the last bits may differ.
    assert torch.allclose(sample.ancestral(fast, x, sigmas), sample.ancestral(net.eval(), x, sigmas), atol=1e-5)
    assert next(net.parameters()).requires_grad  # the network itself is as it was


def test_without_a_compiler_the_network_is_left_as_it_is(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    net, x = Shrinking(), torch.ones(3, 2)
    with pytest.warns(UserWarning, match="needs a C.. compiler"):
        plain = compiled(net)
    assert torch.equal(plain(x, torch.tensor(2.0)), net(x, torch.tensor(2.0)))


def test_only_networks_can_be_compiled():
    with pytest.raises(Refused, match="only a module with parameters"):
        compiled(Empirical(torch.zeros(2, 2)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_bfloat16_needs_a_gpu():
    with pytest.raises(Refused, match="precision bf16 needs a GPU"):
        compiled(nets.MLP(2), "bf16")


def test_what_a_sampler_reads_is_kept():
    d = from_discrete(Linear(), torch.linspace(0.99, 0.01, 20).double(), "eps")
    d.schedule = {"variance_type": "fixed_large"}
    fast = compiled(d)
    assert variance_of(fast) == variance_of(d) == "large"
    assert not fast.training and fast.frozen.grid(4).tolist() == d.grid(4).tolist()


def test_a_precision_is_one_of_two():
    with pytest.raises(Refused, match="precision is bf16, fp32 or None, not 'fp16'"):
        compiled(nets.MLP(2), "fp16")
