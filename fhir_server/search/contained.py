"""``_contained`` and ``_containedType``: searching resources that lie in others.

https://hl7.org/fhir/R4/search.html#contained

Beside a resource that contains others stands, for each of them, ``{"_id", "type", "keys"}``, with
the keys that it would have by itself. A filter for the type is then a filter on one of these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fhir_server.outcome import FhirError, Issue
from fhir_server.search.keys import Filter
from fhir_server.search.parameters import CONTAINED as PENDING
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import SearchQuery
from fhir_server.search.plan import Plan, plan
from fhir_server.search.text import CONTENT, TEXT

CONTAINED = "contained"
"""The field of a document that has the keys of what it contains."""

_LOGICAL = ("$and", "$or", "$nor")
_ID = "_id"


def searched(query: SearchQuery, table: ParameterTable) -> Filter:
    """Return the filter for what is searched, contained or not.

    Raises ``not-supported`` for what cannot be asked of a contained resource.
    """
    asked = {name.partition(":")[0] for name, _ in query.understood}
    for refused, what in (
        (bool(query.joins), "chains and _has"),
        (bool(query.includes), "_include and _revinclude"),
        (bool(query.sort), "_sort"),
        ("_list" in asked, "_list"),
    ):
        if refused:
            raise _not_served(what)
    if query.contained_type == "contained" and (
        query.total == "accurate" or query.summary == "count" or not query.count
    ):
        raise _not_served("a total of contained resources; ask for their containers")
    filter = plan(replace(query, cursor="", rest=""), table).filter
    for field in _fields(filter):
        key = field.removeprefix("keys.")
        if field != _ID and (key == field or key in (TEXT, CONTENT)):
            name = "_lastUpdated" if key == "last_updated" else key
            raise _not_served(f"{name} of contained resources")
    return filter


def contained_plans(
    query: SearchQuery, table: ParameterTable, types: Sequence[str], within: str = ""
) -> list[Plan]:
    """Return a plan for each of ``types``, for those resources that contain what ``query`` asks.

    With ``_contained=both`` the plan of the type itself also finds what is not contained.
    ``within`` is the compartment that the results are in.
    """
    table.check_complete(PENDING, types)
    filter = searched(query, table)
    inside: Filter = {CONTAINED: {"$elemMatch": {"type": query.type, **filter}}}
    base = plan(replace(query, cursor="", rest=""), table, within=within)
    if query.contained_type == "contained":  # an estimate would be one of containers
        base = replace(base, total="none")
    place = {} if not within else {"compartments": within}
    plans = []
    for type in types:
        either = query.contained == "both" and type == query.type
        found: Filter = {"$or": [filter, inside]} if either else inside
        one = replace(base, type=type, filter={**place, **found}, sort=(), ranged="")
        plans.append(one)
    return plans


def containers(table: ParameterTable) -> tuple[str, ...]:
    """Return the types that can contain others."""
    types = table.definitions.types
    return tuple(type for type in table.types if types[type].base == "DomainResource")


def _fields(filter: Filter) -> Iterator[str]:
    for name, below in filter.items():
        if name in _LOGICAL:
            for one in below:
                yield from _fields(one)
        else:
            yield name


def _not_served(what: str) -> FhirError:
    text = f"With _contained, {what} is not served."
    return FhirError(Issue("not-supported", text), status=400)
