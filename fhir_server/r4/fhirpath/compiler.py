"""Syntax tree -> functions. What is fixed by the text is worked out once, not at each evaluation.

There are two forms of everything: :data:`Items` gives values; :data:`Truth` gives a boolean or
``None``, and makes no list of it. A condition is made of the latter as far as it goes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fhir_server.outcome import nearest, shown
from fhir_server.r4.fhirpath.comparison import distinct, keys
from fhir_server.r4.fhirpath.comparison import key as key_of
from fhir_server.r4.fhirpath.environment import (
    BOOLEANS,
    Items,
    State,
    Step,
    Truth,
    integer,
    truth,
)
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.functions.function import Function
from fhir_server.r4.fhirpath.functions.table import FUNCTIONS
from fhir_server.r4.fhirpath.logic import LOGIC, all_of, any_of, folded
from fhir_server.r4.fhirpath.model import Node as Element
from fhir_server.r4.fhirpath.model import Value, is_as, is_type
from fhir_server.r4.fhirpath.moments import moment, time
from fhir_server.r4.fhirpath.operators import COMPARISONS, OPERATORS, negated
from fhir_server.r4.fhirpath.quantities import quantity
from fhir_server.r4.fhirpath.tree import (
    Amount,
    Binary,
    Call,
    Empty,
    Index,
    Literal,
    Member,
    Moment,
    Name,
    Node,
    Sign,
    Typed,
    Variable,
    operands,
    steps,
)
from fhir_server.r4.fhirpath.variables import is_closed, variable
from fhir_server.r4.ucum import Units

_NO_UNITS = Units()
_NOTHING: list[Value] = []


@dataclass(frozen=True, slots=True)
class Compiled:
    """One expression, in both forms."""

    items: Items
    truth: Truth


def compiled_tree(node: Node) -> Compiled:
    """Return the functions that ``node`` means. Raises :class:`FhirPathError`, with a position."""
    if is_closed(node) and isinstance(node, Member | Index | Call | Binary):
        return _of_items(_remembered(_made(node).items))
    return _made(node)


def _made(node: Node) -> Compiled:
    match node:
        case Binary():
            return _binary(node)
        case Sign("-", operand):
            inner = compiled_tree(operand).items
            return _of_items(lambda this, state: negated(inner(this, state), state))
        case Sign(_, operand):
            return compiled_tree(operand)
        case Member() | Index() | Call() | Typed():
            return _path(node)
    return _of_items(_term(node))


def _of_items(items: Items) -> Compiled:
    return Compiled(items, lambda this, state: truth(items(this, state)))


def _of_truth(test: Truth) -> Compiled:
    return Compiled(lambda this, state: BOOLEANS[test(this, state)], test)


def _remembered(items: Items) -> Items:
    """Return ``items``, which depend on the environment alone, so that they are found once."""

    def remembered(this: list[Value], state: State) -> list[Value]:
        memo = state.environment.memo
        found: list[Value] | None = memo.get(remembered)
        if found is None:
            found = memo[remembered] = items(this, state)
        return found

    return remembered


# ----------------------------------------------------------------------------------------- terms


def _term(node: Node) -> Items:
    match node:
        case Literal(value):
            return _constant([value])
        case Empty():
            return _constant(_NOTHING)
        case Moment(text, at):
            found = time(text[1:]) if text[0] == "T" else moment(text)
            if found is None:
                raise FhirPathError(f"@{text} is no date or time", at)
            return _constant([found])
        case Amount(value, unit, calendar):
            return _constant([quantity(value, unit, calendar=calendar)])
        case Variable():
            return variable(node)
        case Name(name):
            return _name(name)
    raise AssertionError(f"{node} is no term")


def _constant(values: list[Value]) -> Items:
    return lambda this, state: values


def _name(name: str) -> Items:
    if name == "$this":
        return lambda this, state: this
    if name == "$index":
        return lambda this, state: [] if state.index is None else [state.index]
    if name == "$total":
        return lambda this, state: state.total
    below = _member(name)
    if not name[:1].isupper():
        return lambda this, state: below(this, this, state)

    def typed(this: list[Value], state: State) -> list[Value]:
        """The name of a type is what is of that type; no element of R4 begins so."""
        found: list[Value] = [
            one for one in this if type(one) is Element and name in one.shape.names
        ]
        return found or below(this, this, state)

    return typed


# ----------------------------------------------------------------------------------------- paths


def _path(node: Member | Index | Call | Typed) -> Compiled:
    first, rest = steps(node)
    begin = compiled_tree(first).items if first is not None else _name("$this")
    *before, last = rest
    walk = tuple(_step(one) for one in before)
    cost = len(rest)

    def source(this: list[Value], state: State) -> list[Value]:
        found = begin(this, state)
        for step in walk:
            found = step(found, this, state)
        state.left -= cost
        if state.left < 0:
            state.spend(0)
        return found

    test = _final_test(last)
    if test is not None:
        return _of_truth(lambda this, state: test(source(this, state), this, state))
    final = _step(last)
    return _of_items(lambda this, state: final(source(this, state), this, state))


_FinalTest = Callable[[list[Value], list[Value], State], bool | None]


def _final_test(last: Node) -> _FinalTest | None:
    """Return the last step of a path that gives a boolean, where it is often the last."""
    match last:
        case Call(_, "exists", ()):
            return lambda items, this, state: bool(items)
        case Call(_, "empty", ()):
            return lambda items, this, state: not items
        case Typed("is", _, type):
            return _is(type, last.namespace)
    return None


def _step(node: Node) -> Step:
    match node:
        case Member(_, name):
            return _member(name)
        case Index(_, position):
            return _index(position)
        case Typed("is", _, type, namespace):
            test = _is(type, namespace)
            return lambda items, this, state: BOOLEANS[test(items, this, state)]
        case Typed(_, _, type, namespace):
            return _as(type, namespace)
        case Call():
            return _call(node)
    raise AssertionError(f"{node} is no step")


def _member(name: str) -> Step:
    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        found: list[Any] = []
        if len(items) == 1:
            item = items[0]
            found = item.shape.below(item, name) if type(item) is Element else []
        else:
            for item in items:
                if type(item) is Element:
                    found += item.shape.below(item, name)
        state.left -= len(items) + len(found)
        return found

    return step


def _index(position: Node) -> Step:
    where = compiled_tree(position).items

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        at = integer(where(this, state), "An index")
        return items[at : at + 1] if at is not None and at >= 0 else []

    return step


def _is(type: str, namespace: str) -> _FinalTest:
    def test(items: list[Value], this: list[Value], state: State) -> bool | None:
        _check_type(type, namespace, state)
        if len(items) > 1:
            raise FhirPathError(f"is takes one item, and there are {len(items)}")
        return is_type(items[0], type, namespace) if items else None

    return test


def _as(type: str, namespace: str) -> Step:
    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        _check_type(type, namespace, state)
        state.left -= len(items)
        return [item for item in items if is_as(item, type, namespace)]

    return step


def _check_type(type: str, namespace: str, state: State) -> None:
    model = state.environment.model
    if not model.knows(type, namespace):
        near = nearest(type, model.definitions.types)
        raise FhirPathError(f"{shown(type)} is no type.{near}")


# ----------------------------------------------------------------------------------------- calls


def _call(node: Call) -> Step:
    function = FUNCTIONS.get(node.name)
    if function is None:
        near = nearest(node.name, FUNCTIONS)
        raise FhirPathError(
            f"{shown(node.name + '()')} is no function{near or ' of FHIRPath'}", node.at
        )
    if not function.least <= len(node.arguments) <= function.most:
        raise FhirPathError(f"{node.name}() has {_arguments(function)}", node.at)
    written = [_unsigned(one) if node.name == "sort" else one for one in node.arguments]
    arguments = tuple(compiled_tree(one).items for one in written)
    if function.make is not None:
        return function.make(arguments, node.arguments)
    run, test = function.run, function.test

    def step(items: list[Value], this: list[Value], state: State) -> list[Value]:
        state.left -= 1 + (len(items) >> 4)
        given = [one(this, state) for one in arguments]
        if test is not None:
            return BOOLEANS[test(items, given, state)]
        assert run is not None
        return run(items, given, state)

    return step


def _unsigned(node: Node) -> Node:
    """Return what ``sort(-name)`` sorts by, backwards: strings as well have no minus."""
    return node.operand if isinstance(node, Sign) else node


def _arguments(function: Function) -> str:
    least, most = function.least, function.most
    counts = f"{least} argument{'' if least == 1 else 's'}"
    return counts if least == most else f"{least} to {most} arguments"


# ------------------------------------------------------------------------------------- operators


def _binary(node: Binary) -> Compiled:
    """Compile a chain ``a = b and c or d`` from its first operand on, not as deep as it is long."""
    constant = _constants(node)
    if constant is not None:
        return _of_items(_constant(distinct(constant, _NO_UNITS)))
    first, rest = operands(node)
    found = compiled_tree(first)
    at = 0
    while at < len(rest):
        end = at
        logical = rest[at][0].operator in LOGIC
        while end < len(rest) and (rest[end][0].operator in LOGIC) == logical:
            end += 1
        found = (_logic if logical else _calculation)(found, rest[at:end])
        at = end
    return found


_Rest = Sequence[tuple[Binary, Node]]


def _logic(first: Compiled, rest: _Rest) -> Compiled:
    names = {one.operator for one, _ in rest}
    tests = [first.truth, *(compiled_tree(right).truth for _, right in rest)]
    if names == {"and"}:
        return _of_truth(all_of(tests))
    if names == {"or"}:
        return _of_truth(any_of(tests))
    return _of_truth(
        folded(
            tests[0], [(one.operator, test) for (one, _), test in zip(rest, tests[1:], strict=True)]
        )
    )


def _calculation(first: Compiled, rest: _Rest) -> Compiled:
    if len(rest) == 1:
        (node, right) = rest[0]
        return _comparison(first.items, node.operator, right)
    left = first.items
    chain = [(_operator(node.operator), compiled_tree(right).items) for node, right in rest]

    def calculate(this: list[Value], state: State) -> list[Value]:
        found = left(this, state)
        for operator, right in chain:
            state.spend(1)
            found = operator(found, right(this, state), state)
        return found

    return _of_items(calculate)


def _operator(symbol: str) -> Callable[[list[Value], list[Value], State], list[Value]]:
    if symbol in OPERATORS:
        return OPERATORS[symbol]
    comparison = COMPARISONS[symbol]
    return lambda left, right, state: BOOLEANS[comparison(left, right, state)]


def _comparison(left: Items, symbol: str, right_node: Node) -> Compiled:
    if symbol in ("=", "!=") and isinstance(right_node, Literal) and type(right_node.value) is str:
        return _of_truth(_equals_text(left, right_node.value, symbol == "="))
    constant = _constants(right_node) if symbol == "in" else None
    if constant is not None:
        return _of_truth(_in_constants(left, constant))
    right = compiled_tree(right_node).items
    if symbol in OPERATORS:
        operator = OPERATORS[symbol]
        return _of_items(lambda this, state: operator(left(this, state), right(this, state), state))
    comparison = COMPARISONS[symbol]
    return _of_truth(lambda this, state: comparison(left(this, state), right(this, state), state))


def _equals_text(left: Items, text: str, wanted: bool) -> Truth:
    """``path = 'text'``, which conditions are mostly made of."""

    def test(this: list[Value], state: State) -> bool | None:
        found = left(this, state)
        state.left -= 1
        if len(found) != 1:
            return (not wanted) if found else None
        item: Any = found[0]
        if type(item) is Element and item.shape.read is not None:
            item = item.shape.read(item.value)
        return (type(item) is str and item == text) is wanted

    return test


def _in_constants(left: Items, constants: Sequence[Value]) -> Truth:
    members = keys(constants, _NO_UNITS)

    def test(this: list[Value], state: State) -> bool | None:
        found = left(this, state)
        if len(found) > 1:
            raise FhirPathError("in and contains look for a single item")
        return key_of(found[0], state.units) in members if found else None

    return test


def _constants(node: Node) -> list[Value] | None:
    """Return the values of ``'a' | 'b'`` in their order, or ``None`` for anything else."""
    first, rest = operands(node) if isinstance(node, Binary) else (node, [])
    found: list[Value] = []
    for one in (first, *(right for _, right in rest)):
        if not isinstance(one, Literal) or isinstance(one.value, Decimal):
            return None
        found.append(one.value)
    return found if all(one.operator == "|" for one, _ in rest) else None
