"""Schedules and services as the tests write them."""

from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

from fhir_server.features.scheduling.parameters import ALIAS, PARAMETERS, Defaults, Rules, rules

DEFAULTS = Defaults(ZoneInfo("UTC"), timedelta(0), timedelta(days=90), 10)
HOLIDAYS: dict[str, Any] = {}
Json = dict[str, Any]


def span(minutes: int, unit: str = "min") -> Json:
    """Return a Duration."""
    return {"valueDuration": {"value": minutes, "unit": unit}}


def available(days: str, start: str, end: str) -> Json:
    """Return the extension ``availability`` with one window; ``days`` as ``mon tue``."""
    inside = [{"url": "daysOfWeek", "valueCode": one} for one in days.split()]
    inside += [
        {"url": "availableStartTime", "valueTime": start},
        {"url": "availableEndTime", "valueTime": end},
    ]
    time = {"url": "availableTime", "extension": inside}
    return {"url": "availability", "extension": [time]}


def parameters(*extra: Json, url: str = PARAMETERS, **said: Json) -> Json:
    """Return the extension: ``said`` by name, and ``extra`` parts."""
    parts = [{"url": name, **value} for name, value in said.items()]
    return {"url": url, "extension": [*parts, *extra]}


def schedule(*extensions: Json, id: str = "s1", **more: Any) -> Json:
    """Return a Schedule of Practitioner/p1."""
    actor = more.pop("actor", [{"reference": "Practitioner/p1"}])
    found = {"resourceType": "Schedule", "id": id, "actor": actor, **more}
    return {**found, "extension": list(extensions)} if extensions else found


def service(*extensions: Json, id: str = "h1", **more: Any) -> Json:
    """Return a HealthcareService."""
    found = {"resourceType": "HealthcareService", "id": id, **more}
    return {**found, "extension": list(extensions)} if extensions else found


def alias(*extra: Json, **said: Json) -> Json:
    """Return the extension as the other server calls it."""
    return parameters(*extra, url=ALIAS, **said)


def read(one: Json, other: Json | None = None, *places: Json, **holidays: Any) -> Rules:
    """Return the rules of a Schedule for a service."""
    return rules(one, other, places, holidays, DEFAULTS)
