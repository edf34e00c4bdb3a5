"""The errors that linreg raises on purpose, each with the exit code that the command line gives it.

    LinregError
    ├── UsageError            2   the command line or a call asks for what cannot be
    ├── SpecError             2   an experiment spec is wrong; holds every problem found in it
    ├── DataError             3   the data cannot be used
    ├── CheckpointError       4   a checkpoint cannot be opened, or does not fit
    ├── StorageError          5   a disk is full, a folder not writable, a run in use
    ├── DivergedError         6   the loss stopped being a finite number
    └── ExpectationError      7   an `--expect` was not met

A message reads `WHERE: what; what would do`.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

MOST_NAMES = 30  # that a suggestion lists


class LinregError(Exception):
    """The base of every error that a user can cause. Several problems make a line each of its message."""

    exit_code = 1

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class UsageError(LinregError):
    """The command line, or a call, asks for something that cannot be."""

    exit_code = 2


class SpecError(LinregError):
    """An experiment spec is wrong. `problems` has one `WHERE: what; what would do` for each problem."""

    exit_code = 2

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(*problems)


class DataError(LinregError):
    """The data of an experiment cannot be used."""

    exit_code = 3


class CheckpointError(LinregError):
    """A checkpoint cannot be opened, is damaged, or does not fit what is asked of it."""

    exit_code = 4

    def __init__(self, message: str) -> None:
        super().__init__(*message.split("\n"))  # those of the spec inside, too


class StorageError(LinregError):
    """Something cannot be written or read: disk full, no permission, run in use."""

    exit_code = 5


class DivergedError(LinregError):
    """Training left the finite numbers."""

    exit_code = 6


class ExpectationError(LinregError):
    """A finished run does not meet what `--expect` asks of it."""

    exit_code = 7


def shorten(text: str, most: int = 60) -> str:
    """Cut a text that nobody would read to its end; one that would not stand on one line is shown in quotes."""
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= most else text[:most] + "…"


def show_text(text: str, most: int = 60) -> str:
    """Show a text as it was met, in quotes, on one line."""
    return shorten(repr(text), most)


def show(value: object) -> str:
    """Show a value as it was met, in a few words."""
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


def suggest(word: object, known: Iterable[str]) -> str:
    """Say what would do in place of an unknown word: the nearest known one, or all of them."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(str(word).lower(), by_lower, n=1, cutoff=0.6)
    if near:
        return f"did you mean {shorten(by_lower[near[0]])}?"
    names = [shorten(name) for name in islice(by_lower.values(), MOST_NAMES)]
    more = [f"and {len(by_lower) - MOST_NAMES} more"] * (len(by_lower) > MOST_NAMES)
    return f"known: {', '.join([*names, *more])}" if by_lower else "it takes none"
