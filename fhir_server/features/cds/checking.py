"""A patient's stored chart and some orders -> what speaks against them: for the FHIR side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.context import Context
from fhir_server.features.cds.chart import Counts, medications, question
from fhir_server.features.cds.drug import KINDS, NotChecked, Screening
from fhir_server.features.cds.prefetch import unread
from fhir_server.features.cds.reading import own_bases, own_source, read_chart, with_medications
from fhir_server.features.cds.services import DrugSafety, chart_of

_READING_S = 10.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is checked: orders, by an id of the patient, or the active drugs among themselves.

    Orders that are ``is_stored`` replace what the store says is stopped, and what they renew.
    """

    patient: str
    orders: Sequence[Mapping[str, Any]]
    others: Sequence[Mapping[str, Any]] = ()
    among_current: bool = False
    is_stored: bool = False


async def checked(
    safety: DrugSafety,
    subject: Subject,
    context: Context,
    kinds: Sequence[str] = KINDS,
) -> Screening:
    """Return the findings and what could not be checked. Reads through the front door."""
    settings = context.settings
    knowledge = await safety.knowledge(context)
    source = own_source(context, "")
    known = await read_chart(source, subject.patient, settings.cds_pages_max)
    chart, cut = chart_of(known, settings.cds_drugs_max)
    resources: dict[str, Mapping[str, Any]] = {**medications([*chart, *subject.others])}
    resources = await with_medications(
        [*subject.orders, *chart], resources, source, _READING_S, own_bases(settings)
    )
    asked, unknown = question(
        subject.orders,
        chart,
        resources,
        knowledge,
        context.now(),
        counts=Counts(
            settings.cds_supply_grace_days, settings.cds_creatinine_days, subject.is_stored
        ),
    )
    seconds = settings.cds_provider_timeout_ms / 1000
    found = await safety.screened(
        asked, kinds, context, seconds, among_current=subject.among_current
    )
    missing = [NotChecked(key, reason) for key, reason in (*unread(known), *cut)]
    return Screening(found.findings, tuple(dict.fromkeys((*missing, *unknown, *found.not_checked))))
