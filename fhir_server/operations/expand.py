"""``ValueSet/$expand``: the codes of a value set.

https://hl7.org/fhir/R4/valueset-operation-expand.html

What is listed is put together in memory; of a large system, the database gives one page of what was
said of it. The systems of a value set follow each other, so a page may have the end of one and the
beginning of the next.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.supplements import added, supplements
from fhir_server.interactions.terms import Selected, System, Terms, hierarchy_of, plain_concept
from fhir_server.messages import Request, Response
from fhir_server.operations import named
from fhir_server.operations.asked import RESOURCES, Given, given
from fhir_server.operations.validate_code import which_value_set
from fhir_server.outcome import FhirError, Issue, invalid_value, shown
from fhir_server.r4.expansion import Listed, Shelved, Unexpandable
from fhir_server.r4.json import encode
from fhir_server.r4.selections import Active, Codes, Having, difference, intersection, untold
from fhir_server.registry import Operation
from fhir_server.search.string import fold
from fhir_server.store.concepts import Wanted
from fhir_server.store.documents import instant
from fhir_server.terminology.expanding import Entry, Wish, entry, nested, ordered, overlaid
from fhir_server.terminology.judging import INLINE, Concept

_FLAGS = (
    *("includeDesignations", "includeDefinition", "activeOnly", "excludeNested"),
    *("excludeNotForUI", "excludePostCoordinated"),
)
_TABLE = {
    "url": "uri",
    "valueSet": "Resource ValueSet",
    "valueSetVersion": "string",
    "context": "uri",
    "contextDirection": "code",
    "filter": "string",
    "offset": "integer",
    "count": "integer",
    "displayLanguage": "code",
    "designation": "string",
    "exclude-system": "canonical",
    "useSupplement": "canonical",
    **dict.fromkeys(_FLAGS, "boolean"),
    **dict.fromkeys(named.SYSTEM_VERSIONS, "canonical"),
    RESOURCES: "Resource",
}
_UNSERVED = {"date": named.NO_DATE}
_DIRECTIONS = ("incoming", "outgoing")
_FILTER_WORDS_MAX = 10
_CODES_APART = 500  # more are looked through in a thread
_CODE_BYTES = 16  # of a code in a list; its text is that of the code system
_UNCOUNTED = 10**9  # what the parameters offset and count can be at most
_SUPPLEMENT = "http://hl7.org/fhir/StructureDefinition/valueset-supplement"
_METADATA = (
    *("url", "identifier", "version", "name", "title", "status", "experimental", "date"),
    *("publisher", "useContext", "jurisdiction", "immutable"),
)


@dataclass(frozen=True, slots=True)
class Source:
    """What an expansion takes of one system: ``codes`` in their order, or a part of a shelf.

    ``others`` are further versions of the system, for codes that it has not; ``concept`` returns
    what is shown of one of ``codes``. ``is_counted`` says whether ``total`` is
    known; it is then no less than anybody can ask for.
    """

    name: str
    system: System | None
    others: Sequence[System]
    codes: list[str]
    wanted: Wanted | None
    concept: Callable[[str], Concept] | None
    total: int
    is_counted: bool = True

    def version_of(self, code: str) -> str:
        """Return the version of the system that has ``code``, where there are several."""
        if self.system is None or not self.others:
            return ""
        versions = (self.system, *self.others)
        found = next((one for one in versions if plain_concept(one, code)), self.system)
        return str(found.get("version", ""))


async def expand(request: Request, context: Context) -> Response:
    """Return the value set with its expansion, or the page of it that was asked for.

    Raises ``not-found`` where the value set is not here, ``not-supported`` where not all its codes
    can be known, ``too-costly`` where there are more than one answer may have.
    """
    asked = given(request, context, _TABLE, _UNSERVED)
    if asked.text("contextDirection") not in ("", *_DIRECTIONS):
        raise invalid_value(
            "contextDirection", asked.text("contextDirection"), "incoming, outgoing"
        )
    name, inline = await which_value_set(request, context, asked)
    terms = await Terms.of(context, named.brought(asked, inline), named.versions_of(asked))
    value_set = await named.value_set(terms, name)
    wish = _wish(asked)
    sources = await _sources(name, asked, wish, terms)
    sources.sort(key=lambda one: not one.is_counted)
    total = sum(one.total for one in sources)
    counted = all(one.is_counted for one in sources)
    pages = "offset" in asked.values or "count" in asked.values
    offset, most = asked.one("offset", 0), context.settings.expansion_codes_max
    count = min(asked.one("count", most), most)
    if not pages and total > most:
        codes = f"{total:,}" if counted else "many"
        text = (
            f"The value set {shown(name, most=200)} has {codes} codes here, more than the "
            f"{most:,} of one answer. Ask for pages with offset and count, or with a filter."
        )
        raise FhirError(Issue("too-costly", text), status=422)
    more = await supplements([*asked.many("useSupplement"), *_named_supplements(value_set)], terms)
    flat = pages or asked.one("excludeNested", False) or bool(wish.filter)
    contains: list[Entry] = []
    at = 0
    for source in sources:
        low, high = max(offset - at, 0), min(offset + count - at, source.total)
        at += source.total
        if low < high:
            page = await _page(source, low, high, context)
            concepts = [added(one, source.system or {}, more) for one in page]
            entries = [
                entry(source.name, one, wish, source.version_of(one["code"])) for one in concepts
            ]
            hierarchy = hierarchy_of(source.system) if source.system is not None else None
            contains += entries if flat or hierarchy is None else nested(entries, hierarchy)
    body = _answer(value_set, asked)
    body["expansion"] = {
        "identifier": f"urn:uuid:{context.new_id()}",
        "timestamp": instant(context.now()),
        **({"total": total} if counted else {}),
        **({"offset": offset} if pages else {}),
        **({"parameter": parameters} if (parameters := _echoed(asked, sources)) else {}),
        **({"contains": contains} if contains else {}),
    }
    return Response(200, encode(body))


def _wish(asked: Given) -> Wish:
    words = tuple(fold(asked.text("filter")).split())
    if len(words) > _FILTER_WORDS_MAX:
        raise invalid_value("filter", asked.text("filter"), f"at most {_FILTER_WORDS_MAX} words")
    only = tuple(
        one.removeprefix("urn:ietf:bcp:47|").removeprefix("http://hl7.org/fhir/ValueSet/languages|")
        for one in asked.many("designation")
    )
    return Wish(
        language=asked.text("displayLanguage"),
        filter=words,
        active_only=asked.one("activeOnly", False),
        for_ui=asked.one("excludeNotForUI", False),
        designations=asked.one("includeDesignations", bool(only)),
        only=only,
    )


async def _sources(name: str, asked: Given, wish: Wish, terms: Terms) -> list[Source]:
    """Return what the expansion takes of each system, in the order of the value set."""
    try:
        selected = await terms.selected(name)
    except Unexpandable as error:
        raise _refused(name, str(error)) from error
    excluded = asked.many("exclude-system")
    found = []
    for system, codes in selected.selection.items():
        canonical = selected.canonical(system)
        if system in excluded or canonical in excluded:
            continue
        if reason := untold(codes):
            raise _refused(name, reason)
        found.append(await _source(name, system, codes, selected, wish, terms))
    return found


def _refused(name: str, reason: str) -> FhirError:
    text = f"The value set {shown(name, most=200)} cannot be expanded here: {reason}."
    return FhirError(Issue("not-supported", text), status=422)


async def _source(
    name: str, system: str, codes: Codes, selected: Selected, wish: Wish, terms: Terms
) -> Source:
    first, *rest = [await terms.system(one) for one in selected.canonicals(system)]
    here, others = first, [one for one in rest if one is not None]
    most = terms.context.settings.expansion_codes_max
    apart = isinstance(here, Shelved) and here.shelf is not None and _size(codes) > most
    if not isinstance(codes, frozenset) or apart:
        if not isinstance(here, Shelved) or here.shelf is None:
            raise _refused(name, f"nobody can list the codes of {system}")
        if wish.active_only:
            codes = intersection(codes, Active())
        if wish.for_ui:
            codes = difference(codes, Having("notSelectable", ("true",)))
        wanted = Wanted(here.shelf, codes, wish.filter)
        total = await terms.context.store.concepts.total(wanted)
        return Source(
            *(system, here, (), [], wanted, None, _UNCOUNTED if total is None else total),
            is_counted=total is not None,
        )
    is_shelved = isinstance(here, Shelved) and here.shelf is not None
    known = await terms.concepts(here, codes) if here is not None and is_shelved else {}

    def concept(code: str) -> Concept:
        one = known.get(code)
        for version in () if one else (here, *others):
            one = one or (plain_concept(version, code) if version is not None else None)
        one = one or {"code": code}
        return overlaid(one, selected.concepts.get((system, code)))

    def taken() -> list[str]:
        listed = [code for other, code in selected.concepts if other == system]
        hierarchy = here.hierarchy if isinstance(here, Listed) else None
        found = ordered(codes, hierarchy, listed)
        return [code for code in found if wish.takes(concept(code), fold)]

    # The pages that follow need not look at all codes again.
    key = "taken", name, system, wish.filter, wish.active_only, wish.for_ui
    found = terms.memory.get(key) if terms.is_common else None
    if found is None:
        found = await asyncio.to_thread(taken) if len(codes) > _CODES_APART else taken()
        if terms.is_common:
            terms.memory.put(key, found, 200 + _CODE_BYTES * len(found))
    return Source(system, here, others, found, None, concept, len(found))


def _size(codes: Codes) -> int:
    return len(codes) if isinstance(codes, frozenset) else 0


async def _page(source: Source, low: int, high: int, context: Context) -> Sequence[Concept]:
    if source.wanted is not None:
        return await context.store.concepts.page(source.wanted, low, high - low)
    assert source.concept is not None  # what is on no shelf
    return [source.concept(code) for code in source.codes[low:high]]


def _named_supplements(value_set: Mapping[str, Any]) -> list[str]:
    """Return the supplements that a value set says are needed with it."""
    return [
        one.get("valueCanonical") or one.get("valueUri", "")
        for one in value_set.get("extension", ())
        if one.get("url") == _SUPPLEMENT
    ]


def _answer(value_set: Mapping[str, Any], asked: Given) -> dict[str, Any]:
    """Return the value set without its expansion, and without its definition unless wanted."""
    if asked.one("includeDefinition", False):
        found = {name: one for name, one in value_set.items() if name != "expansion"}
    else:
        found = {name: value_set[name] for name in _METADATA if name in value_set}
    if found.get("url") == INLINE:
        del found["url"]
    found.pop("id", None)
    found.pop("meta", None)
    return {"resourceType": "ValueSet", "status": "active", **found}


def _echoed(asked: Given, sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Return what the expansion was made with: the client's parameters, and the versions used."""
    found: list[dict[str, Any]] = []
    for name, values in asked.values.items():
        for value in values:
            member = _ECHOED.get(_TABLE[name])
            if member and name not in ("url", "context"):
                found.append({"name": name, member: value})
    for one in sources:
        for system in (one.system, *one.others):
            if system is not None and (version := system.get("version")):
                found.append({"name": "version", "valueUri": f"{one.name}|{version}"})
    return found


_ECHOED = {
    "boolean": "valueBoolean",
    "integer": "valueInteger",
    "string": "valueString",
    "code": "valueCode",
    "uri": "valueUri",
    "canonical": "valueUri",
}

EXPAND = Operation(
    "$expand",
    "http://hl7.org/fhir/OperationDefinition/ValueSet-expand",
    expand,
    ("ValueSet",),
    instance=True,
    needs="signed-in",
)
