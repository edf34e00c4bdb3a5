"""What a spec chooses by name: models, losses, optimizers, schedulers. Each file has its registry and its builders.

Takes the positional arguments of a registry and the params of a spec. Gives torch objects, built when asked for: torch
is imported inside the builders. May import: `errors`, `system`, `registry`.
"""
