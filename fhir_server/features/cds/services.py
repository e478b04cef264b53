"""The drug safety services: a hook request and its data -> cards. The shell around the rules.

design/cds.md, sections 2 and 3.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from fhir_server.artifacts import artifacts_root
from fhir_server.context import Context
from fhir_server.features.cds.cards import Card, Making, cards, overview
from fhir_server.features.cds.chart import Counts, Question, medications, question
from fhir_server.features.cds.dose_change import dose_changes
from fhir_server.features.cds.drug import KINDS, RANK, Drug, Finding, NotChecked, Screening
from fhir_server.features.cds.elements import name_of, text
from fhir_server.features.cds.knowledge import Knowledge, load_knowledge, read_knowledge
from fhir_server.features.cds.names import forget_texts
from fhir_server.features.cds.policy import Entry, applied, monographs, policy, shown, touching
from fhir_server.features.cds.prefetch import (
    LISTS,
    MISSING,
    RESOURCES_MAX,
    TEMPLATES,
    Fetched,
    fetched,
    unread,
)
from fhir_server.features.cds.provider import Provider, asked_all
from fhir_server.features.cds.reading import Source, completed, with_medications
from fhir_server.features.cds.request import (
    HookRequest,
    by_full_url,
    drafts_of,
    recorded_allergy,
    selections_of,
    unreadable_of,
)
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.features.cds.screen import ranked
from fhir_server.outcome import FhirError, Issue
from fhir_server.registry import Service
from fhir_server.store.cds import seen_keys

_QUIET_KINDS = ("interaction", "allergy", "duplicate")
_AT_SIGN_ONLY = frozenset(("not-covered", "dose-not-computable", "value-missing"))
_NEVER_SHOWN = frozenset(("no-limit",))
_REPEATED_H = 24


@dataclass(frozen=True, slots=True)
class Kind:
    """What a service does: its row of the table in the design page."""

    id: str
    hook: str
    title: str
    checks: tuple[str, ...]
    minimum: str
    keys: tuple[str, ...]
    way: str


_BASIC = ("patient", "medications", "statements", "allergies")
_DOSE = (*_BASIC, "weight", "height", "creatinine", "creatinineMolar", "potassium")

_CHART = ("interaction", "duplicate")
_NEW_ALLERGY = ("patient", "medications", "statements")

# id -> hook, title, checks, what is shown from, what is needed, what it is about
_TABLE: dict[str, tuple[str, str, tuple[str, ...], str, tuple[str, ...], str]] = {
    "drug-safety-select": (
        *("order-select", "Drug safety while choosing"),
        *(_QUIET_KINDS, "serious", _BASIC, "selected"),
    ),
    "drug-safety-sign": (
        *("order-sign", "Drug safety at signing"),
        *(KINDS, "moderate", _DOSE, "drafts"),
    ),
    "drug-safety-refill": (
        *("medication-refill", "Drug safety of a refill"),
        *(KINDS, "moderate", _DOSE, "drafts"),
    ),
    "allergy-recorded": (
        *("allergyintolerance-create", "A new allergy against active drugs"),
        *(("allergy",), "serious", _NEW_ALLERGY, "allergy"),
    ),
    "drug-safety-verify": (
        *("medication-verify", "Drug safety at verification"),
        *(KINDS, "moderate", _DOSE, "drafts"),
    ),
    "drug-safety-view": (
        *("patient-view", "Interactions among active drugs"),
        *(_CHART, "serious", _BASIC, "chart"),
    ),
    "discharge-reconcile": (
        *("encounter-discharge", "Interactions among drugs at discharge"),
        *(_CHART, "serious", _BASIC, "chart"),
    ),
    "drug-safety-prescribe": (
        *("medication-prescribe", "Drug safety while prescribing"),
        *(_QUIET_KINDS, "serious", _BASIC, "drafts"),
    ),
}
SERVICES = tuple(Kind(id, *row) for id, row in _TABLE.items())


@dataclass(slots=True, repr=False, eq=False)
class DrugSafety:
    """What the services share: the knowledge, the site's policy, other knowledge bases.

    Everything is loaded when it is first asked for, in a thread, and replaced as a whole.
    """

    _loaded: tuple[Knowledge, tuple[Entry, ...]] | None = None
    _loading: asyncio.Lock = field(default_factory=asyncio.Lock)
    providers: Sequence[Provider] = ()

    async def knowledge(self, context: Context) -> Knowledge:
        """Return the knowledge. Raises ``exception`` (503) where it cannot be used."""
        return (await self.loaded(context))[0]

    async def loaded(self, context: Context) -> tuple[Knowledge, tuple[Entry, ...]]:
        """Return the knowledge and the site's policy, which belong together."""
        if self._loaded is None:
            async with self._loading:
                if self._loaded is None:
                    try:
                        self._loaded = await asyncio.to_thread(_read, context, load_knowledge)
                    except KnowledgeError as error:
                        said = f"The drug safety knowledge cannot be used: {error}"
                        raise FhirError(Issue("exception", said), status=503) from error
        return self._loaded

    async def reload(self, context: Context) -> Knowledge:
        """Read everything again, beside what is in use, and put it in its place as a whole.

        Raises :class:`KnowledgeError` that names file, rule and reason; then nothing has changed.
        """
        async with self._loading:
            self._loaded = await asyncio.to_thread(_read, context, read_knowledge)
            forget_texts()
            return self._loaded[0]

    def others(self) -> list[tuple[str, str]]:
        """Return name and version of the other knowledge bases."""
        return [(one.label, "not known") for one in self.providers]

    async def screened(
        self,
        asked: Question,
        kinds: Sequence[str],
        context: Context,
        seconds: float,
        *,
        among_current: bool = False,
    ) -> Screening:
        """Return what all knowledge bases together say, as the site's policy has it."""
        knowledge, entries = await self.loaded(context)
        found = await asked_all(
            asked, kinds, knowledge, self.providers, seconds, among_current=among_current
        )
        today = context.now().date()
        return Screening(ranked(applied(found.findings, entries, today)), found.not_checked)


def _read(
    context: Context, load: Callable[[Path, Path | None], Knowledge]
) -> tuple[Knowledge, tuple[Entry, ...]]:
    settings = context.settings
    root = artifacts_root(settings.artifacts) / "terminology"
    knowledge = load(root, settings.cds_lookup)
    entries, links = _policy(settings.cds_policy)
    return replace(knowledge, links={**knowledge.links, **links}), entries


def _policy(path: Path | None) -> tuple[tuple[Entry, ...], Mapping[str, str]]:
    if path is None:
        return (), {}
    try:
        said = json.loads(path.read_text("utf-8"))
        return policy(said.get("entries", ())), monographs(said.get("links", {}))
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise KnowledgeError(f"FHIR_CDS_POLICY, {path.name}: {error}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered to a call, and what is kept of it."""

    cards: tuple[Card, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)


def services(safety: DrugSafety) -> list[Service]:
    """Return the services as they are registered."""
    return [
        Service(
            kind.id,
            kind.hook,
            kind.title,
            _description(kind),
            {key: TEMPLATES[key] for key in kind.keys},
            partial(answered, safety, kind),
        )
        for kind in SERVICES
    ]


def _description(kind: Kind) -> str:
    return (
        f"Checks {', '.join(kind.checks)}. Draft knowledge that no pharmacist has reviewed; "
        "not for use in care before a qualified review."
    )


async def answered(
    safety: DrugSafety,
    kind: Kind,
    request: HookRequest,
    source: Source | None,
    context: Context,
) -> Answer:
    """Return the cards for one call. Raises status 412 where there is nothing to check with."""
    settings = context.settings
    end = time.monotonic() + settings.cds_deadline_ms / 1000
    knowledge = await safety.knowledge(context)
    brought = drafts_of(request)
    drafts = [one for one in brought if text(one, "resourceType") == "MedicationRequest"]
    strange = unreadable_of(request)
    if kind.way not in ("chart", "allergy") and not drafts and not strange:
        return Answer()
    known = await completed(
        fetched(request.prefetch, kind.keys),
        request,
        source,
        pages_max=settings.cds_pages_max,
        seconds=(end - time.monotonic()) * 0.8,
    )
    _check_enough(kind, known, drafts)
    chart, cut = chart_of(known, settings.cds_drugs_max)
    missing = [NotChecked(one, "unreadable") for one in strange]
    missing += [NotChecked(key, reason) for key, reason in (*unread(known), *cut)]
    if len(drafts) > settings.cds_drafts_max:
        missing.append(NotChecked("drafts", "list-incomplete"))
        drafts = drafts[: settings.cds_drafts_max]
    if kind.way == "allergy":
        chart = [*chart, recorded_allergy(request)]
    resources: dict[str, Mapping[str, Any]] = {
        **by_full_url(request),
        **medications([*chart, *brought]),
    }
    resources = await with_medications([*drafts, *chart], resources, source, end - time.monotonic())
    asked, unknown = question(
        drafts,
        chart,
        resources,
        knowledge,
        context.now(),
        counts=Counts(settings.cds_supply_grace_days, settings.cds_creatinine_days),
    )
    if kind.way == "allergy":
        asked = replace(asked, ordered=asked.current, current=())
    found = await safety.screened(
        asked, kind.checks, context, end - time.monotonic(), among_current=kind.way == "chart"
    )
    missing += [*unknown, *found.not_checked]
    findings = _shown(kind, request, found.findings, settings.cds_minimum_severity)
    findings = await _not_repeated(findings, request, context)
    making = _making(asked, drafts, request, knowledge, context)
    making = replace(
        making, changes=dose_changes(findings, asked, making.drafts, resources, knowledge)
    )
    if kind.way == "chart":
        made = overview(findings, _mentioned(kind, missing), making)
    else:
        made = cards(
            findings,
            _mentioned(kind, missing),
            making,
            cards_max=settings.cds_cards_max,
            order_of=[name_of(one) for one in drafts],
        )
    return Answer(tuple(made), {key: one.state for key, one in known.items()})


def _making(
    asked: Question,
    drafts: Sequence[Mapping[str, Any]],
    request: HookRequest,
    knowledge: Knowledge,
    context: Context,
) -> Making:
    return Making(
        knowledge=knowledge,
        new_uuid=partial(_uuid, context.new_id),
        drafts={name_of(one): one for one in drafts},
        names={drug.id: _name(drug, knowledge) for drug in (*asked.ordered, *asked.current)},
        labels={drug.id: _label(drug) for drug in (*asked.ordered, *asked.current)},
        patient=asked.patient,
        links=knowledge.links,
        with_evidence=request.options.get("show-evidence-support") is True,
    )


def _label(drug: Drug) -> str:
    return f"{drug.display} (read as {drug.read_as})" if drug.read_as else drug.display


def _name(drug: Drug, knowledge: Knowledge) -> str:
    names = [knowledge.display(code) for code in drug.ingredients]
    return " / ".join(names) if names else drug.display


def _uuid(new_id: Callable[[], str]) -> str:
    """Return a UUID for a card: ids of tests are none."""
    made = new_id()
    try:
        return str(UUID(made))
    except ValueError:
        return made


def _check_enough(
    kind: Kind, known: Mapping[str, Fetched], drafts: Sequence[Mapping[str, Any]]
) -> None:
    """https://cds-hooks.hl7.org/2.0/#http-status-codes: 412 without the data that is needed."""
    lists = [key for key in LISTS if key in known] if kind.way != "chart" else ["medications"]
    if len(drafts) < 2 and all(known[key].state in MISSING for key in lists):
        said = f"{' and '.join(lists)} are not in prefetch, and cannot be read from fhirServer."
        raise FhirError(Issue("required", said, "prefetch"), status=412)


def chart_of(
    known: Mapping[str, Fetched], drugs_max: int
) -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """Return all resources of the chart within the limits, and the lists that were cut."""
    found: list[dict[str, Any]] = []
    cut = []
    for key, one in known.items():
        most = drugs_max if key in ("medications", "statements", "allergies") else RESOURCES_MAX
        meant = [
            resource for resource in one.resources if text(resource, "resourceType") != "Medication"
        ]
        others = [
            resource for resource in one.resources if text(resource, "resourceType") == "Medication"
        ]
        if len(meant) > most and one.state != "incomplete":
            cut.append((key, "list-incomplete"))
        found += meant[:most] + others
    return found, cut


def _shown(
    kind: Kind, request: HookRequest, findings: Sequence[Finding], minimum: str
) -> tuple[Finding, ...]:
    least = minimum or kind.minimum
    if request.options.get("alert-non-serious") is False and RANK[least] < RANK["serious"]:
        least = "serious"
    found = shown(findings, least)
    selected = selections_of(request) if kind.way == "selected" else None
    return found if selected is None else touching(found, selected)


def _mentioned(kind: Kind, missing: Sequence[NotChecked]) -> list[NotChecked]:
    """Return what is said on the card; doses are a matter of signing."""
    hidden = _NEVER_SHOWN if "dose" in kind.checks else _NEVER_SHOWN | _AT_SIGN_ONLY
    return list(dict.fromkeys(one for one in missing if one.reason not in hidden))


async def _not_repeated(
    findings: tuple[Finding, ...], request: HookRequest, context: Context
) -> tuple[Finding, ...]:
    """Leave out warnings and infos that the same user saw lately, where the client asks for it."""
    if request.options.get("filter-out-repeated-alerts") is not True or not request.user:
        return findings
    keys = {one.key: one for one in findings if one.severity != "contraindicated"}
    since = context.now() - timedelta(hours=_REPEATED_H)
    seen = await seen_keys(context.store.database, request.patient, request.user, keys, since)
    return tuple(one for one in findings if one.key not in seen)
