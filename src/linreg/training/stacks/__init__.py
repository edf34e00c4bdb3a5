"""Stacks: many models of the same shape, trained at once with the bits that each has when it is trained alone.

`signature` says which trainings fit together, `Stack` trains them. A stack calls one operation for all models where a
probe on the real shapes gives equal bits, and otherwise that operation for one model after another.
"""

from linreg.training.stacks.probes import Unequal
from linreg.training.stacks.stack import Stack, most_models, signature

__all__ = ["Stack", "Unequal", "most_models", "signature"]
