"""Training: the textbook's step functions and loops, and the engines that run an epoch faster with the same bits.

Takes a model, a loss function, an optimizer and loaders. Gives functions that run an epoch and return its mean loss.
Never sees a spec. May import: `errors`, `system`, `components`, `data`.
"""
