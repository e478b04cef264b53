"""Binary by its own content type: what comes in piece by piece, and goes out so.

https://hl7.org/fhir/R4/binary.html#rest

The other interactions know nothing of it: before them the pieces become the ``data`` of the
resource or, above a limit, a content beside it; behind them its pieces are put into the answer.
"""

from base64 import b64encode
from contextlib import suppress
from dataclasses import replace
from functools import partial

from fhir_server.context import Context
from fhir_server.messages import Pieces, Request, Response
from fhir_server.outcome import FhirError
from fhir_server.r4.subsets import tagged
from fhir_server.registry import Handler

DATA_BYTES_MAX = 262_144  # of what a Binary holds itself, as base64, in both forms of its document
_RESOURCE_PART = 4  # ... and at most this part of what a resource may have


def taking(handler: Handler) -> Handler:
    """Return ``handler``, which writes, with the body by its own content type taken in before."""

    async def take(request: Request, context: Context) -> Response:
        if request.pieces is None or request.body is None:
            return await handler(request, context)
        request = await _taken(request, request.pieces, context)
        try:
            response = await handler(request, context)
        except FhirError as error:
            # What is unknown, or may be there after all, is left to the sweep.
            if request.content is not None and error.status < 500:
                with suppress(FhirError):
                    await context.contents.discard(request.content.id)
            raise
        if request.content is not None:  # the same again, or what was there already, is kept once
            with suppress(FhirError):
                await context.contents.discard_unused(request.content.id)
        return response

    return take


async def _taken(request: Request, pieces: Pieces, context: Context) -> Request:
    limit = min(DATA_BYTES_MAX, context.settings.resource_bytes_max // _RESOURCE_PART)
    held = bytearray()
    assert request.body is not None
    async for piece in pieces:
        held += piece
        if len(held) > limit:
            content = await context.contents.take(_rejoined(held, pieces))
            # It is without its data wherever it is not asked for alone, and says so.
            return replace(request, body=tagged(request.body), pieces=None, content=content)
    data = {"data": b64encode(held).decode()} if held else {}
    return replace(request, body=request.body | data, pieces=None)


async def _rejoined(held: bytearray, rest: Pieces) -> Pieces:
    yield bytes(held)
    async for piece in rest:
        yield piece


def giving(handler: Handler) -> Handler:
    """Return ``handler``, which reads, with the pieces of a large content in its answer."""

    async def give(request: Request, context: Context) -> Response:
        response = await handler(request, context)
        if response.content is None:
            return response
        return replace(response, pieces=partial(context.contents.pieces, response.content))

    return give
