"""How booking operations read and write: through the front door, all at once or nothing.

Times are taken by the rule (``holding.py``) inside the write; nothing here touches them. An
Appointment is written by the rights of who asks. Its Slots follow from it, and are the server's:
who may book writes no Slots.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from fhir_server.context import Context
from fhir_server.messages import Request, Resource
from fhir_server.r4.json import decode
from fhir_server.store.changes import Change
from fhir_server.store.documents import Stored
from fhir_server.store.resources import ResourceStore

TYPES = ("Appointment", "Slot", "Patient")
"""What booking operations may write."""

T = TypeVar("T")


async def in_one(context: Context, work: Callable[[Context], Awaitable[T]]) -> T:
    """Run ``work`` in one transaction, with the context for it; it may run more than once."""

    async def inside(store: ResourceStore) -> T:
        return await work(replace(context, store=store))

    return await context.store.in_transaction(inside, TYPES)


async def read(place: str, context: Context) -> Resource:
    """Return the resource at ``place`` (``Appointment/1``), by the rights of who asks. Raises
    ``not-found`` and ``deleted``."""
    type, _, id = place.partition("/")
    response = await context.perform(Request("read", type, id), context)
    return decode(response.body, depth_max=context.settings.depth_max)


async def search(
    type: str, parameters: Sequence[tuple[str, str]], context: Context
) -> list[Resource]:
    """Return the resources of ``type`` that a search finds, one page of them."""
    asked = (*parameters, ("_total", "none"))
    response = await context.perform(Request("search-type", type, parameters=asked), context)
    found = decode(response.body, depth_max=context.settings.depth_max)
    return [
        one["resource"]
        for one in found.get("entry", ())
        if one.get("search", {}).get("mode") == "match"
    ]


def created(type: str, id: str, body: Resource, request: Request, context: Context) -> Change:
    """Return the change that creates ``body``, judged like a create by who asks."""
    asked = Request("create", type, id, body=body, base_url=request.base_url)
    return replace(context.prepare(asked, context), by_operation=True)


def updated(body: Resource, request: Request, context: Context) -> Change:
    """Return the change that replaces the version which ``body`` was made of."""
    version = frozenset((body["meta"]["versionId"],))
    type, id = body["resourceType"], body["id"]
    asked = Request("update", type, id, body=body, if_match=version, base_url=request.base_url)
    return replace(context.prepare(asked, context), by_operation=True)


def slot_created(id: str, body: Resource) -> Change:
    """Return the change by which the server makes a Slot for an Appointment."""
    return Change("create", "Slot", id, body, by_server=True)


async def written(changes: Sequence[Change], context: Context, override: str = "") -> list[Stored]:
    """Make ``changes``, or none; return what the Appointments and Slots among them came to.

    With an ``override`` a time that is taken is taken all the same, and what was written says why:
    it is read again, since the rule has added to it.
    """
    store = replace(context.store, override=override) if override else context.store
    stored = await store.write(changes, context.now())
    found = [one for one in stored if one.type != "Patient"]
    if override:
        found = [await _now(one, context) for one in found]
    return found


async def _now(stored: Stored, context: Context) -> Stored:
    found = await context.store.read(stored.type, stored.id)
    return stored if found is None else replace(found, created=stored.created)
