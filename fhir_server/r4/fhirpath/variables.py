"""``%resource`` and its like, and which expressions depend on nothing else.

https://hl7.org/fhir/R4/fhirpath.html#variables
"""

from collections.abc import Mapping

from fhir_server.outcome import shown
from fhir_server.r4.fhirpath.environment import Items, State
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.model import Value
from fhir_server.r4.fhirpath.tree import (
    Amount,
    Binary,
    Call,
    Empty,
    Index,
    Literal,
    Moment,
    Name,
    Node,
    Sign,
    Typed,
    Variable,
    operands,
    steps,
)

_FIXED: Mapping[str, list[Value]] = {
    "ucum": ["http://unitsofmeasure.org"],
    "sct": ["http://snomed.info/sct"],
    "loinc": ["http://loinc.org"],
}
_PREFIXES = {
    "vs-": "http://hl7.org/fhir/ValueSet/",
    "ext-": "http://hl7.org/fhir/StructureDefinition/",
}
# Functions whose arguments are evaluated for each item, not where the path begins.
_FOR_EACH = frozenset(("where", "select", "repeat", "all", "exists", "aggregate", "sort"))
# Functions that depend on more than what they are called on: on answers, on who listens.
_OPEN = frozenset(
    ("resolve", "memberOf", "conformsTo", "subsumes", "subsumedBy", "trace", "iif", "coalesce")
)


def variable(node: Variable) -> Items:
    """Return the values of an external constant; one that is not known is a fault when asked."""
    name = node.text
    if name in _FIXED:
        values = _FIXED[name]
        return lambda this, state: values
    for prefix, url in _PREFIXES.items():
        if name.startswith(prefix):
            named: list[Value] = [url + name.removeprefix(prefix)]
            return lambda this, state: named
    if name in _OF_THE_PLACE:
        return _OF_THE_PLACE[name]

    def given(this: list[Value], state: State) -> list[Value]:
        variables = state.environment.variables
        if name not in variables:
            raise FhirPathError(f"{shown('%' + name)} is not known here", node.at)
        return list(variables[name])

    return given


def _resource(this: list[Value], state: State) -> list[Value]:
    found = state.environment.resource
    return [] if found is None else [found]


def _root_resource(this: list[Value], state: State) -> list[Value]:
    found = state.environment.root_resource or state.environment.resource
    return [] if found is None else [found]


_OF_THE_PLACE: Mapping[str, Items] = {
    "resource": _resource,
    "rootResource": _root_resource,
    "context": lambda this, state: state.context,
}


def is_closed(node: Node | None, inside: bool = False) -> bool:
    """Whether ``node`` gives the same wherever it is asked in one environment.

    ``inside`` says that it is an argument that is evaluated for each item of something closed.
    """
    if isinstance(node, Binary):
        first, chain = operands(node)
        return is_closed(first, inside) and all(is_closed(right, inside) for _, right in chain)
    begin, rest = steps(node)
    return _begins_closed(begin, inside) and all(_is_closed_step(one, inside) for one in rest)


def _begins_closed(node: Node | None, inside: bool) -> bool:
    match node:
        case None | Name():
            return inside
        case Variable(name):
            return name != "context"
        case Literal() | Moment() | Amount() | Empty():
            return True
        case Sign(_, operand):
            return is_closed(operand, inside)
    return is_closed(node, inside)


def _is_closed_step(step: Node, inside: bool) -> bool:
    match step:
        case Index(_, position):
            return is_closed(position, inside)
        case Call(_, name, arguments):
            within = inside or name in _FOR_EACH
            return name not in _OPEN and all(is_closed(one, within) for one in arguments)
        case Typed():
            return True
    return True
