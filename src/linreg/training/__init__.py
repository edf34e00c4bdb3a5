"""Training: the textbook's step functions and loops, and the engines that run an epoch faster with the same bits.

Input: a model, a loss function, an optimizer and loaders. Output: functions that run an epoch and return its mean loss.
No module here depends on a spec. May import: `errors`, `system`, `components`, `data`.
"""
