"""design/hl7v2.md, section 6: the states of a row and what leads from one to the next.

Checks H22, H23, H25, H67.
"""

import asyncio
import base64
import json
from datetime import timedelta
from typing import Any

import pytest

from adapters.hl7v2.ack import answered
from fhir_server.outcome import FhirError
from tests.adapters.hl7v2.conftest import Site, adt, control_of, oru
from tests.adapters.hl7v2.test_operations import by_name, called, sent, states, text
from tests.adapters.hl7v2.test_operations import site as site  # noqa: PLC0414 - a fixture

MOVES = {"name": "clinic", "match": [{"facility": "CLINIC"}], "keys": {"filler_reuse": "move"}}


async def as_held(site: Site) -> str:
    """Leave a held row: a result whose filler number belongs to another patient."""
    assert await sent(site, oru("H0", "P1")) == ["AA"]
    assert await sent(site, oru("H1", "P2")) == ["AE"]
    return await newest(site, "held")


async def as_dead(site: Site) -> str:
    """Leave a dead row: a message without a patient's number."""
    assert await sent(site, adt("H1").replace(b"P1^^^CLINIC^MR", b"")) == ["AE"]
    return await newest(site, "dead")


async def as_done(site: Site) -> str:
    """Leave an applied row."""
    assert await sent(site, adt("H1")) == ["AA"]
    return await newest(site, "done")


async def as_rejected(site: Site) -> str:
    """Leave a row that was refused at the door."""
    assert await sent(site, adt("H1", m11="X")) == ["AR"]
    return await newest(site, "rejected")


async def as_ignored(site: Site) -> str:
    """Leave a row that a person has left out."""
    id = await as_dead(site)
    await called(site, "$hl7v2-replay", text("id", id), *DISCARD)
    return await newest(site, "ignored")


async def newest(site: Site, state: str) -> str:
    """Return the id of the newest row, which is in ``state``."""
    row = await site.newest()
    assert row["state"] == state
    return str(row["_id"])


DISCARD = (text("action", "discard"), text("reason", "a test of theirs"))
RELEASE = (text("action", "release"),)
REPLACE = (
    {
        "name": "text",
        "valueBase64Binary": base64.b64encode(oru("H1", "P2", filler="F2")).decode(),
    },
)
# how the row came to be, what is done with it -> its state, that of the row made of it
TRANSITIONS = {
    "held, released": (as_held, RELEASE, "held", ""),
    "held, discarded": (as_held, DISCARD, "ignored", ""),
    "held, replaced": (as_held, REPLACE, "ignored", "done"),
    "dead, replayed": (as_dead, (), "ignored", "dead"),
    "dead, replaced": (as_dead, REPLACE, "ignored", "done"),
    "dead, discarded": (as_dead, DISCARD, "ignored", ""),
    "done, replayed": (as_done, (), "done", "done"),
    "ignored, replayed": (as_ignored, (), "ignored", "dead"),
    "rejected, replayed": (as_rejected, (), "ignored", "done"),
    "rejected, discarded": (as_rejected, DISCARD, "ignored", ""),
}


@pytest.mark.parametrize(
    ("begin", "action", "becomes", "made"), TRANSITIONS.values(), ids=TRANSITIONS
)
async def test_h22_what_a_person_does_with_a_row(
    site: Site, begin: Any, action: Any, becomes: str, made: str
) -> None:
    """Each transition of the table; what is made of a row names it, and the row names that."""
    id = await begin(site)
    await called(site, "$hl7v2-replay", text("id", id), *action)
    await site.settled()
    rows = {row["_id"]: row for row in await site.rows()}

    assert rows[id]["state"] == becomes
    [successor] = [row for row in rows.values() if row.get("replay_of") == id] or [{}]
    assert successor.get("state", "") == made
    if made and becomes == "ignored":
        assert rows[id]["replaced_by"] == successor["_id"]


@pytest.mark.parametrize(
    ("begin", "action", "words"),
    [(as_done, DISCARD, "done"), (as_dead, RELEASE, "dead"), (as_done, RELEASE, "done")],
)
async def test_h22_what_is_not_in_the_table_is_refused(
    site: Site, begin: Any, action: Any, words: str
) -> None:
    """And the row stays as it was."""
    id = await begin(site)
    with pytest.raises(FhirError, match=words):
        await called(site, "$hl7v2-replay", text("id", id), *action)

    assert (await site.newest())["_id"] == id


async def test_h22_a_held_row_is_applied_when_its_reason_is_gone(site: Site) -> None:
    """The profile says what to do, the row is released, and the sender is told AA then."""
    id = await as_held(site)
    assert await sent(site, oru("H1", "P2")) == ["AE"]  # a repetition is told the same
    await called(site, "$hl7v2-senders", text("profile", json.dumps(MOVES)))
    await called(site, "$hl7v2-replay", text("id", id), *RELEASE)
    await site.settled()

    assert [row["state"] for row in await site.rows()] == ["done", "done"]
    [patient] = await site.search("Patient", identifier="P2")
    assert len(await site.search("Observation", subject=f"Patient/{patient['id']}")) == 2


@pytest.mark.parametrize(
    ("begin", "days"), [(as_done, 90), (as_rejected, 7), (as_dead, None), (as_held, None)]
)
async def test_h22_how_long_a_row_stays(site: Site, begin: Any, days: int | None) -> None:
    """``done`` and ``rejected`` rows expire; ``dead`` and ``held`` never do."""
    await begin(site)
    row = await site.newest()
    expected = None if days is None else timedelta(days=days)
    found = row["until"] - row["received"] if "until" in row else None

    if expected is None or found is None:
        assert expected == found
    else:
        assert abs(found - expected) < timedelta(minutes=1)


async def test_h23_with_a_changed_rule_only_what_it_changes(site: Site) -> None:
    """Of sixty messages replayed, those with the field get a version, the others none."""
    messages = [adt(f"A{n}", f"P{n}") for n in range(60)]
    messages[7:9] = [one.replace(b"19800101|M", b"19800101|M\rZPD|blue") for one in messages[7:9]]
    assert await sent(site, *messages) == ["AA"] * 60
    row = {"field": "ZPD-1", "to": "Patient.extension[https://a.example]", "as": "string"}
    profile = {"name": "clinic", "match": [{"facility": "CLINIC"}], "rows": [row]}
    await called(site, "$hl7v2-senders", text("profile", json.dumps(profile)))
    body = await called(site, "$hl7v2-replay", text("state", "done"))
    await site.settled()
    found = await site.search("Patient", _count="100")

    assert states(body) == {"done": 60}
    changed = [one for one in found if one["meta"]["versionId"] == "2"]
    assert sorted(one["identifier"][0]["value"] for one in changed) == ["P7", "P8"]
    assert {one["extension"][0]["valueString"] for one in changed} == {"blue"}
    assert len(found) == 60


async def test_h25_a_bulk_replay_in_pages_keeps_the_order_of_each_patient(site: Site) -> None:
    """Forty dead rows of four patients, stopped after a page and resumed: counts are right, and
    each patient is as its last message says."""
    broken = [
        adt(f"D{n}", f"P{n % 4}", f"Name{n:02}")
        .replace(f"P{n % 4}^^^CLINIC^MR".encode(), b"")
        .replace(b"19800101|M", b"19800101|M" + b"|" * 10 + f"P{n % 4}".encode())
        for n in range(40)
    ]
    assert set(await sent(site, *broken)) == {"AE"}
    move = {"do": "move", "from": "PID-18", "to": "PID-3"}
    profile = {"name": "clinic", "match": [{"facility": "CLINIC"}], "before": [move]}
    await called(site, "$hl7v2-senders", text("profile", json.dumps(profile)))
    ids = [row["_id"] for row in await site.rows()]
    after: tuple[dict[str, Any], ...] = ()
    counts: dict[str, int] = {}
    while True:
        page = {"name": "_count", "valueInteger": 15}
        body = await called(site, "$hl7v2-replay", text("state", "dead"), page, *after)
        for state, count in states(body).items():
            counts[state] = counts.get(state, 0) + count
        if "after" not in by_name(body):
            break
        after = (text("after", by_name(body)["after"]["valueString"]),)
    await site.settled()
    replays = [row for row in await site.rows() if row.get("replay_of")]

    assert counts == {"done": 40}
    assert [row["replay_of"] for row in replays] == ids
    names = {one["name"][0]["family"] for one in await site.search("Patient")}
    assert names == {"Name36", "Name37", "Name38", "Name39"}


async def test_h67_a_profile_changed_while_messages_run(site: Site) -> None:
    """Each message is applied by one profile or the other, none is lost, and the last by the new
    one."""
    peer = await site.peer()
    profile = {
        "name": "clinic",
        "match": [{"facility": "CLINIC"}],
        "before": [{"do": "set", "field": "PID-8", "value": "F"}],
    }
    await peer.send(*[adt(f"A{n}", f"P{n}") for n in range(30)])

    async def change() -> None:
        await called(site, "$hl7v2-senders", text("profile", json.dumps(profile)))

    changing = asyncio.create_task(change())
    codes = [answered(await peer.answer())[0] for _ in range(30)]
    await changing
    await peer.send(adt("LAST", "P99"))
    assert control_of(await peer.answer()) == "LAST"
    found = await site.search("Patient", _count="100")

    assert codes == ["AA"] * 30
    assert len(found) == 31
    [last] = [one for one in found if one["identifier"][0]["value"] == "P99"]
    assert last["gender"] == "female"
    assert {one["gender"] for one in found} <= {"male", "female"}
