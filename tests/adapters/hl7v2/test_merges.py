"""design/hl7v2.md, sections 7 and 10: patients, visits and accounts that become one, on a server.

Checks H26, H31, H33, H34, H35, H36, H37, H51. Several interfaces on one database are as several
processes: they share nothing but that.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from adapters.hl7v2.ack import answered
from adapters.hl7v2.interface import Interface
from adapters.hl7v2.replaying import release
from fhir_server.messages import Request
from tests.adapters.hl7v2.conftest import Peer, Site, adt, oru, running

Json = dict[str, Any]


def event(control: str, code: str, number: str, *segments: str, account: str = "") -> bytes:
    """Return an ADT of a patient, with further segments."""
    text = adt(control, number, type=f"ADT^{code}").decode()
    if account:
        text = text.replace("|19800101|M", f"|19800101|M||||||||||{account}^^^CLINIC")
    return (text + "".join(f"{one}\r" for one in segments)).encode()


def merge(control: str, survivor: str, *priors: str, code: str = "A40", said: str = "") -> bytes:
    """Return a message that merges ``priors`` into ``survivor``, a group for each."""
    head, _, patient = adt(control, survivor, type=f"ADT^{code}").decode().partition("\rPID")
    if said:
        head = head.replace("20260102030405+0600", said)
    groups = [f"PID{patient}MRG|{prior}^^^CLINIC^MR" for prior in priors]
    return "\r".join([head, *groups, ""]).encode()


async def sent(site: Site, *messages: bytes) -> list[str]:
    """Send messages, one after the other; return MSA-1 of their answers."""
    peer = await site.peer()
    return [await peer.ask(one) for one in messages]


async def patients(site: Site) -> dict[str, Json]:
    """Return the Patients by the number that is not old."""
    found = {}
    for one in await site.search("Patient", _count="50"):
        own = [id["value"] for id in one["identifier"] if id.get("use") != "old"]
        found[own[0]] = one
    return found


def numbers(patient: Json) -> dict[str, str]:
    """Return the numbers of a Patient, with their use."""
    return {one["value"]: one.get("use", "") for one in patient["identifier"]}


def links(patient: Json) -> list[tuple[str, str]]:
    """Return the links of a Patient."""
    return [(one["type"], one["other"]["reference"]) for one in patient.get("link", [])]


@pytest.fixture
async def three(site: Site) -> AsyncIterator[list[Interface]]:
    """Three interfaces on one database."""
    async with AsyncExitStack() as stack:
        others = [
            await stack.enter_async_context(running(site.server, leads=False)) for _ in range(2)
        ]
        yield [site.interface, *others]


async def peer_of(interface: Interface) -> Peer:
    """Return a connection to one of several interfaces; its end closes it."""
    assert interface.listener is not None
    return Peer(*await asyncio.open_connection("127.0.0.1", interface.listener.ports["mllp"]))


async def test_h35_results_before_and_after_are_found_at_the_survivor(site: Site) -> None:
    """One active Patient with the prior number as old; the other replaced by it, not deleted."""
    first, second = oru("R1", "P1", 1, "F1"), oru("R2", "P2", 1, "F2")
    later = oru("R3", "P2", 1, "F3")
    assert await sent(site, first, second, merge("M1", "P1", "P2"), later) == ["AA"] * 4
    found = await patients(site)
    survivor, prior = found["P1"], found["P2"]
    place = f"Patient/{survivor['id']}"
    results = await site.search("Observation", patient=place)

    assert (survivor["active"], prior["active"]) == (True, False)
    assert numbers(survivor) == {"P1": "", "P2": "old"}
    assert links(survivor) == [("replaces", f"Patient/{prior['id']}")]
    assert links(prior) == [("replaced-by", place)]
    assert len(results) == 3
    assert len(await site.search("DiagnosticReport", patient=place)) == 3
    assert await site.search("Observation", patient=f"Patient/{prior['id']}") == []


async def test_h36_groups_repetition_reversal_and_unknown_numbers(site: Site) -> None:
    """Several groups at once; once more, nothing; turned around, nobody is revived."""
    await sent(site, *(adt(f"A{n}", f"P{n}") for n in (1, 2, 3)))
    assert await sent(site, merge("M1", "P1", "P2", "P3", "P9")) == ["AA"]
    before = await patients(site)
    assert [one for one, patient in before.items() if patient["active"]] == ["P1"]
    assert numbers(before["P1"]) == {"P1": "", "P2": "old", "P3": "old", "P9": "old"}
    assert await sent(site, merge("M2", "P1", "P2", "P3", "P9")) == ["AA"]
    versions = {one: patient["meta"]["versionId"] for one, patient in before.items()}
    again = await patients(site)
    assert {one: p["meta"]["versionId"] for one, p in again.items()} == versions
    assert await sent(site, merge("M3", "P2", "P1")) == ["AA"]
    turned = {one["id"]: one for one in await site.search("Patient")}
    survivor = turned[before["P1"]["id"]]
    assert [one["id"] for one in turned.values() if one["active"]] == [survivor["id"]]
    assert {name: numbers(survivor)[name] for name in ("P1", "P2")} == {"P1": "old", "P2": ""}
    assert await sent(site, merge("M4", "N1", "N2"), oru("R1", "N2", 1)) == ["AA", "AA"]
    [made] = await site.search("Patient", identifier="N1")
    [result] = await site.search("Observation")
    assert (made["active"], result["subject"]["reference"]) == (True, f"Patient/{made['id']}")


async def test_h36_a_chain_of_five_ends_at_the_last(site: Site) -> None:
    """The first number lands on the last survivor."""
    await sent(site, *(adt(f"A{n}", f"P{n}") for n in range(6)), oru("R0", "P0", 1, "F0"))
    await sent(site, *(merge(f"M{n}", f"P{n + 1}", f"P{n}") for n in range(5)))
    assert await sent(site, oru("R1", "P0", 1, "F1")) == ["AA"]
    [survivor] = [one for one in (await patients(site)).values() if one["active"]]

    assert numbers(survivor) == {"P5": ""} | {f"P{n}": "old" for n in range(5)}
    assert len(await site.search("Observation", patient=f"Patient/{survivor['id']}")) == 2


async def test_h36_a_merge_amid_results_of_both_leaves_none_behind(
    site: Site, three: list[Interface]
) -> None:
    """Whatever process takes them: all are the survivor's afterwards."""
    peers = [await peer_of(one) for one in three]
    for round in range(2):
        one, other = f"A{round}", f"B{round}"
        await sent(site, adt(f"{one}-", one), adt(f"{other}-", other))
        streams = [
            [oru(f"{round}.{p}.{n}", (one, other)[n % 2], 1, f"F{round}.{p}.{n}") for n in range(6)]
            for p in range(3)
        ]
        streams[0].insert(3, merge(f"M{round}", one, other))
        await asyncio.gather(
            *(peer.send(*stream) for peer, stream in zip(peers, streams, strict=True))
        )
        for peer, stream in zip(peers, streams, strict=True):
            assert [answered(await peer.answer())[0] for _ in stream] == ["AA"] * len(stream)
        found = await patients(site)
        assert not found[other]["active"]
        behind = await site.search("Observation", patient=f"Patient/{found[other]['id']}")
        here = await site.search("Observation", patient=f"Patient/{found[one]['id']}")
        assert (len(behind), len(here)) == (0, 18)
    for peer in peers:
        peer.close()


async def test_h31_a_merge_is_never_late(site: Site) -> None:
    """Said long before what is stored: it merges all the same."""
    await sent(site, adt("A1", "P1"), adt("A2", "P2"))
    assert await sent(site, merge("M1", "P1", "P2", said="20200102030405+0600")) == ["AA"]

    assert [one["active"] for one in (await patients(site)).values()] == [True, False]


async def test_h33_one_new_patient_in_three_processes_with_overlapping_numbers(
    site: Site, three: list[Interface]
) -> None:
    """Whoever is first; the others add the number that it lacked."""
    peers = [await peer_of(one) for one in three for _ in range(2)]
    for round in range(3):
        a, b, c = (f"{name}{round}" for name in "ABC")
        pairs = [(a, b), (b, c), (c, a)] * 2
        texts = [
            adt(f"{round}.{n}", f"{one}^^^CLINIC^MR~{other}")
            for n, (one, other) in enumerate(pairs)
        ]
        await asyncio.gather(*(peer.send(text) for peer, text in zip(peers, texts, strict=True)))
        answers = [await peer.answer() for peer in peers]
        found = {one["id"]: one for name in (a, b, c) for one in
                 await site.search("Patient", identifier=name)}  # fmt: skip
        assert {answered(one)[0] for one in answers} == {"AA"}
        assert len(found) == 1
        assert set(numbers(next(iter(found.values())))) == {a, b, c}
    for peer in peers:
        peer.close()


async def test_h26_updates_through_three_processes_end_with_the_last(
    site: Site, three: list[Interface]
) -> None:
    """In enhanced mode one process applies what all have taken, in order of arrival."""
    peers = [await peer_of(one) for one in three]
    modes = {"m15": "AL", "m16": "NE"}
    for n in range(18):
        assert await peers[n % 3].ask(adt(f"U{n}", family=f"N{n:02}", **modes)) == "CA"
    await site.settled()
    [patient] = await site.search("Patient")

    assert (patient["name"][0]["family"], patient["meta"]["versionId"]) == ("N17", "18")
    for peer in peers:
        peer.close()


def visit(number: str) -> str:
    """Return a PV1."""
    return f"PV1|1|I|W1|||||||||||||||||{number}^^^CLINIC".replace("|||||||||||||||||", "|" * 16)


async def test_h37_a_visit_that_was_two_is_one(site: Site) -> None:
    """A42: what names the prior Encounter names the other, later messages under its number too."""
    result = oru("R1", "P1", 1, "F1").decode().replace("OBR|", f"{visit('V1')}\rOBR|").encode()
    later = oru("R2", "P1", 1, "F2").decode().replace("OBR|", f"{visit('V1')}\rOBR|").encode()
    admitted = [event(f"A{n}", "A01", "P1", visit(f"V{n}")) for n in (1, 2)]
    merging = event("M1", "A42", "P1", "MRG|P1^^^CLINIC^MR||||V1^^^CLINIC", visit("V2"))
    assert await sent(site, *admitted, result, merging, later) == ["AA"] * 5
    visits = {one["status"]: one for one in await site.search("Encounter")}
    kept, gone = visits["in-progress"], visits["entered-in-error"]
    named = [one["encounter"]["reference"] for one in await site.search("Observation")]

    assert numbers(kept) == {"V2": "", "V1": "old"}
    assert "identifier" not in gone
    assert named == [f"Encounter/{kept['id']}"] * 2


async def test_h37_a_visit_goes_to_another_patient(site: Site) -> None:
    """A45: the Encounter, and what names it."""
    result = oru("R1", "P1", 1, "F1").decode().replace("OBR|", f"{visit('V1')}\rOBR|").encode()
    other = oru("R2", "P1", 1, "F2")
    moving = event("M1", "A45", "P2", "MRG|P1^^^CLINIC^MR||||V1^^^CLINIC", "PV1|1|I")
    assert await sent(site, event("A1", "A01", "P1", visit("V1")), adt("A2", "P2")) == ["AA"] * 2
    assert await sent(site, result, other, moving) == ["AA"] * 3
    found = await patients(site)
    counts = {}
    for name, patient in found.items():
        place = f"Patient/{patient['id']}"
        for type in ("Encounter", "Observation"):
            counts[name, type] = len(await site.search(type, patient=place))

    assert counts == {("P1", "Encounter"): 0, ("P1", "Observation"): 1,
                      ("P2", "Encounter"): 1, ("P2", "Observation"): 1}  # fmt: skip


@pytest.mark.parametrize("code", ["A41", "A44"])
async def test_h37_accounts_become_one(site: Site, code: str) -> None:
    """What was charged to the prior account is charged to the other."""
    charge = "FT1|1|T1||20260102||CG|X^x^L"
    first = event("D1", "A08", "P1", charge, account="K1").replace(b"ADT^A08", b"DFT^P03")
    second = event("D2", "A08", "P1", charge.replace("T1", "T2"), account="K2")
    merging = event("M1", code, "P1", "MRG|P1^^^CLINIC^MR||K1^^^CLINIC", account="K2")
    third = event("D3", "A08", "P1", charge.replace("T1", "T3"), account="K1")
    charges = [one.replace(b"ADT^A08", b"DFT^P03") for one in (second, merging, third)]
    assert await sent(site, first, *charges) == ["AA"] * 4
    accounts = {one["status"]: one for one in await site.search("Account")}
    kept = accounts["active"]
    named = {ref["reference"] for one in await site.search("ChargeItem") for ref in one["account"]}

    assert numbers(kept) == {"K2": "", "K1": "old"}
    assert named == {f"Account/{kept['id']}"}


async def test_h37_an_account_is_renamed(site: Site) -> None:
    """A49: the same Account under the new number."""
    charge = event("D1", "A08", "P1", "FT1|1|T1||20260102||CG|X^x^L", account="K1")
    renaming = event("M1", "A49", "P1", "MRG|P1^^^CLINIC^MR||K1^^^CLINIC", account="K2")
    assert await sent(site, charge.replace(b"ADT^A08", b"DFT^P03"), renaming) == ["AA"] * 2
    [account] = await site.search("Account")

    assert numbers(account) == {"K1": "old", "K2": ""}


async def test_h37_patients_are_linked_on_both_sides_and_unlinked(site: Site) -> None:
    """A24 and A37; both stay active."""
    pid = adt("X", "P2").decode().rpartition("\rPID")[2].strip()
    assert await sent(site, event("L1", "A24", "P1", "PV1|1", f"PID{pid}", "PV1|1")) == ["AA"]
    linked = await patients(site)
    assert links(linked["P1"]) == [("seealso", f"Patient/{linked['P2']['id']}")]
    assert links(linked["P2"]) == [("seealso", f"Patient/{linked['P1']['id']}")]
    assert await sent(site, event("L2", "A37", "P1", "PV1|1", f"PID{pid}", "PV1|1")) == ["AA"]
    apart = await patients(site)

    assert [links(one) for one in apart.values()] == [[], []]
    assert all(one["active"] for one in apart.values())


async def test_h37_a_number_that_moves_or_is_taken_is_held(site: Site) -> None:
    """A43 always; A47 where its new number names somebody else. Nothing is written."""
    await sent(site, adt("A1", "P1"), adt("A2", "P2"))
    before = await site.search("Patient")
    assert await sent(site, merge("M1", "P1", "P2", code="A43")) == ["AE"]
    assert await sent(site, merge("M2", "P2", "P1", code="A47")) == ["AE"]

    assert [row["state"] for row in await site.rows()][2:] == ["held", "held"]
    assert await site.search("Patient") == before


@pytest.mark.parametrize(
    ("members", "sent_first", "doubtful", "condition"),
    [
        ({"identity": {"unknown_patient": "hold"}}, [], adt("Q1", "P1"), b"204^"),
        ({"identity": {"conflict": "hold"}}, [adt("A1", "P1"), adt("A2", "P2")],
         adt("Q1", "P1^^^CLINIC^MR~P2"), b"204^"),
        ({"identity": {"suspect": "hold"}}, [adt("A1", "P1")],
         adt("Q1", "P1", "Other").replace(b"19800101", b"19910101"), b"204^"),
        ({}, [oru("A1", "P1")], oru("Q1", "P2"), b"205^"),
        ({"unmapped_code": "hold", "code_maps": {"OBX-3": "ConceptMap/empty"}}, [adt("A1", "P1")],
         oru("Q1", "P1"), b"204^"),
    ],
    ids=["h34-unknown", "h34-conflict", "h34-suspect", "h51-filler", "h65-code"],
)  # fmt: skip
async def test_what_is_in_doubt_is_held_and_writes_nothing(
    site: Site, members: Json, sent_first: list[bytes], doubtful: bytes, condition: bytes
) -> None:
    """AE and a row that waits; its repetition is answered so as well; a released one is judged
    again. Nothing of it is in any resource."""
    body = {"resourceType": "ConceptMap", "id": "empty", "status": "active"}
    await site.server.perform(Request("update", "ConceptMap", "empty", body=body))
    document = {"name": "acme", "match": [{"application": "LIS"}], **members}
    await site.server.context.store.inbox.set_sender("acme", document, site.server.context.now())
    await site.intake.refresh()
    assert await sent(site, *sent_first) == ["AA"] * len(sent_first)
    before = await stored(site)
    peer = await site.peer()
    for _ in range(2):
        await peer.send(doubtful)
        answer = await peer.answer()
        assert (answered(answer)[0], condition in answer) == ("AE", True)
    *_, row = await site.rows()
    assert (row["state"], row["control_id"], row["copies"]) == ("held", "Q1", 1)
    found = await site.server.context.store.inbox.row(row["_id"])
    assert found is not None
    await release(found, site.intake)
    await site.settled()
    *_, row = await site.rows()
    assert row["state"] == "held"
    assert await stored(site) == before


async def stored(site: Site) -> set[tuple[str, str]]:
    """Return each resource of a patient with its version."""
    types = ("Patient", "Observation", "DiagnosticReport", "ServiceRequest", "Provenance", "Binary")
    found = set()
    for type in types:
        for one in await site.search(type):
            found.add((f"{type}/{one['id']}", one["meta"]["versionId"]))
    return found
