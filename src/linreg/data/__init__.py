"""From a source to batches: sources and tables, split, statistics, preprocessing, datasets, loaders, the mapped cache.

Input: plain arguments, never a spec. Output: the results of the stages in `pipeline`: rows, parts, statistics,
preprocessing, dataset. Rows are in memory, in a mapped file, or at their source; nothing else differs.
May import: `errors`, `system`, `registry`, `components`.
"""
