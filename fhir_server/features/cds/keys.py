"""The keys of clients that publish them: read from the URL that is registered, and from no other.

https://cds-hooks.hl7.org/2.0/#trusting-cds-clients; design/cds.md, section 13. What a token says
about where its keys are (``jku``) is compared, never followed.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

BYTES_MAX = 65_536
KEYS_MAX = 50
TIMEOUT_S = 2.0
PAUSE_S = 60.0
"""A key set is read once in so many seconds at most, for one algorithm, whatever tokens say."""
KEPT_S = 3600.0
"""After so many seconds it is read again: a key that was taken back is to be forgotten."""
_MODULUS = range(342, 1367)
"""Characters of the modulus of an RSA key, in base64url: 2048 to 8192 bits."""

Fetch = Callable[[str], Awaitable[bytes]]
"""A URL -> the document there. Raises an exception of ``failures``."""


class NoKeys(Exception):
    """There is no such key; the text is for the log."""


@dataclass(slots=True)
class _Kept:
    keys: KeySet | None = None
    read_at: float = float("-inf")
    tried_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class PublishedKeys:
    """The key sets by URL, as they were last read."""

    def __init__(
        self,
        fetch: Fetch,
        failures: tuple[type[Exception], ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read by ``fetch``, which raises one of ``failures``; ``clock`` is in seconds."""
        self._fetch = fetch
        self._failures = failures
        self._clock = clock
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def keys(self, url: str, kid: str, algorithm: str) -> KeySet:
        """Return the keys at ``url`` for ``algorithm``, among them ``kid``.

        One that is not known has the set read again, once in :data:`PAUSE_S` at most. Where it
        cannot be read, the keys that are known stay. Raises :class:`NoKeys`.
        """
        kept = self._kept.setdefault((url, algorithm), _Kept())
        # Who comes while the set is read waits for it, unless its key is known.
        is_coming = kept.lock.locked() and not (kept.keys and _has(kept.keys, kid))
        if is_coming or not self._is_enough(kept, kid):
            async with kept.lock:
                if not self._is_enough(kept, kid):
                    await self._read(kept, url, algorithm)
        if kept.keys is None or not _has(kept.keys, kid):
            raise NoKeys("the key is not among those that the client publishes")
        return kept.keys

    def _is_enough(self, kept: _Kept, kid: str) -> bool:
        now = self._clock()
        if now - kept.tried_at < PAUSE_S:
            return True
        return kept.keys is not None and _has(kept.keys, kid) and now - kept.read_at < KEPT_S

    async def _read(self, kept: _Kept, url: str, algorithm: str) -> None:
        kept.tried_at = self._clock()
        try:
            document = await self._fetch(url)
        except self._failures as error:
            if kept.keys is None:
                raise NoKeys(f"the key set cannot be read: {error}") from error
            return
        try:
            kept.keys, kept.read_at = key_set(document, algorithm), self._clock()
        except ValueError as error:
            if kept.keys is None:
                raise NoKeys(f"the key set cannot be used: {error}") from error


def _has(keys: KeySet, kid: str) -> bool:
    return any(key.kid == kid for key in keys.keys)


def key_set(document: bytes, algorithm: str) -> KeySet:
    """Return the keys of a JSON Web Key Set that can verify ``algorithm``.

    Others are passed over: of another kind, for encryption, without ``kid``, too short or too
    long; and the second of a ``kid``. Raises ``ValueError`` where none is left.
    https://www.rfc-editor.org/rfc/rfc7517#section-5
    """
    try:
        rows = json.loads(document)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("it is no key set") from error
    if not isinstance(rows, list) or len(rows) > KEYS_MAX:
        raise ValueError(f"it is no list of at most {KEYS_MAX} keys")
    found: dict[str, ECKey | RSAKey] = {}
    for row in rows:
        key = _key(row, algorithm) if isinstance(row, dict) else None
        if key is not None:
            found.setdefault(str(row["kid"]), key)
    if not found:
        raise ValueError(f"none of its keys is for {algorithm}")
    return KeySet([*found.values()])


def _key(row: Mapping[str, Any], algorithm: str) -> ECKey | RSAKey | None:
    kid = row.get("kid")
    is_named = isinstance(kid, str) and 0 < len(kid) <= 200
    is_meant = row.get("use", "sig") == "sig" and row.get("alg", algorithm) == algorithm
    if not is_named or not is_meant or "d" in row or "k" in row:
        return None
    try:
        if algorithm == "ES384" and row.get("kty") == "EC" and row.get("crv") == "P-384":
            return ECKey.import_key(dict(row))
        if algorithm == "RS384" and row.get("kty") == "RSA" and len(str(row["n"])) in _MODULUS:
            return RSAKey.import_key(dict(row))
    except (JoseError, ValueError, TypeError, KeyError):
        return None  # one bad key does not spoil the others
    return None
