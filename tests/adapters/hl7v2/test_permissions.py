"""design/hl7v2.md, sections 18, 21 and 24: ``peers``, ``principal``, ``accept``, ``ack``; queries.

Checks H15, H67, H71, H74.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from adapters.hl7v2.ack import answered
from adapters.hl7v2.frame import Frame, Framer, framed
from adapters.hl7v2.permissions import is_bound, may_use
from adapters.hl7v2.senders import ProfileFault, profile_of
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from tests.adapters.hl7v2.conftest import Peer, Site, adt, oru


@pytest.fixture
async def peer(lasting_site: Site) -> AsyncIterator[Peer]:
    """A peer on loopback of the site that all tests here share."""
    peer = await lasting_site.peer()
    yield peer
    peer.close()


async def told(peer: Peer, message: bytes) -> tuple[str, str, str]:
    """Send ``message``; return MSA-1, ERR-2 and the first component of ERR-3 of the answer."""
    await peer.send(message)
    answer = await peer.answer()
    errors = [line.split("|") for line in answer.decode().split("\r") if line.startswith("ERR")]
    error = errors[0] if errors else ["", "", "", ""]
    return answered(answer)[0], error[2], error[3].partition("^")[0]


# ------------------------------------------------------------------------------------------ peers

NAMES = frozenset(("DNS:lis.acme.example", "SHA-256:" + "ab" * 32))
# peers, address, names of the certificate -> whether it may send
PEERS: dict[str, tuple[dict[str, Any], str, frozenset[str], bool]] = {
    "nothing listed": ({}, "10.9.9.9", frozenset(), True),
    "in the network": ({"addresses": ["10.2.0.0/16"]}, "10.2.3.4", frozenset(), True),
    "beside it": ({"addresses": ["10.2.0.0/16"]}, "10.3.0.1", frozenset(), False),
    "nobody": ({"addresses": []}, "10.3.0.1", frozenset(), False),
    "IPv6": ({"addresses": ["fd00::/8"]}, "fd00::1%eth0", frozenset(), True),
    "IPv4 in IPv6": ({"addresses": ["10.2.0.0/16"]}, "::ffff:10.2.3.4", frozenset(), True),
    "no address": ({"addresses": ["10.2.0.0/16"]}, "", frozenset(), False),
    "by name": ({"certificates": ["DNS:LIS.acme.example"]}, "1.1.1.1", NAMES, True),
    "by fingerprint": (
        {"certificates": ["sha256:" + ":".join(["AB"] * 32)]}, "1.1.1.1", NAMES, True,
    ),
    "another name": ({"certificates": ["DNS:acme.example"]}, "1.1.1.1", NAMES, False),
    "no certificate": (
        {"certificates": ["DNS:lis.acme.example"]}, "1.1.1.1", frozenset(), False,
    ),
    "both, one fits": (
        {"addresses": ["10.2.0.0/16"], "certificates": ["DNS:lis.acme.example"]},
        "1.1.1.1", NAMES, False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("peers", "address", "names", "may"), PEERS.values(), ids=PEERS)
def test_h74_who_may_send_as_a_sender(
    peers: dict[str, Any], address: str, names: frozenset[str], may: bool
) -> None:
    """By network, by subject alternative name, by fingerprint; both where both are listed."""
    assert may_use(peers, address, names) is may


def test_h74_no_certificate_is_bound_to_nobody() -> None:
    """An empty list of certificates binds none."""
    assert not is_bound({}, NAMES)
    assert not is_bound({"certificates": []}, NAMES)


async def test_h74_a_foreign_sender_is_refused_recorded_and_logged(
    lasting_site: Site, peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    """AR 207 at MSH-3; the row is rejected and kept; nothing is written; others go on."""
    await lasting_site.profile("FAR", peers={"addresses": ["10.2.0.0/16"]})
    await lasting_site.profile("NEAR", peers={"addresses": ["127.0.0.0/8"]})
    with caplog.at_level(logging.WARNING, logger="fhir_server.hl7v2"):
        refused = await told(peer, adt("FAR1", "FAR-P", m3="FAR"))
    *_, row = await lasting_site.rows()

    assert refused == ("AR", "MSH^1^3", "207")
    assert (row["state"], row["control_id"]) == ("rejected", "FAR1")
    assert await lasting_site.search("Patient", identifier="FAR-P") == []
    assert "127.0.0.1 has sent as a sender" in caplog.text
    assert await peer.ask(adt("NEAR1", m3="NEAR")) == "AA"
    assert await peer.ask(adt("OTHER1", m3="OTHER")) == "AA"


# -------------------------------------------------------------------------------------- principal


async def test_h74_a_sender_writes_only_the_types_of_its_principal(
    lasting_site: Site, peer: Peer
) -> None:
    """An admission of a laboratory is AR 201, and nothing of it is written."""
    types = {"Patient": "cru", "Observation": "cru", "DiagnosticReport": "cru"}
    await lasting_site.profile("LABP", principal={"types": types})
    visit = adt("LABP1", "LABP-P", m3="LABP") + b"PV1|1|I|W1||||||||||||||||V1^^^LABP\r"

    assert await told(peer, visit) == ("AR", "MSH^1^9", "201")
    *_, row = await lasting_site.rows()
    assert row["state"] == "rejected"
    assert await lasting_site.search("Patient", identifier="LABP-P") == []


async def test_h74_what_a_message_mentions_in_passing_is_left_out(
    lasting_site: Site, peer: Peer
) -> None:
    """The order behind a result is not this sender's to write: the result is, and names none."""
    types = {"Patient": "c", "Observation": "c", "DiagnosticReport": "c"}
    await lasting_site.profile("LABQ", principal={"types": types})

    assert await peer.ask(oru("LABQ1", "LABQ-P", filler="LABQ-F", m3="LABQ")) == "AA"
    *_, row = await lasting_site.rows()
    [report] = await lasting_site.search("DiagnosticReport", identifier="LABQ-F")
    assert {one["reference"].split("/")[0] for one in row["made"]} == set(types)
    assert "not-allowed" in [one["code"] for one in row["issues"]]
    assert "basedOn" not in report
    assert await lasting_site.search("ServiceRequest", identifier="LABQ-F") == []
    # The letters count: what may be created may not be changed.
    changed = oru("LABQ2", "LABQ-P", filler="LABQ-F", m3="LABQ").replace(b"|2.50|", b"|3.50|")
    assert await told(peer, changed) == ("AR", "MSH^1^9", "201")


# ----------------------------------------------------------------------------------------- accept


async def test_h74_types_processing_and_receivers_are_those_of_the_profile(
    lasting_site: Site, peer: Peer
) -> None:
    """What is not listed is refused at the door."""
    receivers = [{"application": "FHIR", "facility": "DHA*"}]
    accept = {"types": ["ADT^A08"], "processing": ["T"], "receivers": receivers}
    await lasting_site.profile("ACC", accept=accept)

    assert await told(peer, adt("ACC1", m3="ACC")) == ("AR", "MSH^1^11", "202")
    assert await told(peer, oru("ACC2", m3="ACC", m11="T")) == ("AR", "MSH^1^9", "201")
    other = adt("ACC3", m3="ACC", m11="T", m6="KHULNA")
    assert await told(peer, other) == ("AR", "MSH^1^5", "207")
    assert await peer.ask(adt("ACC4", m3="ACC", m11="T")) == "AA"


FAULTS: dict[str, Any] = {
    "peers": {"addresses": ["10.2.0.0/33"]},
    "peers.certificates": {"peers": {"certificates": ["lis.example"]}},
    "64 hexadecimal": {"peers": {"certificates": ["SHA-256:abcd"]}},
    "principal.types": {"principal": {"types": {"Patient": "write"}}},
    "types": {"principal": {"roles": []}},
    "accept.query": {"accept": {"query": "yes"}},
    "accept.kinds": {"accept": {"kinds": []}},
    "accept.receivers": {"accept": {"receivers": ["FHIR"]}},
    "ack.to": {"ack": {"to": "http://evil.example/"}},
    "mllps://": {"ack": {"to": "mllp://host:99999"}},
    "ack.warnings": {"ack": {"warnings": 1}},
}


@pytest.mark.parametrize(("said", "member"), FAULTS.items(), ids=FAULTS)
def test_h67_a_member_that_cannot_be_is_refused(said: str, member: dict[str, Any]) -> None:
    """With a sentence that names it."""
    members = {"peers": member} if said == "peers" else member
    with pytest.raises(ProfileFault, match=said):
        profile_of({"name": "a", "match": [{"application": "A"}], **members})


# ---------------------------------------------------------------------------------------- answers


async def test_warnings_come_with_a_positive_answer_only_if_they_are_wanted(
    lasting_site: Site, peer: Peer
) -> None:
    """As ERR of severity W, from v2.5 on; without text of the message."""
    await lasting_site.profile("WARN", ack={"warnings": True})

    async def lines(message: bytes) -> list[str]:
        await peer.send(message.replace(b"19800101", b"19800231"))
        return (await peer.answer()).decode().split("\r")

    warned = await lines(adt("WARN1", "W-P", m3="WARN"))
    assert warned[1].startswith("MSA|AA|WARN1")
    [error] = [line.split("|") for line in warned if line.startswith("ERR")]
    assert (error[2], error[4]) == ("PID^1^7", "W")
    assert "0231" not in "".join(warned)
    for silent in (adt("WARN2", "W-P", m3="WARN", m12="2.3"), adt("SAME1", "W-P", m3="SAME")):
        assert not [line for line in await lines(silent) if line.startswith("ERR")]


class Elsewhere:
    """Another address: it takes what is sent, and answers ``CA``."""

    def __init__(self) -> None:
        self.received: asyncio.Queue[bytes] = asyncio.Queue()
        self.refusals = 0
        self.address = ""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one frame."""
        if self.refusals:
            self.refusals -= 1
            writer.close()
            return
        framer = Framer()
        frames: list[Frame] = []
        while not frames and (data := await reader.read(65536)):
            frames = framer.receive(data)
        for frame in frames:
            self.received.put_nowait(frame.data)
        writer.write(framed(b"MSH|^~\\&|||||||ACK|1|P|2.5\rMSA|CA|1\r"))
        await writer.drain()
        writer.close()

    async def next(self) -> tuple[str, str]:
        """Return MSA-1 and MSA-2 of what comes next."""
        async with asyncio.timeout(20):
            return answered(await self.received.get())


@pytest.fixture
async def elsewhere() -> AsyncIterator[Elsewhere]:
    """A receiver of acknowledgements."""
    made = Elsewhere()
    server = await asyncio.start_server(made.connected, "127.0.0.1", 0)
    made.address = f"mllp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    server.close()


async def test_h15_application_acknowledgements_go_where_the_profile_says(
    lasting_site: Site, peer: Peer, elsewhere: Elsewhere
) -> None:
    """In enhanced mode: the commit on the connection, the outcome there, positive or not."""
    await lasting_site.profile("ELSE", ack={"to": elsewhere.address})
    elsewhere.refusals = 1  # it is tried again
    assert await peer.ask(adt("E1", m3="ELSE", m15="AL", m16="AL")) == "CA"
    assert await elsewhere.next() == ("AA", "E1")
    bad = adt("E2", m3="ELSE", m15="AL", m16="AL").partition(b"PID|")[0]
    assert await peer.ask(bad) == "CA"
    assert await elsewhere.next() == ("AE", "E2")
    await peer.send(adt("E3", m3="ELSE", m15="NE", m16="AL"))
    assert await elsewhere.next() == ("AA", "E3")
    # What the original mode answers belongs to the connection; and E3 had no answer on it.
    assert await peer.ask(adt("E4", m3="ELSE")) == "AA"
    assert elsewhere.received.empty()


async def test_h74_who_may_not_use_a_profile_has_nothing_sent_to_its_address(
    lasting_site: Site, peer: Peer, elsewhere: Elsewhere
) -> None:
    """The refusal stays on the connection."""
    await lasting_site.profile(
        "ELSE2", ack={"to": elsewhere.address}, peers={"addresses": ["10.0.0.0/8"]}
    )

    assert await peer.ask(adt("F1", m3="ELSE2", m15="NE", m16="AL")) == "AR"
    assert elsewhere.received.empty()


# ---------------------------------------------------------------------------------------- queries

FIND = "QPD|Q22^Find Candidates^HL7|T1|"


def query(control: str, event: str, *segments: str, sender: str = "ASK", **more: str) -> bytes:
    """Return a QBP."""
    message = adt(control, type=f"QBP^{event}", m3=sender, **more).decode()
    return "".join(f"{line}\r" for line in (message.partition("\r")[0], *segments)).encode()


async def replied(peer: Peer, message: bytes, codec: str = "utf-8") -> list[list[str]]:
    """Send a query; return the segments of its answer, cut into fields."""
    await peer.send(message)
    return [line.split("|") for line in (await peer.answer()).decode(codec).split("\r") if line]


@pytest.fixture
async def asking(lasting_site: Site) -> Site:
    """The site, with a sender that may ask, and three patients of one family."""
    await lasting_site.profile("ASK", accept={"query": True}, charset="UNICODE UTF-8")
    peer = await lasting_site.peer()
    for number in ("Q1", "Q2", "Q3"):
        assert await peer.ask(adt(f"MAKE-{number}-{id(peer)}", number, "Queried")) == "AA"
    return lasting_site


async def test_h71_a_query_is_answered_with_those_found(asking: Site, peer: Peer) -> None:
    """K22 with a PID for each, at most RCP-2; nothing is kept of it."""
    before = len(await asking.rows())
    found = await replied(peer, query("A1", "Q22", FIND + "@PID.5.1^Queried", "RCP|I|2"))
    names = [fields[0] for fields in found]

    assert names == ["MSH", "MSA", "QAK", "QPD", "PID", "PID"]
    assert found[0][8] == "RSP^K22^RSP_K22"
    assert found[1][1:3] == ["AA", "A1"]
    assert found[2][1:7] == ["T1", "OK", "", "3", "2", "1"]
    assert "|".join(found[3]) == FIND + "@PID.5.1^Queried"
    assert found[4][5].startswith("Queried^Karim")
    assert len(await asking.rows()) == before


async def test_h71_a_person_is_found_by_number(asking: Site, peer: Peer) -> None:
    """Q21 with demographics, Q23 with the numbers alone; nobody is NF."""
    by_number = "QPD|Q21^Get Person^HL7|T2|Q1^^^CLINIC"
    [*_, k21] = await replied(peer, query("B1", "Q21", by_number))
    [header, _, ok, _, k23] = await replied(peer, query("B2", "Q23", by_number))
    [_, msa, nobody, _] = await replied(peer, query("B3", "Q21", "QPD|Q21|T3|none^^^CLINIC"))

    assert (k21[3], k21[7]) == ("Q1^^^CLINIC^MR", "19800101")
    assert header[8] == "RSP^K23^RSP_K23"
    assert ok[2] == "OK"
    assert len(k23) == 4
    assert (msa[1], nobody[2]) == ("AA", "NF")


async def test_h71_a_query_that_cannot_be_asked_is_told(asking: Site, peer: Peer) -> None:
    """AE in MSA and QAK, with the field; an unknown field is not left out in silence."""
    found = await replied(peer, query("C1", "Q22", FIND + "@PID.13^555~@PID.5.1^Queried"))
    names = {fields[0]: fields for fields in found}

    assert (names["MSA"][1], names["QAK"][2]) == ("AE", "AE")
    assert names["ERR"][3].startswith("103")
    assert "PID" not in names


async def test_h71_a_name_that_the_charset_lacks_comes_in_utf_8(asking: Site, peer: Peer) -> None:
    """And MSH-18 says so: no character is replaced."""
    made = adt(f"C5-{id(peer)}", "Q9", "রহমান", m18="UNICODE UTF-8")
    assert await peer.ask(made) == "AA"
    found = await replied(peer, query("C6", "Q21", "QPD|Q21|T|Q9^^^CLINIC", m18="8859/1"))

    assert found[0][17] == "UNICODE UTF-8"
    assert found[-1][5].startswith("রহমান")


async def test_h71_who_may_not_ask_is_refused(asking: Site, peer: Peer) -> None:
    """Without ``accept.query``, without a profile, and without the right to read a Patient."""
    await asking.profile("MUTE", accept={"types": ["QBP^Q22"]})
    await asking.profile("BLIND", accept={"query": True}, principal={"types": {"Patient": "cu"}})
    asked = FIND + "@PID.5.1^Queried"

    for number, sender in enumerate(("MUTE", "NOBODY")):
        refused = await told(peer, query(f"D{number}", "Q22", asked, sender=sender))
        assert refused == ("AR", "MSH^1^9", "201")
        *_, row = await asking.rows()
        assert row["state"] == "rejected"
    found = await replied(peer, query("D9", "Q22", asked, sender="BLIND"))
    assert [fields[0] for fields in found] == ["MSH", "MSA", "ERR", "QAK", "QPD"]


async def test_a_query_is_what_the_front_door_is_asked(asking: Site) -> None:
    """A value of a query is a value: none of it becomes part of the search."""
    peer = await asking.peer()
    for wild in ("*", "Queried,Rahman", "Queried|x", "$ne"):
        escaped = wild.replace("|", "\\F\\")
        found = await replied(peer, query(f"G{wild[0]}", "Q22", FIND + f"@PID.5.1^{escaped}"))
        assert found[2][2] == "NF"
    with pytest.raises(FhirError):
        await asking.server.perform(Request("search-type", "Patient", parameters=(("x", "y"),)))
