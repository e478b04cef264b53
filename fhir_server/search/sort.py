"""The order of a search's results.

https://hl7.org/fhir/R4/search.html#sort
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.search.keys import Filter
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import ID, LAST_UPDATED

# Each key is one more field that a page's link has to carry and the database to compare.
KEYS_MAX = 8

# What of a key is compared, for the types whose keys are more than a text.
_MEMBERS = {"date": ".l", "number": ".l", "quantity": ".l"}


_MISSING = {"$exists": False}

# Shapes that clinical work asks for all day, and has a compound index for: of one patient, newest
# first, perhaps by code; of a code, newest first.
_HOT_SHAPES = (
    ("patient", "code", "date"),
    ("patient", "date"),
    ("code", "date"),
    ("date",),
)


@dataclass(frozen=True, slots=True)
class SortKey:
    """One key of the order: the parameter's code and the field of the documents.

    ``single`` says that the field is no array; ``present`` that every document has it.
    """

    code: str
    field: str
    descending: bool
    single: bool
    present: bool


def hot_shapes(parameters: Mapping[str, Parameter]) -> tuple[tuple[str, ...], ...]:
    """Return the codes of each shape, dates last, that a type with ``parameters`` has.

    A parameter that the type lacks drops its shape; at most one field of each may be an array.
    """
    return tuple(
        shape
        for shape in _HOT_SHAPES
        if all(code in parameters for code in shape)
        and sum(not parameters[code].single for code in shape) <= 1
    )


def is_ordered(date: Parameter, parameters: Mapping[str, Parameter]) -> bool:
    """Return whether an index of its own has the ranges of ``date`` in their order."""
    shape = ("date",)
    hot = parameters["date"].field if shape in hot_shapes(parameters) else ""
    return date.single and date.field == hot


def order_unasked(filter: Filter, parameters: Mapping[str, Parameter]) -> tuple[SortKey, ...]:
    """Return the order of a search with ``filter`` that asks for none: empty is by id.

    What is asked by a patient, a code, a date or ``_lastUpdated`` comes newest first, where an
    index has it in that order: the first page is then read from its beginning. By id, the database
    would look through everything for it, or put all matches in order.
    """
    for *codes, date in hot_shapes(parameters):
        if parameters[date].single and is_asked(parameters[codes[0] if codes else date], filter):
            return (_sort_key(f"-{date}", parameters),)
    updated = parameters.get(LAST_UPDATED)
    if updated and is_asked(updated, filter):
        return (_sort_key(f"-{LAST_UPDATED}", parameters),)
    return ()


def is_asked(parameter: Parameter, filter: Any) -> bool:
    """Return whether ``filter`` compares what ``parameter`` finds; to be missing is no value."""
    if isinstance(filter, list):
        return any(is_asked(parameter, one) for one in filter)
    if not isinstance(filter, dict):
        return False
    return any(
        is_asked(parameter, condition)
        if name in ("$and", "$or")
        else condition != _MISSING
        and (name == parameter.field or name.startswith(f"{parameter.field}."))
        for name, condition in filter.items()
    )


def ranged_code(
    filter: Filter, sort: Sequence[SortKey], parameters: Mapping[str, Parameter]
) -> str:
    """Return the field of the code whose range ``filter`` asks, of all patients, newest first;
    empty if it does not.

    A code without its system is a range of keys, one key for each system that has it, and an index
    begins anew with the order at each key.
    """
    if ("code", "date") not in hot_shapes(parameters):
        return ""
    code, date = parameters["code"].field, parameters["date"].field
    patient = parameters.get("patient")
    newest_first = len(sort) == 1 and sort[0].field == f"{date}.l"
    if not newest_first or (patient and is_asked(patient, filter)):
        return ""
    condition = filter.get(code)
    return code if isinstance(condition, dict) and "$elemMatch" in condition else ""


def sort_keys(names: Sequence[str], parameters: Mapping[str, Parameter]) -> tuple[SortKey, ...]:
    """Return the keys that ``names`` mean: codes of ``_sort``, with a minus sign to go down.

    Raises ``not-supported`` for an unknown parameter and for one that has no order, ``value`` for
    more than :data:`KEYS_MAX`.
    """
    if len(names) > KEYS_MAX:
        raise invalid_value("_sort", ",".join(names), f"at most {KEYS_MAX} parameters")
    first: dict[str, str] = {}  # a parameter that stands there again decides nothing
    for name in names:
        first.setdefault(name.removeprefix("-"), name)
    keys = [_sort_key(name, parameters) for name in first.values()]
    # Ids are unique: nothing behind one can matter.
    last = next((place for place, key in enumerate(keys) if key.code == ID), len(keys))
    return tuple(keys[: last + 1])


def _sort_key(name: str, parameters: Mapping[str, Parameter]) -> SortKey:
    code = name.removeprefix("-")
    parameter = parameters.get(code)
    if parameter is None:
        raise FhirError(
            Issue(
                "not-supported",
                f"_sort names {shown(code)}, which is no search parameter here."
                f"{nearest(code, parameters)}",
            )
        )
    if parameter.type in ("composite", "special"):
        raise FhirError(
            Issue("not-supported", f"_sort cannot order by {code}, which is {parameter.type}.")
        )
    own = code in (ID, LAST_UPDATED)
    return SortKey(
        code=code,
        field=parameter.field if own else parameter.field + _MEMBERS.get(parameter.type, ""),
        descending=name.startswith("-"),
        single=parameter.single,
        present=own,
    )
