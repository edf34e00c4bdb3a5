"""The builders of the table sources. Their docstrings and params are on the page docs/spec.md."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, with_config
from typing_extensions import TypedDict

from linreg.data.sources import DATASETS, Points
from linreg.data.tables.remote import recordable
from linreg.registry import STRICT

Builder = TypeVar("Builder", bound=Callable[..., Points])

Text = Annotated[str, Field(min_length=1)]
FileName = Annotated[Text, AfterValidator(recordable)]
Files = FileName | Annotated[list[FileName], Field(min_length=1)]
Names = str | Annotated[list[str], Field(min_length=1)]
NamesOrNone = str | list[str]
Missing = Literal["error", "drop", "mean", "median"]
Unseen = Literal["error", "zeros"]
Character = Annotated[str, Field(min_length=1, max_length=1)]


@with_config(STRICT)
class Notation(TypedDict, total=False):
    """How numbers are written as text."""

    decimal: Character
    thousands: Character
    strip: list[Text]
    accounting: bool


def _open(
    format: str,
    options: Mapping[str, Any] = {},
    *,
    path: Files,
    target: Names,
    features: NamesOrNone | None = None,
    exclude: NamesOrNone = [],  # the registry shows a default as YAML; nothing changes it
    categorical: NamesOrNone = [],
    dates: NamesOrNone = [],
    date_format: str = "",
    numbers: Notation = {},
    sample_weight: str | None = None,
    missing: Missing = "error",
    missing_values: list[str] = [],
    unseen: Unseen = "error",
) -> Points:
    """Open a table. These keyword parameters are params of every table source."""
    from linreg.data.tables.formats import Format  # imports pyarrow
    from linreg.data.tables.paths import format_options
    from linreg.data.tables.reading import open_table

    written = {"numbers": numbers, "date_format": date_format, "missing_values": missing_values}
    return open_table(
        path,
        Format(format, **format_options({**options, **written})),
        target=target,
        features=features,
        exclude=exclude,
        categorical=categorical,
        dates=dates,
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
def csv(
    *,
    delimiter: Character = ",",
    decimal: Character = ".",
    encoding: Text = "utf-8",
    header: bool = True,
    skip_lines: Annotated[int, Field(ge=0, le=10_000)] = 0,
    comment: str = "",
    trailing_delimiter: bool = False,
    row_names: bool = False,
    **params: Any,
) -> Points:
    """A table in comma-separated values, plain or compressed (`.gz`, `.bz2`, `.xz`, `.zst`, `.zip`).

    path: a file, a list of files, or a folder, read as one table; relative to the working directory. Or a URL, as
    `s3://bucket/key`, `gs://bucket/name` or `https://host/file`.
    features: the columns to learn from; by default all but target, sample_weight and exclude. `[]` learns the mean.
    categorical: the features that are names; each is one-hot, with a column for each name in the training part.
    dates: the features that are dates or times, in days since 1970-01-01 (UTC). `date_format` is that of `strptime`,
    such as `"%d.%m.%Y"`; by default ISO 8601.
    numbers: how numbers are written, `{thousands: ",", decimal: ".", strip: ["$", "%"], accounting: true}`. `thousands:
    " "` is any space; `strip` lists signs and units beside a number; with `accounting`, (12) is -12.
    unseen: how to treat a name that is not in the training part: an error, or zeros in all its columns.
    missing: how to treat a gap, which is an empty cell or one of `missing_values`. `error` refuses it, `drop` drops the
    row, `mean` and `median` fill in that of the training part. A categorical feature gets its most frequent name
    instead. A gap in a target or weight is an error unless the row is dropped.
    sample_weight: a column with the weight of each row.
    delimiter: one character; `" "` is any white space.
    header: whether the first row has the names; without it the columns are c1, c2, ... skip_lines: lines above it.
    comment: the beginning of lines to skip. trailing_delimiter: whether rows end with a delimiter. row_names: whether
    the header has no name for the first column, as R writes it; it is called row_name.
    """
    options = {name: value for name, value in locals().items() if name != "params"}
    if "decimal" in params.get("numbers", {}) and decimal not in (".", params["numbers"]["decimal"]):
        raise ValueError(f"decimal: {decimal!r}, but numbers has {params['numbers']['decimal']!r}; remove one")
    return _open("csv", options, **params)


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


@DATASETS.register("feather")
@_with_table_params
def feather(**params: Any) -> Points:
    """A table in Feather or Arrow's IPC file format. It takes the params of `csv` for columns, numbers and gaps."""
    return _open("feather", **params)


@DATASETS.register("jsonl")
@_with_table_params
def jsonl(**params: Any) -> Points:
    """A table in JSON lines, an object per row. It takes the params of `csv` for columns, numbers and gaps; null and an
    absent key are gaps."""
    return _open("jsonl", **params)


@DATASETS.register("sqlite")
@_with_table_params
def sqlite(*, table: str = "", query: str = "", **params: Any) -> Points:
    """A table of a SQLite database, or the rows of a `query`. The database is only read.

    It takes the params of `csv` for columns, numbers and gaps; null is a gap. table: needed if there are several.
    """
    if table and query:
        raise ValueError("table: query selects the rows already; remove one")
    return _open("sqlite", {"table": table, "query": query}, **params)


@DATASETS.register("excel")
@_with_table_params
def excel(*, sheet: str = "", **params: Any) -> Points:
    """A sheet of a workbook (`.xlsx`, `.xls`, `.ods`). Needs python-calamine: `pip install 'linreg[excel]'`.

    It takes the params of `csv` for columns, numbers and gaps; an empty cell is a gap. sheet: by default the first.
    """
    return _open("excel", {"table": sheet}, **params)
