"""Which reminders an Appointment needs: of whom, when, by which channel, in which language. Pure.

design/scheduling.md, section 8. An offset of days is counted on the calendar of the clinic, one of
hours on the clock. What would fall into quiet hours is moved to their end; where that is too late,
to the minute before they begin.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.extensions import moment
from fhir_server.r4.references import target

TIMEZONE = "http://hl7.org/fhir/StructureDefinition/timezone"
LIVE = ("booked",)
"""The states of an Appointment that reminders are about."""
_SYSTEMS = {"sms": ("sms", "phone"), "email": ("email",)}
_USES = ("mobile", "", "home", "work")
_FIRST_RANK, _LAST_RANK = 1, 1_000_000

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Offset:
    """How long before: ``days`` of the calendar, then ``clock``. ``name`` is as it was written."""

    name: str
    days: int
    clock: timedelta

    def before(self, start: datetime, zone: ZoneInfo) -> datetime:
        """Return when that is, UTC."""
        local = start.astimezone(zone) - timedelta(days=self.days)
        return local.astimezone(UTC) - self.clock


@dataclass(frozen=True, slots=True)
class Quiet:
    """The hours of a local day in which nobody is disturbed, ``begin`` to ``end``; they may go
    over midnight."""

    begin: time
    end: time

    def end_of(self, moment: datetime, zone: ZoneInfo) -> datetime | None:
        """Return when the quiet hours around ``moment`` end, UTC; ``None`` where there are none."""
        local = moment.astimezone(zone)
        now = local.time()
        overnight = self.end <= self.begin
        inside = now >= self.begin or now < self.end if overnight else self.begin <= now < self.end
        if not inside:
            return None
        day = local.date() + timedelta(days=1 if overnight and now >= self.begin else 0)
        return _at(day, self.end, zone)

    def before(self, moment: datetime, zone: ZoneInfo) -> datetime:
        """Return the last minute before the quiet hours around ``moment``, UTC."""
        local = moment.astimezone(zone)
        overnight = self.end <= self.begin
        early = overnight and local.time() < self.end
        day = local.date() - timedelta(days=1 if early else 0)
        return _at(day, self.begin, zone) - timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say: ``channels`` in the order in which they are preferred, ``languages``
    that there are texts in, with ``language`` where a patient speaks none of them."""

    offsets: tuple[Offset, ...]
    zone: ZoneInfo
    quiet: Quiet | None
    channels: tuple[str, ...]
    language: str
    languages: frozenset[str]


@dataclass(frozen=True, slots=True)
class Way:
    """How somebody is reached: ``to`` is an address for ``channel``."""

    channel: str
    to: str


@dataclass(frozen=True, slots=True)
class Person:
    """A patient: the resource, and by which channels messages are wanted, in their order."""

    patient: Json
    channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reminder:
    """A message to be. ``id`` is that of its CommunicationRequest, and the same whenever it is
    planned again: what it says is in it. ``due`` is UTC; after ``until`` it is of no use."""

    id: str
    kind: str
    patient: str
    about: tuple[str, ...]
    due: datetime
    until: datetime
    start: datetime
    channel: str
    language: str


def wanted(
    appointment: Json,
    people: Mapping[str, Person],
    policy: Policy,
    now: datetime,
    known: Collection[str] = (),
) -> list[Reminder]:
    """Return the reminders that ``appointment`` needs from ``now`` on; ``people`` by reference.

    An offset that is over already gives none: whoever books for this afternoon is not told so the
    day before. But one that is among ``known``, ids of reminders which were planned in time, stays:
    it may not have been sent yet.
    """
    start = started(appointment)
    if appointment.get("status") not in LIVE or start is None or start <= now:
        return []
    found: dict[str, Reminder] = {}
    for reference in patients_of(appointment):
        person = people.get(reference)
        way = first_way(person, now) if person is not None else None
        if person is None or way is None:
            continue
        zone = zone_of(person.patient, policy.zone)
        for offset in policy.offsets:
            asked = offset.before(start, policy.zone)
            due = outside(asked, start, policy.quiet, zone)
            one = _reminder("reminder", appointment, (reference, person), due, way, policy)
            if (asked > now and due > now) or one.id in known:
                found[one.id] = one
    return sorted(found.values(), key=lambda one: (one.due, one.id))


def notice(
    kind: str,
    appointment: Json,
    who: tuple[str, Person],
    policy: Policy,
    now: datetime,
    *,
    after: str = "",
) -> Reminder | None:
    """Return what tells ``who`` (a reference, and the person) of ``appointment`` that it is
    ``cancelled``, ``moved`` or on offer, as soon as may be; ``None`` where there is no way to.
    ``after`` is the id of what they were told before: to be told the same again, after something
    else, is another message."""
    start, way = started(appointment), first_way(who[1], now)
    if way is None or start is None or start <= now:
        return None
    zone = zone_of(who[1].patient, policy.zone)
    later = policy.quiet.end_of(now, zone) if policy.quiet else None
    due = later if later is not None and later < start else now
    return _reminder(kind, appointment, who, due, way, policy, after=after)


def _reminder(
    kind: str,
    appointment: Json,
    who: tuple[str, Person],
    due: datetime,
    way: Way,
    policy: Policy,
    *,
    after: str = "",
) -> Reminder:
    reference, person = who
    about = f"Appointment/{appointment['id']}"
    start = started(appointment)
    assert start is not None
    # A notice is the same however often it is planned; when it goes out is no part of it.
    said = [kind, about, reference, start.isoformat()]
    if kind == "reminder":
        said += [due.isoformat(), way.channel]
    elif after:
        said.append(after)
    language = language_of(person.patient, policy.languages, policy.language)
    return Reminder(
        name_of(said), kind, reference, (about,), due, start, start, way.channel, language
    )


def name_of(said: Iterable[str]) -> str:
    """Return an id that stands for what is ``said``."""
    return sha256("\n".join(said).encode()).hexdigest()[:40]


def changed(before: Json | None, after: Json | None, now: datetime) -> bool:
    """Whether the reminders of an Appointment are to be planned again."""
    return _seen(before, now) != _seen(after, now)


def _seen(appointment: Json | None, now: datetime) -> tuple[Any, ...]:
    """Return what of an Appointment its reminders depend on; one that needs none has nothing."""
    if appointment is None or appointment.get("status") not in LIVE:
        return ()
    start = started(appointment)
    if start is None or start <= now:
        return ()
    shown = tuple(sorted(displays(appointment).items()))  # who and where is in the texts
    return (start, shown, *sorted(patients_of(appointment)))


def started(appointment: Json) -> datetime | None:
    """Return when ``appointment`` begins, UTC."""
    return moment(appointment.get("start"))


def local(appointment: Json, bases: Sequence[str]) -> dict[str, Any]:
    """Return ``appointment`` with those who take part and are on this server as ``Patient/1``, also
    where they stand as an absolute URL or with a version. ``bases`` are what this server is
    called."""
    people = [_local(one, bases) for one in _list(appointment, "participant")]
    return {**appointment, **({"participant": people} if people else {})}


def _local(participant: dict[str, Any], bases: Sequence[str]) -> dict[str, Any]:
    found = target(_text(participant.get("actor"), "reference"), bases)
    if not found.id:
        return participant
    actor = {**participant["actor"], "reference": f"{found.type}/{found.id}"}
    return {**participant, "actor": actor}


def patients_of(appointment: Json) -> list[str]:
    """Return the patients who take part and have not declined, as ``Patient/1``; ``appointment`` is
    one of :func:`local`."""
    found = []
    for one in _list(appointment, "participant"):
        reference = _text(one.get("actor"), "reference")
        if reference.startswith("Patient/") and one.get("status") != "declined":
            found.append(reference)
    return list(dict.fromkeys(found))


def displays(appointment: Json) -> Mapping[str, str]:
    """Return ``practitioner``, ``place`` and ``service`` of ``appointment``, as they are shown."""
    found: dict[str, str] = {}
    for one in _list(appointment, "participant"):
        type, _, _ = _text(one.get("actor"), "reference").partition("/")
        name = {"Practitioner": "practitioner", "PractitionerRole": "practitioner"}.get(
            type, "place" if type == "Location" else ""
        )
        if name and (display := _text(one.get("actor"), "display")):
            found.setdefault(name, display)
    for concept in _list(appointment, "serviceType")[:1]:
        codings = [_text(one, "display") for one in _list(concept, "coding")]
        found["service"] = _text(concept, "text") or next(filter(None, codings), "")
    return found


def given(patient: Json) -> str:
    """Return what ``patient`` is called."""
    for one in _list(patient, "name"):
        for name in one.get("given") or ():
            if isinstance(name, str):
                return name
        if text := _text(one, "text"):
            return text
    return ""


def reachable(patient: Json) -> bool:
    """Whether anything is to be sent to ``patient`` at all: nothing to who has died, nor about a
    record that is not used any more."""
    has_died = patient.get("deceasedBoolean") is True or "deceasedDateTime" in patient
    return not has_died and patient.get("active") is not False


def ways(patient: Json, channels: Sequence[str], now: datetime) -> list[Way]:
    """Return how ``patient`` is reached by one of ``channels``, the best way first: by the rank in
    the record, then in the order of the channels, a mobile phone before others."""
    found: list[tuple[int, int, int, Way]] = []
    for place, channel in enumerate(channels):
        if channel == "webhook":
            found.append((_LAST_RANK, place, 0, Way(channel, "")))
        for one in _list(patient, "telecom"):
            value, use = _text(one, "value").strip(), _text(one, "use")
            if one.get("system") not in _SYSTEMS.get(channel, ()) or not value:
                continue
            if use not in _USES or _is_over(one.get("period"), now):
                continue
            if channel == "sms" and not (value := phone(value)):
                continue
            rank = one.get("rank")
            rank = rank if isinstance(rank, int) and rank >= _FIRST_RANK else _LAST_RANK
            found.append((rank, place, _USES.index(use), Way(channel, value)))
    return [way for *_, way in sorted(found, key=lambda one: one[:3])]


def first_way(person: Person, now: datetime) -> Way | None:
    """Return the best of :func:`ways`; ``None`` where nothing is to be sent."""
    if not reachable(person.patient):
        return None
    return next(iter(ways(person.patient, person.channels, now)), None)


def phone(value: str) -> str:
    """Return ``value`` as digits, with a plus where it has one; ``""`` for what is no number.

    >>> phone("+880 1711-000 001"), phone("ext. 5")
    ('+8801711000001', '')
    """
    digits = "".join(one for one in value if one in "0123456789")
    has_letters = any(one.isalpha() for one in value)
    if has_letters or not 5 <= len(digits) <= 15:
        return ""
    return f"+{digits}" if value.strip().startswith("+") else digits


def language_of(patient: Json, languages: frozenset[str], default: str) -> str:
    """Return which of ``languages`` is used with ``patient``: what is preferred before the rest."""
    spoken = _list(patient, "communication")
    for one in sorted(spoken, key=lambda one: one.get("preferred") is not True):
        for coding in _list(one.get("language"), "coding"):
            code = _text(coding, "code").partition("-")[0].lower()
            if code in languages:
                return code
    return default if default in languages else "en"


def zone_of(patient: Json, default: ZoneInfo) -> ZoneInfo:
    """Return the zone that ``patient`` lives in: its extension ``timezone``, or that of an address;
    else ``default``."""
    for element in (patient, *_list(patient, "address")):
        for one in _list(element, "extension"):
            if one.get("url") == TIMEZONE:
                try:
                    return ZoneInfo(_text(one, "valueCode"))
                except (KeyError, OSError, ValueError):
                    continue
    return default


def outside(due: datetime, start: datetime, quiet: Quiet | None, zone: ZoneInfo) -> datetime:
    """Return when a reminder goes out that is asked for at ``due``, outside of ``quiet`` hours and
    before ``start``."""
    end = quiet.end_of(due, zone) if quiet else None
    if quiet is None or end is None:
        return due
    return end if end < start else quiet.before(due, zone)


def _at(day: date, at: time, zone: ZoneInfo) -> datetime:
    """Return a local time as UTC; one that is skipped is as far behind the skip as it was in it."""
    return datetime.combine(day, at, zone).astimezone(UTC)


def _is_over(period: Any, now: datetime) -> bool:
    end = moment(period.get("end")) if isinstance(period, dict) else None
    return end is not None and end <= now


def _list(element: Any, name: str) -> list[Any]:
    found = element.get(name) if isinstance(element, Mapping) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _text(element: Any, name: str) -> str:
    found = element.get(name) if isinstance(element, Mapping) else None
    return found if isinstance(found, str) else ""
