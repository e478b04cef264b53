"""design/hl7v2.md, sections 6, 18, 20 and 21: what those do who run the interface.

Checks H23, H24, H25, H67, H69, H70.
"""

import base64
import json
from typing import Any

import pytest

from adapters.hl7v2.ack import answered
from adapters.hl7v2.operations import operations
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode, encode
from tests.adapters.hl7v2.conftest import Site, adt, oru


async def called(site: Site, name: str, /, *parameters: dict[str, Any], **query: str) -> Any:
    """Call an operation: with ``query`` by GET, else by POST; return the body."""
    body = {"resourceType": "Parameters", "parameter": list(parameters)} if parameters else None
    request = Request(
        name, body=body, parameters=tuple(query.items()), reading=body is None, base_url="http://s"
    )
    if name == "$hl7v2-replay":
        request = Request(name, body=body)
    response: Response = await site.server.registry.handler(request)(  # type: ignore[misc]
        request, site.server.context
    )
    return decode(response.body)


@pytest.fixture
async def site(site: Site) -> Site:
    """The site, whose operations are those of its interface."""
    for operation in operations(site.interface):
        site.server.registry.operation(operation)
    return site


def text(name: str, value: str) -> dict[str, Any]:
    """Return a string parameter."""
    return {"name": name, "valueString": value}


def true(name: str) -> dict[str, Any]:
    """Return a boolean parameter."""
    return {"name": name, "valueBoolean": True}


def by_name(body: dict[str, Any]) -> dict[str, Any]:
    """Return parameters by name; the last of a name."""
    return {one["name"]: one for one in body.get("parameter", [])}


def states(body: dict[str, Any]) -> dict[str, int]:
    """Return the counts by outcome."""
    found = {}
    for one in body["parameter"]:
        if one["name"] == "outcome":
            parts = {part["name"]: part for part in one["part"]}
            found[parts["state"]["valueCode"]] = parts["count"]["valueInteger"]
    return found


async def sent(site: Site, *messages: bytes) -> list[str]:
    """Send messages; return MSA-1 of their answers."""
    peer = await site.peer()
    await peer.send(*messages)
    return [answered(await peer.answer())[0] for _ in messages]


async def test_h70_the_inbox_shows_rows_as_tasks_in_pages(site: Site) -> None:
    """Newest first, with their states, what they became, and a link to the next page."""
    broken = adt("A2").partition(b"PID|")[0]
    assert await sent(site, adt("A1"), broken, oru("A3")) == ["AA", "AE", "AA"]
    first = await called(site, "$hl7v2-inbox", _count="2")
    tasks = [one["resource"] for one in first["entry"] if one["search"]["mode"] == "match"]
    outcome = first["entry"][-1]["resource"]
    after = first["link"][-1]["url"].rpartition("after=")[2]
    second = await called(site, "$hl7v2-inbox", _count="2", after=after)

    assert [one["identifier"][0]["value"] for one in tasks] == ["A3", "A2"]
    assert [one["status"] for one in tasks] == ["completed", "failed"]
    assert "dead 1, done 2" in outcome["issue"][0]["diagnostics"]
    assert [one["resource"]["identifier"][0]["value"] for one in second["entry"]] == ["A1"]
    for task in tasks:
        assert site.server.context.validate(task) == ()


@pytest.mark.parametrize(
    ("query", "found"),
    [({"state": "dead"}, {"A2"}), ({"type": "ORU^R01"}, {"A3"}), ({"since": "2999-01-01"}, set())],
)
async def test_h70_the_inbox_is_narrowed(
    site: Site, query: dict[str, str], found: set[str]
) -> None:
    """By state, type and time."""
    await sent(site, adt("A1"), adt("A2").partition(b"PID|")[0], oru("A3"))
    body = await called(site, "$hl7v2-inbox", **query)
    tasks = [one["resource"] for one in body["entry"] if one["search"]["mode"] == "match"]

    assert {one["identifier"][0]["value"] for one in tasks} == found


async def test_h70_one_row_in_full(site: Site) -> None:
    """Its answer, and with ``raw`` its segments and the message itself."""
    await sent(site, oru("A1"))
    [row] = await site.rows()
    bare = by_name(await called(site, "$hl7v2-inbox", id=row["_id"]))
    full = by_name(await called(site, "$hl7v2-inbox", id=row["_id"], raw="true"))

    assert "MSA|AA|A1" in bare["answer"]["valueString"]
    assert "raw" not in bare
    assert full["raw"]["valueString"].encode() == oru("A1")
    assert text("OBX-2", "NM") in full["OBX[1]"]["part"]


async def test_h23_a_replay_of_what_is_applied_writes_no_version(site: Site) -> None:
    """Everything comes out equal; the replay is a row of its own."""
    await sent(site, adt("A1"), oru("A2"), adt("A3", "P2"))
    before = await versions(site)
    body = await called(site, "$hl7v2-replay", text("state", "done"))
    *_, last = await site.rows()

    assert states(body) == {"done": 3}
    assert await versions(site) == before
    assert last["replay_of"]
    assert {one["outcome"] for one in last["made"]} == {"unchanged"}


async def versions(site: Site) -> dict[str, str]:
    """Return the version of each resource that came of messages."""
    found = [*await site.search("Patient"), *await site.search("Observation")]
    return {f"{one['resourceType']}/{one['id']}": one["meta"]["versionId"] for one in found}


async def test_h24_an_edited_text_takes_the_place_of_a_dead_one(site: Site) -> None:
    """The original is kept, both are linked, and the sender's repetition finds the outcome."""
    broken = adt("A1").replace(b"P1^^^CLINIC^MR", b"")
    assert await sent(site, broken) == ["AE"]
    [row] = await site.rows()
    edited = {"name": "text", "valueBase64Binary": base64.b64encode(adt("A1")).decode()}
    body = await called(site, "$hl7v2-replay", text("id", row["_id"]), edited)
    first, second = await site.rows()

    assert states(body) == {"done": 1}
    assert (first["state"], first["replaced_by"]) == ("ignored", second["_id"])
    assert (second["state"], second["replay_of"]) == ("done", first["_id"])
    assert first["raw"] == broken
    assert len(await site.search("Patient")) == 1
    assert await sent(site, adt("A1")) == ["AA"]
    assert len(await site.rows()) == 2


async def test_h23_a_dry_run_tells_and_writes_nothing(site: Site) -> None:
    """Counts of what would come; no row, no version."""
    await sent(site, oru("A1"))
    body = await called(site, "$hl7v2-replay", text("state", "done"), true("dry-run"))

    assert states(body) == {"unchanged": 3} or sum(states(body).values()) >= 3
    assert len(await site.rows()) == 1


async def test_h70_discarding_needs_a_reason_and_leaves_the_row(site: Site) -> None:
    """A dead row is ignored from then on; a done one is not to be discarded."""
    await sent(site, adt("A1").partition(b"PID|")[0], adt("A2"))
    dead, done = await site.rows()
    discard = text("action", "discard")
    with pytest.raises(FhirError, match="reason"):
        await called(site, "$hl7v2-replay", text("id", dead["_id"]), discard)
    reason = text("reason", "a test of theirs")
    await called(site, "$hl7v2-replay", text("id", dead["_id"]), discard, reason)
    with pytest.raises(FhirError, match="done"):
        await called(site, "$hl7v2-replay", text("id", done["_id"]), discard, reason)

    assert [row["state"] for row in await site.rows()] == ["ignored", "done"]


async def test_h25_a_bulk_replay_goes_on_where_it_ended(site: Site) -> None:
    """In order of arrival, so many in a call; the answer says how to go on."""
    await sent(site, *[adt(f"A{n}").partition(b"PID|")[0] for n in range(7)])
    after: tuple[dict[str, Any], ...] = ()
    calls = 0
    count = {"name": "_count", "valueInteger": 3}
    while True:
        body = by_name(await called(site, "$hl7v2-replay", text("state", "dead"), count, *after))
        calls += 1
        if "after" not in body:
            break
        after = (text("after", body["after"]["valueString"]),)
    ends = [row for row in await site.rows() if row.get("replay_of")]

    assert calls == 3
    assert [row["control_id"] for row in ends] == [f"A{n}" for n in range(7)]


async def test_h69_the_dry_run_of_a_message_is_what_it_becomes(site: Site) -> None:
    """Resource by resource, but for ids that are drawn; nothing is written."""
    message = oru("A1")
    body = by_name(await called(site, "$hl7v2-to-fhir", text("message", message.decode())))
    bundle = body["bundle"]["resource"]
    assert await site.rows() == []
    assert await site.search("Patient") == []
    await sent(site, message)

    dry = sorted(one["resource"]["resourceType"] for one in bundle["entry"])
    [row] = await site.rows()
    assert dry == sorted(one["reference"].partition("/")[0] for one in row["made"])


VISIT = b"PV1|1|I|W1||||||||||||||||V1^^^CLINIC\r"
STORY = [
    adt("S1"),
    adt("S2", type="ADT^A01") + VISIT,
    oru("S3", results=3),
    oru("S4", results=3).replace(b"|2.50|", b"|9.90|").replace(b"|||F\r", b"|||C\r"),
    adt("S5", family="Karim"),
    oru("S6", "P2", 2, "F2"),
    adt("S7", type="ADT^A03") + VISIT,
    adt("S8", type="ADT^A40") + b"MRG|P2^^^CLINIC^MR\r",
    oru("S9", "P2", 1, "F9"),
]


async def test_h69_the_dry_run_says_what_comes_at_each_step_of_a_story(site: Site) -> None:
    """Resource by resource, on what is stored by then, merges as well; and nothing is written."""
    for message in STORY:
        before = await versions_of(site)
        given = (text("message", message.decode()), true("compare"))
        body = by_name(await called(site, "$hl7v2-to-fhir", *given))
        assert await versions_of(site) == before
        dry = [one["resource"] for one in body["bundle"]["resource"]["entry"]]
        assert await sent(site, message) == ["AA"]

        *_, row = await site.rows()
        real = [await resource_at(site, one["reference"]) for one in row["made"]]
        assert [same_ids(one, dry, real) for one in dry] == [bare(one) for one in real]


async def versions_of(site: Site) -> dict[str, int]:
    """Return how many documents there are of each collection, rows of the inbox included; but for
    the record of who asked for what."""
    database = site.server.database
    names = sorted(set(await database.list_collection_names()) - {"audit"})
    return {name: await database[name].count_documents({}) for name in names}


async def resource_at(site: Site, reference: str) -> dict[str, Any]:
    """Return a resource as it is now."""
    type, id = reference.split("/")
    return decode((await site.server.perform(Request("read", type, id))).body)


def bare(resource: dict[str, Any]) -> dict[str, Any]:
    """Return ``resource`` without what the store says of it."""
    meta = {
        name: value
        for name, value in resource.get("meta", {}).items()
        if name not in ("versionId", "lastUpdated")
    }
    return {**resource, "meta": meta}


def same_ids(
    resource: dict[str, Any], dry: list[dict[str, Any]], real: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return ``resource`` of a dry run with the ids that the real run has drawn for Patients."""
    written = encode(bare(resource)).decode()
    for one, other in zip(dry, real, strict=True):
        if one["resourceType"] == "Patient":
            written = written.replace(one["id"], other["id"])
    found: dict[str, Any] = decode(written.encode())
    return found


async def test_h69_a_message_that_is_none_is_told(site: Site) -> None:
    """The outcome says what the acknowledgement would."""
    body = by_name(await called(site, "$hl7v2-to-fhir", text("message", "PID|1")))

    assert "100: " in body["outcome"]["resource"]["issue"][0]["diagnostics"]


PROFILE = {
    "name": "acme",
    "match": [{"application": "LIS", "facility": "*"}],
    "accept": {"types": ["ORU^R01"], "processing": ["P"]},
}


async def test_h67_a_profile_is_set_and_holds_at_once(site: Site) -> None:
    """What its sender may not send is refused; versions count up; it is served as it was set."""
    assert await sent(site, adt("A1")) == ["AA"]
    given = text("profile", json.dumps(PROFILE))
    await called(site, "$hl7v2-senders", given, true("check"))
    assert "parameter" not in await called(site, "$hl7v2-senders")
    await called(site, "$hl7v2-senders", given)
    again = by_name(await called(site, "$hl7v2-senders", given))
    listed = await called(site, "$hl7v2-senders", name="acme")
    parts = {part["name"]: part for part in listed["parameter"][0]["part"]}

    assert again["version"]["valueInteger"] == 2
    assert json.loads(parts["profile"]["valueString"]) == PROFILE
    assert await sent(site, adt("A2"), oru("A3")) == ["AR", "AA"]
    *_, row = await site.rows()
    assert row["sender"] == "acme"


async def test_h67_what_is_wrong_in_a_profile_is_told(site: Site) -> None:
    """An unknown member is refused, and nothing is set."""
    given = text("profile", json.dumps(PROFILE | {"nmae": "x"}))
    with pytest.raises(FhirError, match="nmae"):
        await called(site, "$hl7v2-senders", given)

    assert "parameter" not in await called(site, "$hl7v2-senders")


async def test_h70_what_is_asked_wrongly_is_refused(site: Site) -> None:
    """An unknown parameter, an unknown row, no selection."""
    with pytest.raises(FhirError, match="no parameter 'stat'"):
        await called(site, "$hl7v2-inbox", stat="dead")
    with pytest.raises(FhirError, match="does not exist"):
        await called(site, "$hl7v2-inbox", id="nobody")
    with pytest.raises(FhirError, match="Which rows"):
        await called(site, "$hl7v2-replay", true("force"))
