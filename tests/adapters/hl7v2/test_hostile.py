"""design/hl7v2.md, sections 4, 5, 23 and 24: messages as they must not be. Checks H3, H73, H75.

Each gets AA, AE or AR, with a sentence where it is not AA, or its connection is closed; the next
message is taken; memory stays bounded.
"""

import os
import random
import resource
from collections.abc import Iterator

import pytest

from adapters.hl7v2.ack import answered
from tests.adapters.hl7v2.conftest import Site, adt, oru

MUTATIONS = int(os.environ.get("FHIR_TEST_HL7_MUTATIONS", "150"))
MEMORY_KIB_MAX = 400 * 1024
BASE = [oru("BASE", "P1", 5), adt("BASE", m18="UNICODE UTF-8"), oru("BASE", m12="2.3")]


def fields(count: int) -> bytes:
    """Return a message with a PID of so many fields."""
    return adt("HUGE1").rstrip(b"\r") + b"|x" * count + b"\r"


# What is sent -> the answers that are right
HOSTILE: dict[str, tuple[bytes, str]] = {
    "10,000 results": (oru("OBX10000", "P10000", 10_000, "F10000"), "AA"),
    "more segments than taken": (oru("SEGS") + b"NTE|1||x\r" * 20_001, "AR"),
    "endless repetitions": (adt("REPS").replace(b"P1^^^CLINIC^MR", b"P1~" * 1500), "AR"),
    "many fields": (fields(5000), "AA AE"),
    "a field of a megabyte": (adt("MEG", family="x" * 1_000_000), "AA AE"),
    "binary in OBX-5": (oru("BIN").replace(b"|2.50|", bytes([1, 2, 7, 27, 127]) + b"|"), "AA AE"),
    "high bytes in OBX-5": (oru("HIGH").replace(b"2.50", bytes(range(128, 256))), "AA AE"),
    "the wrong charset": (oru("CS", m18="UNICODE UTF-8").replace(b"2.50", b"\xff\xfe"), "AE"),
    "all delimiters alike": (b"MSH|||||" + adt("DEL")[8:], "AR AE CR"),
    "delimiters of letters": (adt("LET").replace(b"|^~\\&|", b"|ABCD|"), "AR"),
    "escapes without end": (oru("ESC").replace(b"2.50", b"\\X" + b"41" * 20_000), "AA AE"),
    "deep nothing": (adt("DEEP") + b"ZZZ|" + b"^&~" * 100_000 + b"\r", "AA AE AR"),
    "a null byte": (adt("NUL", family="a\x00b"), "AA AE"),
    "keys of a database": (adt("KEY", "$ne", "{$gt: 1}"), "AA"),
    "a path": (adt("../../etc", "../x", "<script>"), "AA"),
    "dates of no calendar": (adt("DATE").replace(b"19800101", b"20260231"), "AA"),
    "a number of 400 digits": (oru("NUM").replace(b"2.50", b"9" * 400), "AA"),
}


@pytest.mark.parametrize(("message", "codes"), HOSTILE.values(), ids=HOSTILE)
async def test_h73_what_must_not_be_is_answered(
    lasting_site: Site, message: bytes, codes: str
) -> None:
    """As said, with a sentence; and the connection goes on."""
    peer = await lasting_site.peer()
    await peer.send(message)
    answer = await peer.answer()
    code, _ = answered(answer)

    assert code in codes.split(), answer
    assert code == "AA" or b"ERR|" in answer.replace(answer[3:4], b"|")
    assert await peer.ask(adt(f"AFTER-{id(message)}-{random.random()}")) == "AA"
    peer.close()


def mutated(count: int) -> Iterator[bytes]:
    """Yield messages with a few bytes changed, cut or doubled; the same ones every time."""
    chance = random.Random(6)
    for number in range(count):
        data = bytearray(chance.choice(BASE).replace(b"BASE", b"M%d" % number))
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(data))
            match chance.randrange(4):
                case 0:
                    data[place] = chance.choice(b'|^~\\&\r\n"\x00\xff A9')
                case 1:
                    del data[place : place + chance.randrange(1, 30)]
                case 2:
                    data[place:place] = data[place : place + chance.randrange(1, 40)]
                case 3:
                    del data[max(place, 20) :]
        yield bytes(data).replace(b"\x0b", b"").replace(b"\x1c", b"")


async def test_h75_mutations_are_answered_one_by_one(lasting_site: Site) -> None:
    """Each gets one answer, nothing is a fault of ours, and memory stays what it was."""
    peer = await lasting_site.peer()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for message in mutated(MUTATIONS):
        await peer.send(message)
        answer = await peer.answer()
        row = await lasting_site.newest()
        assert answered(answer)[0] in ("AA", "AE", "AR", "CA", "CE", "CR"), message
        issues = row.get("issues", ())
        assert "mapping-invalid" not in [one["code"] for one in issues], (message, issues)
        assert b"207^" not in answer or b"over" in answer, (message, answer)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB_MAX
    peer.close()
