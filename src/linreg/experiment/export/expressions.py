"""Expressions of one number, such as an activation or the month of a date, from which each format writes its own text.

An expression that occurs twice is one object, so that a format can name it and calculate it once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

# name: how many arguments, and what it is
OPERATIONS = {
    "add": 2, "subtract": 2, "multiply": 2, "divide": 2, "power": 2, "maximum": 2, "minimum": 2,
    "absolute": 1, "floor": 1, "sqrt": 1, "exp": 1, "expm1": 1, "log": 1, "log1p": 1, "tanh": 1, "erf": 1, "sin": 1,
    "cos": 1,
    "if_less": 4,  # the third if the first is less than the second, else the fourth
    "if_equal": 4,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Expression:
    """An operation on expressions, a `constant`, or a `variable`."""

    operation: str
    arguments: tuple["Expression", ...] = ()
    value: float = 0.0
    name: str = ""

    def __add__(self, other: "Expression | float") -> "Expression":
        return call("add", self, other)

    def __sub__(self, other: "Expression | float") -> "Expression":
        return call("subtract", self, other)

    def __mul__(self, other: "Expression | float") -> "Expression":
        return call("multiply", self, other)

    def __truediv__(self, other: "Expression | float") -> "Expression":
        return call("divide", self, other)

    @property
    def is_leaf(self) -> bool:
        """Whether it has no arguments."""
        return not self.arguments

    @property
    def is_constant(self) -> bool:
        """Whether it is a constant."""
        return self.operation == "constant"


def constant(value: float) -> Expression:
    """Return a constant."""
    return Expression("constant", value=float(value))


def variable(name: str) -> Expression:
    """Return a variable: the name of a column, or of a value."""
    return Expression("variable", name=name)


def call(operation: str, *arguments: Expression | float) -> Expression:
    """Return an operation on expressions or numbers."""
    assert len(arguments) == OPERATIONS[operation]
    return Expression(operation, tuple(a if isinstance(a, Expression) else constant(a) for a in arguments))


def in_order(roots: Sequence[Expression]) -> Iterator[Expression]:
    """Yield each expression once, after its arguments."""
    done: set[int] = set()

    def walk(expression: Expression) -> Iterator[Expression]:
        if id(expression) not in done:
            for argument in expression.arguments:
                yield from walk(argument)
            done.add(id(expression))
            yield expression

    for root in roots:
        yield from walk(root)


def fold(root: Expression, make: Callable[[Expression, list[T]], T]) -> T:
    """Return what `make` makes of an expression, from what it made of the arguments; each is made once."""
    made: dict[int, T] = {}
    for expression in in_order([root]):
        made[id(expression)] = make(expression, [made[id(argument)] for argument in expression.arguments])
    return made[id(root)]


def text_of(
    root: Expression,
    names: Mapping[int, str],
    *,
    number: Callable[[float], str],
    template: Callable[[Expression], str],
) -> str:
    """Return an expression as the text of a language.

    names: of the expressions, by id, that have a name there; number: writes a constant; template: returns the text of
    an operation, with {0}, {1} for its arguments."""

    def make(expression: Expression, arguments: list[str]) -> str:
        if id(expression) in names:
            return names[id(expression)]
        if expression.operation == "constant":
            return number(expression.value)
        if expression.operation == "variable":
            return expression.name
        return template(expression).format(*arguments)

    return fold(root, make)


def substitute(root: Expression, replace: Mapping[str, Callable[..., Expression]]) -> Expression:
    """Return an expression with some operations replaced by expressions of their arguments."""

    def make(expression: Expression, arguments: list[Expression]) -> Expression:
        if expression.operation in replace:
            return replace[expression.operation](*arguments)
        return expression if expression.is_leaf else call(expression.operation, *arguments)

    return fold(root, make)
