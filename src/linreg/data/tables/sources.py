"""The sources that read tables from files."""

from typing import Annotated, Literal

from pydantic import Field

from linreg.data.sources import DATASETS, Points

Text = Annotated[str, Field(min_length=1)]
Files = Text | Annotated[list[Text], Field(min_length=1)]
Names = str | Annotated[list[str], Field(min_length=1)]
NamesOrNone = str | list[str]
Missing = Literal["error", "drop", "mean", "median"]
Unseen = Literal["error", "zeros"]
Character = Annotated[str, Field(min_length=1, max_length=1)]


@DATASETS.register("csv")
def csv(
    *,
    path: Files,
    target: Names,
    features: Names | None = None,
    exclude: NamesOrNone = [],  # never changed; a param's default is what YAML would say
    categorical: NamesOrNone = [],
    sample_weight: str | None = None,
    missing: Missing = "error",
    missing_values: list[str] = [],
    unseen: Unseen = "error",
    delimiter: Character = ",",
    decimal: Character = ".",
    encoding: Text = "utf-8",
) -> Points:
    """A table in comma-separated values with a header, plain or compressed (`.gz`).

    path: a file, several, or a folder of them, read as one table, relative to the working directory. features: the
    columns to learn from; without it all but the target, the weight and those that `exclude` names. categorical:
    features whose values are names, each one-hot: a column for each name met in the training part. unseen: what
    becomes of another name later, an error or zeros in all of its columns. missing: what becomes of an empty cell or
    one of `missing_values`: an error, the whole row dropped, or the mean or median of the training part in its place
    (of a categorical feature its most frequent name; of a target always an error). sample_weight: a column that says
    how much each row counts.
    """
    from linreg.data.tables.reading import Format, open_table

    return open_table(
        path,
        Format("csv", delimiter=delimiter, decimal=decimal, encoding=encoding, missing_values=tuple(missing_values)),
        target=target,
        features=features,
        exclude=exclude,
        categorical=categorical,
        sample_weight=sample_weight,
        missing=missing,
        unseen=unseen,
    )


@DATASETS.register("parquet")
def parquet(
    *,
    path: Files,
    target: Names,
    features: Names | None = None,
    exclude: NamesOrNone = [],
    categorical: NamesOrNone = [],
    sample_weight: str | None = None,
    missing: Missing = "error",
    missing_values: list[str] = [],
    unseen: Unseen = "error",
) -> Points:
    """A table in Apache Parquet. The params are those of `csv`; a null or NaN is a gap."""
    from linreg.data.tables.reading import Format, open_table

    return open_table(
        path,
        Format("parquet", missing_values=tuple(missing_values)),
        target=target,
        features=features,
        exclude=exclude,
        categorical=categorical,
        sample_weight=sample_weight,
        missing=missing,
        unseen=unseen,
    )


@DATASETS.register("npz")
def npz(
    *,
    path: Files,
    target: Names,
    features: Names | None = None,
    exclude: NamesOrNone = [],
    categorical: NamesOrNone = [],
    sample_weight: str | None = None,
    missing: Missing = "error",
    missing_values: list[str] = [],
    unseen: Unseen = "error",
) -> Points:
    """Columns in NumPy's `.npz`: an array (n,) or (n, 1) is the column of its name, an array x of (n, 3) is x1, x2
    and x3. The params are those of `csv`; NaN is a gap. No pickled object is opened."""
    from linreg.data.tables.reading import Format, open_table

    return open_table(
        path,
        Format("npz", missing_values=tuple(missing_values)),
        target=target,
        features=features,
        exclude=exclude,
        categorical=categorical,
        sample_weight=sample_weight,
        missing=missing,
        unseen=unseen,
    )


@DATASETS.register("npy")
def npy(
    *,
    path: Files,
    target: Names,
    features: Names | None = None,
    exclude: NamesOrNone = [],
    categorical: NamesOrNone = [],
    sample_weight: str | None = None,
    missing: Missing = "error",
    missing_values: list[str] = [],
    unseen: Unseen = "error",
) -> Points:
    """A table in NumPy's `.npy`: a structured array with named fields, or (n, 3) with columns x1, x2 and x3. The params
    are those of `csv`; NaN is a gap. No pickled object is opened."""
    from linreg.data.tables.reading import Format, open_table

    return open_table(
        path,
        Format("npy", missing_values=tuple(missing_values)),
        target=target,
        features=features,
        exclude=exclude,
        categorical=categorical,
        sample_weight=sample_weight,
        missing=missing,
        unseen=unseen,
    )
