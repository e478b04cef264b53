"""design/hl7v2.md, sections 11, 17 and 26: the shared messages, their facts, the guide's rows (H45,
H64, H66, H76, H80). What the server adds is tested with the server."""

import csv
import importlib.util
import json
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from adapters.hl7v2 import messages
from adapters.hl7v2.changes import HANDLE
from adapters.hl7v2.charset import decoded
from adapters.hl7v2.identity import IdentityRules
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Message, Segment, batch, read, write
from adapters.hl7v2.segments.skipped import is_skipped
from adapters.hl7v2.senders import Profile
from fhir_server.artifacts import artifacts_root
from fhir_server.r4.definitions import load_definitions
from fhir_server.validation.structure import StructureValidator
from tests.adapters.memory import Memory
from tests.adapters.texts import header

MUST_MIN, TYPE_MIN, SHOULD_MIN = 0.995, 0.99, 0.92


@pytest.fixture(scope="module")
def validator() -> StructureValidator:
    """The server's own validator."""
    return StructureValidator(load_definitions(artifacts_root()))


def _texts(folder: Path) -> Iterator[tuple[str, str]]:
    with (folder / "index.csv").open(encoding="utf-8", newline="") as index:
        for row in csv.DictReader(index):
            for text in batch(decoded((folder / row["file"]).read_bytes()).text).texts:
                yield row["file"], text


def test_h64_every_resource_of_every_shared_message_is_valid(
    shared: Path, validator: StructureValidator
) -> None:
    """No errors, no handle left, and never another exception than a refusal."""
    refused: Counter[int] = Counter()
    anonymous = Profile(identity=IdentityRules(anonymous="create"))
    for name, text in _texts(shared / "hl7v2"):
        memory = Memory(anonymous)
        try:
            memory.take(text)
        except MessageFault as fault:
            refused[fault.error_code] += 1
            continue
        for resource in memory.resources.values():
            faults = [issue.diagnostics for issue in validator.issues(resource)]
            assert not faults, f"{name}: {resource['resourceType']}: {faults}"
            assert f'"{HANDLE}' not in json.dumps(resource, default=str), name
    # Without a patient, or no message type that is applied.
    assert set(refused) == {100, 200}
    assert sum(refused.values()) < 60


_ODD = (
    *('""', "", " ", "x", "0", "-1", "20240231", "99999999999999", "^", "&", "~", "^^^", "\\", "é"),
    *("a&b&c^d&e^f", "\\X00\\", "\\.br\\", "N", "Z" * 1100, "<5", "20240101120000+9999", '"'),
    *(
        "1^2^3^4^5^6^7^8^9^10^11^12^13^14",
        "http://a b",
        "٣",
        "²",
        "20240101^20230101",
        "-5^7",
        "1.",
    ),
)


def test_any_change_of_a_message_is_taken_or_refused(
    shared: Path, validator: StructureValidator
) -> None:
    """Whatever stands in its fields: no exception, nothing invalid, and twice is once."""
    chance = random.Random(6)
    texts = [text for _, text in _texts(shared / "hl7v2") if len(text) < 10_000]
    profile = Profile(identity=IdentityRules(anonymous="create"), us_core=True)
    for _ in range(500):
        message = read(chance.choice(texts))
        for _ in range(chance.randint(1, 20)):
            segment = chance.choice(message.segments[1:] or message.segments)
            place = chance.randint(1, 25)
            segment.fields.extend([""] * (place + 1 - len(segment.fields)))
            if segment.name != "MSH":
                segment.fields[place] = chance.choice(_ODD)
        memory = Memory(profile)
        try:
            memory.take(write(message))
            written = len(memory.history)
            memory.take(write(message))
        except MessageFault:
            continue
        assert len(memory.history) == written, write(message)
        for resource in memory.resources.values():
            assert not validator.issues(resource), write(message)


def test_h80_the_facts_of_the_shared_messages(shared: Path) -> None:
    """The share of facts that the pure half meets, as a whole and by type of resource."""
    facts = _module(shared / "hl7v2" / "facts.py")
    met: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    for file in sorted((shared / "hl7v2" / "facts").glob("*.json")):
        expected = json.loads(file.read_text(encoding="utf-8"))
        data = (shared / "hl7v2" / expected["message"]).read_bytes()
        sent = facts.Message(next(facts.messages(facts.decode(data)[0])))
        seen = facts.suffix_message(sent, "T1", complete=True)
        memory = Memory()
        assert not memory.take(sent.encode()).held, file.name
        for one in expected["expect"]:
            for level, good in _verdicts(facts, memory, one, seen):
                met[level, one["resource"]][good] += 1
    for (level, type), counts in met.items():
        if level == "must":
            assert counts[True] / counts.total() >= TYPE_MIN, type
    for level, least in (("must", MUST_MIN), ("should", SHOULD_MIN)):
        counts = sum((c for (lev, _), c in met.items() if lev == level), Counter())
        assert counts[True] / counts.total() >= least, level


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hl7v2_facts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _verdicts(
    facts: ModuleType, memory: Memory, expected: dict[str, Any], seen: set[str]
) -> list[tuple[str, bool]]:
    candidates: list[Any] = []
    for type in expected["resource"].split("|"):
        if type == "Patient.contact":
            candidates += [one for p in memory.all("Patient") for one in p.get("contact", ())]
        else:
            candidates += memory.all(type)
    anchor = facts.suffix_shape(expected["anchor"], seen, "T1")
    shapes = [facts.suffix_shape(fact["shape"], seen, "T1") for fact in expected["facts"]]
    matcher = facts.Matcher(lambda named: memory.resources.get(tuple(named.split("/"))), None)
    found = matcher.best(candidates, anchor, shapes) or [False] * len(shapes)
    levels = [fact["level"] for fact in expected["facts"]]
    return list(zip(levels, found, strict=True))


def test_h66_the_count_of_unmapped_fields(shared: Path) -> None:
    """Equal to an independent count: valued, not read, not left out for a reason."""
    for name, text in _texts(shared / "hl7v2"):
        message = read(text)
        found = messages.changes_of(message, Profile()).unmapped
        counted: Counter[str] = Counter()
        for segment in message.segments:
            for number, field in enumerate(segment.fields):
                says = field.strip(' "^~&|')
                if number and says and number not in segment.read:
                    counted[f"{segment.name}-{number}"] += not is_skipped(segment.name, number)
        assert found == dict(+counted), name


# ------------------------------------------------------------------------------ the guide's rows


def _full(name: str, **fields: str) -> str:
    """Return a segment whose every field says something."""
    written = dict.fromkeys(range(1, 61), "1^2^3")
    written |= {int(n[1:]): text for n, text in fields.items()}
    return "|".join([name, *(written[n] for n in range(1, 61))])


_PID = _full("PID", f3="1^^^A^MR", f7="198001010101", f25="2", f26="")
_OTHER = _full("PID", f3="", f2="1", f25="", f29="", f26="")
_CASES = [
    ("ADT^A01", _PID, *(_full(n) for n in "PD1 NK1 PV1 PV2 AL1 IAM DG1 PR1 IN1 PRB".split())),
    ("ADT^A01", _OTHER, _full("PV1")),
    ("ADT^A34", _PID, _full("MRG")),
    ("ADT^A41", _PID, _full("MRG")),
    ("ADT^A50", _PID, _full("MRG"), _full("PV1")),
    ("ORU^R01", _PID, *(_full(n) for n in "ORC OBR NTE TQ1 SPM SAC".split()),
     _full("OBX", f2="NM", f11="F")),
    ("ORU^R01", _PID, _full("OBR"), _full("OBX", f2="ST", f11="F")),
    ("ORM^O01", _PID, _full("ORC", f5=""), *(_full(n) for n in "RXO RXE RXR TQ1".split())),
    ("RDS^O13", _PID, _full("ORC"), _full("RXD")),
    ("RAS^O17", _PID, _full("ORC"), _full("RXA"), _full("RXR")),
    ("VXU^V04", _PID, _full("ORC"), _full("RXA"), _full("RXR")),
    ("SIU^S12", _full("SCH"), _full("NTE"), _PID, *(_full(n) for n in "AIS AIG AIL AIP".split())),
    ("MDM^T02", _PID, _full("TXA"), _full("OBX", f2="TX")),
    ("DFT^P03", _PID, _full("FT1", f6="CG", f25="")),
]  # fmt: skip


def test_h76_each_row_of_the_guide_is_mapped_or_left_out_for_a_reason(shared: Path) -> None:
    """No open rows."""
    read_fields: dict[str, set[int]] = defaultdict(set)
    for kind, *segments in _CASES:
        message = read("\r".join([header(kind), *segments]))
        assert messages.changes_of(message, Profile()).fault is None
        for segment in message.segments:
            read_fields[segment.name] |= segment.read
    still_open = set()
    with (shared / "hl7v2" / "ig" / "segments.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            found = re.match(r"([A-Z0-9]{3})-(\d+)", row["v2"])
            if found:
                name, field = found[1], int(found[2])
                if field not in read_fields[name] and not is_skipped(name, field):
                    still_open.add((name, field))
    assert not still_open


def test_reading_marks_fields_of_a_segment() -> None:
    """The report of unmapped fields rests on it."""
    segment = Segment(["PID", "1", "2"], read(header("ADT^A08")).delimiters)
    assert segment.text(2) == "2"
    assert segment.read == {2}
    assert isinstance(read(header("ADT^A08")), Message)
