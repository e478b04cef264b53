"""SearchQuery -> Plan: what the store runs.

https://hl7.org/fhir/R4/search.html
"""

from dataclasses import dataclass

from fhir_server.search.chain import Part, Selection, Without
from fhir_server.search.include import Include, Place
from fhir_server.search.keys import Filter
from fhir_server.search.page import AFTER, UNTIL, Edge, digest, foreign_link, values_of
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.parse import SearchQuery
from fhir_server.search.sort import SortKey, order_unasked, ranged_code, sort_keys


@dataclass(frozen=True, slots=True)
class Plan:
    """A search, ready to be run on the documents of ``type``.

    ``filter`` is without the conditions for deleted documents and for the page. ``sort`` is
    without the final id; empty means by id. ``count`` is the length of a page, 0 for none.
    ``after`` is where the page begins, ``until`` where it ends at the latest; ``backward`` says
    that the last rows up to there are wanted, not the first. ``subject`` is what page links are
    bound to. ``joins`` are conditions on linked resources, to be met as well. ``includes`` are what
    comes along; ``rest`` says that only the rest of it is wanted, from that place on. ``explain``
    says that it is to be told how the database went about it. ``ranged`` is the field of the filter
    whose range is better asked key by key, if one is.
    """

    type: str
    filter: Filter
    sort: tuple[SortKey, ...]
    count: int
    total: str
    summary: str
    elements: tuple[str, ...]
    after: Edge | None
    subject: str
    joins: tuple[Part, ...] = ()
    includes: tuple[Include, ...] = ()
    rest: Place | None = None
    until: Edge | None = None
    backward: bool = False
    explain: bool = False
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

    Raises ``value`` for a page link of another search. All that the query wanted must
    have been looked up.
    """
    assert not query.wanted, "what is wanted is looked up before"
    filter = _all((*query.filters, *((in_compartment(within),) if within else ())))
    complete = table.complete(query.type)
    sort = sort_keys(query.sort, table.of(query.type))
    if not sort and not within:  # a compartment has an index that is in the order of ids
        sort = order_unasked(filter, complete)
    subject = digest(
        f"{within}/{query.type}" if within else query.type,
        (*query.understood, *(("_sort", key.field) for key in sort if not query.sort)),
    )
    part = window(query.cursor, query.rest, subject, page_key)
    counted_only = query.summary == "count" or query.count == 0
    return Plan(
        type=query.type,
        filter=filter,
        sort=sort,
        count=0 if counted_only else query.count,
        total="accurate" if counted_only else query.total,
        summary="count" if counted_only else query.summary,
        elements=query.elements,
        after=part.after,
        subject=subject,
        joins=query.joins,
        includes=query.includes,
        rest=part.rest,
        until=part.until,
        backward=part.backward,
        explain=query.explain,
        ranged="" if within else ranged_code(filter, sort, complete),
    )


@dataclass(frozen=True, slots=True)
class Window:
    """What part of the rows a page link leads to; all from the first, by default. The members are
    those of :class:`Plan`."""

    after: Edge | None = None
    until: Edge | None = None
    backward: bool = False
    rest: Place | None = None


def window(cursor: str, rest: str, subject: str, page_key: bytes) -> Window:
    """Return what the texts of a page link lead to, in the search that ``subject`` stands for.

    Raises ``value`` for what is no link of that search.
    """
    direction, *key = values_of(cursor, subject, page_key) if cursor else (AFTER,)
    edge = Edge(tuple(key)) if key else None
    if not rest:
        backward = direction == UNTIL
        return Window(None, edge, True) if backward else Window(edge)
    if direction == UNTIL:  # the rest is told from where its page begins
        raise foreign_link()
    round, type, id, *until = values_of(rest, rest_subject(subject), page_key)
    return Window(edge, Edge(tuple(until)) if until else None, rest=(int(round), type, id))


def linked_types(plan: Plan) -> set[str]:
    """Return the types to which chains and includes of ``plan`` lead."""
    found = {type for one in plan.includes for type in (one.type, *one.targets)}
    parts = list(plan.joins)
    while parts:
        part = parts.pop()
        for one in (part.selection,) if isinstance(part, Without) else part.selections:
            found.add(one.type)
            parts += one.joins
    return found


def in_compartment(compartment: str) -> Filter:
    """Return the filter of what is in ``compartment``, such as ``Patient/1``.

    https://hl7.org/fhir/R4/compartmentdefinition.html
    """
    return {"compartments": compartment}


def rest_subject(subject: str) -> str:
    """Return what links to the rest of a page's includes are bound to."""
    return f"{subject} includes"


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
