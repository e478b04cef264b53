"""Who and what somebody chooses for an app: patients and visits, looked for through the front door
as that person, so that nobody can choose whom they would not see.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import re2 as re

from fhir_server.context import Context
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of
from fhir_server.store.users import User

ROWS_MAX = 20
_ID = re.compile(r"[A-Za-z0-9\-\.]{1,64}")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is in context: the ids of a patient, with the ``name`` to be shown, and of a visit.
    ``encounter_is_settled`` once that was asked, whatever was answered."""

    patient: str = ""
    name: str = ""
    encounter: str = ""
    encounter_is_settled: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """Something to choose: ``id``, what it is called, and what tells it from others."""

    id: str
    title: str
    detail: str


def as_user(user: User) -> Principal:
    """Return ``user`` at our own pages: may look for whom to choose, and no more."""
    if user.is_staff:
        scopes = scopes_of("user/Patient.rs user/Encounter.rs")
        return Principal("user", user.name, "", scopes, user.roles, user.fhir_user)
    scopes = scopes_of("patient/Patient.rs patient/Encounter.rs")
    fhir_user = user.fhir_user or f"Patient/{user.patient}"
    return Principal("user", user.name, "", scopes, user.roles, fhir_user, user.patient)


async def patients(context: Context, user: User, words: str) -> list[Row]:
    """Return patients whose names or numbers begin with ``words``; without, those changed last."""
    order = (("_count", str(ROWS_MAX)), ("_total", "none"))
    if not words.strip():
        wanted = [(("_sort", "-_lastUpdated"), *order)]
    else:
        plain = words.strip().replace("\\", "").replace(",", " ").replace("|", " ").replace("$", "")
        wanted = [(("name", one), *order) for one in [plain]]
        wanted.append((("identifier", plain), *order))
    found: dict[str, Row] = {}
    for parameters in wanted:
        for one in await _searched(context, user, "Patient", parameters):
            found.setdefault(str(one.get("id")), _patient_row(one))
    return list(found.values())[:ROWS_MAX]


async def patient_named(context: Context, user: User, id: str) -> str | None:
    """Return the name of a patient; ``None`` for one whom ``user`` does not see."""
    if not _ID.fullmatch(id):
        return None
    asking = replace(context, principal=as_user(user))
    try:
        response = await context.perform(Request("read", "Patient", id), asking)
    except FhirError as error:
        if error.status >= 500:
            raise
        return None
    return _name(decode(response.body, depth_max=context.settings.depth_max))


async def encounters(context: Context, user: User, patient: str) -> list[Row]:
    """Return the visits of ``patient``, the latest first."""
    parameters = (
        *(("patient", patient), ("_sort", "-date")),
        *(("_count", str(ROWS_MAX)), ("_total", "none")),
    )
    found = await _searched(context, user, "Encounter", parameters)
    return [_encounter_row(one) for one in found]


async def _searched(
    context: Context, user: User, type: str, parameters: tuple[tuple[str, str], ...]
) -> list[Json]:
    asking = replace(context, principal=as_user(user))
    try:
        request = Request("search-type", type, parameters=parameters)
        response = await context.perform(request, asking)
    except FhirError as error:
        if error.status >= 500:
            raise
        return []  # a role that sees none has none to choose from
    bundle = decode(response.body, depth_max=context.settings.depth_max)
    return [
        entry["resource"]
        for entry in bundle.get("entry", ())
        if entry.get("resource", {}).get("resourceType") == type
    ]


def _patient_row(patient: Json) -> Row:
    number = next((str(one["value"]) for one in _all(patient, "identifier") if "value" in one), "")
    told = (patient.get("birthDate"), patient.get("gender"), number)
    return Row(
        str(patient.get("id", "")), _name(patient), ", ".join(str(one) for one in told if one)
    )


def _name(patient: Json) -> str:
    for name in _all(patient, "name"):
        given = " ".join(map(str, name.get("given", ())))
        said = str(name.get("text") or f"{given} {name.get('family', '')}".strip())
        if said:
            return said
    return f"Patient {patient.get('id', '')}"


def _encounter_row(encounter: Json) -> Row:
    period = encounter.get("period")
    start = str(period.get("start", "")) if isinstance(period, Mapping) else ""
    kinds = [str(one.get("text") or "") for one in _all(encounter, "type")]
    kind = next((one for one in kinds if one), "Visit")
    told = (kind, str(encounter.get("status", "")))
    title = start[:16].replace("T", " ") or f"Visit {encounter.get('id', '')}"
    return Row(str(encounter.get("id", "")), title, ", ".join(one for one in told if one))


def _all(resource: Json, name: str) -> list[Json]:
    found = resource.get(name)
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []
