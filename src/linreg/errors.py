"""The errors of linreg, each with its exit code, and functions that format values in messages.

    LinregError
    ├── UsageError            2   the command line or a call is wrong
    ├── SpecError             2   an experiment spec is wrong; has every problem of it
    ├── DataError             3   the data cannot be used
    ├── CheckpointError       4   a checkpoint cannot be opened, or does not fit
    ├── StorageError          5   a disk is full, a folder is not writable, a run is in use
    ├── DivergedError         6   the loss is no longer a finite number
    ├── ExpectationError      7   an `--expect` was not met
    └── GroupError            8   another process of a group has ended, or does not answer

A message reads `WHERE: problem; hint`.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

MOST_NAMES = 30  # in a suggestion
_URL = re.compile(
    r"((?<![A-Za-z0-9+.-])[A-Za-z0-9+.-]+://)"  # from the start of a word: a long one is read once
    r"(?:[^/?#\s]*@|[^/?#\s:]*:(?!\d+(?:/|$))[^?#\s]*@)?"  # a user and a password, also one with a slash
    r"([^?#\s'\"]*)(?:[?#][^\s'\"]*)?"
)


class LinregError(Exception):
    """The base of every error that a user can cause. Its message has a line for each problem."""

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(LinregError):
    """The command line, or a call, is wrong."""

    exit_code = 2


class SpecError(LinregError):
    """An experiment spec is wrong. `problems` has one `WHERE: problem; hint` for each problem."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(*problems)


class DataError(LinregError):
    """The data of an experiment cannot be used."""

    exit_code = 3


class CheckpointError(LinregError):
    """A checkpoint cannot be opened, is damaged, or does not fit the command."""

    exit_code = 4

    def __init__(self, message: str) -> None:
        super().__init__(*message.split("\n"))  # also the problems of the spec in it


class StorageError(LinregError):
    """Something cannot be written or read: disk full, no permission, run in use."""

    exit_code = 5


class DivergedError(LinregError):
    """The loss or a parameter is no longer a finite number."""

    exit_code = 6


class ExpectationError(LinregError):
    """A finished run does not meet an `--expect`."""

    exit_code = 7


class GroupError(LinregError):
    """Another process of the group has ended, or does not answer."""

    exit_code = 8


def without_secrets(text: str) -> str:
    """Remove the user, the password, the query and the fragment from each URL in a text."""
    return _URL.sub(r"\1\2", text)


def shorten(text: str, most: int = 60) -> str:
    """Shorten a text to one line of at most `most` characters, without the secrets of URLs; quote it if it has
    unprintable characters."""
    text = without_secrets(text if text.isprintable() else repr(text))
    return text if len(text) <= most else text[:most] + "…"


def show_text(text: str, most: int = 60) -> str:
    """Return a text in quotes, on one line."""
    return shorten(repr(text), most)


def show(value: object) -> str:
    """Return a value as a message shows it, on one line."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case Mapping():
            return "a mapping"
        case list() if len(repr(value)) > 60:
            return f"a list of {len(value)}"
    return shorten(repr(value))


def brief(value: object) -> str:
    """Return a value of a spec as tables and plots show it: a component as `adam lr=0.01`."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case Mapping():
            rest = (f"{key}={brief(item)}" for key, item in value.items() if key != "name")
            return " ".join([str(value.get("name", "")), *rest]).strip()
        case list() | tuple():
            return "[" + ", ".join(map(brief, value)) + "]"
    return str(value)


def suggest(word: object, known: Iterable[str]) -> str:
    """Return a hint for an unknown word: the most similar known one, or all of them."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    if near:
        return f"did you mean {shorten(by_lower[near[0]])!r}?"
    names = [shorten(name) for name in islice(by_lower.values(), MOST_NAMES)]
    more = [f"and {len(by_lower) - MOST_NAMES} more"] * (len(by_lower) > MOST_NAMES)
    return f"known: {', '.join([*names, *more])}" if by_lower else "it takes none"
