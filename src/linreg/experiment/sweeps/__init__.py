"""Sweeps: many models of one spec, trained in stacks where they fit together, with the bits of single runs.

`sweeping.sweep` is the door: it takes a checked `Sweep`, and returns its ranking and its winners. `members` are the
single trainings, `training` runs them, `records` has the files, `ranking` compares the trials, `tpe` draws trials from
the results of others.
"""
