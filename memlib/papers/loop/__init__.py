"""The closed loop: attack a model, let it unlearn, and attack it again.

`unlearning` trains many small models side by side, and lets each forget images of its own. `study` is the experiment.
"""

from memlib.papers.loop.unlearning import Recipe, fit, forgetting

__all__ = ["Recipe", "fit", "forgetting"]
