"""The operators of ``_filter`` -> filters, through the compilers of each parameter type.

https://hl7.org/fhir/R4/search_filter.html
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from fhir_server.outcome import FhirError, nearest
from fhir_server.search.criteria import MISSING, Criteria
from fhir_server.search.escape import escape
from fhir_server.search.filter import Test, filter_tree, refused, walked
from fhir_server.search.keys import Filter
from fhir_server.search.parameters import Parameter
from fhir_server.search.string import compile_ending, compile_equal

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
        "in": "in",
        "ni": "not-in",
        "ss": "below",
        "sb": "above",
    },
    "string": {"eq": "", "co": "contains", "sw": "", "ew": ""},
    "uri": {"eq": "", "sw": "below"},
    "reference": {"eq": "", "re": ""},
    "composite": {"eq": ""},
    "special": {"eq": ""},
}
_PRESENCE = {"true": "false", "false": "true"}  # pr -> :missing


def compile_filter(text: str, parameters: Mapping[str, Parameter], criteria: Criteria) -> Filter:
    """Return the filter for one value of ``_filter``.

    ``parameters`` are those of the type by code; ``criteria`` compiles what they are asked.

    Raises ``value`` and ``not-supported`` with the column of what cannot be read or answered.
    """
    return walked(filter_tree(text), partial(_tested, parameters, criteria))


def _tested(parameters: Mapping[str, Parameter], criteria: Criteria, test: Test) -> Filter:
    parameter = parameters.get(test.name)
    if parameter is None:
        text = f"there is no search parameter {test.name}.{nearest(test.name, parameters)}"
        raise refused("not-supported", text, test.column)
    try:
        return _compiled(parameter, criteria, test)
    except FhirError as error:
        issue = error.issues[0]
        raise (
            error
            if FILTER in issue.diagnostics
            else refused(issue.code, issue.diagnostics, test.column)
        ) from error


def _compiled(parameter: Parameter, criteria: Criteria, test: Test) -> Filter:
    operators = _MODIFIERS[parameter.type]
    if test.operator == "pr":
        return _present(parameter, test)
    if test.operator == "ne" and "ne" not in operators:
        equal = _compiled(parameter, criteria, replace(test, operator="eq"))
        return {"$and": [{parameter.field: {"$exists": True}}, {"$nor": [equal]}]}
    if test.operator not in operators:
        known = ", ".join((*operators, *(() if "ne" in operators else ("ne",)), "pr"))
        text = f"{test.name} is a {parameter.type}, which has {known}; not {test.operator}."
        raise refused("not-supported", text, test.column)
    if parameter.type == "string":
        value = escape(test.value)
        whole = {"eq": compile_equal, "ew": compile_ending}.get(test.operator)
        if whole:
            return whole(parameter.field, value, single=parameter.single)
        return criteria.filter(parameter, operators[test.operator], [value])
    if test.operator == "po":
        return criteria.overlapping(parameter, test.value)
    prefix = test.operator if operators is _ORDERED or parameter.type == "date" else ""
    return criteria.filter(parameter, operators[test.operator], [prefix + test.value])


def _present(parameter: Parameter, test: Test) -> Filter:
    missing = _PRESENCE.get(test.value)
    if missing is None:
        raise refused("value", f"pr is true or false; {MISSING} says the opposite.", test.column)
    return {parameter.field: {"$exists": test.value == "true"}}
