"""SearchQuery -> Plan: what the store runs.

https://hl7.org/fhir/R4/search.html
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fhir_server.search.chain import Part, Selection
from fhir_server.search.include import Include, Place
from fhir_server.search.keys import Filter
from fhir_server.search.page import digest, values_of
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import SearchQuery
from fhir_server.search.sort import SortKey, sort_keys


@dataclass(frozen=True, slots=True)
class Plan:
    """A search, ready to be run on the documents of ``type``.

    ``filter`` is without the conditions for deleted documents and for the page. ``sort`` is
    without the final id; empty means by id. ``count`` is the length of a page, 0 for none.
    ``after`` is where the page begins: one value for each sort key (``None`` for a missing one),
    then the id. ``subject`` is what page links are bound to. ``joins`` are conditions on linked
    resources, to be met as well. ``includes`` are what comes along; ``rest`` says that only the
    rest of it is wanted, from that place on, of a page that ends at ``until``.
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
    joins: tuple[Part, ...] = ()
    includes: tuple[Include, ...] = ()
    rest: Place | None = None
    until: tuple[Any, ...] | None = None

    @property
    def selection(self) -> Selection:
        """What is searched for, without order and page."""
        return Selection(self.type, self.filter, self.joins)


def plan(
    query: SearchQuery, table: ParameterTable, *, page_key: bytes = b"", within: str = ""
) -> Plan:
    """Return the plan of ``query``. ``page_key`` is the secret that page links are signed with.

    ``within`` is the compartment that is searched, such as ``Patient/1``; everything by default.

    Raises ``value`` for a page link of another search. All that the query wanted must
    have been looked up.
    """
    assert not query.wanted, "what is wanted is looked up before"
    subject = digest(f"{within}/{query.type}" if within else query.type, query.understood)
    after = values_of(query.cursor, subject, page_key) if query.cursor else None
    rest, until = _rest(query.rest, rest_subject(subject), page_key)
    counted_only = query.summary == "count" or query.count == 0
    return Plan(
        type=query.type,
        filter=_all((*query.filters, *((in_compartment(within),) if within else ()))),
        sort=sort_keys(query.sort, table.of(query.type)),
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


def following(plans: Sequence[Plan], key: Sequence[Any]) -> list[Plan]:
    """Return those of ``plans``, one for each type, that come after ``key``: a type, then the key
    inside that type."""
    if not key:
        return list(plans)
    type, *inside = key
    rest = [one for one in plans if one.type >= type]
    if inside and rest and rest[0].type == type:
        rest[0] = replace(rest[0], after=tuple(inside))
    return rest
