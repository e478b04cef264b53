"""What booking operations answer: Appointments as a searchset, or all that was written. Pure.

IHE ITI Scheduling answers with a searchset; whoever gave a whole ``appointment`` gets a
transaction-response that has the Slots as well. Section 3 of design/scheduling.md.
"""

from collections.abc import Sequence

from fhir_server.messages import Request, Response
from fhir_server.r4.bundles import bundle, entry
from fhir_server.store.documents import Stored


def reply(stored: Sequence[Stored], request: Request, status: int, *, with_slots: bool) -> Response:
    """Return the answer that ``stored`` was written, Appointments and Slots; its Location is that
    of the first Appointment."""
    appointments = [one for one in stored if one.type == "Appointment"]
    first = appointments[0]
    if with_slots:
        shown = [*appointments, *(one for one in stored if one.type == "Slot")]
        body = bundle("transaction-response", [_written(one, request) for one in shown])
    else:
        entries = [_found(one, request) for one in appointments]
        body = bundle("searchset", entries, total=len(entries))
    concerns = [place for one in appointments for place in one.compartments]
    return Response(
        *(status, body, first.version, first.last_updated),
        _location(first) if status == 201 else "",
        concerns=concerns,
    )


def _found(one: Stored, request: Request) -> bytes:
    return entry(_full_url(one, request), one.json, search={"mode": "match"})


def _written(one: Stored, request: Request) -> bytes:
    said = {
        "status": "201 Created" if one.created else "200 OK",
        "location": _location(one),
        "etag": f'W/"{one.version}"',
        "lastModified": one.last_updated.isoformat(timespec="milliseconds"),
    }
    return entry(_full_url(one, request), one.json, response=said)


def _full_url(one: Stored, request: Request) -> str:
    return f"{request.base_url}/{one.type}/{one.id}" if request.base_url else ""


def _location(one: Stored) -> str:
    return f"{one.type}/{one.id}/_history/{one.version}"
