"""design/hl7v2.md, sections 6, 7, 16 and 18: profiles and what they name, on a server.

Checks H21, H28, H65.
"""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from adapters.hl7v2.ack import answered
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.operations import operations
from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode
from tests.adapters.hl7v2.conftest import OpenSite, Site, adt, oru

MAPPING = "adapters.hl7v2.reading.changes_of"


async def called(site: Site, name: str, **given: Any) -> list[dict[str, Any]]:
    """Call an operation of the site; return the parameters of its answer."""
    kinds = {str: "valueString", bool: "valueBoolean"}
    members = [{"name": one, kinds[type(value)]: value} for one, value in given.items()]
    body = {"resourceType": "Parameters", "parameter": members}
    # as it is called: what holds for a query holds for a body
    request = Request(name, body=body, reading=False)
    found = {one.name: one for one in operations(site.interface)}[name]
    answer = decode((await found.handler(request, site.server.context)).body)
    return list(answer.get("parameter", []))


async def profile(site: Site, **members: Any) -> None:
    """Set the profile of the sender of the tests."""
    document = {"name": "acme", "match": [{"application": "LIS"}], **members}
    await called(site, "$hl7v2-senders", profile=json.dumps(document))


async def sent(site: Site, *messages: bytes) -> list[str]:
    """Send messages; return MSA-1 of their answers."""
    peer = await site.peer()
    await peer.send(*messages)
    return [answered(await peer.answer())[0] for _ in messages]


async def put(site: Site, target: dict[str, Any]) -> None:
    """Write the map of the tests."""
    group = {
        "source": "urn:hl7v2:codes:acme:L",
        "target": "http://loinc.org",
        "element": [{"code": "T1", "target": [{**target, "equivalence": "equivalent"}]}],
    }
    body = {"resourceType": "ConceptMap", "id": "own", "status": "active", "group": [group]}
    await site.server.perform(Request("update", "ConceptMap", "own", body=body))


async def states(site: Site) -> dict[str, str]:
    """Return the states of the rows by control id; of a replayed one that of its replay."""
    return {row["control_id"]: row["state"] for row in await site.rows()}


async def test_h65_a_map_on_this_server_holds_at_once_and_a_replay_fills(site: Site) -> None:
    """A sender that gets its profile after its first message; mapped code first, own kept; what
    has no target is listed; an edited map and a replay change that one result, and nothing is
    ever doubled."""
    with pytest.raises(FhirError, match="ConceptMap/own is not on this server"):
        await profile(site, code_maps={"OBX-3": "ConceptMap/own"})
    assert await sent(site, oru("A1")) == ["AA"]
    await put(site, {"code": "2160-0", "display": "Creatinine"})
    await profile(site, code_maps={"OBX-3": "ConceptMap/own"})
    [row] = await site.rows()
    await called(site, "$hl7v2-replay", id=row["_id"])
    before = {one["code"]["coding"][-1]["code"]: one for one in await site.search("Observation")}
    codes = {name: [c["code"] for c in one["code"]["coding"]] for name, one in before.items()}
    parts = [{p["name"]: p.get("valueString") for p in one["part"]} for one in
             await called(site, "$hl7v2-unmapped")]  # fmt: skip
    await put(site, {"code": "4548-4"})
    rehearsed = await called(site, "$hl7v2-replay", **{"id": row["_id"], "dry-run": True})
    await called(site, "$hl7v2-replay", id=row["_id"])
    after = {one["code"]["coding"][-1]["code"]: one for one in await site.search("Observation")}

    assert "updated" in str(rehearsed)
    assert codes == {"T1": ["2160-0", "T1"], "T2": ["T2"]}
    assert ("OBX-3", "urn:hl7v2:codes:acme:L", "T2") in {
        (one["field"], one.get("system"), one.get("code")) for one in parts
    }
    assert ("OBX-3", "T1") not in {(one["field"], one.get("code")) for one in parts}
    assert [c["code"] for c in after["T1"]["code"]["coding"]] == ["4548-4", "T1"]
    versions = {name: one["meta"]["versionId"] for name, one in after.items()}
    assert (len(after), versions) == (2, {"T1": "3", "T2": "2"})


async def test_h65_a_message_held_for_its_codes_is_applied_once_they_are_mapped(site: Site) -> None:
    """The codes are listed while it waits."""
    await put(site, {"code": "2160-0"})
    await profile(site, code_maps={"OBX-3": "ConceptMap/own"}, unmapped_code="hold")
    assert await sent(site, oru("A1", results=1), oru("A2", results=2, filler="F2")) == ["AA", "AE"]
    parts = [str(one["part"]) for one in await called(site, "$hl7v2-unmapped")]
    held = next(row for row in await site.rows() if row["state"] == "held")
    await profile(site, code_maps={"OBX-3": "ConceptMap/own"})
    await called(site, "$hl7v2-replay", id=held["_id"])

    assert any("'T2'" in one for one in parts)
    assert len(await site.search("Observation")) == 3


@pytest.mark.parametrize("mode", [{}, {"m15": "AL", "m16": "NE"}])
async def test_h21_control_ids_that_begin_anew(site: Site, mode: dict[str, str]) -> None:
    """After the days of the profile an older row gives up its key; before, it does not."""
    good = "CA" if mode else "AA"
    bad = "CE" if mode else "AE"
    await profile(site, control_id_days=2)
    assert await sent(site, adt("A1", family="One", **mode)) == [good]
    await site.settled()
    assert await sent(site, adt("A1", family="Two", **mode)) == [bad]
    old = {"$set": {"received": site.server.context.now() - timedelta(days=2, hours=1)}}
    await site.server.database["inbox"].update_one({"state": "done"}, old)
    assert await sent(site, adt("A1", family="Two", **mode)) == [good]
    await site.settled()
    [patient] = await site.search("Patient")
    rows = [row for row in await site.rows() if row["state"] == "done"]

    assert patient["name"][0]["family"] == "Two"
    assert ["key" in row for row in rows] == [False, True]


async def test_h28_behind_a_dead_message_the_next_ones_wait_for_a_person(
    open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its patient and where the profile says so; released in order once it is repaired."""

    def faulty(message: Any, *rest: Any, **more: Any) -> Any:
        report = changes_of(message, *rest, **more)
        if message.control_id == "D1":
            first, *others = report.changes
            wrong = replace(first, set={**first.set, "gender": "no such gender"})
            return replace(report, changes=(wrong, *others))
        return report

    site = await open_site()
    await profile(site, hold_after_dead=True)
    monkeypatch.setattr(MAPPING, faulty)
    messages = [adt("D1", "P1"), adt("D2", "P1", "Two"), adt("X1", "P2"), adt("D3", "P1", "Three")]
    assert await sent(site, *messages) == ["AE", "AE", "AA", "AE"]
    assert await states(site) == {"D1": "dead", "D2": "held", "X1": "done", "D3": "held"}
    held = next(row for row in await site.rows() if row["control_id"] == "D2")
    await called(site, "$hl7v2-replay", id=held["_id"], action="release")
    await site.settled()
    assert (await states(site))["D2"] == "held"
    monkeypatch.setattr(MAPPING, changes_of)
    await called(site, "$hl7v2-replay", state="dead")
    await called(site, "$hl7v2-replay", state="held", action="release")
    await site.settled()

    assert set((await states(site)).values()) == {"done"}
    names = {one["name"][0]["family"] for one in await site.search("Patient", identifier="P1")}
    assert names == {"Three"}


async def test_h28_without_the_profile_the_next_ones_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dead message stays for a person; nobody waits for it."""
    assert await sent(site, adt("D1").partition(b"PID|")[0], adt("D2"), adt("D3")) == [
        "AE", "AA", "AA",
    ]  # fmt: skip


async def test_h43_lists_relatives_and_the_directory_on_a_server(site: Site) -> None:
    """What the pure half asks for is found: entries of lists, the open visit, who is named."""
    await profile(
        site, snapshots=["AL1", "DG1", "IN1"], next_of_kin="RelatedPerson", directory="create"
    )
    visit = "PV1|1|I|W1||||17^HOUSE^GREGORY"  # no number: the patient's open visit is meant
    relative = "NK1|1|ROE^MARY|MTH"
    both = ("AL1|1||A^a^L", "AL1|2||B^b^L", "DG1|1||A^a^L", "DG1|2||B^b^L", "IN1|1|P|A|X")
    one = ("AL1|1||A^a^L", "DG1|1||A^a^L", "IN1|1|P|B|Y")
    messages = [
        adt(f"S{n}", type="ADT^A01") + "".join(f"{line}\r" for line in lines).encode()
        for n, lines in enumerate([(visit, relative, *both), (visit, relative, *one)])
    ]
    assert await sent(site, *messages) == ["AA", "AA"]
    [patient] = await site.search("Patient")
    [encounter] = await site.search("Encounter")
    [relation] = await site.search("RelatedPerson")
    [doctor] = await site.search("Practitioner", identifier="17")
    statuses = {}
    for type in ("AllergyIntolerance", "Condition", "Coverage"):
        found = await site.search(type, patient=f"Patient/{patient['id']}")
        statuses[type] = sorted(
            one.get("status") or one["clinicalStatus"]["coding"][0]["code"] for one in found
        )
    attending = encounter["participant"][0]["individual"]

    assert statuses == {
        "AllergyIntolerance": ["active", "inactive"],
        "Condition": ["active", "resolved"],
        "Coverage": ["active", "cancelled"],
    }
    assert relation["meta"]["versionId"] == doctor["meta"]["versionId"] == "1"
    assert attending["reference"] == f"Practitioner/{doctor['id']}"
