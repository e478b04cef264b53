"""Section 4 of design/security.md: what is changed, removed or added in the record shows."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.security.audit import Document, Row, row_document
from fhir_server.security.chain import (
    BLOCK,
    Head,
    Key,
    Verifier,
    block,
    is_signed,
    place,
    placed,
    signed,
)
from fhir_server.security.principal import DEMO

KEY = Key(b"k" * 32)
KEYS = {KEY.name: KEY}
CHAIN = "0198c0de-0000-7000-8000-00000000000a"
OTHER = "0198c0de-0000-7000-8000-00000000000b"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def rows(count: int, word: str = "read") -> list[Document]:
    """Return ``count`` rows that differ."""
    return [
        row_document(Row(AT + timedelta(seconds=n), word, DEMO, "Patient", f"p{n}"))
        for n in range(count)
    ]


def record(lengths: Iterable[int] = (1, 3, 2), key: Key = KEY) -> tuple[list[Document], Head]:
    """Return the rows of a chain with blocks of ``lengths``, and its head."""
    head, written = Head(CHAIN, -1, b""), []
    for length in lengths:
        some, head = block(rows(length), head, key)
        written += some
    return written, head


def faults(
    written: Iterable[Document], heads: Iterable[Head] = (), dropped: dict[str, Head] | None = None
) -> list[str]:
    """Return the names of what is wrong with ``written``, each once."""
    verifier = Verifier(KEYS, heads, dropped or {})
    found = [
        one for row in sorted(written, key=lambda one: one["_id"]) for one in verifier.take(row)
    ]
    return list(dict.fromkeys(one.name for one in (*found, *verifier.ends())))


def test_a_record_as_it_was_written_has_no_fault() -> None:
    """Two chains, one of which names the other's head, are in order."""
    written, head = record()
    more, last = block(rows(2), Head(OTHER, -1, b""), KEY, [head])

    assert faults([*written, *more], [head, last]) == []


def _changed(written: list[Document]) -> list[Document]:
    return [{**one, "id": "p9"} if place == 2 else one for place, one in enumerate(written)]


def _with_member(written: list[Document]) -> list[Document]:
    return [{**one, "note": "x"} if place == 2 else one for place, one in enumerate(written)]


def _deleted(written: list[Document]) -> list[Document]:
    return [one for place, one in enumerate(written) if place != 2]


def _inserted(written: list[Document]) -> list[Document]:
    return [*written, {**written[2], "_id": place(CHAIN, 1, 3)}]


def _forged_block(written: list[Document]) -> list[Document]:
    more, _ = block(rows(1), Head(OTHER, -1, b""), Key(b"f" * 32))
    return [*written, *more]


def _swapped(written: list[Document]) -> list[Document]:
    one, other = written[2], written[3]
    swapped = {**other, "_id": one["_id"]}, {**one, "_id": other["_id"]}
    return [*written[:2], *swapped, *written[4:]]


def _blocks_swapped(written: list[Document]) -> list[Document]:
    renamed = {1: 2, 2: 1}
    return [
        {**one, "_id": place(CHAIN, renamed.get(found[1], found[1]), found[2])}
        for one in written
        if (found := placed(one["_id"]))
    ]


TAMPERED: dict[str, tuple[Callable[[list[Document]], list[Document]], str]] = {
    "a row is changed": (_changed, "row-changed"),
    "a row has a member more": (_with_member, "row-changed"),
    "a row is deleted": (_deleted, "row-missing"),
    "the first row of a block is deleted": (lambda all: [all[0], *all[2:]], "row-missing"),
    "a row is inserted": (_inserted, "row-added"),
    "something else is inserted": (lambda all: [*all, {"_id": "x", "at": AT}], "row-added"),
    "a block is forged": (_forged_block, "signature"),
    "two rows are swapped": (_swapped, "row-changed"),
    "two blocks are swapped": (_blocks_swapped, "link-broken"),
    "a block is deleted": (lambda all: [all[0], *all[4:]], "block-missing"),
    "the end is cut": (lambda all: all[:-2], "chain-cut"),
    "the end is cut within a block": (lambda all: all[:-1], "row-missing"),
    "everything is deleted": (lambda all: [], "chain-cut"),
}


@pytest.mark.parametrize(("tamper", "fault"), TAMPERED.values(), ids=TAMPERED)
def test_tampering_is_found(tamper: Callable[[list[Document]], list[Document]], fault: str) -> None:
    """Each way to change what was recorded is found, and named."""
    written, head = record()

    assert fault in faults(tamper(written), [head])


def test_a_whole_chain_written_anew_is_found_without_any_head() -> None:
    """Whoever has the database and not the key can compute hashes, and no signature."""
    written, _ = record(key=Key(b"f" * 32))

    assert faults(written) == ["signature"]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.data())
def test_no_row_can_be_changed_or_taken_away(lengths: list[int], data: st.DataObject) -> None:
    """Whichever row it is, and whichever member."""
    written, head = record(lengths)
    which = data.draw(st.integers(0, len(written) - 1))
    name = data.draw(st.sampled_from(sorted(written[which].keys() - {"_id"})))
    changed = {**written[which]}
    del changed[name]

    assert faults([*written[:which], *written[which + 1 :]], [head])
    assert faults([*written[:which], changed, *written[which + 1 :]], [head])


@given(st.integers(0, 3))
def test_what_retention_dropped_is_not_missed_and_what_others_dropped_is(count: int) -> None:
    """A chain may begin behind its marker, and nowhere else."""
    written, head = record((1, 1, 1, 1))
    left = written[count:]
    previous = left[0][BLOCK]["previous"]
    marker = {CHAIN: Head(CHAIN, count - 1, previous)} if count else {}

    assert faults(left, [head], marker) == []
    assert (faults(left, [head]) == []) is (count == 0)
    assert faults(written[min(count + 1, 3) :], [head], marker) != [] or count == 3


def test_heads_are_signed() -> None:
    """What is said of the heads cannot be said by another."""
    said = signed({"_id": "1", "kind": "heads", "chains": [[CHAIN, 3, "00"]]}, KEY)

    assert is_signed(said, KEYS)
    assert not is_signed({**said, "chains": [[CHAIN, 2, "00"]]}, KEYS)
    assert not is_signed({**said, "mac": "00"}, KEYS)
    assert not is_signed({"_id": "1", "chains": []}, KEYS)
    assert not is_signed(said, {})
