"""The waiting list: who is asked next for a time that became free, and what an offer is. Pure.

Section 6 of design/scheduling.md. An entry is an Appointment ``waitlist``; an offer is the same
Appointment, ``pending`` on that time with a hold, marked with the version that it was an entry in:
to that it returns. https://hl7.org/fhir/R4/appointment.html
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from fhir_server.features.scheduling.extensions import (
    HOLD_EXPIRES,
    WAITLIST_ENTRY,
    extensions,
    hold_expires,
    moment,
)
from fhir_server.features.scheduling.subjects import (
    BOOKED,
    WITHOUT_TIME,
    Json,
    ids_of,
    participants,
)
from fhir_server.messages import Resource
from fhir_server.r4.dates import date_range
from fhir_server.store.documents import instant
from fhir_server.store.offers import Freed

LONGEST = timedelta(hours=4)
"""A free time that is longer is nothing that one appointment had."""
NOBODY: Mapping[str, str] = {}
_PEOPLE_AND_THINGS = ("Practitioner", "PractitionerRole", "Device")
_MAC_CHARACTERS = 24


class Place(NamedTuple):
    """Where an offer goes: its time, as it is to be written."""

    start: datetime
    end: datetime


def time_name(event: Freed) -> str:
    """Return what a free time is called, whatever freed it."""
    return f"{','.join(sorted(event.actors))}|{event.start:%Y-%m-%dT%H:%MZ}"


def place_for(
    entry: Json, event: Freed, bases: Sequence[str], people: Mapping[str, str] = NOBODY
) -> Place | None:
    """Return when ``entry`` would be at the time of ``event``; ``None`` where it does not want
    that time, or not those who have it. ``people`` says whose the roles are that either names.

    Of each kind of people and things that it names, it wants one of those. Where it names places or
    services, and what was freed has some, it wants those. The same holds for what it is for.
    """
    if entry.get("status") != "waitlist":
        return None
    minutes = entry.get("minutesDuration")
    length = timedelta(minutes=minutes) if isinstance(minutes, int) else event.end - event.start
    end = event.start + length
    if length <= timedelta(0) or end > event.end or length > LONGEST:
        return None
    if not _is_wanted_then(entry, event.start, end):
        return None
    wanted = {people.get(one, one) for one in participants(entry, bases)}
    have = {people.get(one, one) for one in event.actors}
    for type in {one.partition("/")[0] for one in wanted} - {"Patient"}:
        named, there = ids_of(type, wanted), ids_of(type, have)
        if not named & there and (there or type in _PEOPLE_AND_THINGS):
            return None
    types = set(codes(entry.get("serviceType")))
    if types and event.types and not types.intersection(event.types):
        return None
    return Place(event.start, end)


def _is_wanted_then(entry: Json, start: datetime, end: datetime) -> bool:
    periods = [one for one in entry.get("requestedPeriod", ()) if isinstance(one, dict)]
    for period in periods:
        begin = moment(period.get("start"))
        until = _end_of(period.get("end"))
        if (begin is None or begin <= start) and (until is None or end <= until):
            return True
    return not periods


def _end_of(text: object) -> datetime | None:
    """The end of a period includes all of what it names: a day its last minute."""
    return date_range(text)[1] if isinstance(text, str) and moment(text) else None


def codes(concepts: Any) -> Iterator[str]:
    """Yield the codings of CodeableConcepts as ``system|code``."""
    for concept in concepts or ():
        for coding in concept.get("coding", ()) if isinstance(concept, dict) else ():
            if isinstance(coding, dict) and coding.get("code"):
                yield f"{coding.get('system', '')}|{coding['code']}"


def in_turn(entries: Iterable[Resource]) -> list[Resource]:
    """Return ``entries`` in the order in which they are asked: 1 is the first priority, 0 or none
    the last; then the oldest first."""
    return sorted(entries, key=_turn)


def _turn(entry: Json) -> tuple[int, bool, float, str]:
    priority = entry.get("priority")
    number = priority if isinstance(priority, int) and priority > 0 else 1_000_000
    created = moment(entry.get("created")) or moment(entry.get("meta", {}).get("lastUpdated"))
    age = created.timestamp() if created is not None else 0.0
    return number, created is None, age, str(entry.get("id", ""))


def offered(
    entry: Resource, place: Place, event: Freed, expires: datetime, slots: Collection[str] = ()
) -> Resource:
    """Return ``entry`` as an offer of the time at ``place`` until ``expires``: with its patient,
    those who have the time, and whoever comes along. ``slots`` (``Slot/1``) are taken along."""
    others = [{"actor": {"reference": one}, "status": "accepted"} for one in sorted(event.actors)]
    asked = []
    for one in entry.get("participant", ()):
        reference = str(one.get("actor", {}).get("reference", ""))
        type = reference.rpartition("/")[0].rpartition("/")[2]
        if type == "Patient":
            asked.append({**one, "status": "needs-action"})
        elif (one.get("required") in WITHOUT_TIME or type not in BOOKED) and (
            reference not in event.actors
        ):
            asked.append(one)
    made: Resource = {
        **entry,
        "status": "pending",
        "start": place.start.isoformat(timespec="seconds"),
        "end": place.end.isoformat(timespec="seconds"),
        "participant": [*others, *asked],
        "extension": [
            *_without_marks(entry),
            {"url": HOLD_EXPIRES, "valueDateTime": instant(expires)},
            {"url": WAITLIST_ENTRY, "valueString": entry["meta"]["versionId"]},
        ],
    }
    made.pop("slot", None)
    if slots:
        made["slot"] = [{"reference": one} for one in sorted(slots)]
    return made


def entry_version(appointment: Json) -> str:
    """Return which version of ``appointment`` was the entry that it is an offer to; ``""`` of what
    is no offer."""
    if appointment.get("status") != "pending":
        return ""
    return next((str(one.get("valueString")) for one in _marks(appointment)), "")


def _marks(appointment: Json) -> Iterator[Mapping[str, Any]]:
    return extensions(appointment, WAITLIST_ENTRY)


def is_open(appointment: Json, now: datetime) -> bool:
    """Whether ``appointment`` is an offer that can still be accepted."""
    until = hold_expires(appointment)
    return bool(entry_version(appointment)) and (until is None or until > now)


def accepted(offer: Resource) -> Resource:
    """Return ``offer`` booked."""
    made = {**offer, "status": "booked"}
    made["participant"] = [
        {**one, "status": "accepted"} if one.get("status") == "needs-action" else one
        for one in offer["participant"]
    ]
    return _with_extensions(made, _without_marks(offer))


def declined(offer: Resource, entry: Resource | None) -> Resource:
    """Return ``offer`` as the entry that it was before, and as old; without one, as far as it is
    known."""
    if entry is not None:
        since = entry.get("created") or entry["meta"]["lastUpdated"]
        return {**entry, "status": "waitlist", "created": since}
    made = {name: one for name, one in offer.items() if name not in ("start", "end", "slot")}
    return _with_extensions({**made, "status": "waitlist"}, _without_marks(offer))


def _without_marks(appointment: Json) -> list[Any]:
    ours = (HOLD_EXPIRES, WAITLIST_ENTRY)
    return [one for one in appointment.get("extension", ()) if one.get("url") not in ours]


def _with_extensions(appointment: Resource, some: list[Any]) -> Resource:
    made = {name: one for name, one in appointment.items() if name != "extension"}
    return {**made, "extension": some} if some else made


def link_token(key: bytes, id: str, version: str) -> str:
    """Return what the link of an offer has: of the Appointment ``id``, which was an entry in
    ``version``. Only who has ``key`` can make it; it is good for this offer and no other."""
    said = f"{id}.{version}"
    return f"{said}.{_mac(key, said)}"


def read_token(key: bytes, token: str) -> tuple[str, str] | None:
    """Return id and version that ``token`` was made of; ``None`` where it was not."""
    said, _, mac = token.rpartition(".")
    id, _, version = said.rpartition(".")
    if not id or not version or not token.isascii():
        return None
    return (id, version) if hmac.compare_digest(mac, _mac(key, said)) else None


def _mac(key: bytes, said: str) -> str:
    digest = hmac.digest(key, b"waitlist offer " + said.encode(), "sha256")
    return urlsafe_b64encode(digest).decode()[:_MAC_CHARACTERS]
