"""Hashes of passwords, in two threads: each takes some 0.15 s of a core and 64 MiB.

design/security.md, section 2.3. The rules are those of ``security/passwords.py``. Two at a time is
what bounds the memory, whatever many people sign in at once; who comes when too many wait is told
to come again.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from fhir_server.outcome import FhirError, Issue
from fhir_server.security.passwords import NOBODY, hashed, is_right

T = TypeVar("T")

_THREADS = ThreadPoolExecutor(2, thread_name_prefix="argon2")
_WAITING_MAX = 100  # some 8 s of work
_waiting = 0


async def hash_of(password: str, salt: bytes) -> str:
    """Return what is kept of ``password``. Raises ``throttled`` where too many wait."""
    return await _in_thread(lambda: hashed(password, salt))


async def matches(kept: str, password: str) -> bool:
    """Whether ``password`` is the one that ``kept`` was made of. Where nothing is kept, the answer
    is no, after the same work: how long it takes does not tell who has an account here.

    Raises ``throttled`` where too many wait.
    """
    return await _in_thread(lambda: _judged(kept, password))


def _judged(kept: str, password: str) -> bool:
    return is_right(kept or NOBODY, password) and bool(kept)


async def _in_thread(work: Callable[[], T]) -> T:
    global _waiting  # noqa: PLW0603 - of the process, as the threads are
    if _waiting >= _WAITING_MAX:
        text = "Too many sign in at the moment; try again."
        raise FhirError(Issue("throttled", text), headers=(("Retry-After", "5"),))
    _waiting += 1
    try:
        return await asyncio.get_running_loop().run_in_executor(_THREADS, work)
    finally:
        _waiting -= 1
