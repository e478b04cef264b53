"""The patients that somebody cares for: named in an active CareTeam, an open Encounter or an
Appointment in which that one takes part.

design/security.md, section 3.1. Looked up as this server, since it decides what may be seen.
"""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType

from fhir_server.context import Context
from fhir_server.messages import Parameters
from fhir_server.search.parse import parse
from fhir_server.search.plan import plan
from fhir_server.store.client import deadline
from fhir_server.store.relations import patients_named

_STAFF = ("Practitioner/", "PractitionerRole/")
_MOST = 5_000  # of each type; nobody is at work with more people at once
_ROLES_MOST = 50
_DAYS_AFTER = 30  # to write down what was found; one that nobody has closed does not open for ever

# Type -> the parameter by which somebody takes part, and what makes it current.
_WORK: Mapping[str, tuple[str, Parameters]] = MappingProxyType(
    {
        "CareTeam": ("participant", (("status", "active"),)),
        "Encounter": (
            "participant",
            (("status", "planned,arrived,triaged,in-progress,onleave"),),
        ),
        "Appointment": ("actor", (("status", "pending,booked,arrived,checked-in"),)),
    }
)


async def patients_of(fhir_user: str, context: Context) -> frozenset[str]:
    """Return the patients (``Patient/1``) that ``fhir_user`` (``Practitioner/1``) cares for."""
    if not fhir_user.startswith(_STAFF):
        return frozenset()
    who = ",".join((fhir_user, *await _roles_of(fhir_user, context)))
    since = context.now() - timedelta(days=_DAYS_AFTER)
    found: set[str] = set()
    for type, (part, current) in _WORK.items():
        asked = ((part, who), *current)
        if type == "Appointment":
            asked = (*asked, ("date", f"ge{since:%Y-%m-%d}"))
        found |= await _named(type, asked, context)
    return frozenset(found)


async def _named(type: str, asked: Parameters, context: Context) -> set[str]:
    query = parse(type, asked, context.parameters, count_default=1)
    filter = plan(query, context.parameters).filter
    field = context.parameters.of(type)["patient"].field
    database = context.store.as_server.database
    async with deadline(context.settings.request_timeout_s, "Try again."):
        return {one async for one in patients_named(database, type, filter, field, _MOST)}


async def _roles_of(fhir_user: str, context: Context) -> list[str]:
    """Return the PractitionerRoles of a practitioner: teams and bookings may name these."""
    if not fhir_user.startswith("Practitioner/"):
        return []
    asked = (("practitioner", fhir_user), ("active:not", "false"))
    query = parse("PractitionerRole", asked, context.parameters, count_default=_ROLES_MOST)
    store = context.store.as_server
    page = await store.search(plan(query, context.parameters))
    return [f"PractitionerRole/{one.id}" for one in page.entries]
