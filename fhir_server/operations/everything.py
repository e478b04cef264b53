"""``Patient/[id]/$everything`` and ``Encounter/[id]/$everything``: a record, in pages.

https://hl7.org/fhir/R4/patient-operation-everything.html
https://hl7.org/fhir/R4/encounter-operation-everything.html

First comes the patient, then what is in the compartment, by type and id, then the practitioners,
organizations, places and medications that all this refers to, each once. All pages show the
database as it was when the first one was asked for: none repeats or skips what changes meanwhile.

``start`` and ``end`` bound the care that was given. What is true beside it (allergies, conditions,
family history, coverage) and what bears no date comes along whatever they say: a record that leaves
an allergy out, since it was noted before, harms. List and Group are left out: they name other
patients.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import chain

from fhir_server.context import Context
from fhir_server.interactions.admitting import check_named, may_search, searchable
from fhir_server.interactions.links import Neighbours, page_links
from fhir_server.interactions.parameters import Subset
from fhir_server.interactions.searchset import entries_of
from fhir_server.messages import Parameters, Request, Response
from fhir_server.operations.asked import Given, given
from fhir_server.operations.export_parameters import since_of
from fhir_server.operations.record import Place, Record
from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, operation_outcome, shown
from fhir_server.r4.bundles import bundle, entry
from fhir_server.r4.dates import date_range
from fhir_server.r4.json import encode
from fhir_server.registry import Operation
from fhir_server.search.keys import Filter
from fhir_server.search.page import cursor, digest, page_length, values_of
from fhir_server.search.parameters import COMPARTMENTS
from fhir_server.search.parse import CURSOR, parse
from fhir_server.search.plan import in_compartment, plan
from fhir_server.store.client import deadline
from fhir_server.store.documents import Shown, instant
from fhir_server.store.moment import NO_MOMENT, Moment, forgotten

PATIENT = "Patient"
CARE: Mapping[str, str] = {
    "AdverseEvent": "date",
    "Appointment": "date",
    "CarePlan": "date",
    "CareTeam": "date",
    "ChargeItem": "occurrence",
    "Claim": "created",
    "ClaimResponse": "created",
    "ClinicalImpression": "date",
    "Communication": "sent",
    "CommunicationRequest": "occurrence",
    "Composition": "date",
    "CoverageEligibilityRequest": "created",
    "CoverageEligibilityResponse": "created",
    "DetectedIssue": "identified",
    "DeviceRequest": "event-date",
    "DiagnosticReport": "date",
    "DocumentManifest": "created",
    "DocumentReference": "date",
    "Encounter": "date",
    "EpisodeOfCare": "date",
    "ExplanationOfBenefit": "created",
    "ImagingStudy": "started",
    "Immunization": "date",
    "ImmunizationEvaluation": "date",
    "ImmunizationRecommendation": "date",
    "Invoice": "date",
    "MeasureReport": "period",
    "Media": "created",
    "MedicationAdministration": "effective-time",
    "MedicationDispense": "whenhandedover",
    "MedicationRequest": "authoredon",
    "MedicationStatement": "effective",
    "NutritionOrder": "datetime",
    "Observation": "date",
    "Procedure": "date",
    "QuestionnaireResponse": "authored",
    "RequestGroup": "authored",
    "RiskAssessment": "date",
    "ServiceRequest": "authored",
    "Specimen": "collected",
    "SupplyRequest": "date",
    "VisionPrescription": "datewritten",
}
"""The search parameter for when the care took place, of the types that are about care given."""

_BESIDE = ("Location", "Medication", "Organization", "Practitioner", "PractitionerRole")
_ALONG = {PATIENT: _BESIDE, "Encounter": tuple(sorted((*_BESIDE, PATIENT)))}
_OF_OTHERS = frozenset(("AuditEvent", "Group", "List"))
_DATES = {"start": "string", "end": "string"}
_TABLE = {
    "_since": "instant|string",
    "_type": "string",
    "_count": "integer",
    CURSOR: "string",
}
LINK_S = 300.0
"""How old the moment of a page may be: rights are looked up anew for each page, but what has been
labelled or moved since is told by what it was."""
_LEFT_OUT = Issue(
    "informational",
    "What your scopes do not open is left out of this record.",
    severity="information",
)
_MILLISECOND = timedelta(milliseconds=1)  # what an instant covers: gt is then "ends after"
_DATE = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


async def everything(request: Request, context: Context) -> Response:
    """Return a page of a record.

    Raises ``not-found`` and ``deleted`` as a read does, ``forbidden`` for types in ``_type`` that
    may not be searched, and 410 for a page link that is older than what the database remembers.
    """
    asked = given(request, context, _TABLE | (_DATES if request.type == PATIENT else {}))
    subject = request.id or _own(context)
    reading = Request("read", request.type, subject, base_url=request.base_url)
    await context.perform(reading, context)
    whose = f"{request.type}/{subject}"
    at = f"{whose}/$everything"
    understood = _understood(asked)
    question = digest(at, understood)
    link = asked.text(CURSOR)
    moment, known, place = _opened(values_of(link, question, context.link_key) if link else ())
    if moment is not None and context.now().timestamp() - moment[0] > LINK_S:
        raise forgotten()
    store, moment = await searchable(context).as_of(moment)
    named, during = _named(asked, request.type, context), _during(asked)
    sources = known if link else await _types(request.type, context)
    record = Record(
        store,
        {type: _filter(type, whose, asked, during, context) for type in sources},
        tuple(one for one in sources if not named or one in named),
        _beside(request.type, named, context),
        context.parameters.base_urls,
    )
    async with deadline(context.settings.request_timeout_s, "Ask for less, or page by page."):
        found, along, then = await _page(record, place, _count(asked, context))
    links = page_links(
        request,
        at,
        (*understood, *(((CURSOR, link),) if link else ())),
        Neighbours(_next(then, moment, sources, question, context)),
    )
    entries = [
        *entries_of(found, "match", Subset(), request, context),
        *entries_of(along, "include", Subset(), request, context),
    ]
    if not _is_open(request.type, context):
        entries.append(
            entry("", encode(operation_outcome([_LEFT_OUT])), search={"mode": "outcome"})
        )
    body = bundle(
        "searchset",
        entries,
        links=links,
        total=None if link or then else len(found),
    )
    shown = chain.from_iterable(one.compartments for one in (*found, *along))
    return Response(200, body, concerns=sorted({whose, *shown}))


async def _page(
    record: Record, place: Place, count: int
) -> tuple[list[Shown], list[Shown], Place | None]:
    """Return the page from ``place`` on: what is of the record, what comes along, and where it
    goes on, if it does."""
    left = record.store.page_bytes_max
    found: list[Shown] = []
    then: Place | None = place
    if not place.beside:
        found, then = await record.page(record.types, place, count, left)
        if not then.beside:
            return found, [], then
    if place == Place() and len(record.types) == len(record.sources):
        ids = await record.referred(found)  # it is all of it
    else:
        ids = await record.referred_by_all()
    left -= sum(len(one.json) for one in found)
    beside = place if place.beside else Place(beside=True)
    along, then = await record.page_beside(ids, beside, count - len(found), left)
    return found, along, then


def _own(context: Context) -> str:
    """Return the id of the patient who asks, or for whom somebody does.

    https://hl7.org/fhir/R4/patient-operation-everything.html: without an id, it is about those whom
    the caller's own record is about.
    """
    principal = context.principal
    person, _, id = principal.fhir_user.partition("/")
    if principal.patient or person == PATIENT:
        return principal.patient or id
    text = (
        "Patient/$everything is for a patient's own access; name a patient, as in "
        "Patient/[id]/$everything. Of many patients, Patient/$export makes files."
    )
    raise FhirError(Issue("required", text))


def _understood(asked: Given) -> Parameters:
    """Return the parameters, each as it is written in a link."""
    return tuple(
        (name, str(value))
        for name, values in sorted(asked.values.items())
        if name != CURSOR
        for value in values
    )


def _count(asked: Given, context: Context) -> int:
    most = context.settings.page_entries_max
    text = str(asked.one("_count", most))
    return page_length(text, most) or most


async def _types(type: str, context: Context) -> tuple[str, ...]:
    """Return the types of a record that are in use and may be searched, its subject's first."""
    members = context.parameters.compartment_types(type)
    context.parameters.check_complete(COMPARTMENTS, members)
    existing = await context.store.indexes.existing()
    return tuple(
        one
        for one in (type, *(other for other in members if other != type))
        if one in existing and one not in _OF_OTHERS and may_search(one, context)
    )


def _is_open(type: str, context: Context) -> bool:
    """Whether who asks may search all that a record is made of."""
    every = _members(type, context)
    return context.rights is None or all(may_search(one, context) for one in every)


def _members(type: str, context: Context) -> set[str]:
    """Return the types that a record of ``type`` may have."""
    return {type, *context.parameters.compartment_types(type), *_ALONG[type]} - _OF_OTHERS


def _named(asked: Given, type: str, context: Context) -> frozenset[str]:
    """Return the types in ``_type``; none for all."""
    texts = ",".join(map(str, asked.many("_type"))).split(",")
    named = frozenset(one.strip() for one in texts) - {""}
    members = _members(type, context)
    for one in sorted(named - members):
        text = f"_type names {shown(one)}, which is not among what comes.{nearest(one, members)}"
        raise FhirError(Issue("value", text))
    check_named(sorted(named), context)
    return named


def _beside(type: str, named: frozenset[str], context: Context) -> tuple[str, ...]:
    return tuple(
        one for one in _ALONG[type] if (not named or one in named) and may_search(one, context)
    )


def _filter(
    type: str, place: str, asked: Given, during: tuple[str, ...], context: Context
) -> Filter:
    """Return the condition for what is wanted of ``type`` in the record of ``place``."""
    subject, _, id = place.partition("/")
    conditions: list[Filter] = [{"_id": id} if type == subject else in_compartment(place)]
    if "_since" in asked.values:
        conditions.append({"last_updated": {"$gt": since_of(asked.text("_since"))}})
    if during and type in CARE:
        code, table = CARE[type], context.parameters
        ranges = tuple((code, one) for one in during)
        undated = ((f"{code}:missing", "true"),)
        alternatives = (
            plan(parse(type, one, table, count_default=1), table).filter
            for one in (ranges, undated)
        )
        conditions.append({"$or": list(alternatives)})
    return {"$and": conditions} if len(conditions) > 1 else conditions[0]


def _during(asked: Given) -> tuple[str, ...]:
    """Return ``start`` and ``end`` as values of a search for what reaches into that time."""
    days = {name: asked.text(name) for name in _DATES if asked.text(name)}
    for name, text in days.items():
        if not _DATE.fullmatch(text):
            raise invalid_value(name, text, "a date such as 2026-01-31")
    ranges = {name: date_range(text, name) for name, text in days.items()}
    if len(ranges) == 2 and ranges["start"][0] >= ranges["end"][1]:
        raise FhirError(Issue("value", "start is after end."))
    found = []
    # Not ge and le: these leave out a period that begins on the last day, or ends on the first.
    if "start" in ranges:
        found.append(f"gt{instant(ranges['start'][0] - _MILLISECOND)}")
    if "end" in ranges:
        found.append(f"lt{instant(ranges['end'][1])}")
    return tuple(found)


def _opened(values: Sequence[object]) -> tuple[Moment | None, tuple[str, ...], Place]:
    """Return moment, types and place of a page link."""
    if not values:
        return None, (), Place()
    time, inc, types, beside, type, id = values
    place = Place(bool(beside), str(type), str(id))
    moment = int(str(time)), int(str(inc))
    known = tuple(one for one in str(types).split(",") if one)
    # A transaction's is none: what follows its first page is of a moment of its own.
    return moment if moment != NO_MOMENT else None, known, place


def _next(
    place: Place | None, moment: Moment, types: Sequence[str], question: str, context: Context
) -> Parameters:
    if place is None:
        return ()
    values = (*moment, ",".join(types), int(place.beside), place.type, place.id)
    return ((CURSOR, cursor(values, question, context.link_key)),)


_DEFINITION = "http://hl7.org/fhir/OperationDefinition"
OF_PATIENT = Operation(
    *("$everything", f"{_DEFINITION}/Patient-everything", everything),
    on=(PATIENT,),
    instance=True,
    needs="r s",
)
OF_ENCOUNTER = Operation(
    *("$everything", f"{_DEFINITION}/Encounter-everything", everything),
    on=("Encounter",),
    instance=True,
    whole=False,
    needs="r s",
)
