"""From a source to batches: sources and tables, split, statistics, preprocessing, datasets, loaders, the mapped cache.

Takes plain arguments, never a spec. Gives points in blocks of rows, and what the stages of `pipeline` make of them:
parts, statistics, preprocessing, dataset. Rows come from memory, from a map or from the source; nothing else differs.
May import: `errors`, `system`, `registry`, `components`.
"""
