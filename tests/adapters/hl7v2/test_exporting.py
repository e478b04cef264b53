"""``$hl7v2``: a resource as a v2 message, over HTTP; and what such a message becomes elsewhere."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from adapters.hl7v2.ack import answered
from adapters.hl7v2.operations import operations
from tests.adapters.hl7v2.conftest import OpenSite, Site, adt, oru
from tests.adapters.test_hl7v2_outbound import lost
from tests.http.conftest import client as http_client

MEDIA = "application/hl7-v2"


@pytest.fixture
async def client(lasting_site: Site) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the whole application, whose site all tests here share."""
    registry = lasting_site.server.registry
    if ("Patient", "$hl7v2") not in registry.operations:
        for operation in operations(lasting_site.interface):
            registry.operation(operation)
    async with http_client(lasting_site.server) as client:
        yield client


async def stored(site: Site, *messages: bytes) -> None:
    """Have messages applied."""
    peer = await site.peer()
    for message in messages:
        await peer.send(message)
        assert answered(await peer.answer())[0] == "AA"
    peer.close()


async def test_what_is_exported_is_the_same_in_an_empty_database(
    lasting_site: Site, open_site: OpenSite, client: httpx.AsyncClient
) -> None:
    """Report, results, patient and visit: every fact of them, by one message."""
    message = oru("EXP1", "EXP-P", results=3, filler="EXP-F").replace(
        b"OBR|1|", b"PV1|1|I|Ward 7^^^^^^^^||||77^Khan^Ali||||||||||||V-EXP^^^CLINIC\rOBR|1|"
    )
    await stored(lasting_site, message)
    [report] = await lasting_site.search("DiagnosticReport", identifier="EXP-F")
    answer = await client.get(f"DiagnosticReport/{report['id']}/$hl7v2")
    empty = await open_site()
    await stored(empty, answer.content)

    assert answer.headers["content-type"] == f"{MEDIA}; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    named = [report["subject"], report["encounter"], *report["result"]]
    facts = [report]
    for one in named:
        type, id = one["reference"].split("/")
        facts += await lasting_site.search(type, _id=id)
    assert len(facts) == 6
    for fact in facts:
        assert lost([fact], await empty.search(fact["resourceType"])) == []


async def test_an_observation_alone_and_an_encounter_are_messages(
    lasting_site: Site, client: httpx.AsyncClient
) -> None:
    """ORU of the one, ADT by its status of the other; sent back here, they change no fact."""
    visit = adt("EXPA", "EXPA-P", type="ADT^A03") + b"PV1|1|I|W1||||||||||||||||V-A^^^CLINIC\r"
    await stored(lasting_site, oru("EXPB", "EXPA-P", 1, "EXPA-F"), visit)
    [report] = await lasting_site.search("DiagnosticReport", identifier="EXPA-F")
    [encounter] = await lasting_site.search("Encounter", identifier="V-A")
    single = await client.get(f"{report['result'][0]['reference']}/$hl7v2")
    ended = await client.get(f"Encounter/{encounter['id']}/$hl7v2")

    assert b"|ORU^R01^ORU_R01|" in single.content
    assert single.content.count(b"\rOBX|") == 1
    assert b"|ADT^A03^ADT_A03|" in ended.content
    await stored(lasting_site, ended.content)
    [again] = await lasting_site.search("Encounter", identifier="V-A")
    assert (again["id"], again["status"]) == (encounter["id"], "finished")


async def test_the_receiver_the_event_and_the_charset_are_asked_for(
    lasting_site: Site, client: httpx.AsyncClient
) -> None:
    """And text that a charset lacks is refused, not replaced."""
    await stored(lasting_site, adt("EXPC", "EXPC-P", "Müller"))
    await stored(lasting_site, adt("EXPD", "EXPD-P", "রহমান", m18="UNICODE UTF-8"))
    ids = [
        (await lasting_site.search("Patient", identifier=number))[0]["id"]
        for number in ("EXPC-P", "EXPD-P")
    ]
    wishes = {"charset": "8859/1", "event": "A08", "receiving-application": "L|S",
              "receiving-facility": "DHAKA"}  # fmt: skip
    latin, lacking = [await client.get(f"Patient/{id}/$hl7v2", params=wishes) for id in ids]

    header = latin.content.split(b"\r")[0].split(b"|")
    assert header[4:6] == [b"L\\F\\S", b"DHAKA"]
    assert header[8] == b"ADT^A08^ADT_A01"
    assert header[17] == b"8859/1"
    assert "Müller".encode("latin-1") in latin.content
    assert lacking.status_code == 422
    assert "UNICODE UTF-8" in lacking.json()["issue"][0]["diagnostics"]


REFUSED = {
    "event": {"event": "A40"},
    "charset": {"charset": "KLINGON"},
    "charset of MLLP": {"charset": "UNICODE UTF-16"},
    "unknown": {"sender": "x"},
}


@pytest.mark.parametrize("wishes", REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_asked_for_is_refused(
    lasting_site: Site, client: httpx.AsyncClient, wishes: dict[str, str]
) -> None:
    """With an OperationOutcome."""
    if not await lasting_site.search("Patient", identifier="EXPE-P"):
        await stored(lasting_site, adt("EXPE", "EXPE-P"))
    [patient] = await lasting_site.search("Patient", identifier="EXPE-P")
    answer = await client.get(f"Patient/{patient['id']}/$hl7v2", params=wishes)

    assert answer.status_code == 400
    assert answer.json()["resourceType"] == "OperationOutcome"


async def test_fhir_is_answered_to_who_asks_for_it(
    lasting_site: Site, client: httpx.AsyncClient
) -> None:
    """The Binary as a resource by Accept or ``_format``; what is not there is 404 in any case."""
    await stored(lasting_site, adt("EXPG", "EXPG-P"))
    [patient] = await lasting_site.search("Patient", identifier="EXPG-P")
    place = f"Patient/{patient['id']}/$hl7v2"
    for answer in (
        await client.get(place, headers={"Accept": "application/fhir+json"}),
        await client.get(place, params={"_format": "json"}),
    ):
        body: dict[str, Any] = answer.json()
        assert body["resourceType"] == "Binary"
        assert body["securityContext"] == {"reference": f"Patient/{patient['id']}"}
        assert base64.b64decode(body["data"]).startswith(b"MSH|")
    native = await client.get(place, headers={"Accept": MEDIA})
    missing = await client.get("Patient/nobody/$hl7v2", headers={"Accept": MEDIA})

    assert native.content.startswith(b"MSH|")
    assert (missing.status_code, missing.json()["resourceType"]) == (404, "OperationOutcome")


async def test_a_message_is_tried_as_the_body_itself(
    lasting_site: Site, client: httpx.AsyncClient
) -> None:
    """``$hl7v2-to-fhir`` takes application/hl7-v2 with its charset, and tells its answer."""
    await lasting_site.profile(
        "TRY", charset="8859/2", before=[{"do": "set", "field": "PID-8", "value": "F"}]
    )
    headers = {"Content-Type": f"{MEDIA}; charset=8859/1"}
    answer = await client.post(
        "$hl7v2-to-fhir",
        params={"sender": "TRY", "compare": "true"},
        content=adt("TRY1", "TRY-P", "Müller").decode().encode("latin-1"),
        headers=headers,
    )
    parts = {one["name"]: one for one in answer.json()["parameter"]}
    [patient] = [
        one["resource"]
        for one in parts["bundle"]["resource"]["entry"]
        if one["resource"]["resourceType"] == "Patient"
    ]

    assert patient["name"][0]["family"] == "Müller"
    assert patient["gender"] == "female"
    assert '"PID-8"' in parts["rules"]["valueString"]
    assert "\rMSA|AA|TRY1" in parts["ack"]["valueString"]
    refused = await client.post("$hl7v2-to-fhir", content=adt("", "X"), headers=headers)
    named = {one["name"]: one for one in refused.json()["parameter"]}
    assert "\rMSA|AR|" in named["ack"]["valueString"]
    unknown = await client.post("$hl7v2-to-fhir?sender=nobody", content=adt("X"), headers=headers)
    assert unknown.status_code == 404
