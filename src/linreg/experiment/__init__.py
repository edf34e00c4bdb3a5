"""What a user does with an experiment: build, check, train, resume, predict, evaluate, and start from a table.

Input: a spec, or the path of a checkpoint. Output: results as dataclasses; runs and checkpoints on disk. It is the only
package that connects a spec with data, training and checkpoints. May import every package except `cli`.
"""
