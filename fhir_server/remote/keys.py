"""The public keys of a registered client: JSON by GET, within limits. No other URL is read."""

import asyncio
from typing import Any

import httpx
import msgspec

BYTES_MAX = 262_144
SECONDS = 3.0


class KeysUnanswered(Exception):
    """There are no keys to be had now; the text says why."""


async def key_set_at(url: str) -> dict[str, Any]:
    """Return the JSON Web Key Set at ``url``. Raises :class:`KeysUnanswered`.

    No redirect is followed, and no proxy of the environment used.
    """
    try:
        async with (
            asyncio.timeout(SECONDS),
            httpx.AsyncClient(follow_redirects=False, trust_env=False, timeout=None) as http,
            http.stream("GET", url, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status_code != 200:
                raise KeysUnanswered(f"it answered with {answer.status_code}")
            found = bytearray()
            async for piece in answer.aiter_bytes():
                found += piece
                if len(found) > BYTES_MAX:
                    raise KeysUnanswered(f"its answer is over {BYTES_MAX} bytes")
        keys = msgspec.json.decode(found)
    except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError) as error:
        raise KeysUnanswered("it did not answer with JSON in time") from error
    if not isinstance(keys, dict) or not isinstance(keys.get("keys"), list):
        raise KeysUnanswered("its answer is no key set")
    return keys
