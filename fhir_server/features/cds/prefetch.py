"""Prefetch: what is asked for, and the four states of what came. Pure.

https://cds-hooks.hl7.org/2.0/#prefetch-template; design/cds.md, section 3.2.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.features.cds.elements import entries, parts, text, unreadable

_PATIENT = "{{context.patientId}}"
_NEWEST = "&_sort=-date&_count=1"
_LOINC = "http://loinc.org|"

MEASURED: Mapping[str, str] = {
    "weight": "29463-7",
    "height": "8302-2",
    "creatinine": "2160-0",
    "creatinineMolar": "14682-9",
    "potassium": "2823-3",
}
"""Keys of which only the newest value is wanted -> its LOINC code."""
MEASURED_AS: Mapping[str, str] = {"creatinineMolar": "creatinine"}
"""Keys that are another one in another unit."""

TEMPLATES: Mapping[str, str] = {
    "patient": f"Patient/{_PATIENT}",
    "medications": f"MedicationRequest?patient={_PATIENT}&status=active",
    "statements": f"MedicationStatement?patient={_PATIENT}&status=active",
    "allergies": f"AllergyIntolerance?patient={_PATIENT}",
    **{
        key: f"Observation?patient={_PATIENT}&code={_LOINC}{code}{_NEWEST}"
        for key, code in MEASURED.items()
    },
}
"""Key -> template. No ``_include`` and no lists of codes: clients need not support them."""

LISTS = ("medications", "allergies")
"""Keys without which a check is not complete."""
_OPTIONAL = ("statements",)

RESOURCES_MAX = 2_000
_TOKEN = re.compile(r"\{\{\s*context\.(\w+)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What is known under one key.

    ``state`` is ``data``, ``empty`` (asked, nothing there), ``unknown``, ``incomplete``, or
    ``late``: it could have been read, but not in time.
    """

    state: str
    resources: tuple[dict[str, Any], ...] = ()
    next: str = ""


UNKNOWN = Fetched("unknown")
LATE = Fetched("late")
MISSING = ("unknown", "late")
"""The states in which nothing is known."""


def fetched(prefetch: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Fetched]:
    """Return what came under each of ``keys``."""
    return {key: _one(prefetch[key], key) if key in prefetch else UNKNOWN for key in keys}


def _one(value: Any, key: str) -> Fetched:
    if value is None:
        return Fetched("empty")
    if not isinstance(value, dict) or value.get("resourceType") == "OperationOutcome":
        return UNKNOWN
    if value.get("resourceType") not in ("Bundle", re.split("[/?]", TEMPLATES[key])[0]):
        return UNKNOWN
    return of_resource(value)


def of_resource(resource: Mapping[str, Any]) -> Fetched:
    """Return the state of an answer: a resource, or a Bundle with perhaps more behind it."""
    if resource.get("resourceType") != "Bundle":
        is_one = isinstance(resource.get("resourceType"), str)
        return Fetched("data", (dict(resource),)) if is_one else UNKNOWN
    found = [*entries(resource)]
    further = next(
        (text(link, "url") for link in parts(resource, "link") if text(link, "relation") == "next"),
        "",
    )
    is_cut = len(found) > RESOURCES_MAX or _lacks(resource, found)
    state = "incomplete" if further or is_cut else "data" if found else "empty"
    return Fetched(state, tuple(found[:RESOURCES_MAX]), further)


def _lacks(bundle: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a Bundle says by itself that there is more than it brings: in ``total``, by an entry
    without a resource, or by an OperationOutcome among its entries."""
    total = bundle.get("total")
    is_less = isinstance(total, int) and not isinstance(total, bool) and total > len(found)
    failed = any(
        text(issue, "severity") in ("error", "fatal")
        for one in found
        if text(one, "resourceType") == "OperationOutcome"
        for issue in parts(one, "issue")
    )
    return is_less or failed or bool(unreadable(bundle))


def wanted(known: Mapping[str, Fetched]) -> dict[str, str]:
    """Return key -> template of what is still to be read."""
    return {key: TEMPLATES[key] for key, one in known.items() if one.state == "unknown"}


def filled(template: str, context: Mapping[str, Any]) -> str | None:
    """Return a template with the context's values in it; ``None`` where one is missing or odd.

    A value becomes part of a path and of a query: only what an id may be is taken.
    """
    values: list[str] = []

    def value(match: "re.Match[str]") -> str:
        found = text(context, match[1]).removeprefix("Patient/")
        values.append(found)
        return found

    path = _TOKEN.sub(value, template)
    return path if all(map(is_plain_id, values)) else None


def is_plain_id(value: str) -> bool:
    """Whether ``value`` is what a logical id may be, and so nothing else in a path or query."""
    return re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", value) is not None


def unread(known: Mapping[str, Fetched]) -> Iterator[tuple[str, str]]:
    """Yield the lists that are missing or incomplete, and the reason."""
    for key in LISTS:
        if key in known and known[key].state == "unknown":
            yield key, "list-missing"
    for key in (*LISTS, *_OPTIONAL):
        if key in known and known[key].state == "incomplete":
            yield key, "list-incomplete"
        if key in known and known[key].state == "late":
            yield key, "out-of-time"
