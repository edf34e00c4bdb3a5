"""The C form of a description: one C99 file with one function, which needs <math.h> alone."""

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.errors import UsageError
from linreg.experiment.export.describing import Description, Step
from linreg.experiment.export.expressions import Expression, in_order, text_of, variable
from linreg.experiment.export.functions import activation, derived, inverse
from linreg.experiment.export.rows import Rows

WIDEST = 50_000  # columns of a layer, for which the function needs 16 bytes of stack each

_CALLS = {
    "add": "({} + {})", "subtract": "({} - {})", "multiply": "({} * {})", "divide": "({} / {})", "power": "pow({}, {})",
    "maximum": "fmax({}, {})", "minimum": "fmin({}, {})", "absolute": "fabs({})", "floor": "floor({})",
    "sqrt": "sqrt({})", "exp": "exp({})", "expm1": "expm1({})", "log": "log({})", "log1p": "log1p({})",
    "tanh": "tanh({})", "erf": "erf({})", "sin": "sin({})", "cos": "cos({})",
    "if_less": "({} < {} ? {} : {})", "if_equal": "({} == {} ? {} : {})",
}  # fmt: skip

_SAME = """\
static int is_same(const char *a, const char *b)
{
    while (*a != '\\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

"""


def function_name(description: Description) -> str:
    """Return the name of the function: that of the experiment, as C writes names."""
    name = re.sub(r"\W", "_", description["name"], flags=re.ASCII)
    return f"{'m' if name[0].isdigit() else ''}{name}_predict"


def write(description: Description) -> str:
    """Return the text of the file. Raises UsageError for a layer that is too wide for the stack."""
    name, steps = function_name(description), description["steps"][1:]
    widths = list(_widths(description))
    if max(widths) > WIDEST:
        raise UsageError(
            f"--to c: a layer has {max(widths)} columns, and C takes up to {WIDEST}; use --to onnx or json"
        )
    numbers = [i for i, entry in enumerate(description["inputs"]) if entry["kind"] != "category"]
    tables = [line for number, step in enumerate(steps) for line in _tables(number, step)]
    body = [line for number, step in enumerate(steps) for line in _lines(number, step, widths[number])]
    texts = len(numbers) < len(description["inputs"])
    lines = [
        *_comment(description, name),
        "#include <math.h>",
        "",
        *tables,
        "",
        *(_SAME.splitlines() if texts else ()),
        f"int {name}(const double *numbers, const char *const *texts, double *y)",
        "{",
        f"    double a[{max(widths)}], b[{max(widths)}];",
        "    int i, j;",
        "",
        f"    for (i = 0; i < {len(description['outputs'])}; i++)",
        "        y[i] = NAN;",
        *_encoding(description, numbers),
        *body,
        f"    for (i = 0; i < {len(description['outputs'])}; i++)",
        "        if (!isfinite(a[i]))",
        "            return -1;",
        f"    for (i = 0; i < {len(description['outputs'])}; i++)",
        "        y[i] = a[i];",
        f"    (void)numbers, (void)texts, (void)b, (void)j{', (void)is_same' if texts else ''};",
        "    return 0;",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _widths(description: Description) -> Iterator[int]:
    """Yield the number of columns before the first step after `encode`, and after each of them; at least 1."""
    width = sum(len(entry["categories"]) if "categories" in entry else 1 for entry in description["inputs"])
    yield max(width, 1)
    for step in description["steps"][1:]:
        match step["step"]:
            case "derive":
                width = len(step["columns"])
            case "powers":
                width *= step["degree"]
            case "linear":
                width = len(step["bias"])
        yield max(width, 1)


def _comment(description: Description, name: str) -> list[str]:
    inputs = description["inputs"]
    listed = []
    for kinds, array in ((("number", "date"), "numbers"), (("category",), "texts")):
        entries = [entry for entry in inputs if entry["kind"] in kinds]
        listed += [f"   {array}[{i}]: {_printable(entry['name'])}" for i, entry in enumerate(entries)]
    listed += [f"   y[{i}]: {_printable(target)}" for i, target in enumerate(description["outputs"])]
    return [
        f"/* {name}: a model that linreg {description['linreg']} exported. C99, needs -lm.",
        "",
        *listed,
        "",
        "   A gap is NAN or NULL. A date is days since 1970-01-01. Returns 0; or the position of the input that the",
        "   model refuses, counted from 1; or -1 for a value that is not finite. Then y is NAN. */",
    ]


def _printable(name: str) -> str:
    """Return a name for a comment: other characters than plain ones are \\u escapes."""
    return re.sub(r"[^\w .,:;=()%#-]", lambda match: f"\\u{ord(match[0]):04x}", name, flags=re.ASCII)


def text_literal(text: str) -> str:
    """Return a text as a C string of its UTF-8 bytes. Raises UsageError for one with a NUL."""
    if "\0" in text:
        raise UsageError(f"--to c: category {text!r} has a NUL character, which ends a text in C; use --to json")
    plain = re.compile(rb"[A-Za-z0-9 _.,:;=()%#+<>-]")
    parts = (bytes([byte]) for byte in text.encode("utf-8", "surrogateescape"))
    return '"' + "".join(part.decode() if plain.fullmatch(part) else f"\\{part[0]:03o}" for part in parts) + '"'


def number_literal(value: float) -> str:
    """Return a number as a C constant with the same bits."""
    if value == int(value) and abs(value) < 1e6:
        return repr(value)
    return re.sub(r"(?<=[0-9a-f])0+p", "p", value.hex())


def _array(name: str, values: Sequence[float]) -> list[str]:
    cells = [number_literal(value) for value in values] or ["0.0"]
    rows = [", ".join(cells[i : i + 4]) for i in range(0, len(cells), 4)]
    return [f"static const double {name}[{len(cells)}] = {{", *(f"    {row}," for row in rows), "};"]


def _tables(number: int, step: Step) -> Iterator[str]:
    """Yield the constants of a step."""
    for key in ("mean", "scale", "bias"):
        if key in step:
            yield from _array(f"{key}{number}", step[key])
    if step["step"] == "linear":
        yield from _array(f"weights{number}", [weight for row in step["weights"] for weight in row])


def _encoding(description: Description, numbers: Sequence[int]) -> Iterator[str]:
    """Yield the statements that fill a with the columns of the inputs."""
    column, n_texts = 0, 0
    for position, entry in enumerate(description["inputs"], 1):
        if position - 1 in numbers:
            source = f"numbers[{position - 1 - n_texts}]"
            yield f"    a[{column}] = {source};"
            if entry["gap"] is not None:
                yield f"    if (isnan(a[{column}]))"
                yield f"        a[{column}] = {number_literal(entry['gap'])};"
            yield f"    if (!isfinite(a[{column}]))"
            yield f"        return {position};"
            column += 1
            continue
        yield from _choice(entry, f"texts[{n_texts}]", column, position)
        column += len(entry["categories"])
        n_texts += 1


def _choice(entry: dict[str, Any], source: str, first: int, position: int) -> Iterator[str]:
    """Yield the statements that make a category one-hot."""
    categories, also = entry["categories"], entry["also"]
    yield "    {"
    if entry["gap"] is None:
        yield f"        const char *text = {source};"
        yield "        if (!text)"
        yield f"            return {position};"
    else:
        yield f"        const char *text = {source} ? {source} : {text_literal(entry['gap'])};"
    yield f"        for (i = 0; i < {len(categories)}; i++)"
    yield f"            a[{first} + i] = 0.0;"
    word = "if"
    for i, category in enumerate(categories):
        texts = [category, *(text for text, own in also.items() if own == category)]
        test = " || ".join(f"is_same(text, {text_literal(text)})" for text in texts)
        yield f"        {word} ({test})"
        yield f"            a[{first + i}] = 1.0;"
        word = "else if"
    if entry["unseen"] == "error":
        yield "        else"
        yield f"            return {position};"
    yield "    }"


def _lines(number: int, step: Step, width: int) -> Iterator[str]:
    """Yield the statements of a step, which leave its result in a. width: the number of columns before it."""
    n = f"    for (i = 0; i < {width}; i++)"
    match step["step"]:
        case "derive":
            before = [variable(f"a[{i}]") for i in range(width)]
            yield from _assignments([derived(column, before) for column in step["columns"]], refuses=True)
        case "standardize":
            yield n
            yield f"        a[i] = scale{number}[i] == 0.0 ? 0.0 : (a[i] - mean{number}[i]) / scale{number}[i];"
        case "powers":
            yield f"    for (j = 0; j < {step['degree']}; j++)"
            yield f"        for (i = 0; i < {width}; i++)"
            yield f"            b[j * {width} + i] = pow(a[i], j + 1);"
            yield from _copied(width * step["degree"])
        case "linear":
            n_columns = len(step["weights"][0])
            yield f"    for (i = 0; i < {len(step['bias'])}; i++) {{"
            yield f"        b[i] = bias{number}[i];"
            yield f"        for (j = 0; j < {n_columns}; j++)"
            yield f"            b[i] += weights{number}[i * {n_columns} + j] * a[j];"
            yield "    }"
            yield from _copied(len(step["bias"]))
        case "activation":
            expression = activation(step["function"])(variable("x"))
            yield f"    for (i = 0; i < {width}; i++) {{"
            yield "        const double x = a[i];"
            yield f"        a[i] = {_text(expression, {})};"
            yield "    }"
        case "restore":
            yield n
            yield f"        a[i] = a[i] * scale{number}[i] + mean{number}[i];"
        case "invert":
            yield from _assignments([inverse(step, i)(variable(f"a[{i}]")) for i in range(width)], refuses=False)


def _copied(width: int) -> list[str]:
    return [f"    for (i = 0; i < {width}; i++)", "        a[i] = b[i];"]


def _assignments(roots: Sequence[Expression], *, refuses: bool) -> Iterator[str]:
    """Yield the statements that put expressions in a; a value that occurs twice gets a name."""
    uses: dict[int, int] = {}
    for expression in in_order(roots):
        for argument in expression.arguments:
            uses[id(argument)] = uses.get(id(argument), 0) + 1
    yield "    {"
    names: dict[int, str] = {}
    for expression in in_order(roots):
        if not expression.is_leaf and uses.get(id(expression), 0) > 1:
            yield f"        const double t{len(names)} = {_text(expression, names)};"
            names[id(expression)] = f"t{len(names)}"
    for i, root in enumerate(roots):
        yield f"        b[{i}] = {_text(root, names)};"
    yield "    }"
    if refuses:
        yield f"    for (i = 0; i < {len(roots)}; i++)"
        yield "        if (!isfinite(b[i]))"
        yield "            return -1;"
    yield from _copied(len(roots))


def _text(root: Expression, names: dict[int, str]) -> str:
    """Return the text of an expression, with the names of those that have one."""
    return text_of(root, names, number=number_literal, template=lambda expression: _CALLS[expression.operation])


def run(content: bytes, description: Description, rows: Rows) -> NDArray[np.float64]:
    """Compile the file with cc, and predict with it: (N, n_targets). Raises RuntimeError where it cannot."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler (cc)")
    name = function_name(description)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "model.c"), Path(folder, "model.so")
        source.write_bytes(content)
        command = [compiler, "-std=c99", "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
        compiled = subprocess.run(command, capture_output=True, text=True, check=False)
        if compiled.returncode:
            raise RuntimeError(f"cc failed: {compiled.stderr.strip().partition(chr(10))[0]}")
        try:
            function = ctypes.CDLL(str(library))[name]
        except OSError as error:
            raise RuntimeError(f"the temporary folder takes no libraries: {error}") from None
        return _called(function, description, rows)


def _called(function: Any, description: Description, rows: Rows) -> NDArray[np.float64]:
    inputs = description["inputs"]
    numeric = [entry["name"] for entry in inputs if entry["kind"] != "category"]
    texts = [entry["name"] for entry in inputs if entry["kind"] == "category"]
    y = np.empty((rows.n_rows, len(description["outputs"])))
    for row in range(rows.n_rows):
        numbers = (ctypes.c_double * len(numeric))(*(rows.values[name][row] for name in numeric))
        words = [rows.values[name][row] for name in texts]
        encoded = (ctypes.c_char_p * len(words))(
            *(None if word is None else word.encode("utf-8", "surrogateescape") for word in words)
        )
        function(numbers, encoded, ctypes.c_void_p(y[row : row + 1].ctypes.data))
    return y
