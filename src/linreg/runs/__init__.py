"""The folders of runs: numbers and locks, run.json, listing, TensorBoard and metrics.jsonl, pictures.

Takes names, paths and the record of each epoch. Gives folders that one process at a time holds, and what is in them.
Never sees a model's data. May import: `errors`, `system`, `spec`.
"""
