"""Documents that others publish for us: key sets of clients, the metadata of an issuer.

Read from a URL that is registered, kept as long as ``Cache-Control`` says and an hour at most, and
read again for a key that is not among them, once a minute at most.
https://www.rfc-editor.org/rfc/rfc9111#section-5.2
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import re2 as re

from fhir_server.remote.documents import document, listed
from fhir_server.remote.fetching import Unfetched

T = TypeVar("T")

PAUSE_S = 60.0
KEPT_S = 3600.0
AT_ONCE_S = 1.0
"""Those that come within it are one question, whatever Cache-Control says: a flood of requests must
not become one of ours."""
_KEPT_MANY = 1_000
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=\"?([0-9]{1,9})")
_NOT_KEPT = re.compile(r"(?:^|[,\s])no-(?:store|cache)\b")

Fetch = Callable[[str], Awaitable[tuple[bytes, str]]]
"""A URL -> the document there, and what its Cache-Control says. Raises :class:`Unfetched`."""


async def document_set(url: str) -> tuple[bytes, str]:
    """Return the document at ``url``, which the operator has set. Raises :class:`Unfetched`."""
    return await document(url, listed(url))


@dataclass(slots=True)
class _Kept(Generic[T]):
    value: T | None = None
    until: float = float("-inf")
    tried_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Published(Generic[T]):
    """What is published at URLs, as it was last read by ``read``, which raises ``ValueError``."""

    def __init__(
        self,
        read: Callable[[bytes, str], T],
        fetch: Fetch = document,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._fetch = fetch
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept[T]] = {}

    async def at(self, url: str, about: str, has: Callable[[T], bool] = lambda _: True) -> T:
        """Return what is at ``url``, read as ``about`` says (an algorithm), and has what is wanted.

        What is kept and has it is not read again. Where it cannot be read, what was read less than
        an hour ago stays. Raises :class:`Unfetched`.
        """
        if len(self._kept) >= _KEPT_MANY:
            self._kept.clear()
        kept = self._kept.setdefault((url, about), _Kept())
        # Who comes while it is read waits for it, unless what is wanted is known.
        is_coming = kept.lock.locked() and not self._is_known(kept, has)
        if is_coming or not self._is_enough(kept, has):
            async with kept.lock:
                if not self._is_enough(kept, has):
                    await self._renew(kept, url, about)
        if kept.value is None or not self._is_known(kept, has):
            raise Unfetched("what is published there has not what is wanted")
        return kept.value

    def _is_enough(self, kept: _Kept[T], has: Callable[[T], bool]) -> bool:
        now = self._clock()
        is_over = kept.value is not None and now >= kept.until
        return self._is_known(kept, has) or (now - kept.tried_at < PAUSE_S and not is_over)

    def _is_known(self, kept: _Kept[T], has: Callable[[T], bool]) -> bool:
        return kept.value is not None and self._clock() < kept.until and has(kept.value)

    async def _renew(self, kept: _Kept[T], url: str, about: str) -> None:
        kept.tried_at = self._clock()
        if kept.until <= kept.tried_at:
            kept.value = None  # a key that was taken back is to be forgotten
        try:
            found, caching = await self._fetch(url)
            kept.value = self._read(found, about)
        except ValueError as error:
            raise Unfetched(f"what is published there cannot be used: {error}") from error
        except Unfetched:
            if kept.value is None:
                raise
            return
        kept.until = self._clock() + seconds_kept(caching)


def seconds_kept(caching: str) -> float:
    """Return how long a document may be kept: as its Cache-Control says, an hour at most.

    >>> seconds_kept("public, max-age=600"), seconds_kept("no-store"), seconds_kept("")
    (600.0, 1.0, 3600.0)
    """
    said = caching.lower()
    if _NOT_KEPT.search(said):
        return AT_ONCE_S
    found = _MAX_AGE.search(said)
    return min(KEPT_S, max(AT_ONCE_S, float(found[1]))) if found else KEPT_S
