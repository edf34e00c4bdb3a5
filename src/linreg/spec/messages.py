"""Messages about specs: pydantic's errors as `file:line:column: key: problem; hint`."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from linreg.errors import shorten, show, show_text, suggest
from linreg.registry import Component, plain
from linreg.spec.document import MOST_PROBLEMS, Document, Path, flatten

Error = Mapping[str, Any]  # one of `ValidationError.errors()`


def explain(error: ValidationError, document: Document, model: type[BaseModel]) -> list[str]:
    """Explain every problem of a document that was validated by `model`, in the order of the file."""
    by_path: dict[Path, list[Error]] = {}
    every_problem = list(_unpacked(error))
    for problem in every_problem[:MOST_PROBLEMS]:
        by_path.setdefault(_path_in(document.value, problem), []).append(problem)
    messages = []
    for path, problems in by_path.items():
        deeper = any(path == other[: len(path)] and path != other for other in by_path)
        if deeper and all(problem["type"].endswith(("_type", "literal_error")) for problem in problems):
            continue  # the branch of a union that went deepest into the value explains the problem
        place = document.where(path, key=problems[0]["type"] == "extra_forbidden")
        key = ".".join(shorten(str(step)) for step in path) or "spec"
        messages.append((_order(place), f"{place}: {key}: {_message(document, path, problems, model)}"))
    n_more = len(every_problem) - MOST_PROBLEMS
    more = [f"{document.file}: and {n_more} more"] if n_more > 0 else []
    return [text for _, text in sorted(messages, key=lambda item: item[0])] + more


def _unpacked(error: ValidationError) -> Iterator[Error]:
    """Return every problem, also those inside a component, with its whole path."""
    for problem in error.errors():
        if problem["type"] == "component":
            for inner in problem["ctx"]["problems"]:
                yield {**inner, "loc": (*problem["loc"], *inner["loc"])}
        else:
            yield problem


def _path_in(value: Any, problem: Error) -> Path:
    """Return the path of a problem in the document: pydantic's path without the names of union branches."""
    path: list[str | int] = []
    for step in problem["loc"]:
        if (isinstance(value, dict) and step in value) or (
            isinstance(value, list) and isinstance(step, int) and step < len(value)
        ):
            value = value[step]
            path.append(step)
        elif problem["type"].startswith("missing") and step == problem["loc"][-1]:
            path.append(step)
    return tuple(path)


def _order(place: str) -> tuple[int, ...]:
    """Return the key to sort by: line and column; a place without them, such as an override, comes last."""
    parts = place.rsplit(":", 2)[1:]
    return tuple(map(int, parts)) if len(parts) == 2 and all(map(str.isdigit, parts)) else (10**9,)


def _message(document: Document, path: Path, problems: list[Error], model: type[BaseModel]) -> str:
    """Return the message for one place: the problem, the value and a hint."""
    first = problems[0]
    value, context = first["input"], first.get("ctx", {})
    component: Component | None = context.get("component")
    match first["type"]:
        case "extra_forbidden":
            known = component.params if component else _fields(model, path[:-1])
            noun = f"param of {component.kind} {component.name}" if component else "key"
            return f"unknown {noun}; {_suggest_key(document, path, known)}"
        case "missing" if component:
            kind = component.described().get(str(path[-1]), {"type": "a value"})["type"]
            return f"missing; {component.kind} {component.name} needs it: {kind}"
        case "missing":
            return f"missing; add it: {_fields(model, path[:-1])[str(path[-1])]}"
        case "missing_name":
            similar = next((key for key in value if key.lower().startswith("name")), None)
            hint = f"; {show_text(similar)} needs a space after the colon" if similar else ""
            return f"missing{hint}; add it: one of {', '.join(context['known'])}"
        case "unknown_name":
            near = suggest(value, context["known"])
            plugin = "" if near.startswith("did") else "; your own needs --plugin FILE.py"
            return f"unknown {context['kind']} {show(value)}; {near}{plugin}"
        case "value_error":
            return str(context["error"])
    if first["type"] == "string_pattern_mismatch" and component is None:
        words = _fields(model, path[:-1])[str(path[-1])]
        near = suggest(value, words.replace(" or ", ", ").split(", "))
        return f"must be {words}, got {show(value)}{f'; {near}' if near.startswith('did') else ''}"
    requirements = dict.fromkeys(_must_be(problem).removeprefix("must be ") for problem in problems)
    text = " or ".join(requirements)
    return f"{text if text.startswith('must') else f'must be {text}'}, got {show(value)}{_hint(problems, value)}"


def _suggest_key(document: Document, path: Path, known: Iterable[str]) -> str:
    """Suggest a key that is still missing, if one is similar; else any known key."""
    siblings: Any = document.value
    for step in path[:-1]:
        siblings = siblings[step]
    absent = suggest(path[-1], [name for name in known if name not in siblings])
    if absent.startswith("did"):
        return absent
    elsewhere = [
        key for key in flatten(document.value) if key.endswith(f".{path[-1]}") and key != ".".join(map(str, path))
    ]
    return f"did you mean {shorten(elsewhere[0])!r}?" if elsewhere else suggest(path[-1], known)


def _fields(model: type[BaseModel], path: Path) -> dict[str, str]:
    """Return the keys, with their descriptions, of the part of the model at `path`."""
    models = [model]
    annotation: Any
    for step in path:
        if models[0].model_fields.get(str(step)) is None:  # a key of a mapping, whose values are of these models
            continue
        annotation = models[0].model_fields[str(step)].annotation
        models = [option for option in _types(annotation) if issubclass(option, BaseModel)]
    return {name: field.description or "" for model in models for name, field in model.model_fields.items()}


def _types(annotation: Any) -> Iterator[type]:
    """Yield the types in an annotation."""
    if get_origin(annotation) is None:
        yield from [annotation] if isinstance(annotation, type) else []
    for inner in get_args(annotation):
        yield from _types(inner)


def _limit(sign: str, key: str) -> Callable[[Error], str]:
    return lambda error: f"must be {sign} {plain(error['ctx'][key])}"


# The requirement, by the type of pydantic's error.
_MUST: dict[str, str | Callable[[Error], str]] = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "list_type": "must be a list",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "component_type": lambda error: f"must be a mapping such as {{name: {error['ctx']['known'][0]}}}",
    "greater_than": _limit(">", "gt"),
    "greater_than_equal": _limit(">=", "ge"),
    "less_than": _limit("<", "lt"),
    "less_than_equal": _limit("<=", "le"),
    "too_short": lambda error: f"must have at least {error['ctx']['min_length']} items",
    "too_long": lambda error: f"must have at most {error['ctx']['max_length']} items",
    "literal_error": _limit("", "expected"),
    "string_pattern_mismatch": _limit("text that matches", "pattern"),
}


def _must_be(error: Error) -> str:
    requirement = _MUST.get(error["type"])
    if requirement is None:  # from a plugin's own annotation
        message: str = error["msg"].replace("Input should be", "must be")
        return message[:1].lower() + message[1:]
    return (requirement if isinstance(requirement, str) else requirement(error)).replace("  ", " ")


def _hint(problems: list[Error], value: object) -> str:
    """Return a hint where the value shows what was meant, else an empty string."""
    types = {problem["type"] for problem in problems}
    if isinstance(value, str):
        if types & {"int_type", "float_type"} and _is_number(value):
            return "; remove the underscores" if "_" in value else "; remove the quotes"
        if "bool_type" in types and value.lower() in {"yes", "on", "y", "no", "off", "n"}:
            return f"; write {'true' if value.lower() in {'yes', 'on', 'y'} else 'false'}"
        if "component_type" in types:
            return f"; write {{name: {shorten(value)}}}"
        for problem in problems:
            if problem["type"] == "literal_error":
                near = suggest(value, problem["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", "))
                return f"; {near}" if near.startswith("did") else ""
    if types & {"string_type", "string_pattern_mismatch"} and isinstance(value, int | float | bool):
        return "; put it in quotes"
    if types & {"int_type", "int_from_float"} and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}"
    if "list_type" in types and isinstance(value, int | float):
        return f"; write [{value}]"
    return ""


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
