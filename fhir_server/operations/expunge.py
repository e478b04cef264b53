"""``$expunge``: versions, deleted resources, and resources, removed for good.

No part of R4; the names of the parameters are those that other servers use as well.

===========================  ===================================================================
parameter                    what goes
===========================  ===================================================================
``expungePreviousVersions``  versions that are not current
``expungeDeletedResources``  resources that are deleted, with all their versions
``expungeEverything``        resources with all their versions, deleted or not
``limit``                    at most so many versions in this call (1,000; 10,000 at most)
===========================  ===================================================================

The answer has ``count``, the versions that are gone, and ``more``, whether the call is to be
repeated. Resources are removed whole, so that ``count`` can be a little above ``limit``.
"""

import logging

import msgspec

from fhir_server.context import Context
from fhir_server.interactions.parameters import known_only
from fhir_server.messages import Request, Response
from fhir_server.operations.bodies import parameters_in, parameters_out
from fhir_server.outcome import FhirError, Issue, invalid_value, not_found
from fhir_server.registry import EVERY_TYPE, Operation
from fhir_server.settings import covers
from fhir_server.store.expunge import Wanted

_PREVIOUS = "expungePreviousVersions"
_DELETED = "expungeDeletedResources"
_EVERYTHING = "expungeEverything"
_KINDS = (_PREVIOUS, _DELETED, _EVERYTHING)
_LIMIT, _LIMIT_MAX = 1000, 10_000

_audit = logging.getLogger("fhir_server.audit")


async def expunge(request: Request, context: Context) -> Response:
    """Remove what the body's Parameters say, of a resource, a type or the system.

    Raises ``value`` where nothing or too much is asked for, ``not-found`` for a resource that never
    was, ``conflict`` for everything of a type that others may not lose.
    """
    known_only(request, ())
    given = parameters_in(
        request, context, {"limit": "valueInteger", **dict.fromkeys(_KINDS, "valueBoolean")}
    )
    limit = given.get("limit", _LIMIT)
    if not 1 <= limit <= _LIMIT_MAX:
        raise invalid_value("limit", limit, f"between 1 and {_LIMIT_MAX:,}")
    if not any(given.get(name) for name in _KINDS):
        text = f"What is to go? One of {', '.join(_KINDS)} is to be true."
        raise FhirError(Issue("value", text))
    if request.id and await context.store.read(request.type, request.id) is None:
        raise not_found(request.type, request.id)
    existing = await context.store.indexes.existing()
    # What is recorded stays: section 4 of design/security.md.
    types = tuple(one for one in existing if request.type in ("", one) and one != "AuditEvent")
    if given.get(_EVERYTHING):
        _check_kept(types, context)
    wanted = Wanted(
        *(types, request.id, limit),
        previous=given.get(_PREVIOUS, False),
        deleted=given.get(_DELETED, False),
        everything=given.get(_EVERYTHING, False),
    )
    place = "/".join(part for part in (request.type, request.id) if part)
    asked = {"expunge": place or "everywhere", "what": [one for one in _KINDS if given.get(one)]}
    # Before and after: of what was begun and not ended there is a trace as well.
    _audit.warning(msgspec.json.encode({**asked, "limit": limit}).decode())
    count, complete = await context.store.expunge(wanted)
    _audit.warning(msgspec.json.encode({**asked, "count": count, "more": not complete}).decode())
    body = parameters_out(
        [
            {"name": "count", "valueInteger": count},
            {"name": "more", "valueBoolean": not complete},
        ]
    )
    return Response(200, body)


def _check_kept(types: tuple[str, ...], context: Context) -> None:
    for type in types:
        if covers(context.settings.referential_integrity, type):
            text = f"What others refer to is kept of {type}: delete first, then use {_DELETED}."
            raise FhirError(Issue("conflict", text))


EXPUNGE = Operation(
    "$expunge",
    "urn:fhir-server:OperationDefinition:expunge",
    expunge,
    on=("", EVERY_TYPE),
    instance=True,
    affects_state=True,
    setting="expunge",
)
