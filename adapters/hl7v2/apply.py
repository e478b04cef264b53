"""The second half of a message: look up, merge, perform, finish; all in one transaction.

design/hl7v2.md, sections 2, 8 to 10, 19. The transaction may be begun again after a conflict: it
reads everything anew, and ids and times were drawn before. What is written passes the front door
as the entries of a transaction Bundle do: ``prepare`` judges each, one ``write`` makes them all.

What the sender may write are the types that its profile lists (:func:`_permitted`); what is left
passes the front door under the sender's name, with the rights of the server.
"""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import sha256
from typing import Any

import msgspec

from adapters.hl7v2.ack import Fault
from adapters.hl7v2.binaries import INLINE_BYTES_MAX, apart
from adapters.hl7v2.changes import Json, Mode
from adapters.hl7v2.issues import Issue, MessageFault
from adapters.hl7v2.lookups import HeldError, Lookups, Round, looked_up
from adapters.hl7v2.merging import merge_writes
from adapters.hl7v2.permissions import may_write, without
from adapters.hl7v2.plan import Plan, Report, Write, planned
from adapters.hl7v2.provenance import DOCUMENTS, records
from adapters.hl7v2.reading import Item
from fhir_server.context import Context
from fhir_server.messages import Content, Request
from fhir_server.outcome import FhirError
from fhir_server.store.documents import instant
from fhir_server.store.inbox import Row
from fhir_server.store.resources import ResourceStore
from fhir_server.store.together import TooMuchTogether

_CHANGE_S = 0.002
# What is merged and moved. Their origins are written by every message about them, though nothing
# else changes: a result that another process takes at once with a merge would be left behind.
_REFERRED_TO = frozenset(("Patient", "Encounter", "Account"))
_DATA_BYTES_MAX = 262_144  # of a Binary inside its document; more is a content beside it


@dataclass(frozen=True, slots=True)
class Applied:
    """What a message became: the members of its row."""

    state: str = "done"
    binary: str = ""
    subjects: tuple[str, ...] = ()
    issues: tuple[Mapping[str, Any], ...] = ()
    unmapped: tuple[Mapping[str, Any], ...] = ()
    made: tuple[Mapping[str, Any], ...] = ()


@dataclass(slots=True)
class _Drawn:
    """What is the same in every attempt: ids, and contents that were stored before."""

    patients: Sequence[str]
    documents: Mapping[str, str]
    contents: dict[tuple[str, str], Content] = field(default_factory=dict)
    apart: bool = False  # whether what is looked up is too much for one answer


Begin = Callable[[ResourceStore, Row | None], Awaitable[None]]
"""What judges the row that has the key of the message already; see ``Round``."""


async def applied(
    item: Item,
    context: Context,
    begin: Begin | None,
    finish: Callable[[ResourceStore, Applied], Awaitable[Row]],
) -> Row:
    """Apply ``item`` between ``begin`` and ``finish``, in one transaction; return the row.

    Raises :class:`HeldError`, the report's own fault, what the two raise, and what the front door
    refuses, which is a fault of the mapping.
    """
    if item.report.fault is not None:
        raise item.report.fault
    context = context.under(f"hl7v2/{item.profile.name}")
    drawn = _Drawn(
        [context.new_id() for one in item.report.changes if one.type == "Patient"],
        {type: context.new_id() for type in DOCUMENTS},
    )

    async def work(store: ResourceStore) -> Row:
        inside = replace(context, store=store)
        round = Round(apart=drawn.apart)
        if begin is not None:
            round = replace(round, key=item.key, judge=partial(begin, store))
        try:
            known = await looked_up(item, drawn.patients, inside, round)
        except TooMuchTogether:
            drawn.apart = True
            raise
        plan = _permitted(
            planned(item.report, known.known, item.profile, drawn.patients), item, known
        )
        if plan.held:
            raise HeldError((Fault(plan.condition, plan.held, ""),))
        made = await _written(item, plan, known, drawn, inside)
        return await finish(store, made)

    types = {one.type for one in item.report.changes} | {*DOCUMENTS, "Patient"}
    if item.profile.directory == "create":
        types |= {type for type, *_ in item.report.directory}
    if item.report.instructions:
        types |= set(await context.store.indexes.existing())
    # A message of thousands of results is one transaction all the same; sent again, it would take
    # as long again.
    seconds = context.settings.hl7_commit_s_max + len(item.report.changes) * _CHANGE_S
    try:
        return await context.store.in_transaction(work, types, seconds)
    finally:
        for content in drawn.contents.values():
            with suppress(FhirError):
                await context.contents.discard_unused(content.id)


async def tried(item: Item, context: Context) -> tuple[Plan, list[Write]]:
    """Return what ``item`` would write, merged with what is stored now. Writes nothing."""
    if item.report.fault is not None:
        raise item.report.fault
    context = context.under(f"hl7v2/{item.profile.name}")
    drawn = _Drawn(
        [context.new_id() for one in item.report.changes if one.type == "Patient"],
        {type: context.new_id() for type in DOCUMENTS},
    )
    known = await looked_up(item, drawn.patients, context, Round(apart=True))
    plan = _permitted(planned(item.report, known.known, item.profile, drawn.patients), item, known)
    return plan, await _writes(plan, known, context, item.arrival.size or len(item.arrival.data))


# ---------------------------------------------------------------------------------- permissions

_LETTERS = {"created": "c", "updated": "u"}
# What belongs to the message itself, whoever sends it.
_OWN = ("Binary",)


def _permitted(plan: Plan, item: Item, lookups: Lookups) -> Plan:
    """Return ``plan`` with what the sender may write.

    What a message only mentions in passing (a visit, the order behind a result) is left out, with
    an issue, where its type is not listed. Raises :class:`MessageFault` 201 for anything else.
    """
    principal = item.profile.principal
    if "types" not in principal:
        return plan
    lacking = [one for one in plan.writes if _lacks(principal, one)]
    if any(not may_write(principal, one.type, "u") for one in plan.merges):
        raise _not_allowed(plan.merges[0].type)
    if not lacking:
        return plan
    passing = _in_passing(item.report, lookups)
    for one in lacking:
        if (one.type, one.id) not in passing:
            raise _not_allowed(one.type)
    places = {(one.type, one.id) for one in lacking}
    gone = frozenset(f"{one.type}/{one.id}" for one in lacking if one.stored is None)
    kept = tuple(
        replace(one, resource=without(one.resource, gone)) if gone else one
        for one in plan.writes
        if (one.type, one.id) not in places
    )
    text = "The profile of the sender does not list the type {}: left out."
    issues = (Issue("warning", "not-allowed", one.source, text.format(one.type)) for one in lacking)
    return replace(plan, writes=kept, issues=(*plan.issues, *issues))


def _lacks(principal: Mapping[str, Any], one: Write) -> bool:
    letter = _LETTERS.get(one.outcome, "")
    return one.type not in _OWN and bool(letter) and not may_write(principal, one.type, letter)


def _in_passing(report: Report, lookups: Lookups) -> set[tuple[str, str]]:
    """Return the places of which no change of ``report`` says more than what is lacking there."""
    resolved = lookups.known.resolved
    places: dict[tuple[str, str], bool] = {}
    for one in report.changes:
        place = (one.type, resolved.get(one.handle, ""))
        places[place] = places.get(place, True) and one.mode is Mode.FILL
    return {place for place, fills in places.items() if fills}


def _not_allowed(type: str) -> MessageFault:
    text = f"The profile of the sender does not let it write the type {type} (principal.types)."
    return MessageFault(201, "MSH[1]-9", text, refused=True)


# ------------------------------------------------------------------------------------- writing


async def _writes(plan: Plan, lookups: Lookups, context: Context, size: int) -> list[Write]:
    """Return all that is to be written, merges included, each resource once."""
    writes = {(one.type, one.id): one for one in plan.writes}
    for merge in plan.merges:
        for one in await merge_writes(merge, writes, lookups, context):
            writes[one.type, one.id] = one
    if size > INLINE_BYTES_MAX:
        await _set_apart(writes, lookups, context)
    return list(writes.values())


async def _set_apart(
    writes: dict[tuple[str, str], Write], lookups: Lookups, context: Context
) -> None:
    """Make Binaries of large attachments. One that is there already stays as it is."""
    subjects = [f"Patient/{id}" for type, id in writes if type == "Patient"]
    for place, one in list(writes.items()):
        resource, binaries = apart(one.resource, subjects) if one.type != "Binary" else ({}, [])
        for binary in binaries:
            writes[place] = replace(one, resource=resource)
            id = binary["id"]
            if await lookups.resource("Binary", id, context) is None:
                writes["Binary", id] = Write("Binary", id, binary, None, one.stamp, one.source)


async def _written(
    item: Item, plan: Plan, lookups: Lookups, drawn: _Drawn, context: Context
) -> Applied:
    writes = await _writes(plan, lookups, context, len(item.arrival.data))
    await _claim(writes, item.report, context)
    changed = [one for one in writes if one.outcome != "unchanged"]
    subjects = tuple(f"Patient/{one.id}" for one in writes if one.type == "Patient")
    binary = ""
    if changed:
        places = [(one.type, one.id) for one in changed]
        now = context.now()
        further = records(item, drawn.documents, places, subjects, instant(now))
        resources = [one.resource for one in changed] + further
        binary = drawn.documents["Binary"]
        await _perform(resources, lookups, drawn, context)
    await _keep_origins(item, writes, lookups, context)
    issues = (*item.issues, *item.report.issues, *plan.issues)
    return Applied(
        "done",
        binary,
        subjects,
        tuple(
            {"severity": one.severity, "code": one.code, "where": one.where, "text": one.text}
            for one in issues[:200]
        ),
        unmapped_of(item.report),
        tuple(_made(one, lookups) for one in writes),
    )


def unmapped_of(report: Report) -> tuple[Mapping[str, Any], ...]:
    """Return the fields and the codes that nobody maps, with their counts."""
    fields = [{"field": name, "count": count} for name, count in report.unmapped.items()]
    codes = [
        {"field": name, "system": system, "code": code, "count": count}
        for (name, system, code), count in report.codes.items()
    ]
    return tuple(fields[:500] + codes[:500])


async def _claim(writes: Sequence[Write], report: Report, context: Context) -> None:
    """Let nobody else make a Patient with the same numbers beside this transaction."""
    new = any(one.type == "Patient" and one.stored is None for one in writes)
    if not new:
        return
    identifiers = {
        identifier
        for change in report.changes
        if change.type == "Patient"
        for identifier in change.key.identifiers
    }
    if identifiers:
        await context.store.claim([_claimed(value) for _, value in identifiers], checked=True)


def _claimed(value: str) -> str:
    """Return the name under which a conditional create of a Patient claims this identifier too:
    see ``interactions/matching.py``."""
    escaped = value
    for mark in "\\,|$":
        escaped = escaped.replace(mark, "\\" + mark)
    return sha256(msgspec.json.encode(["Patient", [("identifier", escaped)]])).hexdigest()


async def _perform(
    resources: Sequence[Json], lookups: Lookups, drawn: _Drawn, context: Context
) -> None:
    """Write ``resources`` as a transaction does: each judged by the front door, all made at once.

    What was looked up and is not there is a create, which the store need not look for again; made
    by another meanwhile, it has the transaction begin anew.
    """
    changes = []
    for resource in resources:
        place = (resource["resourceType"], resource["id"])
        interaction = "update" if place in lookups.versions else "create"
        data = resource.get("data", "") if place[0] == "Binary" else ""
        if len(data) > _DATA_BYTES_MAX * 4 // 3:
            # Large contents go beside their documents, before the transaction and only once.
            content = drawn.contents.get(place)
            if content is None:
                content = await context.contents.take(_piece(base64.b64decode(data)))
                drawn.contents[place] = content
            bare = {name: value for name, value in resource.items() if name != "data"}
            request = Request(interaction, *place, body=_subsetted(bare), content=content)
        else:
            request = Request(interaction, *place, body=resource)
        changes.append(context.prepare(request, context))
    await context.store.write(changes, context.now(), lookups.documents)


def _subsetted(resource: Json) -> Json:
    """Return ``resource`` with the tag that says that its data is not in it."""
    tag = {
        "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
        "code": "SUBSETTED",
    }
    meta = resource.get("meta", {})
    return {**resource, "meta": {**meta, "tag": [*meta.get("tag", []), tag]}}


async def _piece(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def _keep_origins(
    item: Item, writes: Sequence[Write], lookups: Lookups, context: Context
) -> None:
    new, moved, touched = [], [], []
    for one in writes:
        place = f"{one.type}/{one.id}"
        if one.type == "Binary" or not (one.stamp.said or one.stamp.sent):
            touched += [place] if one.type in _REFERRED_TO else []
            continue
        stamp = {"said": one.stamp.said, "sent": one.stamp.sent}
        document = {"_id": place, **stamp, "row": item.id}
        before = lookups.known.origins.get((one.type, one.id))
        if (one.type, one.id) not in lookups.versions:
            new.append(document)
        elif before != one.stamp or one.type in _REFERRED_TO:
            moved.append(document)
    await context.store.inbox.set_origins(new, moved)
    await context.store.inbox.touch_origins(touched, item.id)


def _made(one: Write, lookups: Lookups) -> Mapping[str, Any]:
    outcome = one.outcome
    version = lookups.versions.get((one.type, one.id), 0) + (outcome != "unchanged")
    return {"reference": f"{one.type}/{one.id}", "version": version, "outcome": outcome}
