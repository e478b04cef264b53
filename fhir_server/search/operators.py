"""The operators of ``_filter`` -> selections, through the compilers of each parameter type.

https://hl7.org/fhir/R4/search_filter.html
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from fhir_server.outcome import FhirError, Issue, nearest
from fhir_server.search.chain import Chains, Either, Selection, Without
from fhir_server.search.composite import part_name
from fhir_server.search.criteria import MISSING, Criteria
from fhir_server.search.escape import escape
from fhir_server.search.filter import Joined, Not, Step, Test, Tree, refused
from fhir_server.search.keys import Filter
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.string import compile_ending, compile_equal, compile_ordered
from fhir_server.search.token import compile_in_text
from fhir_server.search.uri import compile_in_uri

FILTER = "_filter"

_ORDERED = dict.fromkeys(("eq", "ne", "gt", "lt", "ge", "le", "ap", "sa", "eb"), "")
# Type of parameter -> operator -> the modifier that does the same. Those of ordered types are
# prefixes; ``ne``, where it is not among them, is made of ``eq``.
_MODIFIERS: Mapping[str, Mapping[str, str]] = {
    "date": {**_ORDERED, "po": ""},
    "number": _ORDERED,
    "quantity": _ORDERED,
    "token": {
        "eq": "",
        "sw": "text",
        "co": "text",
        "ew": "text",
        "in": "in",
        "ni": "not-in",
        "ss": "below",
        "sb": "above",
    },
    "string": dict.fromkeys(("eq", "sw", "ew", "gt", "lt", "ge", "le"), "") | {"co": "contains"},
    "uri": {"eq": "", "sw": "below", "co": "", "ew": ""},
    "reference": {"eq": "", "re": "", "ss": "below", "sb": "above"},
    "composite": {"eq": ""},
    "special": {"eq": ""},
}
# Of the parts of a composite, which have nothing kept beside their keys; of ordered types all.
_OF_PARTS = ("eq", "re", "in", "ni", "ss", "sb")
_PRESENCE = {"true": "false", "false": "true"}  # pr -> :missing


class Operators:
    """Compiles the trees of one search. ``bounded`` counts each filter against the limits."""

    def __init__(
        self,
        table: ParameterTable,
        criteria: Criteria,
        chains: Chains,
        bounded: Callable[[Filter], Filter],
    ) -> None:
        self._table = table
        self._criteria = criteria
        self._chains = chains
        self._bounded = bounded

    def selection(self, type: str, tree: Tree, steps: int = 0) -> Selection:
        """Return the resources of ``type`` that ``tree`` finds; ``steps`` is how many resources a
        path has led through.

        Raises ``value`` and ``not-supported`` with the column of what cannot be answered, and
        ``too-costly`` for what is over the limits.
        """
        match tree:
            case Test():
                return self._tested(type, tree, steps)
            case Not(below):
                inner = self.selection(type, below, steps)
                if inner.joins:
                    return Selection(type, {}, (Without(inner),))
                return Selection(type, {"$nor": [inner.filter]})
            case Joined(word, parts):
                return _joined(type, word, [self.selection(type, one, steps) for one in parts])

    def _tested(self, type: str, test: Test, steps: int) -> Selection:
        try:
            if test.path:
                return self._along(type, test, steps)
            parameter = _known(self._table.of(type), test.name, type)
            return Selection(type, self._bounded(_compiled(parameter, self._criteria, test)))
        except FhirError as error:
            issue = error.issues[0]
            if FILTER in issue.diagnostics or issue.code == "too-costly" or error.status >= 500:
                raise
            raise refused(issue.code, issue.diagnostics, test.column) from error

    def _along(self, type: str, test: Test, steps: int) -> Selection:
        """Follow the first step of the path of ``test``."""
        head, *rest = test.path
        parameter = _known(self._table.of(type), head.name, type)
        inner = replace(test, path=tuple(rest))
        if parameter.type == "composite" and not (head.type or rest):
            return Selection(type, self._bounded(self._in_composite(parameter, head, inner)))
        if parameter.type != "reference":
            text = f"{head.name} is a {parameter.type}; only references and composites lead on."
            raise FhirError(Issue("not-supported", text))
        self._chains.check(steps + 1)
        tree = Joined("and", (head.below, inner)) if head.below else inner
        name = f"{head.name}:{head.type}" if head.type else head.name
        asked = rest[0].name if rest else test.name
        return self._chains.forward(
            type, name, asked, lambda one: self.selection(one, tree, steps + 1)
        )

    def _in_composite(self, whole: Parameter, head: Step, test: Test) -> Filter:
        """Return the filter for one value of ``whole`` of which all that is asked is true."""
        parts = self._table.named_parts(whole)
        conditions = [self._part_met(parts, head.below)] if head.below else []
        if test.operator != "pr":
            conditions.append(self._part_met(parts, test))
            return {whole.field: {"$elemMatch": {"$and": conditions}}}
        _known(parts, test.name, whole.code)
        some = {"$and": conditions} if conditions else {part_name(0): {"$exists": True}}
        there = {whole.field: {"$elemMatch": some}}
        return there if _is_true(test) else {"$nor": [there]}

    def _part_met(self, parts: Mapping[str, Parameter], tree: Tree) -> Filter:
        match tree:
            case Not(below):
                return {"$nor": [self._part_met(parts, below)]}
            case Joined(word, below):
                return {f"${word}": [self._part_met(parts, one) for one in below]}
            case Test():
                if tree.path:
                    raise refused("not-supported", "the path leads on.", tree.column)
                part = _known(parts, tree.name, "a composite")
                if tree.operator == "ne" and "ne" not in _MODIFIERS[part.type]:
                    return {"$nor": [self._part_met(parts, replace(tree, operator="eq"))]}
                ordered = _MODIFIERS[part.type].get("gt") == "" and part.type != "string"
                if not ordered and tree.operator not in _OF_PARTS:
                    text = f"a part of a composite has {', '.join(_OF_PARTS)}; not {tree.operator}."
                    raise refused("not-supported", text, tree.column)
                if tree.operator in ("eq", "re"):
                    return self._criteria.component(part)(part.field, tree.value)
                return _compiled(part, self._criteria, tree)


def _joined(type: str, word: str, parts: list[Selection]) -> Selection:
    """Return what is in all of ``parts``, or with the word ``or`` in one of them."""
    filters = [part.filter for part in parts if part.filter]
    joins = tuple(join for part in parts for join in part.joins)
    if word == "or" and joins:
        return Selection(type, {}, (Either(tuple(parts)),))
    return Selection(type, {f"${word}": filters} if filters else {}, joins)


def _known(parameters: Mapping[str, Parameter], name: str, whose: str) -> Parameter:
    if name not in parameters:
        text = f"{whose} has no search parameter {name}.{nearest(name, parameters)}"
        raise FhirError(Issue("not-supported", text))
    return parameters[name]


def _compiled(parameter: Parameter, criteria: Criteria, test: Test) -> Filter:
    operators = _MODIFIERS[parameter.type]
    if test.operator == "pr":
        return {parameter.field: {"$exists": _is_true(test)}}
    if test.operator == "ne" and "ne" not in operators:
        equal = _compiled(parameter, criteria, replace(test, operator="eq"))
        return {"$and": [{parameter.field: {"$exists": True}}, {"$nor": [equal]}]}
    if test.operator not in operators:
        known = ", ".join((*operators, *(() if "ne" in operators else ("ne",)), "pr"))
        text = f"{test.name} is a {parameter.type}, which has {known}; not {test.operator}."
        raise refused("not-supported", text, test.column)
    if found := _compared_as_text(parameter, criteria, test):
        return found
    if test.operator == "po":
        return criteria.overlapping(parameter, test.value)
    prefix = test.operator if operators is _ORDERED or parameter.type == "date" else ""
    value = escape(test.value) if parameter.type == "string" else test.value
    return criteria.filter(parameter, operators[test.operator], [prefix + value])


def _compared_as_text(parameter: Parameter, criteria: Criteria, test: Test) -> Filter | None:
    """Return the filter where no modifier does what the operator says."""
    value = escape(test.value)
    match parameter.type, test.operator:
        case "string", "eq":
            return compile_equal(parameter.field, value, single=parameter.single)
        case "string", "ew":
            return compile_ending(parameter.field, value)
        case "string", "gt" | "lt" | "ge" | "le":
            return compile_ordered(parameter.field, value, test.operator, single=parameter.single)
        case "token", "co" | "ew" if "text" in criteria.modifiers(parameter):
            return compile_in_text(parameter.field, value, at_end=test.operator == "ew")
        case "uri", "co" | "ew":
            return compile_in_uri(parameter.field, value, at_end=test.operator == "ew")
    return None


def _is_true(test: Test) -> bool:
    if test.value not in _PRESENCE:
        raise refused("value", f"pr is true or false; {MISSING} says the opposite.", test.column)
    return test.value == "true"
