"""Proposed Appointments: how they are written, kept for some minutes, and read again by their id.

Section 3 of design/scheduling.md. The id of a proposal is that of the question and a number,
``<id>-7``. Who asked, and nobody else, can read it; it is no resource, and no search finds it.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.context import Context
from fhir_server.features.scheduling.offering import Combination, Offer, duration_of
from fhir_server.features.scheduling.parameters import Json
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.r4.json import decode_stored, encode

_ID = re.compile(r"([A-Za-z0-9\-.]{1,58})-([0-9]{1,5})")


def template(some: Combination, patients: Sequence[str]) -> Json:
    """Return what all proposals of ``some`` have in common: an Appointment without its times, how
    long it is, the zone of its times, and of each Slot the Schedule and the buffers."""
    actors = {one["reference"]: one for each in some for one in each.participants}
    places = {one["reference"]: one for each in some for one in each.places}
    participant = [
        *(
            {"actor": one, "required": "required", "status": "needs-action"}
            for one in actors.values()
        ),
        *(
            {"actor": one, "required": "information-only", "status": "accepted"}
            for key, one in places.items()
            if key not in actors
        ),
        *(
            {"actor": {"reference": one}, "required": "required", "status": "needs-action"}
            for one in patients
        ),
    ]
    concepts: dict[str, Any] = {}
    for one in some:
        concepts = {**one.concepts, **concepts}
    lead = next((one.rules for one in some if one.rules.service), some[0].rules)
    return {
        "duration": duration_of(some),
        "zone": lead.zone.key,
        "slots": [[one.rules.schedule, one.rules.before, one.rules.after] for one in some],
        "appointment": {**concepts, "participant": participant},
    }


def proposal(id: str, template: Json, start: datetime) -> Resource:
    """Return the Appointment ``proposed`` at ``start`` (UTC), its Slots contained."""
    zone, minute = ZoneInfo(template["zone"]), timedelta(minutes=1)
    end = start + template["duration"] * minute
    appointment = template["appointment"]
    concept = {
        name: appointment[name]
        for name in ("serviceCategory", "serviceType", "specialty")
        if name in appointment
    }
    slots: list[Resource] = []

    def add(schedule: str, low: datetime, high: datetime, status: str, comment: str = "") -> None:
        if low < high:
            slots.append(
                {
                    "resourceType": "Slot",
                    "id": f"slot{len(slots) + 1}",
                    **concept,
                    "schedule": {"reference": schedule},
                    "status": status,
                    "start": _instant(low, zone),
                    "end": _instant(high, zone),
                    **({"comment": comment} if comment else {}),
                }
            )

    for schedule, _, _ in template["slots"]:
        add(schedule, start, end, "busy")
    for schedule, before, after in template["slots"]:
        add(schedule, start - before * minute, start, "busy-unavailable", "Before the appointment")
        add(schedule, end, end + after * minute, "busy-unavailable", "After the appointment")
    return {
        "resourceType": "Appointment",
        "id": id,
        "contained": slots,
        "status": "proposed",
        **concept,
        "start": _instant(start, zone),
        "end": _instant(end, zone),
        "minutesDuration": template["duration"],
        "slot": [{"reference": f"#{one['id']}"} for one in slots],
        "participant": appointment["participant"],
    }


def _instant(moment: datetime, zone: ZoneInfo) -> str:
    return moment.astimezone(zone).isoformat(timespec="seconds")


async def keep(
    found: Sequence[Offer], templates: Sequence[Json], id: str, context: Context
) -> None:
    """Keep what the question ``id`` found, for who asked it."""
    minutes = context.settings.scheduling_proposal_minutes
    used = sorted({one.place for one in found})
    document = {
        "templates": [encode(dict(templates[place])) for place in used],
        "offers": [[used.index(one.place), *one.starts] for one in found],
    }
    until = context.now() + timedelta(minutes=minutes)
    await context.store.proposals.keep(id, context.principal.key, until, document)


async def proposed(id: str, context: Context) -> list[Resource]:
    """Return what was proposed to who asks as ``id``: an Appointment, and where it is one of a
    weekly series the whole series.

    Raises ``not-found`` for what was not proposed to this one, or longer ago than proposals last.
    """
    parts = _ID.fullmatch(id)
    if parts is not None:
        store, by = context.store.proposals, context.principal.key
        kept = await store.found(parts[1], by, context.now())
        number = int(parts[2])
        for place, *starts in (kept or {}).get("offers", ()):
            if 0 < number <= len(starts):
                assert kept is not None  # it has offers
                first = int(parts[2]) - number + 1
                common = decode_stored(kept["templates"][place])
                return [
                    proposal(f"{parts[1]}-{first + n}", common, one.astimezone(UTC))
                    for n, one in enumerate(starts)
                ]
            number -= len(starts)
    minutes = context.settings.scheduling_proposal_minutes
    text = f"Appointment/{shown(id)[1:-1]} was not proposed to you in the last {minutes} minutes."
    raise FhirError(Issue("not-found", text))


def is_proposal(id: str) -> bool:
    """Whether ``id`` could be that of a proposal."""
    return _ID.fullmatch(id) is not None


def ids(id: str, found: Sequence[Offer]) -> list[list[str]]:
    """Return the ids of the appointments of each offer of the question ``id``."""
    numbered, number = [], 0
    for one in found:
        numbered.append([f"{id}-{number + n}" for n in range(1, len(one.starts) + 1)])
        number += len(one.starts)
    return numbered


def starts_of(offer: Offer, named: Sequence[str], common: Mapping[str, Any]) -> list[Resource]:
    """Return the Appointments of ``offer``, called as ``named``."""
    return [proposal(id, common, start) for id, start in zip(named, offer.starts, strict=True)]
