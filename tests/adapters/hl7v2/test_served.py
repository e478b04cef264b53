"""design/hl7v2.md, sections 4, 14, 15, 19, 22: what a reader of FHIR sees of a message.

Checks H4, H9, H44, H46, H52, H63, H68, H72.
"""

import asyncio
import logging
from base64 import b64encode
from typing import Any

import pytest

from adapters.hl7v2.ack import answered
from fhir_server.messages import Request
from fhir_server.r4.json import decode, encode
from tests.adapters.hl7v2.conftest import Site, adt, oru

MIB = 1_048_576
BENGALI, ARABIC, JAPANESE = "রহিমা", "محمد", "山田"


async def read(site: Site, type: str, id: str, interaction: str = "read") -> Any:
    """Return a resource, or its history."""
    return decode((await site.server.perform(Request(interaction, type, id))).body)


async def raw_search(site: Site, type: str, **parameters: str) -> str:
    """Return the text of what a search answers."""
    request = Request("search-type", type, parameters=tuple(parameters.items()))
    return (await site.server.perform(request)).body.decode()


# name -> family, MSH-18, codec of the bytes, codec of the answer
CHARSETS = {
    "bengali": (BENGALI, "UNICODE UTF-8", "utf-8", "utf-8"),
    "bengali undeclared": (BENGALI, "", "utf-8", "utf-8"),
    "bengali as latin-1": (BENGALI, "8859/1", "utf-8", "utf-8"),
    "with a mark": (BENGALI, "", "utf-8-sig", "utf-8"),
    "arabic": (ARABIC, "8859/6", "iso8859-6", "iso8859-6"),
    "arabic undeclared": (ARABIC, "", "utf-8", "utf-8"),
    "japanese": (JAPANESE, "ISO IR87", "iso2022_jp", "iso2022_jp"),
    "latin-1": ("Müller", "8859/1", "latin-1", "latin-1"),
    "latin-1 undeclared": ("Müller", "", "latin-1", "latin-1"),
    "windows undeclared": ("Žižek", "", "cp1252", "cp1252"),
}


@pytest.mark.parametrize("name", CHARSETS)
async def test_h9_what_is_stored_is_what_was_written(lasting_site: Site, name: str) -> None:
    """The right name, no replacement character anywhere, and an answer in the same charset."""
    family, declared, codec, answers = CHARSETS[name]
    site, number = lasting_site, f"CS-{name.replace(' ', '-')}"
    peer = await site.peer()
    await peer.send(adt(number, number, family, m18=declared).decode().encode(codec))
    answer = await peer.answer()
    [patient] = await site.search("Patient", identifier=number)

    assert f"MSA|AA|{number}" in answer.decode(answers)
    assert patient["name"][0]["family"] == family
    assert "\ufffd" not in encode(patient).decode()
    peer.close()


@pytest.mark.parametrize(
    ("declared", "name"), [("UNICODE UTF-8", b"M\xfcller"), ("8859/3", b"M\xa5ller")]
)
async def test_h9_what_does_not_fit_is_refused_and_nothing_is_stored(
    lasting_site: Site, declared: str, name: bytes
) -> None:
    """AE 102 at MSH-18; no patient, not even with a replacement character."""
    site, number = lasting_site, f"UNFIT-{declared}"
    peer = await site.peer()
    await peer.send(adt(number, number, m18=declared).replace(b"Rahman", name))
    answer = await peer.answer()

    assert answered(answer)[0] == "AE"
    assert b"|MSH^1^18|102^" in answer
    assert await site.search("Patient", identifier=number) == []
    peer.close()


@pytest.mark.slow
async def test_h4_seventeen_megabytes_are_refused_on_a_usable_connection(site: Site) -> None:
    """With the limit that there is by default: the row has no text, the next message is taken."""
    peer = await site.peer()
    document = b"OBX|3|ED|PDF^Report^L||^application^pdf^Base64^" + b"QUJD" * (17 * MIB // 4)
    await peer.send(oru("LARGE") + document + b"||||||F\r")
    answer = await peer.answer()
    row = await site.newest()

    assert answered(answer) == ("AR", "LARGE")
    assert b"207^" in answer
    assert (row["state"], "raw" in row, row["size"] > 17 * MIB) == ("rejected", False, True)
    assert await peer.ask(adt("NEXT")) == "AA"


async def test_h44_the_life_of_a_result_is_in_its_history(site: Site) -> None:
    """O, P, F, C, W: one Observation of five versions, each with the value it had."""
    peer = await site.peer()
    for step, (status, value) in enumerate(
        [("O", ""), ("P", "4.10"), ("F", "4.20"), ("C", "4.50"), ("W", "4.50")]
    ):
        text = oru(f"L{step}", results=1).replace(b"|N|||F\r", b"|N|||%s\r" % status.encode())
        text = text.replace(b"|1.50|", b"|%s|" % value.encode())
        assert await peer.ask(text.replace(b"20260102030405", b"2026010203040%d" % step)) == "AA"
    [found] = await site.search("Observation")
    history = await read(site, "Observation", found["id"], "history-instance")
    versions = [entry["resource"] for entry in reversed(history["entry"])]

    assert [one["status"] for one in versions] == [
        "registered", "preliminary", "final", "corrected", "entered-in-error"
    ]  # fmt: skip
    values = [str(one.get("valueQuantity", {}).get("value")) for one in versions]
    assert values == ["None", "4.10", "4.20", "4.50", "4.50"]
    [report] = await site.search("DiagnosticReport")
    assert "result" not in report


@pytest.mark.parametrize("digits", ["7.20", "0.050", "100", "12345678901234567.890"])
async def test_h46_the_digits_are_kept_in_json_and_after_search(
    lasting_site: Site, digits: str
) -> None:
    """As they were sent, in the read and in the search that finds the number."""
    site, number = lasting_site, f"DIGITS-{digits}"
    peer = await site.peer()
    assert await peer.ask(
        oru(number, number, 1, number).replace(b"|1.50|", b"|%s|" % digits.encode())
    ) == ("AA")
    [patient] = await site.search("Patient", identifier=number)
    text = await raw_search(
        site,
        "Observation",
        **{"subject": f"Patient/{patient['id']}", "value-quantity": digits},
    )

    assert f'"value":{digits}' in text
    peer.close()


async def test_h52_a_pointer_is_never_followed(site: Site) -> None:
    """Nobody connects to where RP points; the url is served."""
    visitors = []

    async def visited(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.append(writer)
        writer.close()

    async with await asyncio.start_server(visited, "127.0.0.1", 0) as trap:
        url = f"http://127.0.0.1:{trap.sockets[0].getsockname()[1]}/1"
        peer = await site.peer()
        pointer = f"OBX|3|RP|IMG^Image^L||{url}^PACS^IM^JPEG||||||F\r".encode()
        assert await peer.ask(oru("RP1") + pointer) == "AA"
        await asyncio.sleep(0.1)

    [report] = await site.search("DiagnosticReport")
    assert report["presentedForm"][0]["url"] == url
    assert visitors == []


async def test_h63_the_offset_is_served_and_a_search_finds_the_instant(site: Site) -> None:
    """OBX-14 at +0545: as it was sent, and found by the same instant elsewhere."""
    peer = await site.peer()
    timed = b"OBX|3|NM|T9^Test 9^L||1|g/L|1-9|N|||F|||20260102120000+0545\r"
    assert await peer.ask(oru("T1", results=1) + timed) == "AA"
    found = await site.search("Observation", code="T9")

    assert [one["effectiveDateTime"] for one in found] == ["2026-01-02T12:00:00+05:45"]
    for date in ("2026-01-02T06:15:00Z", "2026-01-01T22:15:00-08:00"):
        assert len(await site.search("Observation", code="T9", date=date)) == 1
    assert await site.search("Observation", code="T9", date="2026-01-02T12:00:00Z") == []


async def test_h68_from_any_resource_to_the_message_byte_for_byte(site: Site) -> None:
    """Provenance, DocumentReference, Binary: with Z segments, and who said it when."""
    message = oru("P1").rstrip(b"\r") + b"\rZPI|1|own^thing|\xc3\xa9\r"
    peer = await site.peer()
    assert await peer.ask(message) == "AA"
    places = []
    for type in ("Patient", "Observation", "DiagnosticReport", "ServiceRequest"):
        for resource in await site.search(type):
            place = f"{type}/{resource['id']}"
            [provenance] = await site.search("Provenance", target=place)
            [entity] = provenance["entity"]
            document = await read(site, *entity["what"]["reference"].split("/"))
            url = document["content"][0]["attachment"]["url"]
            binary = await read(site, *url.split("/"))
            places.append(place)

            assert binary["data"] == b64encode(message).decode()
            assert binary["securityContext"]["reference"].startswith("Patient/")
            assert document["identifier"] == [{"value": "P1"}]
            assert provenance["occurredDateTime"] == "2026-01-02T03:04:05+06:00"
            assert provenance["agent"][0]["who"] == {"display": "CLINIC LIS"}
            assert resource["meta"]["source"] == "urn:hl7v2:LIS:P1"
    assert len(places) >= 4


async def test_h72_what_is_counted_is_what_the_rows_say(site: Site) -> None:
    """Every state, repetitions, refusals."""
    peer = await site.peer()
    broken = adt("B1").partition(b"PID|")[0]
    for message in (adt("A1"), adt("A1"), adt("A2", "P2"), broken, adt("C1", m11="X")):
        await peer.send(message)
        await peer.answer()
    counts = site.intake.counts
    rows = await site.rows()

    for state in ("done", "dead", "rejected"):
        assert counts[f"state:{state}"] == sum(row["state"] == state for row in rows), state
    assert counts["repetitions"] == sum(row.get("copies", 0) for row in rows) == 1
    assert counts["rejected"] == 1


CANARIES = ("Kanarienvogel", "19330303", "KV-4711", "Verdachtsdiagnose", "0170-555")


async def test_h72_no_patient_data_in_any_log(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Applied, refused, dead, held and failed by a fault of ours: rows, types and states only."""
    family, born, number, finding, phone = CANARIES

    def message(control: str) -> bytes:
        text = oru(control, number, family=family).replace(b"19800101", born.encode())
        return text.replace(b"|1.50|", f"|{finding}|".encode()) + f"NTE|1||{phone}\r".encode()

    caplog.set_level(logging.DEBUG, "fhir_server")
    peer = await site.peer()
    await peer.send(
        message("A1"),
        message("A2").replace(number.encode(), b""),
        message("A3").replace(b"ORU^R01", b"ORU^Z99"),
        message("A1").replace(b"2.50", b"2.60"),
        message("A5").replace(b"UNICODE UTF-8", b"") + b"\x81\xff\r",
    )
    for _ in range(5):
        await peer.answer()

    def faulty(*_: Any, **__: Any) -> Any:
        raise RuntimeError(family)

    monkeypatch.setattr("adapters.hl7v2.apply.planned", faulty)
    assert await peer.ask(message("A6")) == "AE"

    said = caplog.text
    assert "RuntimeError" in said
    assert '"state":"done"' in said.replace(": ", ":")
    assert [canary for canary in CANARIES if canary in said] == []
