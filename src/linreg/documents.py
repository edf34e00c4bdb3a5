"""Reading and writing YAML 1.2 with the place of every value, so that an error can point to it.

Core schema only: null, booleans, numbers and text. Duplicate keys, anchors, aliases, merge keys, tags and further
documents are refused, and size and depth are capped, so that a hostile file costs no more than an honest one.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from linreg.errors import SpecError

MAX_BYTES = 100_000
MAX_DEPTH = 20
MAX_DIGITS = 100

Path = tuple[str | int, ...]

# YAML 1.2.2, section 10.3.2 (core schema).
_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_TRUE = re.compile(r"(?:true|True|TRUE)\Z")
_FALSE = re.compile(r"(?:false|False|FALSE)\Z")
_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")


@dataclass
class Document:
    """A parsed document: its value in plain types, and where each part of it stands.

    `places` and `key_places` map a path such as `("data", "source", "name")` to `file:line:column`, of the value
    and of its key.
    """

    file: str
    value: Any = None
    places: dict[Path, str] = field(default_factory=dict)
    key_places: dict[Path, str] = field(default_factory=dict)

    def where(self, path: Path, *, key: bool = False) -> str:
        """Say where a path stands; a path that is not there stands where the nearest part around it does."""
        if key and path in self.key_places:
            return self.key_places[path]
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, self.file)

    def override(self, text: str) -> None:
        """Set one `KEY=VALUE`, where KEY is dotted and VALUE is YAML; a malformed one is a SpecError."""
        place = f"override {text!r}"
        key, equals, value = text.partition("=")
        if not equals or not all(key.split(".")):
            raise SpecError([f"{place}: not KEY=VALUE; write for instance optimizer.lr=0.05"])
        given = read_yaml(value, place, places=False)
        path: Path = ()
        if not isinstance(self.value, dict):
            self.value = {}
        target = self.value
        *parents, last = key.split(".")
        for parent in parents:
            path = (*path, parent)
            if target.get(parent) is None:
                target[parent] = {}
                self.places[path] = place
            target = target[parent]
            if not isinstance(target, dict):
                raise SpecError([f"{place}: {'.'.join(map(str, path))} is not a mapping; set it as a whole"])
        path = (*path, last)
        self._forget(path)
        target[last] = given.value
        self.places[path] = self.key_places[path] = place

    def _forget(self, path: Path) -> None:
        for places in (self.places, self.key_places):
            for old in [old for old in places if old[: len(path)] == path]:
                del places[old]


def read_yaml(text: str | bytes, file: str, *, places: bool = True) -> Document:
    """Parse one YAML document. Raises SpecError with `file:line:column` (or `file` alone, without `places`)."""
    if len(text) > MAX_BYTES:
        raise SpecError([f"{file}: larger than {MAX_BYTES:,} bytes; a spec is a page of text"])
    return _Reader(file, places).read(_decode(text, file) if isinstance(text, bytes) else text)


def _decode(text: bytes, file: str) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        column = error.start - text.rfind(b"\n", 0, error.start)
        what = f"byte {text[error.start]:#04x} is not UTF-8; save the file as UTF-8"
        raise SpecError([f"{file}:{line}:{column}: {what}"]) from None


def _place(file: str, mark: Any, places: bool) -> str:
    return f"{file}:{mark.line + 1}:{mark.column + 1}" if places and mark else file


class _Reader:
    """Builds a Document from PyYAML's events; its constructors, which know other rules, are not used."""

    def __init__(self, file: str, places: bool) -> None:
        self.document = Document(file)
        self.with_places = places
        self.problems: list[str] = []

    def read(self, text: str) -> Document:
        try:
            events = yaml.parse(text, Loader=yaml.SafeLoader)
            self._read_stream(events)
        except yaml.MarkedYAMLError as error:
            hint, from_start = _HINTS.get(error.context or error.problem or "", ("look at the line above, too", False))
            mark = error.context_mark if from_start else error.problem_mark or error.context_mark
            self._refuse(mark, f"not YAML: {_sentence(error)}; {hint}")
        except yaml.reader.ReaderError as error:
            self._refuse(
                _mark_of(text, error.position),
                f"the character {chr(error.character)!r} is not allowed in YAML",
            )
        except (
            yaml.YAMLError,
            ValueError,
            IndexError,
            OverflowError,
        ) as error:  # PyYAML's scanner leaks these
            self._refuse(None, f"not YAML: {error}")
        if self.problems:
            raise SpecError(self.problems)
        return self.document

    def _read_stream(self, events: Iterator[yaml.Event]) -> None:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if self.document.places:
                    self._refuse(event.start_mark, "a second document; a spec is one document, remove the ---")
                    return
                self.document.value = self._read_value(next(events), events, ())
                if self.problems:
                    return

    def _read_value(self, event: Any, events: Iterator[yaml.Event], path: Path) -> Any:
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event.start_mark, f"the alias *{event.anchor} is not allowed; write the value out")
            return None
        if event.anchor is not None:
            self._refuse(event.start_mark, f"the anchor &{event.anchor} is not allowed; write the value out")
        if event.tag is not None:
            self._refuse(event.start_mark, f"the tag {event.tag} is not allowed; write plain values")
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
            key = event.value
            if event.anchor is not None or event.tag is not None:
                self._refuse(event.start_mark, f"the key {key!r} has an anchor or a tag; write it plainly")
            if key == "<<" and event.style is None:
                self._refuse(event.start_mark, "the merge key << is not allowed; write the keys out")
            elif key in mapping:
                first = self.document.key_places[(*path, key)].rpartition(self.document.file + ":")[2]
                self._refuse(event.start_mark, f"the key {key!r} is there already, at {first}; remove one")
            else:
                self.document.key_places[(*path, key)] = self._place(event.start_mark)
            mapping[key] = self._read_value(next(events), events, (*path, key))
        return mapping

    def _scalar(self, event: yaml.ScalarEvent) -> Any:
        if event.style is not None:  # quoted, literal or folded
            return event.value
        if (_INT.match(event.value) or _FLOAT.match(event.value)) and len(event.value) > MAX_DIGITS:
            self._refuse(event.start_mark, f"a number of {len(event.value)} digits; at most {MAX_DIGITS} are read")
            return None
        return resolve(event.value)

    def _place(self, mark: Any) -> str:
        return _place(self.document.file, mark, self.with_places)

    def _refuse(self, mark: Any, what: str) -> None:
        self.problems.append(f"{self._place(mark)}: {what}")


def resolve(text: str) -> Any:
    """Give the value of a plain scalar by YAML 1.2's core schema: `1e-3` is a number, `no` text, `010` ten."""
    if _NULL.match(text):
        return None
    if _TRUE.match(text) or _FALSE.match(text):
        return text[0] in "tT"
    if _INT.match(text):
        return int(text)
    if _BASED.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    if _SPECIAL.match(text):
        return float(text.replace(".", ""))
    return text


# By the context of a mistake: what would do, and whether it is best shown where its context starts.
_HINTS = {
    "while scanning a simple key": ("write key: value, with a space after the colon", True),
    "while scanning a quoted scalar": ("close the quotes", True),
    "while parsing a flow sequence": ("close the bracket", True),
    "while parsing a flow mapping": ("close the brace", True),
    "while scanning for the next token": ("use spaces in place of tabs, or quote the text", False),
    f"nested deeper than {MAX_DEPTH} levels": ("a spec is never so deep", False),
    "a key must be plain text": ("write a name and a colon", False),
    "while parsing a block mapping": ("give the keys of one mapping the same indentation", False),
}


def _sentence(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    return ", ".join(parts)


def _mark_of(text: str, position: int) -> yaml.Mark:
    line = text.count("\n", 0, position)
    return yaml.Mark("", position, line, position - (text.rfind("\n", 0, position) + 1), None, 0)


class _Dumper(yaml.SafeDumper):
    """Quotes what YAML 1.2 or YAML 1.1 would not read back as the same text, and writes no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = "'" if not isinstance(resolve(text), str) else None
        if any(char in text for char in "\x85\u2028\u2029"):  # ends of lines that only an escape keeps
            style = '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def write_yaml(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """Write plain values as YAML that `read_yaml`, and any other reader of YAML, reads back as the same."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give a nested mapping as one of dotted keys: `{"optimizer.lr": 0.1, ...}`."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {f"{prefix}{key}": item}
    return flat
