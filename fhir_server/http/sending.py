"""Sends an answer that comes in pieces, for as long as somebody takes it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fhir_server.http.body import Receive
from fhir_server.messages import Pieces

Send = Callable[[Any], Awaitable[None]]

PATIENCE_S = 60.0
"""How long a client may take for one piece, which is some 2 MB at most."""


async def streamed(
    send: Send, receive: Receive, pieces: Pieces, patience_s: float = PATIENCE_S
) -> bool:
    """Send ``pieces``; return whether the client was there for all of them.

    Nothing more is read for a client that has gone away. Raises :class:`TimeoutError` for one that
    takes nothing for ``patience_s``. After either the connection has to end: the length that was
    announced is not reached, so that no client takes the part for the whole.
    """
    gone = asyncio.ensure_future(_gone(receive))
    try:
        async for piece in pieces:
            if gone.done():
                return False
            async with asyncio.timeout(patience_s):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        gone.cancel()
    return True


async def _gone(receive: Receive) -> None:
    """Wait until the client has gone away; what is left of the request's body comes before."""
    while (await receive())["type"] != "http.disconnect":
        pass
