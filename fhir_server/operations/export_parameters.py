"""What a kick-off request of ``$export`` asks for.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#query-parameters

What is not supported is refused, or, with ``Prefer: handling=lenient``, left out and said in a file
of the manifest's ``error``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import re2 as re

from fhir_server.context import Context
from fhir_server.interactions.search_type import search_query
from fhir_server.messages import Parameters, Request
from fhir_server.outcome import (
    FhirError,
    Issue,
    invalid_value,
    nearest,
    operation_outcome,
    shown,
    unknown_type,
)
from fhir_server.r4.dates import date_range
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.references import target
from fhir_server.r4.subsets import element_names
from fhir_server.route import query_parameters
from fhir_server.search.parse import SearchQuery

PATIENT = "Patient"
ASSOCIATED = (
    *("HealthcareService", "Location", "Medication", "Organization", "Practitioner"),
    "PractitionerRole",
)
"""What is in no patient's compartment and helps to read what is: exported whole beside patients."""
RECORD = "AuditEvent"
"""What is never exported: the record of who did what, exports among it, is no part of the data."""
NOT_UNASKED = frozenset({"Binary", RECORD})
"""What is not exported unless ``_type`` names it: the content of a Binary has its own address."""

# Parameter -> the members of Parameters.parameter that may have its value.
_KNOWN = {
    "_outputFormat": ("valueString", "valueCode"),
    "_since": ("valueInstant",),
    "_type": ("valueString", "valueCode"),
    "_typeFilter": ("valueString",),
    "_elements": ("valueString",),
    "patient": ("valueReference",),
    "includeAssociatedData": ("valueCode", "valueString"),
}
_ONCE = ("_outputFormat", "_since")
_FORMATS = ("application/fhir+ndjson", "application/ndjson", "ndjson")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})"
)
_FILTER = re.compile(r"([A-Z][A-Za-z]{1,63})\?([\s\S]*)")
# What is about the answer to a search, and means nothing in a filter.
_ABOUT_THE_RESULT = frozenset(
    (
        *("_sort", "_count", "_total", "_summary", "_elements", "_cursor", "_rest", "_page"),
        *("_include", "_revinclude", "_contained", "_containedType", "_query", "_explain"),
    )
)
_FILTERS_MAX = 100
_NAMES_MAX = 500
PATIENTS_MAX = 100_000
"""Patients of one export that is not about all of them."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for, before it is held against rights and what is stored. ``types`` are empty
    where none is named, ``patients`` are ids, ``None`` where none is."""

    types: tuple[str, ...] = ()
    filters: tuple[tuple[str, str], ...] = ()
    elements: tuple[str, ...] = ()
    since: datetime | None = None
    patients: tuple[str, ...] | None = None


@dataclass(slots=True)
class Leniency:
    """Refuses what is not supported, or notes it for a client that prefers lenient handling."""

    is_lenient: bool
    ignored: list[Issue] = field(default_factory=list)

    def refuse(self, error: FhirError) -> None:
        """Raise ``error``, or note that what it is about is left out."""
        if not self.is_lenient or error.status >= 500:
            raise error
        self.ignored += [
            Issue(one.code, f"Ignored: {one.diagnostics}", severity="warning")
            for one in error.issues
        ]

    @property
    def outcomes(self) -> tuple[dict[str, Any], ...]:
        """What was left out, an OperationOutcome for each."""
        return tuple(operation_outcome([one]) for one in self.ignored)


async def wish_of(request: Request, leniency: Leniency, context: Context) -> Wish:
    """Return what ``request`` asks for. Raises ``value`` for what cannot be meant, and whatever
    ``leniency`` does not let pass."""
    given: dict[str, list[str]] = {}
    for name, value in (*request.parameters, *_of_body(request, context)):
        if name not in _KNOWN:
            text = f"$export has no parameter {shown(name)}.{nearest(name, _KNOWN)}"
            leniency.refuse(FhirError(Issue("not-supported", text)))
            continue
        given.setdefault(name, []).append(value)
        if name in _ONCE and len(given[name]) > 1:
            raise FhirError(Issue("value", f"{name} is given several times; once is possible."))
    for format in given.get("_outputFormat", ()):
        if format.strip().replace(" ", "+") not in _FORMATS:
            leniency.refuse(invalid_value("_outputFormat", format, " or ".join(_FORMATS)))
    for value in given.get("includeAssociatedData", ()):
        text = f"includeAssociatedData={shown(value)} is not supported."
        leniency.refuse(FhirError(Issue("not-supported", text)))
    types = _types(given.get("_type", ()), request.type, leniency, context)
    filters = await _filters(given.get("_typeFilter", ()), types, request, leniency, context)
    return Wish(
        types,
        filters,
        _elements(given.get("_elements", ()), types, leniency, context.definitions),
        since_of(given["_since"][0]) if "_since" in given else None,
        _patients(given.get("patient"), request, leniency, context.parameters.base_urls),
    )


def _of_body(request: Request, context: Context) -> Parameters:
    body = request.body
    if body is None:
        return ()
    if body.get("resourceType") != "Parameters":
        raise invalid_value("The body", body.get("resourceType"), "Parameters", "resourceType")
    if issues := context.validate(body):
        raise FhirError(*issues)
    return tuple(_named(one) for one in body.get("parameter", ()))


def _named(parameter: dict[str, Any]) -> tuple[str, str]:
    name = parameter["name"]
    members = _KNOWN.get(name)
    if members is None:
        return name, ""
    found = next((parameter[one] for one in members if one in parameter), None)
    if isinstance(found, dict):
        found = found.get("reference")
    if not isinstance(found, str):
        text = f"{name} is to be given with a {members[0]}."
        raise FhirError(Issue("value", text, "Parameters.parameter"))
    return name, found


def _split(values: Sequence[str]) -> tuple[str, ...]:
    """Return the parts of ``values``: to repeat a parameter is to go on behind a comma."""
    found = [part.strip() for value in values for part in value.split(",") if part.strip()]
    if len(found) > _NAMES_MAX:
        text = f"A parameter of $export has at most {_NAMES_MAX} values."
        raise FhirError(Issue("too-costly", text), status=400)
    return tuple(dict.fromkeys(found))


def _types(
    values: Sequence[str], level: str, leniency: Leniency, context: Context
) -> tuple[str, ...]:
    found = []
    known = context.definitions.resource_types
    beside_patients = (*context.parameters.compartment_types(PATIENT), *ASSOCIATED)
    for type in _split(values):
        if type not in known:
            error = unknown_type(type, known)
            leniency.refuse(FhirError(*error.issues, status=400))
        elif type == RECORD:
            text = f"The audit record is not exported; {type} is read and searched for."
            leniency.refuse(FhirError(Issue("not-supported", text)))
        elif level and type not in beside_patients:
            text = f"A {type} belongs to no patient; export it with [base]/$export."
            leniency.refuse(FhirError(Issue("not-supported", text)))
        else:
            found.append(type)
    if values and not found:
        text = "Of the types in _type none can be exported here."
        raise FhirError(Issue("not-supported", text))
    return tuple(found)


async def _filters(
    values: Sequence[str],
    types: Sequence[str],
    request: Request,
    leniency: Leniency,
    context: Context,
) -> tuple[tuple[str, str], ...]:
    found: dict[tuple[str, str], None] = {}
    for text in _searches(values):
        try:
            match = _FILTER.fullmatch(text)
            if match is None:
                raise invalid_value(
                    "_typeFilter", text, "searches such as Observation?status=final"
                )
            type, query = match.groups()
            if type not in (types or context.definitions.resource_types):
                raise invalid_value("_typeFilter", text, "a search of a type that is exported")
            await search_of(type, query, context)
            found[type, query] = None
        except FhirError as error:
            leniency.refuse(error)
    if len(found) > _FILTERS_MAX:
        text = f"_typeFilter has at most {_FILTERS_MAX} searches."
        raise FhirError(Issue("too-costly", text), status=400)
    return tuple(found)


def _searches(values: Sequence[str]) -> Iterator[str]:
    """Yield the searches in ``values``. A comma stands between two of them only where a type and a
    question mark follow; any other is part of a search."""
    for value in values:
        parts: list[str] = []
        for part in value.split(","):
            if parts and not _FILTER.fullmatch(part.strip()):
                parts[-1] += f",{part}"
            else:
                parts.append(part.strip())
        yield from (part for part in parts if part)


async def search_of(type: str, query: str, context: Context) -> SearchQuery:
    """Return the search that the text ``query`` of a ``_typeFilter`` is. Raises as a search of
    ``type`` does, and ``not-supported`` for what is about the form of an answer."""
    parameters = query_parameters(query)
    for name, _ in parameters:
        if name.partition(":")[0] in _ABOUT_THE_RESULT:
            text = f"_typeFilter says what is exported; {shown(name)} is about an answer's form."
            raise FhirError(Issue("not-supported", text))
    return await search_query(type, parameters, Request("search-type", type), context)


def _elements(
    values: Sequence[str], types: Sequence[str], leniency: Leniency, definitions: Definitions
) -> tuple[str, ...]:
    found = []
    for name in _split(values):
        try:
            element_names(name, types or definitions.resource_types, definitions)
            found.append(name)
        except FhirError as error:
            leniency.refuse(error)
    return tuple(found)


def elements_of(type: str, names: Sequence[str], definitions: Definitions) -> frozenset[str]:
    """Return the elements of ``type`` that ``names`` leave of it; none is all of them.

    ``Patient.name`` is about Patient alone; ``name`` about every type that is exported.
    """
    own = [name for name in names if name.partition(".")[0] in (type, name)]
    if not own:
        return frozenset()
    found = {"id"}
    for name in own:
        try:
            found.update(element_names(name, (type,), definitions))
        except FhirError:
            continue  # another type has it
    return frozenset(found)


def since_of(text: str) -> datetime:
    """Return the moment that ``_since`` says, in UTC. Raises ``value`` for what is no instant."""
    value = text.strip().replace(" ", "+")  # a plus sign in a query means a space
    if not _INSTANT.fullmatch(value):
        raise invalid_value("_since", text, "an instant such as 2026-01-31T08:00:00Z")
    return date_range(value, "_since")[0]


def _patients(
    values: Sequence[str] | None, request: Request, leniency: Leniency, base_urls: Sequence[str]
) -> tuple[str, ...] | None:
    if values is None:
        return None
    if request.reading or not request.type:
        where = "is sent with POST" if request.type else "means nothing to an export of the system"
        leniency.refuse(FhirError(Issue("not-supported", f"The parameter patient {where}.")))
        return None
    if len(values) > PATIENTS_MAX:
        text = f"An export is about at most {PATIENTS_MAX:,} patients, or about all."
        raise FhirError(Issue("too-costly", text), status=400)
    found = []
    for value in values:
        to = target(value, base_urls)
        if to.type != PATIENT or not to.id:
            raise invalid_value("patient", value, "a reference such as Patient/1")
        found.append(to.id)
    return tuple(dict.fromkeys(found))


def without(wish: Wish, ignored: Sequence[str]) -> Wish:
    """Return ``wish`` without the patients ``ignored``."""
    kept = tuple(id for id in wish.patients or () if id not in ignored)
    return replace(wish, patients=kept)
