"""Resource to document and back: the one place that knows the fields of a document.

The table is in section 16.1 of ARCHITECTURE.md. ``resource`` and ``json`` come from one value, so
they cannot differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from fhir_server.messages import Content, Resource
from fhir_server.outcome import too_large
from fhir_server.r4.json import encode
from fhir_server.search.contained import CONTAINED
from fhir_server.search.index import Indexed

Document = dict[str, Any]

HISTORY_SUFFIX = "_history"
_MILLISECOND = timedelta(milliseconds=1)
_EPOCH = datetime.fromtimestamp(0, UTC)
_UP_TO_OFFSET = len("2024-02-29T12:00:00.000")

# What a reader of one version needs; never the native resource and the keys.
SERVED = dict.fromkeys(
    (
        *("json", "version", "last_updated", "deleted", "interaction", "revived", "content"),
        "compartments",
    ),
    1,
)
# What an answer to a search shows of a row. What else is served of a version costs the driver as
# much again to decode.
SHOWN = dict.fromkeys(("json", "compartments"), 1)
# What every search demands: a deletion is not found.
PRESENT: Document = {"deleted": {"$exists": False}}
# Conditions that are met by a value only, never by its absence.
_OF_VALUES = frozenset(("$gt", "$gte", "$lt", "$lte", "$elemMatch", "$regex", "$geoWithin", "$eq"))
# What becomes of a version when it is replaced.
KEPT_IN_HISTORY = (
    *(
        "version",
        "last_updated",
        "interaction",
        "json",
        "compartments",
        "labels",
        "deleted",
        "revived",
        "content",
    ),
)


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of a resource as it is in the database.

    ``json`` is the resource as served; empty for a deletion. ``interaction`` is how it came about:
    ``create``, ``update``, ``patch`` or ``delete``. ``created`` says that no resource was there
    before, ``changed`` that a version was written. ``content`` is what is kept elsewhere;
    ``compartments`` are those it belongs to.
    """

    type: str
    id: str
    version: int
    last_updated: datetime
    json: bytes
    interaction: str
    deleted: bool = False
    created: bool = False
    changed: bool = True
    content: Content | None = None
    compartments: Sequence[str] = ()


class Shown(NamedTuple):
    """A resource as the page of a search shows it; the members are those of :class:`Stored`."""

    type: str
    id: str
    json: bytes
    compartments: Sequence[str]


def instant(moment: datetime) -> str:
    """Return ``moment`` (UTC) as a FHIR instant with milliseconds."""
    return moment.isoformat(timespec="milliseconds")[:_UP_TO_OFFSET] + "Z"


def milliseconds(moment: datetime) -> int:
    """Return ``moment`` (UTC) in whole milliseconds since 1970, as the database counts."""
    return (moment - _EPOCH) // _MILLISECOND


def next_moment(now: datetime, previous: datetime | None) -> datetime:
    """Return ``now`` in whole milliseconds, but later than ``previous``: versions never go back."""
    moment = now.astimezone(UTC).replace(microsecond=now.microsecond // 1000 * 1000)
    return moment if previous is None else max(moment, previous + _MILLISECOND)


def stamped(resource: Resource, id: str, version: int, last_updated: datetime) -> Resource:
    """Return ``resource`` with its id, version and time; the rest as it was."""
    meta = {
        **resource.get("meta", {}),
        "versionId": str(version),
        "lastUpdated": instant(last_updated),
    }
    head = {"resourceType": resource["resourceType"], "id": id, "meta": meta}
    return head | {name: value for name, value in resource.items() if name not in head}


def document(
    resource: Resource,
    indexed: Indexed,
    *,
    interaction: str,
    bytes_max: int,
    revived: bool = False,
    content: Content | None = None,
) -> Document:
    """Return the document of ``resource``, which is stamped already.

    ``revived`` says that the version before was a deletion. ``content`` is kept elsewhere, and
    referred to.

    Raises ``too-long`` for a resource above ``bytes_max``: a document has a limit of 16 MiB.
    """
    json = encode(resource)
    if len(json) > bytes_max:
        raise too_large("The resource", bytes_max)
    return {
        **({"revived": True} if revived else {}),
        **({"content": _reference(content)} if content else {}),
        "_id": resource["id"],
        "version": int(resource["meta"]["versionId"]),
        "last_updated": datetime.fromisoformat(resource["meta"]["lastUpdated"]),
        "interaction": interaction,
        "resource": resource,
        "json": json,
        **beside(indexed),
    }


def beside(indexed: Indexed) -> Document:
    """Return the fields that stand beside a resource, and are computed from it."""
    return {
        "keys": indexed.keys,
        "compartments": list(indexed.compartments),
        "labels": list(indexed.labels),
        **({CONTAINED: list(indexed.contained)} if indexed.contained else {}),
    }


def _reference(content: Content) -> Document:
    return {"id": content.id, "size": content.size, "sha256": content.sha256}


def content_of(document: Mapping[str, Any]) -> Content | None:
    """Return what ``document`` says is kept beside it, if anything."""
    kept = document.get("content")
    return Content(kept["id"], kept["size"], kept["sha256"]) if kept else None


def tombstone(before: Mapping[str, Any], now: datetime) -> Document:
    """Return the document that stands for the deletion of what ``before`` holds."""
    return {
        "_id": before["_id"],
        "version": before["version"] + 1,
        "last_updated": next_moment(now, before["last_updated"]),
        "interaction": "delete",
        "deleted": True,
        # Who may see that there was something is decided by where it belonged.
        "compartments": before.get("compartments", []),
        "labels": before.get("labels", []),
    }


def historical(before: Mapping[str, Any], until: datetime) -> Document:
    """Return the history document of ``before``, which was current until ``until``."""
    kept = {name: before[name] for name in KEPT_IN_HISTORY if name in before}
    return {"_id": {"id": before["_id"], "version": before["version"]}, "until": until, **kept}


def of_present(filter: Document) -> Document:
    """Return ``filter`` for what is not deleted.

    A deletion has no keys. Whoever asks for one needs no further condition, which MongoDB could
    judge by no index: it would look at every document, just to count them.
    """
    if _wants_key(filter):
        return filter
    return {"$and": [filter, PRESENT]} if filter else PRESENT


def _wants_key(filter: Document) -> bool:
    """Return whether ``filter`` is met by nothing that has no keys."""
    for name, condition in filter.items():
        if name == "$and":
            found = any(map(_wants_key, condition))
        elif name == "$or":
            found = all(map(_wants_key, condition))
        else:
            found = name.startswith("keys.") and _wants_value(condition)
        if found:
            return True
    return False


def _wants_value(condition: Any) -> bool:
    if not isinstance(condition, dict):
        return condition is not None
    return (
        not _OF_VALUES.isdisjoint(condition)
        or condition.get("$exists", False)
        or None not in condition.get("$in", (None,))
    )


def value_at(document: Any, field: str) -> Any:
    """Return what stands at the dotted name ``field``, or ``None``."""
    for name in field.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def shown(type: str, document: Mapping[str, Any]) -> Shown:
    """Return what a page shows of the current ``document``."""
    return Shown(type, document["_id"], document["json"], document.get("compartments", ()))


def stored(type: str, document: Mapping[str, Any], *, changed: bool = True) -> Stored:
    """Return the version that ``document``, current or historical, holds."""
    key = document["_id"]
    return Stored(
        type=type,
        id=key if isinstance(key, str) else key["id"],
        version=document["version"],
        last_updated=document["last_updated"],
        json=document.get("json", b""),
        interaction=document.get("interaction", "update"),
        deleted=document.get("deleted", False),
        created=changed and (document["version"] == 1 or document.get("revived", False)),
        changed=changed,
        content=content_of(document),
        compartments=document.get("compartments", ()),
    )
