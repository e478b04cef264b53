"""One other FHIR server: asked within limits, and left alone while it does not answer.

Where a request goes is said by the settings and by our own code. What a client of ours sends is
at most a parameter of it: never a host, a path or a header.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import httpx

from fhir_server.messages import Parameters, Resource
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode, encode
from fhir_server.remote.egress import outgoing

BYTES_MAX = 8 * 1024 * 1024
"""What an answer may have."""
AT_ONCE = 8
"""The requests to one server that are under way together; others wait for their turn."""
FAILURES_MAX = 3
"""After so many failures in a row the server is left alone for :data:`REST_S`."""
REST_S = 30.0
_DEPTH_MAX = 60
_FHIR = "application/fhir+json"
_SENTENCE_MAX = 300


class Unanswered(Exception):
    """The other server did not answer, or not as FHIR has it; the text says why."""


class Refused(Exception):
    """The other server refused the request, with ``status`` and a sentence of its own."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(slots=True)
class Remote:
    """The FHIR server at ``base_url``. ``seconds`` bounds one request, its turn included."""

    base_url: str
    seconds: float
    http: httpx.AsyncClient
    clock: Callable[[], float] = time.monotonic
    _turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _failures: int = 0
    _rests_until: float = float("-inf")

    async def call(
        self, path: str, parameters: Parameters = (), body: Resource | None = None
    ) -> Resource:
        """Return the resource that ``path`` below the base answers with; with ``body`` by POST.

        Raises :class:`Refused` for a 4xx, :class:`Unanswered` for everything else that is none.
        """
        if self.clock() < self._rests_until:
            raise Unanswered("it has not answered lately, and is asked again in a while")
        try:
            async with asyncio.timeout(self.seconds), self._turn:
                status, text = await self._sent(path, parameters, body)
            found = _resource(status, text)
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, Unanswered) as error:
            self._failed()
            why = str(error) if isinstance(error, Unanswered) else "it did not answer in time"
            raise Unanswered(why) from error
        self._failures = 0
        return found

    async def _sent(
        self, path: str, parameters: Parameters, body: Resource | None
    ) -> tuple[int, bytes]:
        request = self.http.build_request(
            "GET" if body is None else "POST",
            f"{self.base_url}/{path}",
            params=[*parameters],
            content=None if body is None else encode(body),
            headers={"Accept": _FHIR, **({} if body is None else {"Content-Type": _FHIR})},
        )
        answer = await self.http.send(request, stream=True)
        try:
            text = bytearray()
            async for piece in answer.aiter_bytes():
                text += piece
                if len(text) > BYTES_MAX:
                    raise Unanswered(f"its answer is over {BYTES_MAX >> 20} MB")
        finally:
            await answer.aclose()
        return answer.status_code, bytes(text)

    def _failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_MAX:
            # The first request after the rest decides: one failure more, and it rests again.
            self._rests_until = self.clock() + REST_S


def _resource(status: int, text: bytes) -> Resource:
    try:
        found = decode(text, depth_max=_DEPTH_MAX)
    except FhirError as error:
        raise Unanswered(f"its answer ({status}) is no FHIR") from error
    if 400 <= status < 500:
        raise Refused(status, _sentence(found))
    if status != 200 or "resourceType" not in found:
        raise Unanswered(f"it answered with {status}")
    return found


def _sentence(outcome: Any) -> str:
    """Return what an OperationOutcome says, in at most a few words: it is not ours."""
    for one in outcome.get("issue", ()):
        for text in (one.get("diagnostics"), one.get("details", {}).get("text")):
            if isinstance(text, str):
                return text[:_SENTENCE_MAX]
    return "it gave no reason"


def client(bases: Iterable[str]) -> httpx.AsyncClient:
    """Return what asks the servers at ``bases``, which settings name."""
    return outgoing(bases, at_once=4 * AT_ONCE)
