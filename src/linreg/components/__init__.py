"""The components that a spec names: models, losses, optimizers, schedulers. Each file has a registry and its builders.

Input: the arguments of a registry and the params of a spec. Output: torch objects. Only the builders import torch.
May import: `errors`, `system`, `registry`.
"""
