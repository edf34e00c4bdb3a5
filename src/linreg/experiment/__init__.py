"""What a user does with an experiment: build, check, train, resume, predict, evaluate, and start from a table.

Takes a spec or the path of a checkpoint. Returns results as dataclasses, and writes runs and checkpoints. It is the
only package that connects a spec with data, training and checkpoints. May import every package but `cli`.
"""
