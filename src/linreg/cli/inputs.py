"""`--inputs`: any number of values up to the next option, commas for rows, `name=value` pairs."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from linreg.errors import UsageError

FLAG = "--inputs"
_NUMBER = r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|inf|infinity|nan)"
_ITEM = rf"(?:[^\W\d][^=,]*=)?{_NUMBER}"
_VALUE = re.compile(rf"{_ITEM}(?:,{_ITEM})*\Z", re.IGNORECASE)

Value = float | str
Row = list[Value] | dict[str, Value]


class InputsCommand(TyperCommand):
    """A command whose `--inputs` takes every following token that is not an option.

    Click has no such option, so the flag is repeated before each of the tokens."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Spread `--inputs A B C` into `--inputs=A --inputs=B --inputs=C`."""
        return super().parse_args(ctx, spread(args))


def spread(arguments: Sequence[str]) -> list[str]:
    """Repeat the flag before every value, as `--inputs=VALUE`."""
    result: list[str] = []
    taking = False
    for position, token in enumerate(arguments):
        if token == "--":
            return [*result, *arguments[position:]]
        if token == FLAG:
            taking = True
            following = arguments[position + 1] if position + 1 < len(arguments) else None
            if following is None or not (_VALUE.match(following) or not following.startswith("-")):
                raise UsageError(f"{FLAG}: no value follows; write for instance {FLAG} 0.2 -0.34 1e-3")
        elif token.startswith(f"{FLAG}="):
            taking = True
            result += [f"{FLAG}={part}" for part in token.removeprefix(f"{FLAG}=").split() or [""]]
        elif taking and (_VALUE.match(token) or not (token.startswith("-") or _is_checkpoint(token))):
            result += [f"{FLAG}={part}" for part in token.split() or [""]]
        else:
            taking = taking and not token.startswith("-")
            result.append(token)
    return result


def parse_rows(values: Sequence[str]) -> list[Row]:
    """Parse the values as rows: `1` is a row, `1,2` is a row of two, and pairs `x1=1` form a row until a name repeats.

    Raises UsageError."""
    rows: list[Row] = []
    open_row: dict[str, Value] | None = None  # a row of single pairs, to which the next pair is added
    for value in values:
        row = _parse_row(value)
        if isinstance(row, dict) and len(row) == 1 and "," not in value:
            if open_row is None or row.keys() & open_row.keys():
                open_row = {}
                rows.append(open_row)
            open_row |= row
        else:
            open_row = None
            rows.append(row)
    return rows


def _parse_row(value: str) -> Row:
    items = [item.strip() for item in value.split(",")]
    named = [item.partition("=") for item in items if "=" in item]
    if not named:
        return [_parse_value(item, value) for item in items]
    if len(named) < len(items):
        raise UsageError(f"{FLAG} {value}: some values have a name and some have none; name all or none")
    row = {name.strip(): _parse_value(number.strip(), value) for name, _, number in named}
    if len(row) < len(named):
        raise UsageError(f"{FLAG} {value}: a duplicate name in one row; remove one")
    return row


def _parse_value(text: str, value: str) -> Value:
    """Return a number as a float; other text may be a category."""
    if not re.fullmatch(_NUMBER, text, re.IGNORECASE):
        if not text:
            raise UsageError(f"{FLAG} {value}: an empty value is not a number; leave no space beside a comma")
        return text
    number = float(text)
    if not math.isfinite(number):
        raise UsageError(f"{FLAG} {value}: {text} is not finite; write a finite number")
    return number


def _is_checkpoint(token: str) -> bool:
    return token.endswith(".pth") or "/" in token or Path(token).exists()
