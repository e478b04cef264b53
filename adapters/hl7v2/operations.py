"""For those who run the interface: ``$hl7v2-to-fhir``, ``-inbox``, ``-replay``, ``-unmapped``,
``-senders``; and ``$hl7v2`` for those who read resources as messages.

design/hl7v2.md, sections 20 and 21. All are operations, so that the front door holds for them. This
is the seam for access control: the roles ``hl7-operator`` and ``hl7-raw`` belong to them; until
there are roles, they are as open as everything else.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec

from adapters.hl7v2 import exporting, replaying, tasks
from adapters.hl7v2.dry_run import to_fhir
from adapters.hl7v2.inbox import Intake
from adapters.hl7v2.interface import Interface
from adapters.hl7v2.parameters import answer, given
from adapters.hl7v2.profiles import checked
from adapters.hl7v2.senders import ProfileFault
from fhir_server.context import Context
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue, not_found, operation_outcome
from fhir_server.r4.json import decode, encode
from fhir_server.registry import Operation
from fhir_server.store.documents import instant
from fhir_server.store.inbox import Row, Selection

_DEFINITION = "urn:fhir-server:OperationDefinition:"
_SELECTED_MAX = 1000
_REHEARSED_MAX = 100
_WAITED_FOR_MAX, _WAIT_S = 100, 10.0
_SELECTION = {
    "state": "string",
    "sender": "string",
    "type": "string",
    "patient": "string",
    "issue": "string",
    "since": "instant",
    "until": "instant",
    "after": "integer",
}

Handle = Callable[[Intake, Request, Context], Awaitable[Response]]


def operations(interface: Interface) -> tuple[Operation, ...]:
    """Return the operations, which find their intake through ``interface``."""

    async def opened(handle: Handle, request: Request, context: Context) -> Response:
        return await handle(await interface.intake(context), request, context)

    async def senders(request: Request, context: Context) -> Response:
        return await _senders(interface, request, context)

    def operation(name: str, handle: Handle, **more: bool) -> Operation:
        return Operation(f"${name}", _DEFINITION + name, partial(opened, handle), **more)  # type: ignore[arg-type]

    return (
        exporting.operation(),
        operation("hl7v2-to-fhir", to_fhir, native=True),
        operation("hl7v2-inbox", _inbox),
        operation("hl7v2-replay", _replay, affects_state=True),
        operation("hl7v2-unmapped", _unmapped),
        Operation("$hl7v2-senders", _DEFINITION + "hl7v2-senders", senders),
    )


# ----------------------------------------------------------------------------------- the inbox


async def _inbox(intake: Intake, request: Request, context: Context) -> Response:
    """Return a page of rows as Tasks, newest first; or one row."""
    known = given(request, {**_SELECTION, "id": "string", "_count": "integer", "raw": "boolean"})
    if "id" in known:
        return await _one(known["id"], intake, raw=known.get("raw", False))
    count = min(max(known.get("_count", context.settings.page_entries), 1), _SELECTED_MAX)
    found = await context.store.inbox.select(_selected(known, count + 1))
    page = found[:count]
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    own = [(name, value) for name, value in request.parameters if name != "after"]
    place = f"{request.base_url}/$hl7v2-inbox"
    bundle["link"] = [{"relation": "self", "url": tasks.link(place, request.parameters)}]
    if len(found) > count:
        after = ("after", str(page[-1].sequence))
        bundle["link"].append({"relation": "next", "url": tasks.link(place, [*own, after])})
    entries: list[dict[str, Any]] = [
        {"resource": tasks.as_task(row), "search": {"mode": "match"}} for row in page
    ]
    if "after" not in known:
        counts = await context.store.inbox.counts()
        told = ", ".join(f"{state} {count}" for state, count in sorted(counts.items()))
        issue = Issue("informational", f"Rows by state: {told or 'none'}.", "", "information")
        entries.append({"resource": operation_outcome([issue]), "search": {"mode": "outcome"}})
    if entries:
        bundle["entry"] = entries
    return Response(200, encode(bundle))


def _selected(known: Mapping[str, Any], count: int, *, ascending: bool = False) -> Selection:
    states = tuple(one for one in known.get("state", "").split(",") if one)
    return Selection(
        ids=tuple(known.get("id", ())) if isinstance(known.get("id"), list) else (),
        states=states,
        sender=known.get("sender", ""),
        type=known.get("type", ""),
        patient=known.get("patient", ""),
        issue=known.get("issue", ""),
        since=known.get("since"),
        before=known.get("until"),
        after=known.get("after", 0),
        ascending=ascending,
        count=count,
    )


async def _one(id: str, intake: Intake, *, raw: bool) -> Response:
    row = await intake.context.store.inbox.row(id)
    if row is None:
        raise not_found("Row", id)
    data = await replaying.raw_of(row, intake)
    return answer(tasks.told(row, data, raw=raw))


# -------------------------------------------------------------------------------------- replay


async def _replay(intake: Intake, request: Request, context: Context) -> Response:
    """Have rows applied again, released or left out; return counts by outcome."""
    known = given(
        request,
        {
            **_SELECTION,
            "after": "string",
            "id": "string*",
            "dry-run": "boolean",
            "force": "boolean",
            "text": "bytes",
            "action": "string",
            "reason": "string",
            "_count": "integer",
        },
    )
    if not known.get("id") and not known.keys() & (_SELECTION.keys() - {"after"}):
        raise FhirError(Issue("required", "Which rows? Give id, or state, sender, type, since …"))
    await intake.refresh()  # a map or profile that another process has changed holds at once
    count = min(max(known.get("_count", _SELECTED_MAX), 1), _SELECTED_MAX)
    # What replays make is not replayed: a selection ends with what was there at the first call.
    after, _, below = known.pop("after", "").partition("-")
    below = below or str(intake.next_place(context.now()))
    if not (below.isdigit() and (after or "0").isdigit()):
        raise FhirError(Issue("value", "after is what the answer before said."))
    selected = _selected({**known, "after": int(after or 0)}, count + 1, ascending=True)
    found = await context.store.inbox.select(replace(selected, below=int(below)))
    page, more = found[:count], len(found) > count
    if missing := set(known.get("id", ())) - {row.id for row in found}:
        raise not_found("Row", min(missing))
    if "text" in known and len(page) != 1:
        raise FhirError(Issue("value", "A text replaces one row; name it by id."))
    if known.get("dry-run", False):
        counts: Counter[str] = Counter()
        page, more = page[:_REHEARSED_MAX], more or len(page) > _REHEARSED_MAX
        for row in page:
            counts += await replaying.rehearsed(row, intake)
    else:
        counts, made = await _done(page, known, intake)
        if len(made) <= _WAITED_FOR_MAX:
            counts += await replaying.outcomes(made, intake, _WAIT_S)
        else:
            counts["under way"] += len(made)
    parts: list[dict[str, Any]] = [{"name": "rows", "valueInteger": len(page)}]
    parts += [
        {"name": "outcome", "part": [
            {"name": "state", "valueCode": state.replace(" ", "-")},
            {"name": "count", "valueInteger": number},
        ]}
        for state, number in sorted(counts.items())
    ]  # fmt: skip
    if more:
        parts.append({"name": "after", "valueString": f"{page[-1].sequence}-{below}"})
    return answer(parts)


async def _done(
    page: list[Row], known: Mapping[str, Any], intake: Intake
) -> tuple[Counter[str], list[str]]:
    """Do what is asked with each row; return counts of what is done, and the rows to wait for."""
    action = known.get("action", "replay")
    counts: Counter[str] = Counter()
    made = []
    for row in page:
        match action:
            case "replay":
                force, text = known.get("force", False), known.get("text", b"")
                made.append(await replaying.replay(row, intake, force=force, text=text))
            case "release":
                await replaying.release(row, intake)
                made.append(row.id)
            case "discard":
                if not known.get("reason", "").strip():
                    raise FhirError(Issue("required", "Leaving a message out needs a reason."))
                await replaying.discard(row, intake, known["reason"])
                counts["ignored"] += 1
            case _:
                raise FhirError(Issue("value", "action is replay, release or discard."))
    return counts, made


# ----------------------------------------------------------------------- unmapped, and senders


async def _unmapped(intake: Intake, request: Request, context: Context) -> Response:
    """Return fields and codes that nobody maps, most frequent first."""
    known = given(request, {"sender": "string", "_count": "integer"})
    count = min(max(known.get("_count", 200), 1), _SELECTED_MAX)
    found = await context.store.inbox.unmapped(known.get("sender", ""), count)
    return answer(
        {
            "name": "unmapped",
            "part": [
                {"name": "sender", "valueString": one["_id"].get("sender", "")},
                *(
                    {"name": name, "valueString": one["_id"][name]}
                    for name in ("field", "system", "code")
                    if one["_id"].get(name)
                ),
                {"name": "count", "valueInteger": one["count"]},
                {"name": "last", "valueInstant": instant(one["last"])},
                {"name": "example", "valueString": one["row"]},
            ],
        }
        for one in found
    )


async def _senders(interface: Interface, request: Request, context: Context) -> Response:
    """Return the profiles of senders; check one, or set it."""
    intake = await interface.intake(context)
    known = given(request, {"name": "string", "profile": "string", "check": "boolean"})
    if "profile" in known:
        if request.reading:
            raise FhirError(Issue("not-supported", "Set a profile with POST."), status=405)
        profile = decode(known["profile"].encode())
        try:
            await checked(profile, context)
        except ProfileFault as fault:
            raise FhirError(Issue("value", str(fault))) from fault
        parts: list[dict[str, Any]] = [{"name": "name", "valueString": profile["name"]}]
        if not known.get("check", False):
            version = await context.store.inbox.set_sender(profile["name"], profile, context.now())
            await intake.refresh()
            parts.append({"name": "version", "valueInteger": version})
        return answer(parts)
    found = await context.store.inbox.senders()
    if "name" in known:
        found = [one for one in found if one["name"] == known["name"]]
        if not found:
            raise not_found("Profile", known["name"])
    return answer(
        {
            "name": "sender",
            "part": [
                {"name": "name", "valueString": one["name"]},
                {"name": "version", "valueInteger": one["version"]},
                {"name": "profile", "valueString": msgspec.json.encode(one["profile"]).decode()},
            ],
        }
        for one in found
    )
