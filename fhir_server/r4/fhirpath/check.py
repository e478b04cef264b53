"""Whether an expression can mean something on elements of a type, told without any element.

http://hl7.org/fhirpath/N1/#type-safety-and-strict-evaluation

Evaluation forgives: what no type has is nothing. Here a name that no type has, an operation that no
type allows and an order that there is none of are faults. What cannot be told passes.
"""

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from fhir_server.outcome import nearest, shown
from fhir_server.r4.fhirpath.engine import Expression
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.functions import strings
from fhir_server.r4.fhirpath.model import SYSTEM_TYPES, Model, Shape
from fhir_server.r4.fhirpath.moments import moment
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

_Kind = Shape | str
"""What one value may be: an element of a shape, or a value of a System type."""


@dataclass(frozen=True, slots=True)
class _Kinds:
    """What the values of an expression may be; ``None`` is anything."""

    of: Set[_Kind] | None
    ordered: bool = True


_ANY = _Kinds(None)
_BOOLEAN = _Kinds({"Boolean"})
_LOGIC = frozenset("and or xor implies = != ~ !~ < <= > >= in contains is".split())
_SYSTEM_OF = {
    **dict.fromkeys(("string", "uri", "base64Binary", "xhtml"), "String"),
    "boolean": "Boolean",
    "integer": "Integer",
    "decimal": "Decimal",
    "Quantity": "Quantity",
    "date": "Date",
    "dateTime": "DateTime",
    "instant": "DateTime",
    "time": "Time",
}
_TIMES = ("Date", "DateTime", "Time")
_OF_STRINGS = frozenset(strings.FUNCTIONS) - {"join"}
_NEEDS_ORDER = frozenset("first last tail skip take".split())
# Functions whose result is made of what they are called on.
_SAME = frozenset(
    "where first last tail skip take single distinct trace exclude intersect sort".split()
)
_FOR_EACH = frozenset("where select all exists repeat aggregate sort trace".split())
_RESULTS: Mapping[str, str] = {
    **dict.fromkeys("exists empty all allTrue anyTrue allFalse anyFalse not".split(), "Boolean"),
    **dict.fromkeys("subsetOf supersetOf isDistinct hasValue conformsTo".split(), "Boolean"),
    **dict.fromkeys("startsWith endsWith contains matches matchesFull".split(), "Boolean"),
    **dict.fromkeys("count length indexOf toInteger".split(), "Integer"),
    **dict.fromkeys("substring upper lower trim replace replaceMatches".split(), "String"),
    **{f"to{type}": type for type in SYSTEM_TYPES},
    **{f"convertsTo{type}": "Boolean" for type in SYSTEM_TYPES},
    "now": "DateTime",
    "today": "Date",
    "timeOfDay": "Time",
}


def checked(expression: Expression, type: str, model: Model) -> None:
    """Refuse ``expression`` where it can mean nothing on elements of ``type``, or without one.

    Raises :class:`FhirPathError`, with the position of the fault.
    """
    this = _Kinds({model.shape(type)}) if type else _ANY
    _Checker(model).kinds(expression.tree, this)


class _Checker:
    def __init__(self, model: Model) -> None:
        self._model = model

    def kinds(self, node: Node | None, this: _Kinds) -> _Kinds:
        """Return what the values of ``node`` may be where a path begins at ``this``."""
        if isinstance(node, Binary):
            first, rest = operands(node)
            found = self.kinds(first, this)
            for operation, right in rest:
                found = self._binary(operation, found, self.kinds(right, this))
            return found
        begin, path = steps(node)
        found = this if begin is None else self._first(begin, this)
        for step in path:
            found = self._step(step, found, this)
        return found

    def _first(self, node: Node, this: _Kinds) -> _Kinds:
        match node:
            case Literal(value):
                kind = {bool: "Boolean", int: "Integer", str: "String"}.get(type(value), "Decimal")
                return _Kinds({kind})
            case Moment(text):
                found = moment(text)
                return _Kinds({"Time" if found is None else found.type})
            case Amount():
                return _Kinds({"Quantity"})
            case Empty():
                return _ANY
            case Variable(name):
                return _Kinds({"String"}) if name in ("ucum", "sct", "loinc") else _ANY
            case Sign(_, operand):
                return self.kinds(operand, this)
            case Name(name):
                return self._name(name, this, node.at)
        return self.kinds(node, this)

    def _name(self, name: str, this: _Kinds, at: int) -> _Kinds:
        if name.startswith("$"):
            return this if name == "$this" else _ANY
        if not name[:1].isupper() or name not in self._model.definitions.types or not this.of:
            return self._member(name, this, at)
        named = {one for one in this.of if isinstance(one, Shape) and name in one.names}
        if not named:
            raise FhirPathError(f"{shown(name)} is not the type of what the path begins at", at)
        return _Kinds(named)

    def _member(self, name: str, source: _Kinds, at: int) -> _Kinds:
        if source.of is None or any(_is_open(one) for one in source.of):
            return _ANY
        shapes = [one for one in source.of if isinstance(one, Shape)]
        forms = [form for shape in shapes for form in shape.named.get(name, ())]
        if not forms:
            known = [known for shape in shapes for known in shape.named]
            types = " or ".join(sorted(map(_kind_name, source.of))[:3]) or "What is there"
            raise FhirPathError(f"{types} has no element {shown(name)}.{nearest(name, known)}", at)
        return _Kinds({form.shape for form in forms}, source.ordered)

    def _step(self, step: Node, source: _Kinds, this: _Kinds) -> _Kinds:
        match step:
            case Member(_, name):
                return self._member(name, source, step.at)
            case Index(_, position):
                self._check_order(source, "[]", step.at)
                self.kinds(position, this)
                return source
            case Typed("is"):
                self._check_type(step)
                return _BOOLEAN
            case Typed(_, _, name, namespace):
                self._check_type(step)
                is_system = namespace == "System" or name not in self._model.definitions.types
                return _Kinds({name if is_system else self._model.shape(name)}, source.ordered)
            case Call():
                return self._call(step, source, this)
        return _ANY

    def _check_type(self, step: Typed) -> None:
        if not self._model.knows(step.type, step.namespace):
            raise FhirPathError(f"{shown(step.type)} is no type", step.at)

    def _check_order(self, source: _Kinds, what: str, at: int) -> None:
        if not source.ordered:
            raise FhirPathError(f"{what} needs an order, and there is none here", at)

    def _call(self, step: Call, source: _Kinds, this: _Kinds) -> _Kinds:
        name = step.name
        if name in _NEEDS_ORDER:
            self._check_order(source, f"{name}()", step.at)
        if name in _OF_STRINGS and not _may_be(source, ("String",)):
            raise FhirPathError(f"{name}() takes a string", step.at)
        inner = source if name in _FOR_EACH or name == "iif" else this
        if name == "aggregate":
            inner = _ANY
        arguments = [self.kinds(one, inner) for one in step.arguments]
        if name == "iif" and not _may_be(arguments[0], ("Boolean",)):
            raise FhirPathError("the criterion of iif() is a boolean", step.at)
        if name in _SAME:
            return source
        if name == "select":
            return arguments[0]
        if name in ("children", "descendants"):
            return _Kinds(None, ordered=False)
        return _Kinds({_RESULTS[name]}) if name in _RESULTS else _ANY

    def _binary(self, node: Binary, left: _Kinds, right: _Kinds) -> _Kinds:
        if node.operator in _LOGIC:
            return _BOOLEAN
        if node.operator == "|":
            both = None if left.of is None or right.of is None else {*left.of, *right.of}
            return _Kinds(both)
        if node.operator in ("+", "-") and _all_are(left, _TIMES):
            if not _may_be(right, ("Quantity",)):
                raise FhirPathError("only a quantity of time is added to a date", node.at)
            return left
        return _ANY


def _is_open(kind: _Kind) -> bool:
    """Whether more may be there than the definitions say: a resource of any type."""
    return isinstance(kind, Shape) and kind.type in ("Resource", "DomainResource", "Element", "")


def _kind_name(kind: _Kind) -> str:
    return kind.at if isinstance(kind, Shape) else kind


def _system_types(kinds: Iterable[_Kind]) -> set[str]:
    found = set()
    for kind in kinds:
        names = kind.names if isinstance(kind, Shape) else ()
        found |= {_SYSTEM_OF[name] for name in names if name in _SYSTEM_OF}
        if isinstance(kind, str):
            found.add(kind)
    return found


def _may_be(kinds: _Kinds, wanted: Iterable[str]) -> bool:
    if kinds.of is None or any(_is_open(one) for one in kinds.of):
        return True
    return not _system_types(kinds.of).isdisjoint(wanted)


def _all_are(kinds: _Kinds, wanted: tuple[str, ...]) -> bool:
    return bool(kinds.of) and _system_types(kinds.of or ()) <= set(wanted)
