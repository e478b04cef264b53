"""The chain that ties audit rows to each other, so that what is changed or missing shows. Pure.

Section 4 of the design page. Rows that are written together are a block; its first row carries the
head of the block as ``block``:

=============  ===================================================================================
``previous``   the hash of the block before in this chain; empty in the first
``count``      of rows
``rows``       SHA-256 over the rows
``seen``       in a first block: the last blocks of other chains, as chain, sequence and hash
``key``        the name of the key; ``mac``: HMAC-SHA-256 over the hash of the block
=============  ===================================================================================

The place of a row is ``chain.sequence.row``, the numbers in hexadecimal, so the order of ``_id`` is
that of the chain. A process has a few chains, for each of which one transaction at a time is under
way: one for all would have transactions wait for each other. Whoever holds no key cannot write a
block that is taken for one of ours; that the end of a chain is missing is told by signed heads.
"""

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import msgspec
import re2 as re

from fhir_server.security.audit import Document

BLOCK = "block"
_PLACE = re.compile(r"([0-9a-f\-]{36})\.([0-9a-f]{8})\.([0-9a-f]{4,8})")
_NAME_BYTES = 8


@dataclass(frozen=True, slots=True)
class Head:
    """The last block of ``chain`` as somebody saw it: its number and its hash."""

    chain: str
    sequence: int
    hash: bytes

    def as_list(self) -> list[Any]:
        """Return it as it is stored and signed."""
        return [self.chain, self.sequence, self.hash.hex()]


def head_of(stored: Sequence[Any]) -> Head:
    """Return what :meth:`Head.as_list` made."""
    chain, sequence, hash = stored
    return Head(str(chain), int(sequence), bytes.fromhex(hash))


@dataclass(frozen=True)
class Key:
    """What blocks and heads are signed with: HMAC-SHA-256. ``name`` gives nothing of it away."""

    secret: bytes = field(repr=False)

    @cached_property
    def name(self) -> str:
        """What tells this key from others."""
        return hmac.digest(self.secret, b"name", "sha256")[:_NAME_BYTES].hex()

    def mac(self, purpose: bytes, said: bytes) -> bytes:
        """Return the signature of what is ``said``, which is good for ``purpose`` alone."""
        return hmac.digest(self.secret, purpose + b"\0" + said, "sha256")


def place(chain: str, sequence: int, row: int) -> str:
    """Return the place of a row, which is the logical id of its AuditEvent as well.

    >>> place("0198c0de-0000-7000-8000-000000000000", 26, 3)
    '0198c0de-0000-7000-8000-000000000000.0000001a.0003'
    """
    return f"{chain}.{sequence:08x}.{row:04x}"


def placed(id: str) -> tuple[str, int, int] | None:
    """Return chain, sequence and number of the row at ``id``; ``None`` for what is no place."""
    found = _PLACE.fullmatch(id)
    if found is None:
        return None
    chain, sequence, row = found.groups()
    return chain, int(sequence, 16), int(row, 16)


def rows_hash(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return the digest over ``rows``, with their places and all members but the block's head."""
    digest = sha256()
    for row in rows:
        said = {name: value for name, value in row.items() if name != BLOCK}
        digest.update(msgspec.json.encode(said, order="sorted"))
        digest.update(b"\n")
    return digest.digest()


def block_hash(chain: str, sequence: int, head: Mapping[str, Any]) -> bytes:
    """Return the hash of the block that ``head`` is of."""
    seen = [list(one) for one in head.get("seen", ())]
    said = [chain, sequence, head["previous"].hex(), head["count"], head["rows"].hex(), seen]
    return sha256(msgspec.json.encode(said)).digest()


def block(
    rows: Sequence[Document], after: Head, key: Key, seen: Sequence[Head] = ()
) -> tuple[list[Document], Head]:
    """Return ``rows`` with their places, as the block that follows ``after``, and its head.

    The sequence of ``after`` is -1 where there is no block yet, and its hash empty.
    """
    chain, sequence = after.chain, after.sequence + 1
    written = [{"_id": place(chain, sequence, n), **row} for n, row in enumerate(rows)]
    head: Document = {"previous": after.hash, "count": len(rows), "rows": rows_hash(written)}
    if seen:
        head["seen"] = [one.as_list() for one in seen]
    hash = block_hash(chain, sequence, head)
    written[0][BLOCK] = {**head, "key": key.name, "mac": key.mac(b"block", hash)}
    return written, Head(chain, sequence, hash)


def signed(said: Mapping[str, Any], key: Key) -> Document:
    """Return ``said`` with its signature: heads of chains, and markers of what was dropped."""
    mac = key.mac(b"head", msgspec.json.encode(said, order="sorted"))
    return {**said, "key": key.name, "mac": mac.hex()}


def is_signed(said: Mapping[str, Any], keys: Mapping[str, Key]) -> bool:
    """Whether ``said`` has the signature that one of ``keys``, by name, gives it."""
    key = keys.get(str(said.get("key")))
    if key is None:
        return False
    rest = {name: value for name, value in said.items() if name not in ("key", "mac")}
    again = key.mac(b"head", msgspec.json.encode(rest, order="sorted")).hex()
    return hmac.compare_digest(again, str(said.get("mac")))


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, in a word, and where: ``row-changed``, ``row-missing``, ``row-added``,
    ``block-missing``, ``link-broken``, ``signature``, ``chain-cut``, ``head-differs``."""

    name: str
    place: str
    text: str


@dataclass(slots=True)
class Verifier:
    """Looks at all rows in the order of their places, then at what is missing at the ends.

    ``heads`` are blocks that were seen by others: by first blocks, and those signed. ``dropped`` is
    the last block of each chain that retention has taken away.
    """

    keys: Mapping[str, Key]
    heads: Iterable[Head] = ()
    dropped: Mapping[str, Head] = field(default_factory=dict)
    rows: int = 0
    blocks: int = 0
    chains: int = 0
    _rows: list[Document] = field(default_factory=list)
    _at: tuple[str, int] = ("", -1)
    _last: Head | None = None
    _named: dict[tuple[str, int], bytes] = field(default_factory=dict)
    _reached: dict[str, int] = field(default_factory=dict)
    _wanted: list[Head] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Note which blocks have to be there."""
        self._wanted = list(self.heads)
        for one in self._wanted:
            self._named[one.chain, one.sequence] = one.hash

    def take(self, row: Document) -> Iterator[Fault]:
        """Take the next row; yield what is wrong with the block that ended before it."""
        self.rows += 1
        found = placed(str(row["_id"]))
        if found is None:
            yield Fault("row-added", str(row["_id"]), "This is no place in a chain.")
            return
        if found[:2] != self._at:
            yield from self._block()
            self._at = found[:2]
        self._rows.append(row)

    def ends(self) -> Iterator[Fault]:
        """Yield what is wrong with the last block, and which blocks are missing at the ends."""
        yield from self._block()
        for one in self._wanted:
            gone = self.dropped.get(one.chain)
            reached = self._reached.get(one.chain, gone.sequence if gone else -1)
            if reached < one.sequence:
                text = f"It was seen up to block {one.sequence:,}; it ends with {reached:,}."
                yield Fault("chain-cut", one.chain, text)

    def _block(self) -> Iterator[Fault]:
        if not self._rows:
            return
        (chain, sequence), rows, self._rows = self._at, self._rows, []
        self.blocks += 1
        where = place(chain, sequence, 0)
        before = self._before(chain, sequence)
        if sequence != before.sequence + 1:
            text = f"Blocks {before.sequence + 1:,} to {sequence - 1:,} are missing."
            yield Fault("block-missing", where, text)
        self._reached[chain] = sequence
        head = rows[0].get(BLOCK)
        if (
            head is None
            or not _is_head(head)
            or placed(str(rows[0]["_id"])) != (chain, sequence, 0)
        ):
            self._last = Head(chain, sequence, b"")
            yield Fault("row-missing", where, "The first row of the block, with its head, is gone.")
            return
        hash = block_hash(chain, sequence, head)
        self._last = Head(chain, sequence, hash)
        yield from self._inside(rows, head, where)
        yield from self._linked(before, head, hash, where)

    def _before(self, chain: str, sequence: int) -> Head:
        """Return the block that ``sequence`` is to follow. What retention says that it drops may
        still be there, in part, if it was interrupted: of that, none is missed."""
        last = self._last if self._last is not None and self._last.chain == chain else None
        self.chains += last is None
        gone = self.dropped.get(chain)
        if gone is not None and sequence <= gone.sequence:
            return Head(chain, sequence - 1, b"")
        if gone is not None and (last is None or last.sequence <= gone.sequence):
            return gone
        return last or Head(chain, -1, b"")

    def _inside(
        self, rows: Sequence[Document], head: Mapping[str, Any], where: str
    ) -> Iterator[Fault]:
        numbers = {found[2] for one in rows if (found := placed(str(one["_id"])))}
        for n in sorted(set(range(head["count"])) - numbers)[:10]:
            yield Fault("row-missing", where, f"Row {n} of {head['count']} is gone.")
        for n in sorted(numbers - set(range(head["count"])))[:10]:
            yield Fault("row-added", where, f"Row {n} was not among the {head['count']}.")
        if len(numbers) == head["count"] and rows_hash(rows) != head["rows"]:
            yield Fault("row-changed", where, f"The {head['count']} rows are not as written.")

    def _linked(
        self, before: Head, head: Mapping[str, Any], hash: bytes, where: str
    ) -> Iterator[Fault]:
        chain, sequence = self._at
        if before.sequence + 1 == sequence and before.hash and head["previous"] != before.hash:
            yield Fault("link-broken", where, "It does not follow the block before it.")
        key = self.keys.get(str(head.get("key")))
        if key is None or not hmac.compare_digest(
            key.mac(b"block", hash), bytes(head.get("mac", b""))
        ):
            yield Fault("signature", where, "The head of the block has no signature of ours.")
        if self._named.get((chain, sequence), hash) != hash:
            yield Fault("head-differs", where, "The block is another than the one seen before.")


def _is_head(head: Any) -> bool:
    """Whether ``head`` has the members of a block's head, of their kinds."""
    return (
        isinstance(head, Mapping)
        and isinstance(head.get("previous"), bytes)
        and isinstance(head.get("rows"), bytes)
        and isinstance(head.get("count"), int)
    )
