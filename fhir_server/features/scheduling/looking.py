"""Look up what ``$find`` needs to know, as far as who asks may see it: a few searches by type."""

from collections.abc import Collection, Iterable, Sequence
from urllib.parse import parse_qsl, urlsplit

from fhir_server.context import Context
from fhir_server.features.scheduling.parameters import Json
from fhir_server.features.scheduling.wanted import Named
from fhir_server.interactions.admitting import as_server
from fhir_server.messages import Request
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode_stored
from fhir_server.search.escape import escape

_PAGES_MAX = 20
_VALUES_AT_ONCE = 200


async def read(type: str, ids: Collection[str], context: Context) -> dict[str, Json]:
    """Return those of ``type`` that are there, by reference (``Schedule/1``)."""
    wanted = sorted({one.partition("/")[2] for one in ids if one.startswith(f"{type}/")})
    if not wanted:
        return {}
    found = await context.store.read_all(type, wanted)
    return {f"{type}/{one.id}": decode_stored(one.json) for one in found if not one.deleted}


_OF_RULES = ("resourceType", "id", "extension", "practitioner", "availableTime", "notAvailable")


async def unseen(type: str, ids: Collection[str], context: Context) -> dict[str, Json]:
    """Return of those of ``type`` what rules are made of, and no name, also where who asks may not
    see them: hours, a time zone, and whose role it is, are the same whoever asks."""
    if context.rights is None:
        return {}
    found = await read(type, ids, as_server(context))
    return {
        key: {name: one[name] for name in _OF_RULES if name in one} for key, one in found.items()
    }


async def search(
    type: str, parameters: Sequence[tuple[str, str]], most: int, context: Context
) -> list[Json]:
    """Return what a search of ``type`` finds. Raises ``too-costly`` for more than ``most``."""
    found: list[Json] = []
    given = (*parameters, ("_count", str(min(most + 1, context.settings.page_entries_max))))
    for _ in range(_PAGES_MAX):
        request = Request("search-type", type, parameters=given, base_url="")
        page = decode_stored((await context.perform(request, context)).body)
        found += [one["resource"] for one in page.get("entry", ()) if _is_match(one)]
        links = {one["relation"]: one["url"] for one in page.get("link", ())}
        if len(found) > most:
            break
        if "next" not in links:
            return found
        given = tuple(parse_qsl(urlsplit(links["next"]).query, keep_blank_values=True))
    text = f"More than {most:,} of {type} would have to be looked at; ask for less at a time."
    raise FhirError(Issue("too-costly", text))


def _is_match(entry: Json) -> bool:
    return bool(entry.get("search", {}).get("mode") == "match")


async def referring(
    type: str,
    parameter: str,
    keys: Iterable[str],
    most: int,
    context: Context,
    more: Sequence[tuple[str, str]] = (),
) -> dict[str, Json]:
    """Return those of ``type`` whose ``parameter`` is one of ``keys``, and that ``more`` holds of,
    by reference: a search takes so many alternatives at once, and ``most`` is of each."""
    wanted = sorted(set(keys))
    found: dict[str, Json] = {}
    for start in range(0, len(wanted), _VALUES_AT_ONCE):
        some = ",".join(wanted[start : start + _VALUES_AT_ONCE])
        for one in await search(type, ((parameter, some), *more), most, context):
            found[f"{type}/{one['id']}"] = one
    return found


async def resolved(named: Sequence[Named], type: str, context: Context) -> list[str]:
    """Return the references of ``named``; those named by an identifier that is not known here are
    left out."""
    found = []
    for one in named:
        if one.key:
            found.append(one.key)
            continue
        system, value = map(escape, one.identifier)
        given = (("identifier", f"{system}|{value}" if system else value),)
        found += [f"{type}/{it['id']}" for it in await search(type, given, 10, context)]
    return list(dict.fromkeys(found))
