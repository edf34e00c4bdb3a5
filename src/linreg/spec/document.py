"""Reading and writing YAML 1.2 with the place of every value, so that an error can point to it.

Core schema only: null, booleans, numbers and text. Duplicate keys, anchors, aliases, merge keys, tags and further
documents are refused. Limits on size and depth keep a hostile file as cheap as an honest one.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from linreg.errors import SpecError, shorten, show_text

MAX_BYTES = 100_000
MAX_VALUES = 10_000
MAX_DEPTH = 20
MAX_DIGITS = 100
MOST_PROBLEMS = 50  # reported at once

Path = tuple[str | int, ...]

# YAML 1.2.2, section 10.3.2 (core schema): a pattern, and the function that makes the value.
_CORE_SCHEMA: list[tuple[re.Pattern[str], Callable[[str], Any]]] = [
    (re.compile(r"null|Null|NULL|~|"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+"), lambda text: int(text, 0)),
    (re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
]


@dataclass
class Document:
    """A parsed document: its value in plain types, and the place of each part of it.

    `places` and `key_places` map a path such as `("data", "source", "name")` to `file:line:column`, of the value
    and of its key.
    """

    file: str
    value: Any = None
    places: dict[Path, str] = field(default_factory=dict)
    key_places: dict[Path, str] = field(default_factory=dict)

    def where(self, path: Path, *, key: bool = False) -> str:
        """Return the place of a path, or of the nearest part around a path that is absent."""
        if key and path in self.key_places:
            return self.key_places[path]
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.file)

    def override(self, text: str) -> None:
        """Set one `KEY=VALUE`, where KEY is dotted and VALUE is YAML; a malformed one is a SpecError."""
        place = f"override {show_text(text, 200)}"
        key, equals, value = text.partition("=")
        *parents, last = key.split(".")
        if not equals or not all([*parents, last]) or not is_encodable(key):
            raise SpecError([f"{place}: not KEY=VALUE; write for instance optimizer.lr=0.05"])
        if len(parents) >= MAX_DEPTH:
            raise SpecError([f"{place}: deeper than {MAX_DEPTH} levels; a spec is never so deep"])
        given = read_yaml(value, place, places=False)
        path: Path = ()
        if not isinstance(self.value, dict):
            self.value = {}
        target = self.value
        for parent in parents:
            path = (*path, parent)
            if target.get(parent) is None:
                target[parent] = {}
                self.places[path] = place
            target = target[parent]
            if not isinstance(target, dict):
                raise SpecError(
                    [f"{place}: {shorten('.'.join(map(str, path)), 200)} is not a mapping; set it as a whole"]
                )
        path = (*path, last)
        self._forget(path, target.get(last))
        target[last] = given.value
        self.places[path] = self.key_places[path] = place

    def _forget(self, path: Path, value: Any) -> None:
        for places in (self.places, self.key_places):
            places.pop(path, None)
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in inside:
            self._forget((*path, key), item)


def read_yaml(text: str | bytes, file: str, *, places: bool = True) -> Document:
    """Parse one YAML document. Raises SpecError with `file:line:column` (or `file` alone, without `places`)."""
    reader = _Reader(file, places)
    if len(text) > MAX_BYTES:
        reader.refuse(_mark_of(text, MAX_BYTES), f"larger than {MAX_BYTES:,} bytes; a spec is a page of text")
    elif isinstance(text, str):
        reader.read(text)
    else:
        try:
            reader.read(text.decode("utf-8-sig"))
        except UnicodeDecodeError as error:
            what = f"byte {error.object[error.start]:#04x} is not UTF-8; save the file as UTF-8"
            reader.refuse(_mark_of(error.object, error.start), what)
    if reader.problems:
        raise SpecError(reader.problems)
    return reader.document


def varied_values(override: str) -> Any:
    """Return the values of a `KEY=V1,V2`, or the range of a `KEY={min: ..., max: ...}`; None for an ordinary
    override."""
    _, equals, text = override.partition("=")
    if not equals:
        return None
    try:
        values = read_yaml(f"[{text}]", "values", places=False).value
    except SpecError:
        return None
    if len(values) > 1:
        return values
    is_range = len(values) == 1 and isinstance(values[0], dict) and {"min", "max"} <= set(values[0])
    return values[0] if is_range else None


class _Reader:
    """Builds a Document from PyYAML's events; PyYAML's constructors follow YAML 1.1."""

    def __init__(self, file: str, places: bool) -> None:
        self.document = Document(file)
        self.with_places = places
        self.problems: list[str] = []
        self.n_values = 0

    def read(self, text: str) -> None:
        loader: Any = None
        try:
            loader = yaml.SafeLoader(text)
            self._read_stream(iter(loader.get_event, None))
        except yaml.MarkedYAMLError as error:
            hint, from_start = _HINTS.get(error.context or error.problem or "", ("check the line above, too", False))
            mark = error.context_mark if from_start else error.problem_mark or error.context_mark
            problem = ", ".join(part for part in (error.context, error.problem) if part)
            self.refuse(mark, f"not YAML: {shorten(problem, 200)}; {hint}")
        except yaml.reader.ReaderError as error:
            what = f"the character {chr(error.character)!r} is not allowed in YAML; remove it"
            self.refuse(_mark_of(text, error.position), what)
        except (yaml.YAMLError, ValueError, IndexError, OverflowError) as error:  # PyYAML's scanner leaks these
            self.refuse(loader and loader.get_mark(), f"not YAML: {error}; fix it here")

    def _read_stream(self, events: Iterator[yaml.Event]) -> None:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if self.document.places:
                    self.refuse(event.start_mark, "a second document; a spec is one document, remove the ---")
                    return
                self.document.value = self._read_value(next(events), events, ())
                if self.problems:
                    return

    def _read_value(self, event: Any, events: Iterator[yaml.Event], path: Path) -> Any:
        if isinstance(event, yaml.AliasEvent):
            self.refuse(
                event.start_mark, f"the alias *{shorten(str(event.anchor))} is not allowed; write the value out"
            )
            return None
        if event.anchor is not None:
            self.refuse(event.start_mark, f"the anchor &{shorten(event.anchor)} is not allowed; write the value out")
        if event.tag is not None:
            self.refuse(event.start_mark, f"the tag {shorten(event.tag)} is not allowed; write plain values")
        self.n_values += 1
        if self.n_values > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"more than {MAX_VALUES:,} values", problem_mark=event.start_mark)
        if len(path) > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=event.start_mark)
        self.document.places[path] = self._place(event.start_mark)
        if isinstance(event, yaml.MappingStartEvent):
            return self._read_mapping(events, path)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Any] = []
            while not isinstance(event := next(events), yaml.SequenceEndEvent):
                items.append(self._read_value(event, events, (*path, len(items))))
            return items
        return self._scalar(event)

    def _read_mapping(self, events: Iterator[Any], path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=event.start_mark)
            key = self._text(event)
            if event.anchor is not None or event.tag is not None:
                self.refuse(event.start_mark, f"the key {show_text(key)} has an anchor or a tag; write it plainly")
            if key == "<<" and event.style is None:
                self.refuse(event.start_mark, "the merge key << is not allowed; write the keys out")
            elif key in mapping:
                first = self.document.key_places[(*path, key)].rpartition(self.document.file + ":")[2]
                self.refuse(event.start_mark, f"duplicate key {show_text(key)}, first at {first}; remove one")
            else:
                self.document.key_places[(*path, key)] = self._place(event.start_mark)
            mapping[key] = self._read_value(next(events), events, (*path, key))
        return mapping

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        if event.style is not None:  # quoted, literal or folded
            return self._text(event)
        if len(event.value) > MAX_DIGITS and any(pattern.fullmatch(event.value) for pattern, _ in _CORE_SCHEMA):
            self.refuse(event.start_mark, f"a number of {len(event.value)} digits; write at most {MAX_DIGITS}")
            return None
        return resolve(event.value)

    def _text(self, event: yaml.ScalarEvent) -> str:
        if not is_encodable(event.value):
            what = f"{show_text(event.value)} has half of a character; write \\U and its 8 digits"
            self.refuse(event.start_mark, what)
        return str(event.value)

    def _place(self, mark: Any) -> str:
        file = self.document.file
        return f"{file}:{mark.line + 1}:{mark.column + 1}" if self.with_places and mark else file

    def refuse(self, mark: Any, what: str) -> None:
        self.problems.append(f"{self._place(mark)}: {what}")
        if len(self.problems) == MOST_PROBLEMS:
            raise SpecError([*self.problems, f"{self.document.file}: and maybe more"])


def is_encodable(text: str) -> bool:
    """Return whether a text can be encoded: half of a surrogate pair cannot."""
    return re.search("[\ud800-\udfff]", text) is None


def resolve(text: str) -> Any:
    """Return the value of a plain scalar by YAML 1.2's core schema: `1e-3` is a number, `no` text, `010` ten."""
    return next((convert(text) for pattern, convert in _CORE_SCHEMA if pattern.fullmatch(text)), text)


# By the context of an error: the hint, and whether to report the start of the context.
_HINTS = {
    "while scanning a simple key": ("write key: value, with a space after the colon", True),
    "while scanning a quoted scalar": ("close the quotes", True),
    "while parsing a flow sequence": ("close the bracket", True),
    "while parsing a flow mapping": ("close the brace", True),
    "while scanning for the next token": ("use spaces in place of tabs, or quote the text", False),
    f"nested deeper than {MAX_DEPTH} levels": ("a spec is never so deep", False),
    f"more than {MAX_VALUES:,} values": ("a spec is a page of text", False),
    "a key must be plain text": ("write a name and a colon", False),
    "while parsing a block mapping": ("give the keys of one mapping the same indentation", False),
}


def _mark_of(text: str | bytes, position: int) -> yaml.Mark:
    before = text[:position].decode("utf-8", "replace") if isinstance(text, bytes) else text[:position]
    return yaml.Mark("", position, before.count("\n"), len(before) - (before.rfind("\n") + 1), None, 0)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.2 or YAML 1.1 would read back as something else, and writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "'" if not isinstance(resolve(text), str) else None
        if any(char in text for char in "\x85\u2028\u2029"):  # ends of lines that only an escape keeps
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def write_yaml(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Write plain values as YAML that every YAML reader reads back as the same values."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a nested mapping as one of dotted keys: `{"optimizer.lr": 0.1, ...}`."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat
