"""The keys that sign what this server says: one for each algorithm and 90 days, sealed.

design/security.md, section 2.1. Which 90 days is part of a key's name, so that all processes take
the same one without asking each other. A key stays published until the last token that it signed
is over. The private half lies under the master key.
"""

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from joserfc.jwk import ECKey, RSAKey
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from fhir_server.security.grants import ACCESS_S
from fhir_server.security.sealing import NONCE_BYTES, Unopened, opened, seal
from fhir_server.store.client import Database, Document, deadline

SIGNING_KEYS = "oauth_signing_keys"
RENEWED = timedelta(days=90)
_KEPT_AFTER = timedelta(seconds=2 * ACCESS_S)
_REREAD = timedelta(minutes=1)
_KEYS_MAX = 100
_MADE: Mapping[str, Callable[[], RSAKey | ECKey]] = {
    "RS256": partial(RSAKey.generate_key, 2048),
    "ES384": partial(ECKey.generate_key, "P-384"),
}
SIGNING_ALGORITHMS = tuple(_MADE)
"""SMART requires RS256 of an ``id_token``; ES384 is for whoever asks for it."""


class SigningKeys:
    """The signing keys in ``database``, sealed under ``master_key``."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime],
        master_key: bytes,
        timeout_s: float,
    ) -> None:
        self._database = database
        self._now = now
        self._master_key = master_key
        self._timeout_s = timeout_s
        self._kept: dict[str, tuple[datetime, RSAKey | ECKey]] = {}

    async def ensure(self) -> None:
        """Make the collection and the index that removes old keys."""
        index = IndexModel([("until", 1)], expireAfterSeconds=0)
        await self._database[SIGNING_KEYS].create_indexes([index])

    async def signing(self, algorithm: str = "RS256") -> RSAKey | ECKey:
        """Return the private key of today for ``algorithm``; its ``kid`` names it."""
        now = self._now()
        period = int(now.timestamp() // RENEWED.total_seconds())
        name = f"{algorithm}/{period}"
        read_at, key = self._kept.get(name, (None, None))
        if read_at is None or key is None or now - read_at > _REREAD:
            key = await self._private(name, algorithm, period)
            # Those of other periods go; one that an operator has removed is seen to be gone.
            others = {one: kept for one, kept in self._kept.items() if one.endswith(f"/{period}")}
            self._kept = others | {name: (now, key)}
        return key

    async def published(self) -> list[dict[str, Any]]:
        """Return the public keys, as members of a JWKS: those of today and those that may still be
        asked for."""
        for algorithm in SIGNING_ALGORITHMS:
            await self.signing(algorithm)
        async with self._bounded():
            wanted = {"until": {"$gt": self._now()}}
            rows = await self._database[SIGNING_KEYS].find(wanted).limit(_KEYS_MAX).to_list()
        return [row["public"] for row in sorted(rows, key=lambda row: row["until"], reverse=True)]

    async def _private(self, name: str, algorithm: str, period: int) -> RSAKey | ECKey:
        keys = self._database[SIGNING_KEYS]
        async with self._bounded():
            found = await keys.find_one({"_id": name})
            if found is None:
                # The half second that a key takes is not taken from other requests.
                made = await asyncio.to_thread(self._made, name, algorithm, period)
                with suppress(DuplicateKeyError):  # of a process that was first: it is everybody's
                    await keys.insert_one(made)
                found = await keys.find_one({"_id": name})
        assert found is not None
        return self._opened(found)

    def _made(self, name: str, algorithm: str, period: int) -> Document:
        key = _MADE[algorithm]()
        public = {**key.as_dict(private=False), "kid": key.thumbprint()}
        public |= {"use": "sig", "alg": algorithm}
        text = json.dumps(key.as_dict(private=True)).encode()
        nonce = secrets.token_bytes(NONCE_BYTES)
        ends = datetime.fromtimestamp((period + 1) * RENEWED.total_seconds(), UTC)
        return {
            "_id": name,
            "public": public,
            "sealed": seal(self._master_key, text, nonce, f"signing/{name}"),
            "until": ends + _KEPT_AFTER,
        }

    def _opened(self, row: Document) -> RSAKey | ECKey:
        try:
            text = opened(self._master_key, row["sealed"], f"signing/{row['_id']}")
        except Unopened:
            raise UnopenedKeyError(
                "The signing keys were sealed under another master key. Set that one again, or "
                f"remove them: the collection {SIGNING_KEYS}."
            ) from None
        members = json.loads(text) | {"kid": row["public"]["kid"]}
        kind = RSAKey if members["kty"] == "RSA" else ECKey
        return kind.import_key(members)

    def _bounded(self) -> Any:
        return deadline(self._timeout_s, "Try again.")


class UnopenedKeyError(Exception):
    """The master key is not the one that the signing keys lie under."""
