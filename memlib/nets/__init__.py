"""Networks that the chapters train: `denoisers`, `classifiers` of noisy samples, and a `stack` of several networks.

All receive the noise level, and a label where they take one, in the same way, by the layers of `blocks`.
"""

from memlib.nets.blocks import FiLMBlock, LabelCode, TimeCode, dropped
from memlib.nets.classifiers import Classifier, LabelMLP, ResNet, TimeModule, resnet34
from memlib.nets.denoisers import MLP, Preconditioned, ResidualMLP, UNet
from memlib.nets.stack import Stack

__all__ = [
    "MLP",
    "Classifier",
    "FiLMBlock",
    "LabelCode",
    "LabelMLP",
    "Preconditioned",
    "ResNet",
    "ResidualMLP",
    "Stack",
    "TimeCode",
    "TimeModule",
    "UNet",
    "dropped",
    "resnet34",
]
