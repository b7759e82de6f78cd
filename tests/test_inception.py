"""Inception by a stand-in with the interface of the published TorchScript: levels, resizing, and what is refused."""

import math
import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlib import assets, features
from memlib.errors import Refused


class StandIn(nn.Module):
    """The interface of the published TorchScript: levels 0 to 255 in, 2,048 features or 1,008 probabilities out."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.arange(1008.0) / 1008)

    def forward(
        self, img: Tensor, return_features: bool = False, use_fp16: bool = False, no_output_bias: bool = False
    ) -> Tensor:
        size = torch.tensor([float(img.shape[2]), float(img.shape[3])])
        seen = torch.cat([img.flatten(2)[:, :, :2].flatten(1), size.expand(len(img), 2)], 1)  # two pixels a channel
        if return_features:
            return F.pad(seen, (0, 2040))[:, :, None, None]
        logits = img.mean() * torch.ones(len(img), 1008)
        if not no_output_bias:
            logits = logits + self.bias
        return logits.softmax(1)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception-2015-12-05.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(StandIn()).save(str(path))
    return path


def test_inception_sees_levels_of_three_channels(script):
    judge = features.inception(script, digest=assets.sha256(script))
    images = torch.tensor([-1.0, 2.0, 0.0, 1.0]).view(1, 1, 2, 2).repeat(130, 1, 1, 1)  # several batches
    seen = judge.embed(images)
    assert seen.shape == (130, 2048) and not seen.requires_grad
    assert seen[0, :8].tolist() == [0, 255] * 3 + [2, 2]  # left to the network to resize
    assert judge.embed(torch.full((1, 3, 2, 2), 0.001))[0, 0] == 128  # whole levels
    torch.testing.assert_close(judge.probabilities(images), torch.full((130, 1008), 1 / 1008))  # no bias


def test_inception_resizes_cleanly_if_asked(script):
    judge = features.inception(script, digest=assets.sha256(script), resize="clean")
    stripes = (torch.arange(897) % 2 * 2 - 1.0).expand(1, 3, 897, 897)  # the middle of three is black or white
    seen = judge.embed(stripes)[0]
    assert seen[6:8].tolist() == [299, 299]
    assert abs(seen[1] - 127.5) < 60  # antialiased
    assert math.isclose(judge.embed(torch.zeros(1, 1, 64, 64))[0, 0], 128, abs_tol=1e-3)


def test_no_other_program_is_run(script, tmp_path):
    with pytest.raises(Refused, match="was not run"):
        features.inception(script)
    with pytest.raises(Refused, match="there is no file"):
        features.inception(tmp_path / "none.pt")
    with pytest.raises(Refused, match="'network' or 'clean', not 'nearest'"):
        features.inception(script, digest=assets.sha256(script), resize="nearest")
    with pytest.raises(Refused, match=r"1 or 3 channels, not \(1, 2, 4, 4\)"):
        features.inception(script, digest=assets.sha256(script)).embed(torch.zeros(1, 2, 4, 4))
