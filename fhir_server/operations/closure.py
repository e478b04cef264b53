"""``$closure``: a table of who is a kind of whom, which a client keeps a copy of.

https://hl7.org/fhir/R4/conceptmap-operation-closure.html

The table is kept here by its name. Each call that adds concepts makes a version of it; the answer
has what is new. With ``version`` instead, it has all that came after that version.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.terms import Terms
from fhir_server.messages import Request, Resource, Response
from fhir_server.operations import named
from fhir_server.operations.asked import RESOURCES, Given, given
from fhir_server.operations.lookup import no_such_code
from fhir_server.operations.named import canonical, coding_of
from fhir_server.outcome import FhirError, Issue, invalid_value, shown
from fhir_server.r4.expansion import Listed
from fhir_server.r4.json import encode
from fhir_server.registry import Operation
from fhir_server.store.closures import Row, Table, begun, extended, table
from fhir_server.store.documents import instant

_TABLE = {"name": "string", "concept": "Coding", "version": "string", RESOURCES: "Resource"}
_NAME_MAX = 200
_CONCEPTS_MAX = 10_000  # of one table
_ENTRIES_MAX = 100_000  # of one table; a document of MongoDB has room for three times as many
_TRIES = 10

Above = Callable[[str], Iterable[str]]
"""What a concept is a kind of, itself among them."""


async def closure(request: Request, context: Context) -> Response:
    """Begin a table, add concepts to it, or tell again what was added since a version.

    Raises ``required`` without a name, ``not-found`` for a table that nobody began and for a
    concept that is not here, ``too-costly`` for a table that grows too large.
    """
    asked = given(request, context, _TABLE)
    name = asked.text("name")
    if not 0 < len(name) <= _NAME_MAX:
        raise named.required(asked, f"the name of a table, of 1 to {_NAME_MAX} characters")
    database, seconds = context.store.database, context.settings.request_timeout_s
    codings = asked.many("concept")
    if "version" in asked.values:
        if codings:
            raise FhirError(Issue("value", "$closure takes concepts or a version, not both."))
        found = await _there(name, context)
        since = _version(asked, found)
        return _answer(found, [one[:3] for one in found.entries if one[3] > since], context)
    if not codings:
        await begun(database, _kept_as(name, context), seconds)
        return _answer(Table(name, 0, (), ()), [], context)
    terms = await Terms.of(context, named.brought(asked))
    for _ in range(_TRIES):
        before = await _there(name, context)
        concepts, entries = await _more(before, codings, terms)
        if not concepts:
            return _answer(before, [], context)
        if await extended(database, before, concepts, entries, seconds):
            after = replace(before, version=before.version + 1)
            return _answer(after, [one[:3] for one in entries], context)
    text = f"The table {shown(name)} is changed by others all the time; try again."
    raise FhirError(Issue("transient", text))


def _kept_as(name: str, context: Context) -> str:
    """Return under which name a table is kept: of two who choose the same, each has its own."""
    who = context.principal.key
    return f"{who}\n{name}" if who else name


async def _there(name: str, context: Context) -> Table:
    seconds = context.settings.request_timeout_s
    found = await table(context.store.database, _kept_as(name, context), seconds)
    if found is None:
        text = f"There is no closure table {shown(name)}; begin it with its name alone."
        raise FhirError(Issue("not-found", text))
    return found


def _version(asked: Given, found: Table) -> int:
    text = asked.text("version")
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= found.version):
        raise invalid_value("version", text, f"a version of the table, 0 to {found.version}")
    return int(text)


async def _more(
    before: Table, codings: Iterable[Resource], terms: Terms
) -> tuple[list[Row], list[Row]]:
    """Return the concepts and the entries that ``codings`` add to the table."""
    since = before.version + 1
    known = {(one[0], one[1], one[2]) for one in before.concepts}
    fresh: dict[tuple[str, str, str], None] = {}
    for coding in map(coding_of, codings):
        place = coding.system, coding.version, coding.code
        if place not in known:
            fresh[place] = None
    if len(known) + len(fresh) > _CONCEPTS_MAX:
        text = f"A closure table has at most {_CONCEPTS_MAX:,} concepts."
        raise FhirError(Issue("too-costly", text), status=422)
    entries: list[Row] = []
    for system, version in {(one[0], one[1]) for one in fresh}:
        new = {code for at, of, code in fresh if (at, of) == (system, version)}
        old = {code for at, of, code in known if (at, of) == (system, version)}
        above = await _above(canonical(system, version), new | old, terms)
        room = _ENTRIES_MAX - len(before.entries) - len(entries)
        pairs = await asyncio.to_thread(_pairs, new, old, above, room)
        entries += [[system, low, high, since] for low, high in pairs]
    return [[*one, since] for one in fresh], entries


def _pairs(
    new: Collection[str], old: Collection[str], above: Above, room: int
) -> list[tuple[str, str]]:
    """Return which concept is a kind of which, where one of the two is new.

    Raises ``too-costly`` for more than there is ``room`` for.
    """
    every, found = frozenset((*new, *old)), []
    for low in sorted(every):
        for high in sorted(every.intersection(above(low))):
            if low != high and (low in new or high in new):
                found.append((low, high))
        if len(found) > room:
            text = f"A closure table has at most {_ENTRIES_MAX:,} entries."
            raise FhirError(Issue("too-costly", text), status=422)
    return found


async def _above(name: str, codes: Collection[str], terms: Terms) -> Above:
    """Return what tells what a code is a kind of. Raises ``not-found`` where one is not there."""
    system = await named.code_system(terms, name)
    concepts = await terms.concepts(system, codes)
    for code in codes:
        if code not in concepts:
            raise no_such_code(named.Coded(name, code), system)
    if isinstance(system, Listed):
        hierarchy = system.hierarchy
        return lambda code: hierarchy.above(code) or frozenset()
    return lambda code: concepts[code].get("ancestors", ())


def _answer(found: Table, entries: Iterable[Row], context: Context) -> Response:
    """Return the entries as a ConceptMap: the source is a kind of the target."""
    groups: dict[str, dict[str, list[str]]] = {}
    for system, low, high in entries:
        groups.setdefault(system, {}).setdefault(low, []).append(high)
    body: dict[str, Any] = {
        "resourceType": "ConceptMap",
        "id": context.new_id(),
        "version": str(found.version),
        "name": "Closure",
        "title": found.name.rpartition("\n")[2],
        "status": "active",
        "experimental": True,
        "date": instant(context.now()),
    }
    if groups:
        body["group"] = [
            {
                "source": system,
                "target": system,
                "element": [
                    {
                        "code": low,
                        "target": [{"code": high, "equivalence": "subsumes"} for high in above],
                    }
                    for low, above in lows.items()
                ],
            }
            for system, lows in groups.items()
        ]
    return Response(200, encode(body))


CLOSURE = Operation(
    "$closure",
    "http://hl7.org/fhir/OperationDefinition/ConceptMap-closure",
    closure,
    affects_state=True,
    needs="signed-in",
)
