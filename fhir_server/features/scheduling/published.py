"""What everybody may know of a clinic's times: places, calendars and free Slots, as NDJSON. Pure.

SMART Scheduling Links, https://github.com/smart-on-fhir/smart-scheduling-links. Each resource has
the elements of a list and no others: no narrative, no comment, no extension, nobody's name.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from hashlib import sha256
from typing import Any

from fhir_server.features.scheduling.diaries import Diary, Opening
from fhir_server.features.scheduling.extensions import moment
from fhir_server.features.scheduling.subjects import Json
from fhir_server.messages import Resource
from fhir_server.r4.json import encode
from fhir_server.r4.references import target
from fhir_server.store.documents import instant

SHOWN: Mapping[str, tuple[str, ...]] = {
    "Location": (
        *("resourceType", "id", "identifier", "status", "name", "description", "telecom"),
        *("address", "position", "hoursOfOperation"),
    ),
    "Schedule": (
        *("resourceType", "id", "active", "serviceCategory", "serviceType", "specialty", "actor"),
        "planningHorizon",
    ),
    "Slot": (
        *("resourceType", "id", "serviceCategory", "serviceType", "specialty", "schedule"),
        *("status", "start", "end"),
    ),
}
_ACTORS = ("Location", "HealthcareService", "PractitionerRole", "Practitioner", "Device")


def shown(resource: Resource) -> Resource:
    """Return of ``resource`` what everybody may know."""
    names = SHOWN[resource["resourceType"]]
    return {name: _bare(resource[name]) for name in names if name in resource}


def _bare(value: Any) -> Any:
    """Return ``value`` without extensions, and references without the names of their targets."""
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    gone = ("extension", "display") if "reference" in value else ("extension",)
    return {
        name: _bare(one)
        for name, one in value.items()
        if name not in gone and not name.startswith("_")
    }


def is_public(schedule: Json, bases: Sequence[str]) -> bool:
    """Whether ``schedule`` is of the clinic alone: that of a patient is not published."""
    actors = [str(one.get("reference", "")) for one in schedule.get("actor", ())]
    return bool(actors) and all(target(one, bases).type in _ACTORS for one in actors)


def published_schedule(diary: Diary) -> Resource:
    """Return the Schedule of ``diary``, its place first."""
    made = shown(diary.schedule)
    made["actor"] = sorted(
        made["actor"], key=lambda one: "Location/" not in str(one.get("reference", ""))
    )
    return made


def free_slots(opening: Opening) -> Iterable[Resource]:
    """Yield the free times of ``opening`` as Slots. A time has the same id whenever it is
    published."""
    length = timedelta(minutes=opening.rules.duration or 0)
    types = (opening.service or opening.diary.schedule).get(
        "type" if opening.service else "serviceType"
    )
    for start in opening.starts:
        said = f"{opening.diary.key}|{opening.rules.service}|{instant(start)}"
        made: Resource = {
            "resourceType": "Slot",
            "id": f"free-{sha256(said.encode()).hexdigest()[:40]}",
            "schedule": {"reference": opening.diary.key},
            "status": "free",
            "start": instant(start),
            "end": instant(start + length),
        }
        if types:
            made["serviceType"] = _bare(types)
        yield made


def is_then(slot: Json, low: datetime, high: datetime) -> bool:
    """Whether ``slot`` begins from ``low`` to before ``high``."""
    start = moment(slot.get("start"))
    return start is not None and low <= start < high


def lines(resources: Iterable[Resource]) -> bytes:
    """Return ``resources`` as NDJSON. http://ndjson.org/"""
    return b"".join(encode(one) + b"\n" for one in resources)


def manifest(base_url: str, days: Iterable[date], when: datetime) -> Resource:
    """Return the manifest: which files there are, of what was true at ``when`` (UTC)."""
    file = f"{base_url}/$bulk-publish-file?type="
    output = [{"type": type, "url": file + type} for type in ("Location", "Schedule")]
    output += [{"type": "Slot", "url": f"{file}Slot&date={one.isoformat()}"} for one in days]
    return {
        "transactionTime": instant(when),
        "request": f"{base_url}/$bulk-publish",
        "output": output,
        "error": [],
    }
