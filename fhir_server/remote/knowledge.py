"""Knowledge bases behind this one: JSON by POST, within limits, left alone while they fail.

Where a request goes is said by the settings. One try: a clinician is waiting.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from fhir_server.remote.egress import outgoing

BYTES_MAX = 1_048_576
FAILURES_MAX = 5
"""After so many failures within :data:`WINDOW_S` it is left alone for :data:`REST_S`."""
WINDOW_S = 30.0
REST_S = 30.0


class KnowledgeUnanswered(Exception):
    """It did not answer, or not as it should; the text says why."""


@dataclass(slots=True)
class KnowledgeBase:
    """The knowledge base at ``url``."""

    url: str
    http: httpx.AsyncClient
    clock: Callable[[], float] = time.monotonic
    _failures: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES_MAX))
    _rests_until: float = float("-inf")

    async def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Any:
        """Return what ``path`` below the URL answers. Raises :class:`KnowledgeUnanswered`."""
        if self.clock() < self._rests_until:
            raise KnowledgeUnanswered("it has not answered lately, and is asked again in a while")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._posted(path, body)
        except (TimeoutError, httpx.HTTPError, msgspec.DecodeError, KnowledgeUnanswered) as error:
            self._failed()
            known = isinstance(error, KnowledgeUnanswered)
            raise KnowledgeUnanswered(
                str(error) if known else "it did not answer in time"
            ) from error

    async def _posted(self, path: str, body: Mapping[str, Any]) -> Any:
        request = self.http.build_request("POST", f"{self.url}/{path}", json=body)
        answer = await self.http.send(request, stream=True)
        try:
            found = bytearray()
            async for piece in answer.aiter_bytes():
                found += piece
                if len(found) > BYTES_MAX:
                    raise KnowledgeUnanswered("its answer is over 1 MB")
        finally:
            await answer.aclose()
        if answer.status_code != 200:
            raise KnowledgeUnanswered(f"it answered with {answer.status_code}")
        return msgspec.json.decode(found)

    def _failed(self) -> None:
        now = self.clock()
        self._failures.append(now)
        if len(self._failures) == FAILURES_MAX and now - self._failures[0] <= WINDOW_S:
            self._rests_until = now + REST_S
            self._failures.clear()


@asynccontextmanager
async def knowledge_bases(urls: Sequence[str]) -> AsyncIterator[list[KnowledgeBase]]:
    """Open one for each of ``urls``: no redirect is followed, no proxy of the environment used."""
    async with outgoing(urls) as http:
        yield [KnowledgeBase(url, http) for url in urls]
