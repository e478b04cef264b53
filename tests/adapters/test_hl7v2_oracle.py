"""design/hl7v2.md, sections 20 and 26: hl7apy as a second reader of the shared messages. Check H12.

Wherever its strict mode accepts a message, both readers agree on every leaf. The messages come in a
shuffled order that is always the same; ``FHIR_TEST_HL7_ORACLE`` sets how many, and 1000 is all.
"""

import csv
import os
import random
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from adapters.hl7v2.charset import decoded
from adapters.hl7v2.message import Message, batch, plain, read

MESSAGES = int(os.environ.get("FHIR_TEST_HL7_ORACLE", "200"))

Leaves = dict[tuple[int, int, int, int], str]  # field, repetition, component, subcomponent
Segments = Counter[tuple[str, frozenset[tuple[tuple[int, int, int, int], str]]]]


def texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the shared messages, each with the name of its file."""
    with (folder / "index.csv").open(encoding="utf-8", newline="") as index:
        rows = list(csv.DictReader(index))
    random.Random(12).shuffle(rows)
    for row in rows:
        for text in batch(decoded((folder / row["file"]).read_bytes()).text).texts:
            yield row["file"], text


def ours(message: Message) -> Segments:
    """Return the segments, each with every leaf that says something."""
    delimiters = message.delimiters
    found: Segments = Counter()
    for segment in message.segments:
        leaves: Leaves = {}
        for field in range(3 if segment.name == "MSH" else 1, len(segment.fields)):
            values = segment.fields[field].split(delimiters.repetition)
            for repetition, value in enumerate(values):
                for component, text in enumerate(value.split(delimiters.component), 1):
                    for part, leaf in enumerate(text.split(delimiters.subcomponent), 1):
                        leaves[field, repetition, component, part] = plain(leaf, delimiters)
        found[segment.name, said(leaves)] += 1
    return found


def theirs(message: Any, like: Message) -> Segments:
    """Return the same of what hl7apy has made. It has the segments in the order of the structure,
    not of the message, so that their order is not compared."""
    found: Segments = Counter()
    for segment in segments(message):
        leaves: Leaves = {}
        repetitions: Counter[int] = Counter()
        for field in segment.children:
            number = numbered(field)
            for component in field.children or [field]:
                for part in getattr(component, "children", None) or [component]:
                    at = numbered(component) if component is not field else 1
                    last = numbered(part) if part is not component else 1
                    text = plain(part.to_er7(), like.delimiters)
                    leaves[number, repetitions[number], at, last] = text
            repetitions[number] += 1
        if segment.name == "MSH":
            leaves = {place: text for place, text in leaves.items() if place[0] > 2}
        found[segment.name, said(leaves)] += 1
    return found


def said(leaves: Leaves) -> frozenset[tuple[tuple[int, int, int, int], str]]:
    """Return what is not empty; numbers as they are written at their shortest: hl7apy makes ``1``
    of ``0001``."""
    return frozenset((place, short(text.strip())) for place, text in leaves.items() if text.strip())


def short(text: str) -> str:
    """Return the shortest form of a number, any other text as it is."""
    try:
        return f"{Decimal(text).normalize():f}" if len(text) < 30 else text
    except (InvalidOperation, ValueError):
        return text


def segments(element: Any) -> Iterator[Any]:
    """Yield the segments below ``element``, groups opened, in the order of the structure."""
    for child in element.children:
        if child.classname == "Group":
            yield from segments(child)
        else:
            yield child


def numbered(element: Any) -> int:
    """Return the place of a child: 3 of ``PID_3``; 1 for one without a name."""
    found = re.search(r"_(\d+)$", element.name or "")
    return int(found[1]) if found else 1


def test_h12_hl7apy_agrees_on_every_leaf_of_what_it_accepts(shared: Path) -> None:
    """One in twenty is accepted at least; a disagreement names the leaf."""
    parser = pytest.importorskip("hl7apy.parser", reason="the extra hl7 is not installed")
    consts = pytest.importorskip("hl7apy.consts")
    accepted = lost = taken = 0
    for name, text in islice(texts(shared / "hl7v2"), MESSAGES):
        taken += 1
        lines = re.sub(r"[\r\n]+", "\r", text)
        try:
            message = parser.parse_message(lines, validation_level=consts.VALIDATION_LEVEL.STRICT)
            message.validate()
        except Exception:  # noqa: BLE001 - it does not accept the message, for whatever reason
            continue
        accepted += 1
        mine = read(text)
        left, right = ours(mine), theirs(message, mine)
        # It loses segments that do not fit the structure, without a word: the others are ours.
        assert not right - left, f"{name}: {right - left}, {left - right}"
        lost += (left - right).total()
    assert accepted >= taken // 20
    assert lost <= accepted // 5
