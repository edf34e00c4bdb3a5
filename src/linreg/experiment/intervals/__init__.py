"""Prediction intervals: calibrated at the end of a training, kept in its checkpoint, and used by `predict`.

`calibrating` and `opening` are the doors: the first returns what a checkpoint keeps, the second the bounds for new
rows. `ranks` has the finite-sample quantiles, `scores` the errors on left-out rows, `folds` and `leverages` are the two
methods that leave out rows of the training part.
"""
