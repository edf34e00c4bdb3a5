"""The folders of runs: creation, locks, run.json, listing, TensorBoard and metrics.jsonl, plots.

Input: names, paths and the record of each epoch. Output: folders that one process at a time writes, and summaries of
them. It never sees the data of a model. May import: `errors`, `system`, `spec`.
"""
