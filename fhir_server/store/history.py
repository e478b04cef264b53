"""Versions of a resource, a type or everything, newest first, a page at a time.

https://hl7.org/fhir/R4/http.html#history

Versions are ordered by (last_updated descending, type, id, version descending); a page starts
behind the key of the last entry of the page before. Current versions are read before historical
ones: a version replaced in between is then seen twice, and dropped once, but never missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bson import MaxKey, MinKey
from pymongo.asynchronous.client_session import AsyncClientSession

from fhir_server.store.access import narrows
from fhir_server.store.client import Database
from fhir_server.store.documents import HISTORY_SUFFIX, SERVED, Document, Stored, stored

Key = tuple[datetime, str, str, int]
"""``(last_updated, type, id, version)``: the place of a version in the order."""

# Enough to order the versions; the JSON of those shown is read afterwards.
_LIGHT = {name: 1 for name in SERVED if name != "json"}
_FILLED_AT_ONCE = 50

_NEWEST_CURRENT = [("last_updated", -1), ("_id", 1)]
_NEWEST_HISTORICAL = [("last_updated", -1), ("_id.id", 1), ("_id.version", -1)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a history interaction asks for.

    No ``type`` is the whole system, no ``id`` the whole type. ``since`` is the earliest time of a
    version; ``at`` is a half-open range at some point of which a version was current. ``after`` is
    the key of the last entry of the page before.
    """

    type: str
    id: str
    count: int
    since: datetime | None = None
    at: tuple[datetime, datetime] | None = None
    after: Key | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of versions. ``more`` says that there are further ones; ``total`` may be unknown."""

    entries: tuple[Stored, ...]
    more: bool
    total: int | None


async def page(
    database: Database,
    session: AsyncClientSession | None,
    types: Sequence[str],
    wanted: Wanted,
    *,
    bytes_max: int,
) -> Page:
    """Return the page that ``wanted`` describes, over ``types``.

    It ends early rather than hold more than ``bytes_max`` of JSON, but has one version at least.
    """
    found: dict[Key, Stored] = {}
    for suffix in ("", HISTORY_SUFFIX):
        for type in types:
            order = _NEWEST_HISTORICAL if suffix else _NEWEST_CURRENT
            cursor = (
                database[type + suffix]
                .find(_filter(type, suffix, wanted), projection=_LIGHT, session=session)
                .sort([("_id", -1)] if wanted.id else order)
                .limit(wanted.count + 1)
            )
            for document in await cursor.to_list():
                version = stored(type, document)
                found[_key(version)] = version
    ordered = [found[key] for key in sorted(found, key=_order)]
    shown = await _filled(database, session, ordered[: wanted.count], bytes_max)
    total = await _total(database, session, ordered, wanted)
    return Page(shown, len(ordered) > len(shown), total)


async def _filled(
    database: Database,
    session: AsyncClientSession | None,
    versions: Sequence[Stored],
    bytes_max: int,
) -> tuple[Stored, ...]:
    """Return ``versions`` with their JSON, as many of the first as ``bytes_max`` allows.

    Only what is shown is read whole: a page over all types would otherwise hold one of each.
    """
    shown: list[Stored] = []
    size = 0
    for start in range(0, len(versions), _FILLED_AT_ONCE):
        some = versions[start : start + _FILLED_AT_ONCE]
        texts = await _texts(database, session, some)
        for version in some:
            size += len(texts[_key(version)])
            if shown and size > bytes_max:
                return tuple(shown)
            shown.append(replace(version, json=texts[_key(version)]))
    return tuple(shown)


async def _texts(
    database: Database, session: AsyncClientSession | None, versions: Sequence[Stored]
) -> dict[Key, bytes]:
    """Return the JSON of ``versions``: current where they still are, else from history."""
    texts = {_key(version): b"" for version in versions if version.deleted}
    for suffix in ("", HISTORY_SUFFIX):
        missing = [version for version in versions if _key(version) not in texts]
        for type in dict.fromkeys(version.type for version in missing):
            ids: list[Any] = [
                {"id": version.id, "version": version.version} if suffix else version.id
                for version in missing
                if version.type == type
            ]
            cursor = database[type + suffix].find(
                {"_id": {"$in": ids}}, projection=SERVED, session=session
            )
            for document in await cursor.to_list():
                version = stored(type, document)
                texts[_key(version)] = version.json
    return texts


def _key(version: Stored) -> Key:
    return version.last_updated, version.type, version.id, version.version


def _order(key: Key) -> tuple[float, str, str, int]:
    return -key[0].timestamp(), key[1], key[2], -key[3]


async def _total(
    database: Database,
    session: AsyncClientSession | None,
    ordered: Sequence[Stored],
    wanted: Wanted,
) -> int | None:
    """An instance's versions are numbered without a gap; the oldest may have been expunged. Where
    some may be hidden, those that show are counted."""
    if not wanted.id or wanted.since or wanted.at or wanted.after or not ordered:
        return None
    if len(ordered) <= wanted.count:
        return len(ordered)
    if narrows(database, wanted.type):
        replaced = database[wanted.type + HISTORY_SUFFIX]
        filter = _of_instance(HISTORY_SUFFIX, wanted)
        return 1 + await replaced.count_documents(filter, session=session)
    oldest = await database[wanted.type + HISTORY_SUFFIX].find_one(
        _of_instance(HISTORY_SUFFIX, wanted),
        projection={"_id": 1},
        sort=[("_id", 1)],
        session=session,
    )
    newest = ordered[0].version
    return newest - oldest["_id"]["version"] + 1 if oldest else 1


def _filter(type: str, suffix: str, wanted: Wanted) -> Document:
    conditions: list[Document] = []
    if wanted.id:
        conditions.append(_of_instance(suffix, wanted))
    elif wanted.after:
        conditions.append(_behind(type, suffix, wanted.after))
    if wanted.since:
        conditions.append({"last_updated": {"$gte": wanted.since}})
    if wanted.at:
        low, high = wanted.at
        conditions.append({"last_updated": {"$lt": high}})
        if suffix:
            conditions.append({"until": {"$gt": low}})
    return {"$and": conditions} if conditions else {}


def _of_instance(suffix: str, wanted: Wanted) -> Document:
    before: Any = wanted.after[3] if wanted.after else MaxKey()
    if not suffix:
        return (
            {"_id": wanted.id, "version": {"$lt": before}} if wanted.after else {"_id": wanted.id}
        )
    return {
        "_id": {
            "$gt": {"id": wanted.id, "version": MinKey()},
            "$lt": {"id": wanted.id, "version": before},
        }
    }


def _behind(type: str, suffix: str, after: Key) -> Document:
    """Return the condition for versions of ``type`` that come after ``after`` in the order."""
    moment, last_type, id, version = after
    older: Document = {"last_updated": {"$lt": moment}}
    if type < last_type:
        return older
    if type > last_type:
        return {"last_updated": {"$lte": moment}}
    if not suffix:
        # The current version of the same id is newer, so it came before.
        return {"$or": [older, {"last_updated": moment, "_id": {"$gt": id}}]}
    same = {"last_updated": moment}
    return {
        "$or": [
            older,
            {**same, "_id.id": {"$gt": id}},
            {**same, "_id.id": id, "_id.version": {"$lt": version}},
        ]
    }
