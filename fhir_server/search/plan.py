"""SearchQuery -> Plan: what the store runs.

https://hl7.org/fhir/R4/search.html
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.references import target
from fhir_server.search.chain import Join, Selection
from fhir_server.search.include import Include, Place
from fhir_server.search.keys import Filter
from fhir_server.search.page import digest, values_of
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import SearchQuery
from fhir_server.search.sort import SortKey, order_unasked, ranged_code, sort_keys

Lists = Mapping[str, Mapping[str, Any]]
"""The id of a List -> the List. One that does not exist is not there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A search, ready to be run on the documents of ``type``.

    ``filter`` is without the conditions for deleted documents and for the page. ``sort`` is
    without the final id; empty means by id. ``count`` is the length of a page, 0 for none.
    ``after`` is where the page begins: one value for each sort key (``None`` for a missing one),
    then the id. ``subject`` is what page links are bound to. ``joins`` are conditions on linked
    resources, to be met as well. ``includes`` are what comes along; ``rest`` says that only the
    rest of it is wanted, from that place on, of a page that ends at ``until``. ``ranged`` is the
    field of the filter whose range is better asked key by key, if one is.
    """

    type: str
    filter: Filter
    sort: tuple[SortKey, ...]
    count: int
    total: str
    summary: str
    elements: tuple[str, ...]
    after: tuple[Any, ...] | None
    subject: str
    joins: tuple[Join, ...] = ()
    includes: tuple[Include, ...] = ()
    rest: Place | None = None
    until: tuple[Any, ...] | None = None
    ranged: str = ""

    @property
    def selection(self) -> Selection:
        """What is searched for, without order and page."""
        return Selection(self.type, self.filter, self.joins)


def plan(
    query: SearchQuery, table: ParameterTable, *, page_key: bytes = b"", within: str = ""
) -> Plan:
    """Return the plan of ``query``. ``page_key`` is the secret that page links are signed with.

    ``within`` is the compartment that is searched, such as ``Patient/1``; everything by default.

    Raises ``value`` for a page link of another search, ``not-supported`` for lists that nobody
    has looked up (see :func:`with_lists`).
    """
    if query.lists:
        raise FhirError(Issue("not-supported", "_list cannot be asked in this place."), status=400)
    parameters = table.of(query.type)
    filter = _all((*query.filters, *((in_compartment(within),) if within else ())))
    sort = sort_keys(query.sort, parameters)
    if not sort and not within:  # a compartment has an index that is in the order of ids
        sort = order_unasked(filter, parameters)
    subject = digest(
        f"{within}/{query.type}" if within else query.type,
        (*query.understood, *(("_sort", key.field) for key in sort if not query.sort)),
    )
    after = values_of(query.cursor, subject, page_key) if query.cursor else None
    rest, until = _rest(query.rest, rest_subject(subject), page_key)
    counted_only = query.summary == "count" or query.count == 0
    return Plan(
        type=query.type,
        filter=filter,
        sort=sort,
        count=0 if counted_only else query.count,
        total="accurate" if counted_only else query.total,
        summary="count" if counted_only else query.summary,
        elements=query.elements,
        after=after,
        subject=subject,
        joins=query.joins,
        includes=query.includes,
        rest=rest,
        until=until,
        ranged="" if within else ranged_code(filter, sort, parameters),
    )


def in_compartment(compartment: str) -> Filter:
    """Return the filter of what is in ``compartment``, such as ``Patient/1``.

    https://hl7.org/fhir/R4/compartmentdefinition.html
    """
    return {"compartments": compartment}


def rest_subject(subject: str) -> str:
    """Return what links to the rest of a page's includes are bound to."""
    return f"{subject} includes"


def _rest(text: str, subject: str, page_key: bytes) -> tuple[Place | None, tuple[Any, ...] | None]:
    """Return the place and the end of the page in a link to the rest of its includes."""
    if not text:
        return None, None
    round, type, id, *until = values_of(text, subject, page_key)
    return (int(round), type, id), tuple(until) or None


def _all(filters: tuple[Filter, ...]) -> Filter:
    """Return the filter that meets all of ``filters``, as one level where their keys differ.

    A filter that begins with an operator, ``$and`` or ``$or``, is never laid into another.
    """
    together: Filter = {}
    repeated: list[Filter] = []
    for one in filters:
        if together.keys().isdisjoint(one) and not any(key.startswith("$") for key in one):
            together |= one
        elif one not in repeated:
            repeated.append(one)
    return together | {"$and": repeated} if repeated else together


def with_lists(query: SearchQuery, lists: Lists, table: ParameterTable) -> SearchQuery:
    """Return ``query`` with its lists as filters; ``lists`` has those of them that exist."""
    filters = []
    for ids in query.lists:
        members = {
            id for one in ids for id in _members(lists.get(one, {}), query.type, table.base_urls)
        }
        filters.append({"_id": {"$in": sorted(members)}})
    return replace(query, filters=(*query.filters, *filters), lists=())


def _members(found: Mapping[str, Any], type: str, base_urls: tuple[str, ...]) -> Iterator[str]:
    """Yield the ids of the resources of ``type`` that a List has, but for those taken off it."""
    for entry in found.get("entry", ()):
        text = entry.get("item", {}).get("reference", "")
        member = target(text, base_urls)
        if member.id and member.type == type and not entry.get("deleted"):
            yield member.id
