"""read and vread: ``GET [base]/[type]/[id]`` and ``…/_history/[vid]``.

https://hl7.org/fhir/R4/http.html#read, #vread and #cread (conditional read)
"""

import re2 as re

from fhir_server.context import Context
from fhir_server.interactions.parameters import known_only, subset_of
from fhir_server.messages import ANY_VERSION, Content, Request, Response
from fhir_server.outcome import FhirError, Issue, deleted, not_found, version_not_found
from fhir_server.store.documents import Stored

_VERSION = re.compile(r"[1-9][0-9]{0,17}")


async def read(request: Request, context: Context) -> Response:
    """Return the current version. Raises ``not-found``, or ``deleted`` after a deletion."""
    wanted = subset_of(request, (request.type,), context.definitions)
    known_only(request, ("_summary", "_elements"))
    stored = await context.store.read(request.type, request.id)
    if stored is None:
        raise not_found(request.type, request.id)
    if stored.deleted:
        raise deleted(request.type, request.id, stored.version)
    if _is_known(request, stored):
        return Response(304, b"", stored.version, stored.last_updated, concerns=stored.compartments)
    body = wanted.applied(stored.json, context.definitions)
    return _answer(body, wanted.content(stored.content), stored)


async def vread(request: Request, context: Context) -> Response:
    """Return one version. Raises ``not-found``, or ``deleted`` where that version is a deletion."""
    wanted = subset_of(request, (request.type,), context.definitions)
    known_only(request, ("_summary", "_elements"))
    version = request.version
    if not _VERSION.fullmatch(version):
        raise version_not_found(request.type, request.id, version)
    stored = await context.store.vread(request.type, request.id, int(version))
    if stored is None:
        raise version_not_found(request.type, request.id, version)
    if stored.deleted:
        raise deleted(request.type, request.id, stored.version)
    if _is_known(request, stored):
        return Response(304, b"", stored.version, stored.last_updated, concerns=stored.compartments)
    body = wanted.applied(stored.json, context.definitions)
    return _answer(body, wanted.content(stored.content), stored)


def _answer(body: bytes, content: Content | None, stored: Stored) -> Response:
    return Response(
        *(200, body, stored.version, stored.last_updated),
        content=content,
        concerns=stored.compartments,
    )


def _is_known(request: Request, stored: Stored) -> bool:
    """Whether the client has this version already. If-None-Match goes first (RFC 9110, 13.2.2).

    Raises status 412 where If-Match wants another version.
    """
    this = {str(stored.version), ANY_VERSION}
    if request.if_match is not None and not this & request.if_match:
        text = f"{stored.type}/{stored.id} is version {stored.version} here, not one in If-Match."
        raise FhirError(Issue("conflict", text), status=412)
    if request.if_none_match is not None:
        return bool(this & request.if_none_match)
    if request.if_modified_since is not None:
        # HTTP dates have whole seconds.
        return stored.last_updated.replace(microsecond=0) <= request.if_modified_since
    return False
