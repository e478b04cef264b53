"""``$outbox`` and ``$outbox-repeat``: what has not left this server, and what is tried again.

For administrators. Neither addresses nor texts are shown: those are in the CommunicationRequest,
for whoever may read it.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server.context import Context
from fhir_server.interactions.parameters import count_of, known_only, value_of
from fhir_server.messages import Request, Response
from fhir_server.operations.bodies import parameters_out
from fhir_server.outcome import FhirError, Issue, invalid_value
from fhir_server.registry import Operation
from fhir_server.store.documents import instant
from fhir_server.store.outbox import DEAD, SENDING, SETTLED, WAITING, Row

_DEFINITION = "urn:fhir-server:OperationDefinition:"
_STATES = (WAITING, SENDING, *SETTLED)
_COUNT, _COUNT_MAX = 50, 1000


async def outbox(request: Request, context: Context) -> Response:
    """Return rows in the ``state`` that is asked for, else those that were given up, in the order
    of their ids, from behind ``after`` on."""
    known_only(request, ("state", "after", "_count"))
    state = value_of(request, "state") or DEAD
    if state not in _STATES:
        raise invalid_value("state", state, ", ".join(_STATES))
    count = count_of(request, _COUNT, _COUNT_MAX)
    rows = await context.store.outbox.listed(state, value_of(request, "after"), count)
    out = [{"name": "row", "part": list(_parts(one))} for one in rows]
    return Response(200, parameters_out(out))


async def outbox_repeat(request: Request, context: Context) -> Response:
    """Let the rows be tried again whose ``id`` the body names; return how many were given up."""
    known_only(request, ())
    ids = list(_ids(request.body))
    count = await context.store.outbox.repeat(ids, context.now())
    return Response(200, parameters_out([{"name": "count", "valueUnsignedInt": count}]))


def _parts(row: Row) -> Iterable[dict[str, Any]]:
    yield {"name": "id", "valueString": row.id}
    yield {"name": "kind", "valueCode": row.kind}
    yield {"name": "state", "valueCode": row.state}
    yield {"name": "due", "valueInstant": instant(row.due)}
    yield {"name": "tried", "valueUnsignedInt": row.tried}
    if row.subject:
        yield {"name": "subject", "valueString": row.subject}
    if row.reason:
        yield {"name": "reason", "valueString": row.reason}


def _ids(body: Mapping[str, Any] | None) -> Iterable[str]:
    members = (body or {}).get("parameter")
    if not isinstance(members, list) or not 0 < len(members) <= _COUNT_MAX:
        text = f"The body is Parameters with id, 1 to {_COUNT_MAX:,} of them."
        raise FhirError(Issue("structure", text))
    for one in members:
        value = one.get("valueString") if isinstance(one, dict) else None
        if not isinstance(value, str) or one.get("name") != "id":
            raise FhirError(Issue("structure", "Each parameter is an id with a valueString."))
        yield value


OPERATIONS = (
    Operation("$outbox", f"{_DEFINITION}outbox", outbox),
    Operation("$outbox-repeat", f"{_DEFINITION}outbox-repeat", outbox_repeat, affects_state=True),
)
