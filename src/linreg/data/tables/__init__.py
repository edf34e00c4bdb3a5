"""Tables: the sources that read them, and the output of predictions. pyarrow reads and writes the files."""

from linreg.data.tables.sources import csv, npy, npz, parquet

__all__ = ["csv", "npy", "npz", "parquet"]
