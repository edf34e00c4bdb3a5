"""The builders of the table sources. Their docstrings and params are on the page docs/spec.md."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from linreg.data.sources import DATASETS, Points

Builder = TypeVar("Builder", bound=Callable[..., Points])

Text = Annotated[str, Field(min_length=1)]
Files = Text | Annotated[list[Text], Field(min_length=1)]
Names = str | Annotated[list[str], Field(min_length=1)]
NamesOrNone = str | list[str]
Missing = Literal["error", "drop", "mean", "median"]
Unseen = Literal["error", "zeros"]
Character = Annotated[str, Field(min_length=1, max_length=1)]


def _open(
    format: str,
    options: Mapping[str, str] = {},
    *,
    path: Files,
    target: Names,
    features: Names | None = None,
    exclude: NamesOrNone = [],  # the registry shows a default as YAML; nothing changes it
    categorical: NamesOrNone = [],
    sample_weight: str | None = None,
    missing: Missing = "error",
    missing_values: list[str] = [],
    unseen: Unseen = "error",
) -> Points:
    """Open a table. These keyword parameters are params of every table source."""
    from linreg.data.tables.reading import Format, open_table  # imports pyarrow

    return open_table(
        path,
        Format(format, **options, missing_values=tuple(missing_values)),
        target=target,
        features=features,
        exclude=exclude,
        categorical=categorical,
        sample_weight=sample_weight,
        missing=missing,
        unseen=unseen,
    )


def _with_table_params(builder: Builder) -> Builder:
    """Put the keyword parameters of `_open` before those of the builder in its signature, which is its schema."""
    parameters = [*inspect.signature(_open).parameters.values(), *inspect.signature(builder).parameters.values()]
    keywords = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    builder.__signature__ = inspect.Signature(keywords, return_annotation=Points)  # type: ignore[attr-defined]
    return builder


@DATASETS.register("csv")
@_with_table_params
def csv(*, delimiter: Character = ",", decimal: Character = ".", encoding: Text = "utf-8", **params: Any) -> Points:
    """A table in comma-separated values with a header, plain or compressed (`.gz`).

    path: a file, a list of files, or a folder, read as one table; relative to the working directory.
    features: the columns to learn from; by default all but target, sample_weight and exclude.
    categorical: the features that are names; each is one-hot, with a column for each name in the training part.
    unseen: how to treat a name that is not in the training part: an error, or zeros in all its columns.
    missing: how to treat a gap, which is an empty cell or one of `missing_values`. `error` refuses it, `drop` drops the
    row, `mean` and `median` fill in that of the training part. A categorical feature gets its most frequent name
    instead. A gap in a target or weight is an error unless the row is dropped.
    sample_weight: a column with the weight of each row.
    """
    return _open("csv", {"delimiter": delimiter, "decimal": decimal, "encoding": encoding}, **params)


@DATASETS.register("parquet")
@_with_table_params
def parquet(**params: Any) -> Points:
    """A table in Apache Parquet. It takes the params of `csv` for columns and gaps; null and NaN are gaps."""
    return _open("parquet", **params)


@DATASETS.register("npz")
@_with_table_params
def npz(**params: Any) -> Points:
    """Columns in NumPy's `.npz`. An array (n,) or (n, 1) is a column with its name.

    An array x of shape (n, 3) has the columns x1, x2 and x3. It takes the params of `csv` for columns and gaps; NaN
    is a gap. Pickled objects are refused.
    """
    return _open("npz", **params)


@DATASETS.register("npy")
@_with_table_params
def npy(**params: Any) -> Points:
    """A table in NumPy's `.npy`: a structured array, or an array of shape (n, 3) with columns x1, x2 and x3.

    It takes the params of `csv` for columns and gaps; NaN is a gap. Pickled objects are refused.
    """
    return _open("npy", **params)
