"""Train a network: `train` does it, and `fit` gives the steps one by one, so that the caller writes the loop.

All random numbers of step k come from generators keyed by (seed, k). A checkpoint therefore contains weights, their
running average and the moments of Adam, and no random state. On a CPU, a run that was killed and started again ends in
the same bits as a run that was not.

`fit(..., accelerator=Accelerator())` trains in all processes of `accelerate launch`.
"""

from memlib.train.loop import Diverged, Step, Steps, fit, learning_rate, train

__all__ = ["Diverged", "Step", "Steps", "fit", "learning_rate", "train"]
