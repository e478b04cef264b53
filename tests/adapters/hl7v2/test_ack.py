"""HL7 v2.5.1, 2.9.2 and 2.9.3; design/hl7v2.md, section 5; checks H13, H15, H16."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.ack import (
    Fault,
    Header,
    Sent,
    acknowledgement,
    answered,
    asked,
    header_of,
)

SENT = Sent("01234567890123456789", datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC))
MESSAGE = (
    b"MSH|^~\\&|LIS|CLINIC|FHIR|DHAKA|20260102||ORU^R01^ORU_R01|C1|P|2.5.1|||||| UNICODE UTF-8\r"
)


def header(data: bytes = MESSAGE) -> Header:
    """Return the header of ``data``."""
    found = header_of(data)
    assert found is not None
    return found


def with_modes(commit: str, application: str) -> Header:
    """Return a header with MSH-15 and MSH-16."""
    return header(f"MSH|^~\\&|A|B|C|D|||ADT^A01|1|P|2.5|||{commit}|{application}\r".encode())


# MSH-15, MSH-16 -> answers to success, codes of a refusal at the door (for AR), applied at once
MODES = {
    ("", ""): ("AA", "AR", True),
    (" ", "  "): ("AA", "AR", True),
    ("AL", "NE"): ("CA", "CR", False),
    ("AL", ""): ("CA", "CR", False),
    ("SU", "NE"): ("CA", "", False),
    ("AL", "AL"): ("CA AA", "CR", False),
    ("AL", "ER"): ("CA", "CR", False),
    ("NE", "AL"): ("AA", "AR", True),
    ("ER", "AL"): ("AA", "AR", True),
    ("", "AL"): ("AA", "AR", True),
    ("NE", "NE"): ("", "", False),
    ("NE", "ER"): ("", "AR", True),
    ("NE", "SU"): ("AA", "", True),
    ("ER", "NE"): ("", "CR", False),
    ("??", "NE"): ("CA", "CR", False),
}


@pytest.mark.parametrize(("modes", "expected"), MODES.items(), ids=map(str, MODES))
def test_h15_modes(modes: tuple[str, str], expected: tuple[str, str, bool]) -> None:
    """MSH-15 and MSH-16 say what is answered to success, to a refusal, and when."""
    wanted = asked(with_modes(*modes))
    success = ["CA"] if wanted.wants_commit(positive=True) else []
    success += ["AA"] if wanted.wants_application(positive=True) else []

    assert (" ".join(success), wanted.refusal("AR"), wanted.waits) == expected


def test_h13_the_form_of_an_acknowledgement() -> None:
    """MSH and MSA say what section 5 lists, in its places."""
    lines = acknowledgement(header(), "AA", SENT).decode().split("\r")

    assert lines == [
        (
            "MSH|^~\\&|FHIR|DHAKA|LIS|CLINIC|20260102030405.678+0000||ACK^R01^ACK|"
            "01234567890123456789|P|2.5.1|||||| UNICODE UTF-8"
        ),
        "MSA|AA|C1",
        "",
    ]


@pytest.mark.parametrize(("version", "type"), {"2.3.1": "ACK", "2.4": "ACK^R01^ACK"}.items())
def test_h13_msh_9_by_version(version: str, type: str) -> None:
    """Before v2.4 it is ACK alone."""
    data = MESSAGE.replace(b"2.5.1", version.encode())

    assert acknowledgement(header(data), "AA", SENT).split(b"|")[8].decode() == type


@pytest.mark.parametrize(
    "control", ["x" * 199, "ÄÖ-1", "a\\F\\b", "1^2"], ids=["long", "latin-1", "escaped", "parts"]
)
def test_h13_msa_2_is_msh_10_byte_for_byte(control: str) -> None:
    """Whatever MSH-10 is, the sender gets it back as it was."""
    data = MESSAGE.replace(b"C1", control.encode("latin-1"))

    assert answered(acknowledgement(header(data), "AA", SENT)) == ("AA", control)


def test_h10_the_delimiters_of_the_message_are_used() -> None:
    """With all five changed, the acknowledgement is written with them, and its texts escaped."""
    data = b"MSH#!*%$#LIS#CLINIC#FHIR#DHAKA#2026##ADT!A01#C1#P#2.5\r"
    fault = Fault("101", "PID-3 is # and ! missing.", "PID[1]-3")
    msh, msa, err, _ = acknowledgement(header(data), "AE", SENT, [fault]).decode().split("\r")

    assert msh.startswith("MSH#!*%$#FHIR#DHAKA#LIS#CLINIC#")
    assert msa == "MSA#AE#C1"
    assert err.split("#")[2:5] == ["PID!1!3", "101!Required field missing!HL70357", "E"]
    assert err.endswith("PID-3 is %F% and %S% missing.")


def test_h16_faults_before_version_25() -> None:
    """ERR-1 has segment, number, field and code; MSA-3 the text."""
    data = MESSAGE.replace(b"2.5.1", b"2.3")
    fault = Fault("102", "No date.", "OBX[3]-14")
    _, msa, err, _ = acknowledgement(header(data), "AE", SENT, [fault]).decode().split("\r")

    assert msa == "MSA|AE|C1|No date."
    assert err == "ERR|OBX^3^14^102&Data type error&HL70357"


@pytest.mark.parametrize(
    "data",
    [b"", b"PID|1\r", b"MSH", b"MSH\r", b"MSHA", b"\x00MSH|", b"EVN|\rMSH|^~\\&|\r"],
)
def test_h3_what_has_no_header(data: bytes) -> None:
    """It is no message; its acknowledgement has an empty MSA-2."""
    assert header_of(data) is None
    assert b"\rMSA|AR|\r" in acknowledgement(None, "AR", SENT)


@pytest.mark.parametrize("before", [b"", b"\r\n", b"\xef\xbb\xbf", b" \n"])
def test_h9_what_may_come_before_a_header(before: bytes) -> None:
    """Blank lines and a byte order mark are skipped."""
    assert header(before + MESSAGE).control_id == "C1"


@given(st.binary(max_size=300))
def test_h11_any_bytes_have_an_acknowledgement(rest: bytes) -> None:
    """Whatever the header holds, the acknowledgement is a message with one MSA of ours."""
    found = header_of(b"MSH|" + rest)
    answer = acknowledgement(found, "AE", SENT, [Fault("207", "Kept.", "MSH[1]-10")])
    lines = answer.split(b"\r")

    assert lines[0].startswith(b"MSH")
    assert sum(line.startswith(b"MSA") for line in lines) == 1
    assert len(answer) < 4000
    if found is not None:
        assert answered(answer)[0] in ("AE", "") or len(set(found.delimiters)) < 5
