"""Tables: sources that read them, and files that predictions are written to. pyarrow reads and writes."""

from linreg.data.tables.sources import csv, npy, npz, parquet

__all__ = ["csv", "npy", "npz", "parquet"]
