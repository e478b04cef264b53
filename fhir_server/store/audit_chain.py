"""The chains of the audit record as a whole: heads are signed, all is looked at, the old dropped.

Section 4 of the design page. ``audit_heads`` has two kinds of documents, both signed: ``heads``,
the last blocks of the chains of a process at a time, which also go to the log and to a file
outside; and ``dropped``, the last block of a chain that was there before retention took it away.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import DESCENDING

from fhir_server.security.audit import Document
from fhir_server.security.chain import (
    BLOCK,
    Fault,
    Head,
    Key,
    Verifier,
    head_of,
    is_signed,
    place,
    placed,
    signed,
)
from fhir_server.store.audit import AUDIT, HEADS, Audit, block_head
from fhir_server.store.client import Database

_DROPPED = "dropped"
_READ_AT_ONCE = 1000
_BEHIND = "/"  # the character behind the dot, which ends the name of a chain


async def sign(audit: Audit, id: str, now: datetime) -> Document | None:
    """Keep the signed heads of the chains of this process under ``id``, and return them for those
    outside; ``None`` where nothing was recorded yet."""
    heads = audit.heads
    if not heads:
        return None
    said = signed(
        {"_id": id, "kind": "heads", "at": _text(now), "chains": [one.as_list() for one in heads]},
        audit.key,
    )
    await audit.database[HEADS].insert_one(dict(said))
    return said


@dataclass(slots=True)
class Verification:
    """A look at everything that is recorded. ``outside`` are signed heads that were kept elsewhere.
    What was looked at is counted in ``rows``, ``blocks`` and ``chains``; ``signed_at`` is when
    heads were signed last, ``""`` for never."""

    database: Database
    keys: Mapping[str, Key]
    outside: Iterable[Mapping[str, Any]] = ()
    rows: int = 0
    blocks: int = 0
    chains: int = 0
    signed_at: str = ""
    _heads: list[Head] = field(default_factory=list)
    _gone: dict[str, Head] = field(default_factory=dict)

    async def faults(self) -> AsyncIterator[Fault]:
        """Yield what is wrong, in the order of the chains."""
        for one in self.outside:
            for fault in self._taken(dict(one), "outside"):
                yield fault
        async for one in self.database[HEADS].find():
            for fault in self._taken(one, "audit_heads"):
                yield fault
        async for head in _seen(self.database):
            self._heads.append(head)
        verifier = Verifier(self.keys, self._heads, self._gone)
        rows = self.database[AUDIT].find().sort("_id", 1).batch_size(_READ_AT_ONCE)
        async for row in rows:
            for fault in verifier.take(row):
                yield fault
        for fault in verifier.ends():
            yield fault
        self.rows, self.blocks, self.chains = verifier.rows, verifier.blocks, verifier.chains

    def _taken(self, said: Mapping[str, Any], where: str) -> Iterable[Fault]:
        """Note the heads in ``said``, a signed document; yield the fault of one that is not."""
        if not is_signed(said, self.keys):
            text = f"A document of {where} has no signature of ours."
            yield Fault("signature", str(said.get("_id")), text)
            return
        heads = [head_of(one) for one in said["chains"]]
        if said["kind"] == _DROPPED:
            self._gone.update({one.chain: one for one in heads})
        else:
            self._heads += heads
            self.signed_at = max(self.signed_at, said["at"])


async def _seen(database: Database) -> AsyncIterator[Head]:
    """Yield the blocks that the first blocks of chains name."""
    async for chain in _chains(database):
        first = await database[AUDIT].find_one({"_id": place(chain, 0, 0)}, {f"{BLOCK}.seen": 1})
        for one in (first or {}).get(BLOCK, {}).get("seen", ()):
            yield head_of(one)


async def _chains(database: Database) -> AsyncIterator[str]:
    """Yield the names of the chains, in their order; a look into the index for each."""
    behind = ""
    while found := await database[AUDIT].find_one(
        {"_id": {"$gt": behind}}, {"_id": 1}, sort=[("_id", 1)]
    ):
        chain = found["_id"].partition(".")[0]
        behind = chain + _BEHIND
        yield chain


async def drop(database: Database, key: Key, before: datetime, now: datetime) -> int:
    """Remove whole blocks, each chain's oldest, of which all was recorded before ``before``; return
    how many rows are gone. What is left of a chain begins behind a signed marker."""
    gone = 0
    async for chain in _chains(database):
        last = await _last_before(database, chain, before)
        if last is None:
            continue
        said = {
            "_id": f"{_DROPPED}/{chain}",
            "kind": _DROPPED,
            "at": _text(now),
            "chains": [last.as_list()],
        }
        # The marker first: should this end here, the blocks are still there, and in order.
        marker = signed(said, key)
        await database[HEADS].replace_one({"_id": said["_id"]}, marker, upsert=True)
        bound = place(chain, last.sequence + 1, 0)
        result = await database[AUDIT].delete_many({"_id": {"$gt": chain, "$lt": bound}})
        gone += result.deleted_count
    return gone


async def _last_before(database: Database, chain: str, before: datetime) -> Head | None:
    """Return the last block that may go, with all before it; ``None`` for none."""
    rows = database[AUDIT]
    within = {"$gt": chain, "$lt": chain + _BEHIND}
    kept = await rows.find_one(
        {"_id": within, "at": {"$gte": before}}, {"_id": 1}, sort=[("_id", 1)]
    )
    if kept is None:
        newest = await rows.find_one({"_id": within}, {"_id": 1}, sort=[("_id", DESCENDING)])
        at = placed(newest["_id"]) if newest else None
        sequence = at[1] if at else -1
    else:
        at = placed(kept["_id"])
        sequence = at[1] - 1 if at else -1
    first = await rows.find_one({"_id": place(chain, sequence, 0)}) if sequence >= 0 else None
    return block_head(first) if first else None


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
