"""The ONNX form of a description: one graph with an input for each column, text for categories.

Columns are calculated in float64, the network in its own precision, as linreg does it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linreg.errors import UsageError
from linreg.experiment.export.describing import Description, Step, output_names
from linreg.experiment.export.expressions import Expression, call, fold, substitute, variable
from linreg.experiment.export.functions import REPLACEMENTS, activation, derived, inverse
from linreg.experiment.export.rows import Rows
from linreg.system.version import __version__

OPSET, ML_OPSET, IR_VERSION = 18, 3, 9  # of early 2023
INSTALL = "--to onnx: needs onnx; pip install 'linreg[onnx]'"
UNSEEN, GAP = -1, -2  # codes of texts that are no categories

_OPERATORS = {
    "add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow", "maximum": "Max",
    "minimum": "Min", "absolute": "Abs", "floor": "Floor", "sqrt": "Sqrt", "exp": "Exp", "log": "Log", "tanh": "Tanh",
    "erf": "Erf", "sin": "Sin", "cos": "Cos", "if_less": "Less", "if_equal": "Equal",
}  # fmt: skip


class Graph:
    """A graph under construction: nodes and constants, with names that are none of the inputs and outputs."""

    def __init__(self, taken: Sequence[str]) -> None:
        self.prefix = "linreg"
        while any(name.startswith(self.prefix) for name in taken):
            self.prefix += "_"
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its output."""
        from onnx import helper

        output = output or f"{self.prefix}/{len(self.nodes)}_{operator}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, values: Any, dtype: str = "float64") -> str:
        """Add a constant, and return its name."""
        from onnx import numpy_helper

        name = f"{self.prefix}/constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=dtype), name))
        return name

    def value(self, root: Expression, variables: dict[str, str], dtype: str = "float64") -> str:
        """Add the nodes of an expression, and return the name of its value. ONNX Runtime has no Erf in float64."""
        missing = REPLACEMENTS if dtype == "float64" else {k: v for k, v in REPLACEMENTS.items() if k != "erf"}

        def make(expression: Expression, arguments: list[str]) -> str:
            if expression.operation == "variable":
                return variables[expression.name]
            if expression.operation == "constant":
                return self.constant(expression.value, dtype)
            operator = _OPERATORS[expression.operation]
            if expression.operation.startswith("if_"):
                left, right, yes, no = arguments
                return self.node("Where", self.node(operator, left, right), yes, no)
            return self.node(operator, *arguments)

        return fold(substitute(root, missing), make)

    def is_finite(self, x: str) -> str:
        """Return whether all columns of a row are finite: (N, 1)."""
        largest = self.constant(np.finfo(np.float64).max)
        is_small = self.node("LessOrEqual", self.node("Abs", x), largest)
        smallest = self.node("ReduceMin", self.node("Cast", is_small, to=6), self.constant([1], "int64"), keepdims=1)
        return self.node("Cast", smallest, to=9)


def write(description: Description) -> bytes:
    """Return the model. Raises UsageError if the package onnx is missing, or the model has no inputs."""
    try:
        from onnx import TensorProto, checker, helper
    except ImportError:
        raise UsageError(INSTALL) from None
    if not description["inputs"]:
        raise UsageError("--to onnx: the model has no inputs, so a graph has no rows; use --to json")
    inputs, outputs = description["inputs"], output_names(description)
    graph = Graph([*(entry["name"] for entry in inputs), *outputs])
    dtype = description["precision"]
    x, is_taken = _encoded(graph, description)
    width = sum(len(entry.get("categories", [0])) for entry in inputs)
    is_network = False  # between the first and the last layer
    last = max(i for i, step in enumerate(description["steps"]) if step["step"] == "linear")
    for number, step in enumerate(description["steps"][1:], 1):
        if step["step"] in ("powers", "linear") and not is_network:
            is_network, x = True, graph.node("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        x, width = _applied(graph, step, x, width, dtype if is_network else "float64")
        if number == last:
            x, is_network = graph.node("Cast", x, to=TensorProto.DOUBLE), False
        if step["step"] == "derive":
            is_taken = graph.node("And", is_taken, graph.is_finite(x))
    is_taken = graph.node("And", is_taken, graph.is_finite(x))
    y = graph.node("Where", is_taken, x, graph.constant(np.nan))
    for i, name in enumerate(outputs):
        graph.node("Gather", y, graph.constant([i], "int64"), axis=1, output=name)
    kinds = {"category": TensorProto.STRING}
    made = helper.make_graph(
        graph.nodes,
        "linreg",
        [helper.make_tensor_value_info(e["name"], kinds.get(e["kind"], TensorProto.DOUBLE), ["n", 1]) for e in inputs],
        [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", 1]) for name in outputs],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    model = helper.make_model(
        made, opset_imports=opsets, ir_version=IR_VERSION, producer_name="linreg", producer_version=__version__
    )
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _encoded(graph: Graph, description: Description) -> tuple[str, str]:
    """Add the columns of the inputs. Return the name of all, (N, n_columns), and of the rows that are taken, (N, 1)."""
    columns, taken = [], []
    for entry in description["inputs"]:
        name = entry["name"]
        if entry["kind"] != "category":
            if entry["gap"] is not None:
                name = graph.node("Where", graph.node("IsNaN", name), graph.constant(entry["gap"]), name)
            columns.append(name)
            taken.append(graph.is_finite(name))
            continue
        categories = entry["categories"]
        codes = {"": GAP if entry["gap"] is None else categories.index(entry["gap"])}
        codes |= {text: categories.index(own) for text, own in entry["also"].items()}
        codes |= {text: code for code, text in enumerate(categories)}
        keys = [text.encode("utf-8", "surrogateescape") for text in codes]
        attributes: dict[str, Any] = {
            "keys_strings": keys,
            "values_int64s": list(codes.values()),
            "default_int64": UNSEEN,
        }
        code = graph.node("LabelEncoder", name, domain="ai.onnx.ml", **attributes)
        lowest = 0 if entry["unseen"] == "error" else UNSEEN
        taken.append(graph.node("GreaterOrEqual", code, graph.constant([[lowest]], "int64")))
        is_own = graph.node("Equal", code, graph.constant([range(len(categories))], "int64"))
        columns.append(graph.node("Cast", is_own, to=11))
    all_taken = taken[0]
    for one in taken[1:]:
        all_taken = graph.node("And", all_taken, one)
    return graph.node("Concat", *columns, axis=1), all_taken


def _applied(graph: Graph, step: Step, x: str, width: int, dtype: str) -> tuple[str, int]:
    """Add a step to x (N, width). Return the name and the width of its result."""

    def constants(key: str) -> str:
        return graph.constant(step[key], dtype)

    match step["step"]:
        case "derive":
            columns = _columns(graph, x, width)
            before = [variable(str(i)) for i in range(width)]
            named = {str(i): column for i, column in enumerate(columns)}
            roots = [derived(column, before) for column in step["columns"]]
            zero = call("multiply", before[0], 0.0)  # gives a constant a value for each row
            roots = [call("add", zero, root) if root.is_constant else root for root in roots]
            made = [graph.value(root, named) for root in roots]
            return graph.node("Concat", *made, axis=1), len(made)
        case "standardize":
            is_constant = graph.constant([[scale == 0 for scale in step["scale"]]], "bool")
            scale = graph.constant([scale or 1.0 for scale in step["scale"]], dtype)
            scaled = graph.node("Div", graph.node("Sub", x, constants("mean")), scale)
            return graph.node("Where", is_constant, graph.constant(0.0, dtype), scaled), width
        case "powers":
            powers = [graph.node("Pow", x, graph.constant(n, dtype)) for n in range(1, step["degree"] + 1)]
            return graph.node("Concat", *powers, axis=1), width * step["degree"]
        case "linear":
            weights = graph.constant(np.array(step["weights"]).T, dtype)
            return graph.node("Gemm", x, weights, constants("bias")), len(step["bias"])
        case "activation":
            return graph.value(activation(step["function"])(variable("x")), {"x": x}, dtype), width
        case "restore":
            return graph.node("Add", graph.node("Mul", x, constants("scale")), constants("mean")), width
    columns = _columns(graph, x, width)
    inverted = [graph.value(inverse(step, i)(variable("z")), {"z": z}, dtype) for i, z in enumerate(columns)]
    return graph.node("Concat", *inverted, axis=1), width


def _columns(graph: Graph, x: str, width: int) -> list[str]:
    """Return the names of the columns (N, 1) of x (N, width)."""
    return [graph.node("Gather", x, graph.constant([i], "int64"), axis=1) for i in range(width)]


def run(content: bytes, description: Description, rows: Rows) -> NDArray[np.float64]:
    """Predict with ONNX Runtime: (N, n_targets). Raises RuntimeError where it cannot."""
    try:
        import onnxruntime
    except ImportError:
        raise RuntimeError("needs onnxruntime; pip install 'linreg[onnx]'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    feeds = {
        entry["name"]: np.array(
            [["" if value is None else value] for value in rows.values[entry["name"]]],
            dtype=object if entry["kind"] == "category" else np.float64,
        )
        for entry in description["inputs"]
    }
    return np.hstack(session.run(output_names(description), feeds))
