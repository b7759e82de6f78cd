"""Visual guidance: a generator that is told, beside the label, what one real image looks like. Section 3.2.

The released code gives the embedding of an image of the training set as a token of the prompt: in training that of the
image itself, in sampling that of the member whose place the new image takes. So the condition is the name of an image.
The paper has a third channel, a caption for each image; there is none here.
"""

import torch
from torch import Tensor, nn

from memlib import nets
from memlib.nets.blocks import LabelCode
from memlib.papers.synthesis.generators import Network
from memlib.shapes import Float, Int


class ImageCode(nn.Module):
    """Numbers for each of N images, positions (B,) -> (B, size): its label's code plus a linear map of its descriptor.

    The position N means none. Both parts start at 0.
    """

    labels: Tensor
    descriptors: Tensor

    def __init__(self, labels: Int[Tensor, " n"], descriptors: Float[Tensor, "n k"], classes: int, size: int) -> None:
        super().__init__()
        self.register_buffer("labels", torch.cat([labels, labels.new_tensor([classes])]))
        self.register_buffer("descriptors", torch.cat([descriptors, descriptors.new_zeros(1, descriptors.shape[1])]))
        self.label, self.look = LabelCode(classes, size), nn.Linear(descriptors.shape[1], size, bias=False)
        nn.init.zeros_(self.look.weight)

    def forward(self, y: Int[Tensor, " b"]) -> Float[Tensor, "b size"]:
        """(B,) -> (B, size)."""
        return self.label(self.labels[y]) + self.look(self.descriptors[y])


def build(
    network: Network, count: int, labels: Int[Tensor, " n"], descriptors: Float[Tensor, "n k"], seed: int
) -> nets.Stack:
    """`count` untrained denoisers whose condition is the position of an image; N is none. Descriptors of 0 say nothing.

    Arguments:
        network: the residual MLP.
        count: networks of the stack.
        labels: (N,).
        descriptors: (N, k).
        seed: of the weights, so that arms with and without visual guidance start from equal ones.
    """
    each = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(count):
            net = nets.ResidualMLP(network.shape, network.width, network.blocks, network.classes)
            net.add_module("label", ImageCode(labels, descriptors, network.classes, 2 * network.width))
            net.classes = len(labels)
            each.append(nets.Preconditioned(net, network.spread))
    return nets.Stack(each)
