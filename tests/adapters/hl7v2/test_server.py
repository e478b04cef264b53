"""design/hl7v2.md, sections 3, 5 to 7, 23: what a peer on MLLP meets.

Checks H1 to H4, H14 to H17, H20, H21, H26, H27, H33, H72 to H74.
"""

import asyncio
import os
import time
from base64 import b64encode
from typing import Any

import pytest

from adapters.hl7v2.ack import answered, header_of
from adapters.hl7v2.frame import framed
from adapters.hl7v2.inbox import Intake
from adapters.hl7v2.reading import Arrival
from tests.adapters.hl7v2.conftest import OpenSite, Peer, Site, adt, control_of, oru

MIB = 1_048_576
READS = int(os.environ.get("FHIR_TEST_HL7_READS", "20"))


async def test_h1_three_frames_in_one_write_are_answered_in_order(site: Site) -> None:
    """Blanks and line ends between frames, and any segment end, make no difference."""
    peer = await site.peer()
    messages = [adt(f"A{n}", f"P{n}") for n in range(3)]
    messages[1] = messages[1].replace(b"\r", b"\n")
    messages[2] = messages[2].replace(b"\r", b"\r\n")
    await peer.raw(b"\r\n ".join(map(framed, messages)))

    assert [answered(await peer.answer()) for _ in messages] == [("AA", f"A{n}") for n in range(3)]
    assert len(await site.search("Patient")) == 3


async def test_h2_peers_that_stop_in_mid_frame_hold_up_nobody(open_site: OpenSite) -> None:
    """Fifty of them: another is answered at once, and they are closed after the limit."""
    site = await open_site(hl7_frame_s_max=1.0, hl7_connections_per_address_max=60)
    stuck = [await site.peer() for _ in range(50)]
    for peer in stuck:
        await peer.raw(b"\x0bMSH|^~\\&|")
    other = await site.peer()
    await other.ask(adt("A0"))
    began = time.monotonic()
    assert await other.ask(adt("A1")) == "AA"
    assert time.monotonic() - began < 1

    assert [await peer.answer() for peer in stuck] == [b""] * 50
    assert await other.ask(adt("A2")) == "AA"


async def test_h2_a_byte_now_and_then_does_not_keep_a_frame_open(open_site: OpenSite) -> None:
    """After the limit an unfinished frame must not be slower than 1 KiB/s."""
    site = await open_site(hl7_frame_s_max=0.5)
    peer = await site.peer()
    await peer.raw(b"\x0bMSH")
    closed = asyncio.create_task(peer.answer())
    for _ in range(40):
        if closed.done():
            break
        await asyncio.sleep(0.05)
        if not closed.done():
            await peer.raw(b"x")

    assert await asyncio.wait_for(closed, 5) == b""


# frame -> MSA-1, ERR-3; the connection works afterwards
REFUSED = {
    "no header": (b"PID|1||1\r", "AR", "100"),
    "empty": (b"", "AR", "100"),
    "cut short": (b"MSH|^~\\", "AR", "101"),
    "no control id": (adt(""), "AR", "101"),
    "control id of blanks": (adt("  "), "AR", "101"),
    "null control id": (adt('""'), "AR", "101"),
    "endless control id": (adt("x" * 300), "AR", "102"),
    "processing id": (adt("X1", m11="X"), "AR", "202"),
    "version": (adt("X2", m12="3.0"), "AR", "203"),
    "in pieces by MSH-14": (adt("X3", m14="1").partition(b"PID|")[0], "AE", "100"),
    "in pieces by DSC": (adt("X4") + b"DSC|1|F\r", "AE", "100"),
    "two headers": (adt("X5") + adt("X6"), "AR", "100"),
    "charset unknown": (adt("X7", m18="KLINGON"), "AE", "102"),
    "charset that does not fit": (
        adt("X8", m18="UNICODE UTF-8").replace(b"Rahman", b"R\xe9"),
        "AE",
        "102",
    ),
    "type not supported": (adt("X9", type="XYZ^Z99"), "AR", "200"),
    "event not supported": (adt("X10", type="ADT^A20"), "AR", "201"),
    "no identifier": (adt("X11").replace(b"P1^^^CLINIC^MR", b""), "AE", "101"),
    "no PID": (adt("X12").partition(b"PID|")[0], "AE", "100"),
}


@pytest.mark.parametrize(("message", "code", "condition"), REFUSED.values(), ids=REFUSED)
async def test_h16_what_is_refused_is_told_and_kept(
    lasting_site: Site, message: bytes, code: str, condition: str
) -> None:
    """MSA-1, ERR-3 and the state of the row are those of the table; the connection goes on."""
    peer = await lasting_site.peer()
    await peer.send(message)
    answer = await peer.answer()
    [error] = [line for line in answer.decode().split("\r") if line.startswith("ERR")]
    row = await lasting_site.newest()

    assert answered(answer)[0] == code
    assert f"{condition}^" in error or f"^{condition}&" in error
    assert row["state"] == ("rejected" if code == "AR" else "dead")
    assert (row["raw"] if message else b"") == message
    assert b"Rahman" not in answer
    assert b"Karim" not in answer
    assert await peer.ask(adt(f"GOOD-{row['_id']}")) == "AA"
    peer.close()


@pytest.mark.parametrize("modes", [("", ""), ("AL", "NE"), ("AL", "AL"), ("NE", "AL")])
@pytest.mark.parametrize("message", [adt(""), adt("B1") + adt("B2")], ids=["no id", "two"])
async def test_h17_without_a_name_there_is_no_positive_answer(
    lasting_site: Site, message: bytes, modes: tuple[str, str]
) -> None:
    """No MSH-10, or two MSH: never AA or CA, in no mode."""
    peer = await lasting_site.peer()
    fields = message.split(b"|", 17)
    fields[14], fields[15] = modes[0].encode(), modes[1].encode()
    await peer.send(b"|".join(fields))

    assert answered(await peer.answer())[0] in ("AR", "CR")


async def test_h3_a_frame_that_begins_anew_is_told_and_the_whole_one_is_taken(site: Site) -> None:
    """The part is rejected under its own name; the connection goes on."""
    peer = await site.peer()
    await peer.raw(b"\x0b" + adt("HALF")[:60] + framed(adt("WHOLE")))

    assert answered(await peer.answer())[0] == "AR"
    assert answered(await peer.answer()) == ("AA", "WHOLE")


async def test_h3_junk_without_end_closes_the_connection(site: Site) -> None:
    """Another connection notices nothing."""
    peer, other = await site.peer(), await site.peer()
    await peer.raw(b"GET / HTTP/1.1\r\n" * 6000)

    assert await peer.answer() == b""
    assert await other.ask(adt("A1")) == "AA"


async def test_h4_a_message_above_the_limit_is_refused_and_the_next_one_taken(
    open_site: OpenSite,
) -> None:
    """It is skipped, answered AR 207 under its own name, and its row has no text."""
    site = await open_site(hl7_message_bytes_max=100_000)
    peer = await site.peer()
    await peer.send(adt("BIG") + b"NTE|1||" + b"x" * 200_000)
    answer = await peer.answer()
    [row] = await site.rows()

    assert answered(answer) == ("AR", "BIG")
    assert b"207^" in answer
    assert (row["state"], "raw" in row) == ("rejected", False)
    assert row["size"] > 200_000
    assert await peer.ask(adt("A1")) == "AA"


@pytest.mark.slow
async def test_h4_fifteen_megabytes_come_back_byte_for_byte(site: Site) -> None:
    """A large message is taken; its Binary holds it as it came, another one the PDF in it."""
    pdf = b"%PDF-1.7\n" + bytes(range(256)) * (11 * MIB // 256)
    result = b"OBX|3|ED|PDF^Report^L||^application^pdf^Base64^" + b64encode(pdf) + b"||||||F\r"
    message = oru("LARGE") + result
    peer = await site.peer()
    assert await peer.ask(message) == "AA"
    [row] = await site.rows()

    assert "raw" not in row
    assert await site.binary(row["binary"]) == message
    [documents] = [one["reference"] for one in row["made"] if one["reference"][:7] == "Binary/"]
    assert await site.binary(documents[7:]) == pdf


async def test_acknowledgements_are_never_answered(site: Site) -> None:
    """They are counted; the next message gets its own answer."""
    peer = await site.peer()
    await peer.send(adt("ACK1", type="ACK"), adt("A1"))

    assert control_of(await peer.answer()) == "A1"
    assert site.intake.counts["acknowledgements"] == 1
    assert len(await site.rows()) == 1


@pytest.mark.timeout(120 + READS)
async def test_h14_a_read_right_after_aa_finds_everything(site: Site) -> None:
    """What is acknowledged can be found at once, by others than who sent it.

    ``FHIR_TEST_HL7_READS`` sets how many messages; 10,000 is what a release is tried with.
    """
    peer = await site.peer()
    for number in range(READS):
        assert await peer.ask(oru(f"O{number}", f"P{number}", filler=f"F{number}")) == "AA"
        [patient] = await site.search("Patient", identifier=f"P{number}")
        found = await site.search("Observation", subject=f"Patient/{patient['id']}")
        assert len(found) == 2


async def test_h15_enhanced_mode_answers_twice_on_the_same_connection(site: Site) -> None:
    """CA after storing, AA after applying; with NE, one of them; and nothing with NE and NE."""
    peer = await site.peer()
    await peer.send(adt("E1", m15="AL", m16="AL"))
    assert [answered(await peer.answer())[0] for _ in range(2)] == ["CA", "AA"]
    assert await peer.ask(adt("E2", m15="AL", m16="NE")) == "CA"
    assert await peer.ask(adt("E3", m15="NE", m16="AL")) == "AA"
    await peer.send(adt("E4", m15="NE", m16="NE"), adt("E5"))

    assert control_of(await peer.answer()) == "E5"
    await site.settled()
    assert [row["state"] for row in await site.rows()] == ["done"] * 5


async def test_h15_a_negative_application_answer_follows_the_commit(site: Site) -> None:
    """What is stored and cannot be applied is told afterwards, and is dead."""
    peer = await site.peer()
    await peer.send(adt("E1", m15="AL", m16="AL").replace(b"P1^^^CLINIC^MR", b""))

    assert [answered(await peer.answer())[0] for _ in range(2)] == ["CA", "AE"]
    assert [row["state"] for row in await site.rows()] == ["dead"]


async def test_h20_a_repeated_message_has_one_effect_and_the_same_answer(site: Site) -> None:
    """A hundred times, on eight connections at once: versions unchanged, one acknowledgement."""
    peers = [await site.peer() for _ in range(8)]
    for peer in peers:
        await peer.send(*[oru("SAME")] * 13)
    answers = {await peer.answer() for peer in peers for _ in range(13)}
    [row] = await site.rows()
    found = [*await site.search("Patient"), *await site.search("Observation")]

    assert len(answers) == 1
    assert answered(answers.pop()) == ("AA", "SAME")
    assert [one["meta"]["versionId"] for one in found] == ["1"] * 3
    assert row["copies"] == 103


async def test_h21_the_same_control_id_with_other_content(site: Site) -> None:
    """AE 205 and a linked row; with only MSH-7 changed it is a repetition."""
    peer = await site.peer()
    assert await peer.ask(adt("D1")) == "AA"
    await peer.send(adt("D1", family="Other"))
    answer = await peer.answer()
    first, second = await site.rows()

    assert answered(answer)[0] == "AE"
    assert b"205^" in answer
    assert second["state"] == "rejected"
    assert first["_id"] in second["reason"]
    assert await peer.ask(adt("D1", m7="20270101")) == "AA"
    assert [one["name"][0]["family"] for one in await site.search("Patient")] == ["Rahman"]


async def test_h21_a_dead_message_gives_its_number_to_the_repaired_one(site: Site) -> None:
    """The row that could not be applied is linked to the one that took its place."""
    peer = await site.peer()
    broken = adt("D1").replace(b"P1^^^CLINIC^MR", b"")
    assert await peer.ask(broken) == "AE"
    assert await peer.ask(adt("D1")) == "AA"
    first, second = await site.rows()

    assert first["replaced_by"] == second["_id"]
    assert "key" not in first
    assert (first["state"], second["state"]) == ("dead", "done")


@pytest.mark.parametrize("modes", [{}, {"m15": "AL", "m16": "NE"}], ids=["original", "enhanced"])
async def test_h26_pipelined_updates_of_one_patient_end_with_the_last(
    site: Site, modes: dict[str, str]
) -> None:
    """Answers come in order, and so do the versions."""
    peer = await site.peer()
    count = 100
    await peer.send(*[adt(f"U{n}", family=f"Name{n:04}", **modes) for n in range(count)])
    answers = [control_of(await peer.answer()) for _ in range(count)]
    await site.settled()
    [patient] = await site.search("Patient")

    assert answers == [f"U{n}" for n in range(count)]
    assert patient["name"][0]["family"] == f"Name{count - 1:04}"
    assert patient["meta"]["versionId"] == str(count)


async def test_h27_patients_do_not_wait_for_each_other(site: Site) -> None:
    """Each of several patients ends with its last message, whichever connection was slower."""
    peers = [await site.peer() for _ in range(4)]
    for place, peer in enumerate(peers):
        await peer.send(
            *[
                adt(f"U{place}-{step}-{who}", f"P{place}-{who}", family=f"Name{step}")
                for step in range(5)
                for who in range(5)
            ]
        )
    for peer in peers:
        for _ in range(25):
            assert answered(await peer.answer())[0] == "AA"
    found = await site.search("Patient", _count="100")

    assert len(found) == 20
    assert {one["name"][0]["family"] for one in found} == {"Name4"}


async def test_h33_one_new_patient_on_many_connections_at_once_is_one(site: Site) -> None:
    """However they interleave, there is one Patient with the number."""
    peers = [await site.peer() for _ in range(8)]
    for round in range(5):
        messages = [oru(f"R{round}-{n}", f"N{round}", 1, f"F{round}-{n}") for n in range(8)]
        await asyncio.gather(
            *(peer.send(message) for peer, message in zip(peers, messages, strict=True))
        )
        assert {answered(await peer.answer())[0] for peer in peers} == {"AA"}
        assert len(await site.search("Patient", identifier=f"N{round}")) == 1


async def test_h73_connections_of_one_address_are_bounded(open_site: OpenSite) -> None:
    """One too many is closed at once; when another has gone, it is taken."""
    site = await open_site(hl7_connections_per_address_max=2)
    first, second = await site.peer(), await site.peer()
    assert await first.ask(adt("A1")) == "AA"
    third = await site.peer()
    assert await third.answer() == b""
    second.close()
    await site.until(lambda: len(site.listener.connections) == 1)

    assert await (await site.peer()).ask(adt("A2")) == "AA"


async def test_h73_all_connections_together_are_bounded(open_site: OpenSite) -> None:
    """One too many is closed; those that say nothing for too long are, too."""
    site = await open_site(hl7_connections_max=2, hl7_idle_s_max=1.0)
    first, second = await site.peer(), await site.peer()
    await site.until(lambda: len(site.listener.connections) == 2)

    assert await (await site.peer()).answer() == b""
    assert await first.answer() == await second.answer() == b""
    assert await (await site.peer()).ask(adt("A1")) == "AA"


@pytest.mark.parametrize("slow_s", [0.0, 0.3])
async def test_h73_what_is_read_ahead_is_bounded_and_nothing_is_lost(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch, slow_s: float
) -> None:
    """With room for a megabyte and two frames, forty of 200 KB are answered, in order: halves of
    messages that fill all room do not wait for each other, and do not all go beyond it while
    answers are slow."""
    limit = 1_048_576
    site = await open_site(hl7_pipeline_frames_max=2, hl7_bytes_in_flight_max=limit)
    peers = [await site.peer() for _ in range(8)]
    most = 0
    take = Intake.take

    async def slowly(self: Intake, arrival: Arrival) -> Any:
        await asyncio.sleep(slow_s)
        return await take(self, arrival)

    monkeypatch.setattr(Intake, "take", slowly)

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, site.listener.bytes_in_flight)
            await asyncio.sleep(0)

    async def forty(peer: Peer) -> list[str]:
        messages = [adt(f"A{n}", m11="X") + b"NTE|1||" + b"x" * 200_000 for n in range(5)]
        sending = asyncio.create_task(peer.send(*messages))
        found = [control_of(await peer.answer()) for _ in messages]
        await sending
        return found

    watching = asyncio.create_task(watch())
    answers = await asyncio.gather(*map(forty, peers))
    watching.cancel()

    assert answers == [[f"A{n}" for n in range(5)]] * 8
    assert limit / 2 < most < limit + 8 * 2 * 65_536  # what each may read at once beyond it
    assert site.listener.bytes_in_flight == 0


async def test_h16_in_production_a_sender_without_a_profile_is_refused(
    open_site: OpenSite,
) -> None:
    """AR 207 at MSH-3 with ``listed``; who has a profile is taken."""
    site = await open_site(hl7_senders="listed")
    await site.profile("KNOWN")
    peer = await site.peer()
    await peer.send(adt("A1"))
    answer = await peer.answer()
    [row] = await site.rows()

    assert answered(answer)[0] == "AR"
    assert b"|MSH^1^3|207^" in answer
    assert row["state"] == "rejected"
    assert await peer.ask(adt("A2", m3="KNOWN")) == "AA"


async def test_h16_a_number_of_another_patient_is_held(lasting_site: Site) -> None:
    """AE 204 or 205, and the row waits for a person."""
    peer = await lasting_site.peer()
    assert await peer.ask(oru("HELD1", "HELD-P1", filler="HELD-F")) == "AA"
    await peer.send(oru("HELD2", "HELD-P2", filler="HELD-F"))
    answer = await peer.answer()
    *_, row = await lasting_site.rows()

    assert answered(answer)[0] == "AE"
    assert b"|204^" in answer or b"|205^" in answer
    assert row["state"] == "held"
    peer.close()


async def test_h74_only_peers_of_the_allowed_networks_connect(open_site: OpenSite) -> None:
    """Another one is closed before a byte is read."""
    site = await open_site(mllp_peers=("10.2.0.0/16",))

    assert await (await site.peer()).answer() == b""


async def test_h72_refusals_beyond_a_rate_are_counted_and_not_kept(open_site: OpenSite) -> None:
    """Each is answered; of one peer so many a minute have a row."""
    site = await open_site(hl7_rejects_per_minute_max=3)
    peer = await site.peer()
    for number in range(6):
        assert await peer.ask(adt(f"X{number}", m11="X")) == "AR"

    assert len(await site.rows()) == 3
    assert site.intake.counts["rejected"] == 6


async def test_h9_the_answer_is_in_the_charset_of_the_message(site: Site) -> None:
    """What is echoed comes back byte for byte; the name is stored as it was meant."""
    peer = await site.peer()
    message = adt("Ä1", m18="8859/1", family="Müller").decode().encode("latin-1")
    await peer.send(message)
    answer = await peer.answer()
    found = header_of(answer)

    assert found is not None
    assert "MSA|AA|Ä1" in answer.decode("latin-1")
    [patient] = await site.search("Patient")
    assert patient["name"][0]["family"] == "Müller"
