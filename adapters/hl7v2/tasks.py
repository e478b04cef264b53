"""Rows of the inbox as those see them who run the interface: Tasks, and one row in full.

https://hl7.org/fhir/R4/task.html; the Tasks are not stored.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from adapters.hl7v2.charset import decoded
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import read
from fhir_server.store.documents import instant
from fhir_server.store.inbox import Row

_STATUS = {
    "received": "requested",
    "applying": "in-progress",
    "retry": "in-progress",
    "held": "on-hold",
    "dead": "failed",
    "done": "completed",
    "ignored": "cancelled",
    "rejected": "rejected",
}
_SHOWN_CHARACTERS = 2000  # of a field; a document in it is not for reading here


def as_task(row: Row) -> dict[str, Any]:
    """Return ``row`` as a Task."""
    task: dict[str, Any] = {
        "resourceType": "Task",
        "id": row.id,
        "identifier": [{"value": row.control_id}] if row.control_id else [],
        "status": _STATUS[row.state],
        "businessStatus": {"text": row.state},
        "intent": "order",
        "code": {"text": row.type} if row.type else {},
        "for": {"reference": row.subjects[0]} if row.subjects else {},
        "authoredOn": instant(row.received),
        "requester": {"display": row.sender} if row.sender.strip() else {},
        "statusReason": {"text": row.reason} if row.reason else {},
        "note": [{"text": _sentence(one)} for one in row.issues],
    }
    if row.binary:
        reference = {"reference": f"Binary/{row.binary}"}
        task["input"] = [{"type": {"text": "message"}, "valueReference": reference}]
    task["output"] = [
        {"type": {"text": one["outcome"]}, "valueReference": {"reference": one["reference"]}}
        for one in row.made
    ]
    return {name: value for name, value in task.items() if value not in ([], {})}


def _sentence(issue: Mapping[str, Any]) -> str:
    where = f" at {issue['where']}" if issue.get("where") else ""
    return f"{issue['severity']} {issue['code']}{where}: {issue['text']}"


def told(row: Row, data: bytes, *, raw: bool) -> Iterable[dict[str, Any]]:
    """Yield the parameters that tell everything of ``row``; ``data`` is its message."""
    yield {"name": "row", "resource": as_task(row)}
    for name, value in (
        ("answer", row.answer),
        ("late-answer", row.late_answer),
    ):
        if value:
            yield {"name": name, "valueString": value.decode("latin-1")}
    for name, text in (("replay-of", row.replay_of), ("replaced-by", row.replaced_by)):
        if text:
            yield {"name": name, "valueString": text}
    yield {"name": "copies", "valueInteger": row.copies}
    for one in row.attempts:
        parts = [
            {"name": "at", "valueInstant": instant(one["at"])},
            {"name": "outcome", "valueString": one["outcome"]},
        ]
        yield {"name": "attempt", "part": parts}
    if data and raw:
        yield from _tree(data)
        yield {"name": "raw", "valueString": data.decode("utf-8", "backslashreplace")}


def _tree(data: bytes) -> Iterable[dict[str, Any]]:
    """Yield each segment with its fields that say something."""
    try:
        text = decoded(data)
        message = read(text.text, codec=text.codec)
    except MessageFault as fault:
        yield {"name": "unreadable", "valueString": fault.text}
        return
    for segment in message.segments:
        parts = [
            {"name": f"{segment.name}-{number}", "valueString": field[:_SHOWN_CHARACTERS]}
            for number, field in enumerate(segment.fields)
            if number and field.strip()
        ]
        if parts:
            yield {"name": segment.where, "part": parts}


def link(place: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Return ``place`` with ``parameters``."""
    query = urlencode(list(parameters))
    return f"{place}?{query}" if query else place
