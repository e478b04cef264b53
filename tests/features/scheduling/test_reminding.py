"""design/scheduling.md, section 8 and checks R1 to R5: what is due is sent, and nothing else."""

import asyncio
import json
import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from adapters.notify.sms import SMS
from fhir_server.app import Server, opened
from fhir_server.features.scheduling.delivering import LEASE, TRIES_MAX, Deliveries
from fhir_server.features.scheduling.reminder_policy import desk_of
from fhir_server.messages import Request, Resource
from fhir_server.registry import Outgoing, Unsent
from fhir_server.settings import Settings
from tests.adapters.notify.sinks import HttpSink, running
from tests.conftest import Emptied
from tests.features.scheduling.reminder_world import (
    NOON,
    REMINDING,
    World,
    appointment,
    opted_out,
    patient,
    world,
)

PHONE = ("phone", "+8801711000001")
TOMORROW = NOON + timedelta(days=1, hours=3)  # three in the afternoon
MANY = int(os.environ.get("FHIR_TEST_REMINDERS", "40"))
"""How many appointments the check of what is due has: 1,000 in the page."""
SOME = min(MANY, 60)  # all of them are to be due within a day


@pytest.fixture
def settings(emptied: Emptied) -> Iterator[Settings]:
    """Settings by which patients are reminded."""
    name = emptied.take()
    yield Settings.model_validate({"mongodb_database": name, **REMINDING})
    emptied.give_back(name)


@pytest.fixture
async def clinic(server: Server) -> World:
    """A clinic with one patient."""
    found = world(server)
    await found.write(patient("p", PHONE))
    return found


async def test_a_booking_has_a_reminder_for_each_offset(clinic: World) -> None:
    """A CommunicationRequest for each, active, with its time, text and medium."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()

    found = await clinic.all("CommunicationRequest", _sort="occurrence")
    assert [one["occurrenceDateTime"] for one in found] == [
        "2036-12-01T09:00:00.000Z",
        "2036-12-02T07:00:00.000Z",
    ]
    one = found[0]
    assert one["status"] == "active"
    assert one["about"] == [{"reference": "Appointment/a"}]
    assert one["recipient"] == [{"reference": "Patient/p"}]
    assert one["medium"][0]["coding"][0]["code"] == "sms"
    assert "Tue 2 Dec 2036 at 15:00" in one["payload"][0]["contentString"]
    assert clinic.sink.taken == []


async def test_what_is_sent_has_a_communication(clinic: World) -> None:
    """After the send the request is completed, and a Communication of the same id says so."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.pass_by(hours=3)
    await clinic.work()

    [(when, sent)] = clinic.sink.taken
    assert when == NOON + timedelta(hours=3)
    assert sent.to == "+8801711000001"
    [said] = await clinic.all("Communication")
    assert (said["id"], said["status"]) == (sent.key, "completed")
    assert said["note"] == [{"text": "Sent as 1 SMS (GSM-7)."}]
    [request] = await clinic.all("CommunicationRequest", status="completed")
    assert request["id"] == sent.key


async def test_nothing_is_planned_for_what_is_over(clinic: World) -> None:
    """R1: of a booking for this afternoon, the offset of a day gives nothing."""
    await clinic.write(appointment("a", NOON + timedelta(hours=4)))
    await clinic.work()

    [one] = await clinic.all("CommunicationRequest")
    assert one["occurrenceDateTime"] == "2036-12-01T08:00:00.000Z"


@pytest.mark.slow
async def test_exactly_what_is_due_is_sent(clinic: World) -> None:
    """R1: many appointments over a fortnight; at any time what is due was sent, and none early."""
    pick = random.Random(9)
    # One patient has one appointment at a time: each has another quarter of an hour.
    starts = [NOON + timedelta(minutes=15 * n) for n in pick.sample(range(16, 14 * 24 * 4), k=MANY)]
    booked = [
        appointment(f"a{n}", start, end=(start + timedelta(minutes=15)).isoformat())
        for n, start in enumerate(starts)
    ]
    for at in range(0, MANY, 100):
        await clinic.write(*booked[at : at + 100])
    await clinic.work()

    due = [row["due"] for row in await clinic.rows(kind="message")]
    assert MANY < len(due) <= 2 * MANY
    for one in sorted(set(due)):
        clinic.clock.at = one - timedelta(seconds=1)
        await clinic.work()
        assert len(clinic.sink.taken) == sum(1 for other in due if other < one), "none is early"
        clinic.clock.at = one
        await clinic.work()
        assert len(clinic.sink.taken) == sum(1 for other in due if other <= one)
    assert set(clinic.sink.keys.values()) == {1}
    assert len(clinic.sink.taken) == len(due)


@pytest.mark.slow
async def test_each_is_delivered_though_the_sink_fails_and_workers_die(
    clinic: World, tmp_path: Path
) -> None:
    """R2: a gateway that fails 30 % and hangs 5 %, workers killed five times: each at least once,
    what comes twice has one key, none is lost."""
    tried: Counter[str] = Counter()

    def lot(key: str) -> int:
        # By message and try, not by arrival: the same whichever worker is first.
        tried[key] += 1
        drawn = random.Random(f"{key}/{tried[key]}").random()
        return 503 if drawn < 0.30 else 0 if drawn < 0.35 else 200

    async with running(HttpSink(lot=lot)) as sink:
        path = tmp_path / "gateway.json"
        path.write_text(json.dumps({"url": sink.url, "json": {"to": "{to}", "text": "{text}"}}))
        more = {"sms_gateway": path, "reminder_timeout_s": 0.3}
        settings = clinic.context.settings.model_copy(update=more)
        context = replace(clinic.context, settings=settings)
        async with SMS.opened(context) as send:
            await clinic.write(*in_turn(SOME))
            await clinic.work()
            clinic.clock.pass_by(days=1)
            wanted = {row["_id"] for row in await clinic.rows(due={"$lte": clinic.clock()})}
            assert len(wanted) == SOME
            killed, sent = 0, set[str]()
            for _ in range(80):
                deliveries = Deliveries(context, desk_of(settings), {"sms": send})
                workers = [asyncio.create_task(worked_off(deliveries)) for _ in range(4)]
                if killed < 5:
                    before = len(sink.requests)
                    while len(sink.requests) < before + 2 and not all(
                        one.done() for one in workers
                    ):
                        await asyncio.sleep(0.001)
                    killed += 1
                    for one in workers:
                        one.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
                clinic.clock.pass_by(seconds=LEASE.total_seconds() + 1)
                sent = {row["_id"] for row in await clinic.rows(state="sent")}
                if wanted <= sent:
                    break

    assert killed == 5
    left = await clinic.rows(_id={"$in": sorted(wanted - sent)})
    assert [(one["state"], one["tried"], one.get("reason")) for one in left] == []
    assert sent <= sink.taken.keys(), "what is noted as sent was taken: none is lost"
    assert sink.taken.keys() <= {row["_id"] for row in await clinic.rows(kind="message")}
    assert {one["id"] for one in await clinic.all("Communication", status="completed")} == sent


async def worked_off(deliveries: Deliveries) -> None:
    """Work off what is due, as one worker."""
    while await deliveries.one():
        pass


def in_turn(count: int) -> list[Resource]:
    """Return so many appointments, a quarter of an hour each."""
    quarter = timedelta(minutes=15)
    starts = [TOMORROW + n * quarter for n in range(count)]
    return [
        appointment(f"a{n}", start, end=(start + quarter).isoformat())
        for n, start in enumerate(starts)
    ]


async def test_no_row_is_taken_twice_at_once(clinic: World) -> None:
    """R3: two workers with all their hands: at no time do two have the same message."""
    held: Counter[str] = Counter()
    most = 0

    async def before(outgoing: Outgoing) -> None:
        nonlocal most
        held[outgoing.key] += 1
        most = max(most, *held.values())
        await asyncio.sleep(0)
        held[outgoing.key] -= 1

    clinic.sink.before = before
    await clinic.write(*in_turn(20))
    await clinic.work()
    clinic.clock.pass_by(hours=9)
    await asyncio.gather(*(clinic.work() for _ in range(8)))

    assert most == 1
    assert set(clinic.sink.keys.values()) == {1}
    assert len(clinic.sink.taken) == 20


@pytest.mark.parametrize("reference", ["{base}/Patient/p", "Patient/p/_history/1"])
async def test_a_patient_is_known_by_any_name(clinic: World, reference: str) -> None:
    """A reference may be absolute, or have a version: the reminder comes, and so does the move."""
    who = reference.format(base=clinic.context.parameters.base_urls[0])
    await clinic.write(appointment("a", TOMORROW, who))
    await clinic.work()
    clinic.clock.pass_by(hours=3)
    await clinic.work()
    await clinic.write(appointment("a", TOMORROW + timedelta(days=3), who))
    await clinic.work()
    assert [one.about["patient"] for _, one in clinic.sink.taken] == ["Patient/p"] * 2


@pytest.mark.parametrize("how", ["cancelled", "deleted", "moved"])
async def test_what_is_cancelled_just_before_is_not_sent(clinic: World, how: str) -> None:
    """R4: cancelled a second before it is due: revoked, nothing sent; whether or not the plan was
    made again by then."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.at = datetime.fromisoformat("2036-12-01T08:59:59+00:00")
    if how == "deleted":
        await clinic.ask(Request("delete", "Appointment", "a"))
    elif how == "moved":
        await clinic.write(appointment("a", TOMORROW + timedelta(days=7)))
    else:
        await clinic.write(appointment("a", TOMORROW, status="cancelled"))
    assert {row["state"] for row in await clinic.rows(kind="message")} == {"withdrawn"}
    clinic.clock.pass_by(seconds=2)
    await clinic.work()

    assert clinic.sink.taken == []
    assert len(await clinic.all("CommunicationRequest", status="revoked")) == 2
    planned = await clinic.all("CommunicationRequest", status="active")
    assert len(planned) == (2 if how == "moved" else 0)


@pytest.mark.parametrize("status", ["cancelled", "entered-in-error"])
async def test_who_was_reminded_is_told_that_it_is_off(clinic: World, status: str) -> None:
    """A cancellation after a reminder went out is followed by a notice, once."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.pass_by(hours=4)
    await clinic.work()
    await clinic.write(appointment("a", TOMORROW, status=status))
    await clinic.work()
    clinic.clock.pass_by(hours=30)
    await clinic.work()

    texts = [one.text for _, one in clinic.sink.taken]
    assert len(texts) == 2
    assert "is cancelled" in texts[1]


async def test_who_was_reminded_is_told_of_another_time(clinic: World) -> None:
    """So is a move; and the new time has its reminders."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.pass_by(hours=4)
    await clinic.work()
    await clinic.write(appointment("a", TOMORROW + timedelta(days=3)))
    await clinic.work()
    clinic.clock.pass_by(days=5)
    await clinic.work()

    texts = [one.text for _, one in clinic.sink.taken]
    assert len(texts) == 2, "what was slept through is not sent late"
    assert "is now on Fri 5 Dec 2036" in texts[1]
    assert len(await clinic.all("Communication", status="not-done")) == 2


async def test_who_is_moved_to_and_fro_knows_the_last_time(clinic: World) -> None:
    """Each time that a patient was told of is followed by the next one, be it one told before."""
    later = TOMORROW + timedelta(days=3)
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.pass_by(hours=3)
    await clinic.work()
    for start in (later, TOMORROW, later):
        clinic.clock.pass_by(minutes=1)
        await clinic.write(appointment("a", start))
        await clinic.work()
        await clinic.write(appointment("a", start, comment="no news"))
        await clinic.work()

    texts = [one.text for _, one in clinic.sink.taken][1:]
    assert ["Fri 5 Dec" in one for one in texts] == [True, False, True]
    clinic.clock.pass_by(minutes=1)
    for status in ("declined", "declined", "accepted"):
        one = appointment("a", later)
        one["participant"][0]["status"] = status
        one["comment"] = status + str(clinic.clock())
        await clinic.write(one)
        await clinic.work()
        clinic.clock.pass_by(minutes=1)
    texts = [one.text for _, one in clinic.sink.taken][4:]
    assert ["cancelled" in one for one in texts] == [True, False], "taken out, and in again"


async def test_what_was_due_at_night_waits_for_the_morning(clinic: World) -> None:
    """R7: a server that was down sends nobody at two in the night what was due in the evening,
    unless that is the last moment."""
    await clinic.write(patient("q", PHONE))
    evening = TOMORROW + timedelta(hours=4)
    soon = appointment("b", TOMORROW - timedelta(hours=8, minutes=-5), "Patient/q")  # at 07:05
    await clinic.write(appointment("a", evening), soon)
    await clinic.work()
    clinic.clock.pass_by(hours=14)
    await clinic.work()
    assert [one.about["about"] for _, one in clinic.sink.taken] == ["Appointment/b"]

    clinic.clock.pass_by(hours=6)
    await clinic.work()
    assert [(f"{when:%H:%M}", one.about["about"]) for when, one in clinic.sink.taken[1:]] == [
        ("02:00", "Appointment/a")
    ], "eight in the morning in Dhaka"
    assert {row["tried"] for row in await clinic.rows(state="sent")} == {1}


async def test_what_is_due_is_not_lost_by_a_new_plan(clinic: World) -> None:
    """A message that is late is still to be sent when others are planned; and says what is so
    now."""
    here, there = ({"reference": f"Location/{id}", "display": id} for id in ("here", "there"))
    for id in ("here", "there"):
        await clinic.write({"resourceType": "Location", "id": id, "name": id})
    await clinic.write(patient("p", ("email", "amina@example.org")))
    one = appointment("a", TOMORROW)
    one["participant"].append({"actor": here, "status": "accepted"})
    await clinic.write(one)
    await clinic.work()
    clinic.clock.pass_by(hours=3, minutes=1)  # a minute behind the first of the two
    one["participant"][1]["actor"] = there
    await clinic.write(one)
    await clinic.work()

    [(_, sent)] = clinic.sink.taken
    assert "at there." in sent.text
    assert len(await clinic.rows(state="waiting")) == 1


async def test_who_wants_no_messages_gets_none(clinic: World) -> None:
    """R5: a Communication says why, with the patient's objection."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    await clinic.write(opted_out("c", "Patient/p"))
    clinic.clock.pass_by(hours=3)
    await clinic.work()

    assert clinic.sink.taken == []
    [said] = await clinic.all("Communication")
    assert said["status"] == "not-done"
    assert said["statusReason"]["coding"][0]["code"] == "patient-objection"


async def test_another_channel_is_taken_where_one_is_not_wanted(clinic: World) -> None:
    """Who wants no SMS is written to."""
    await clinic.write(patient("p", PHONE, ("email", "amina@example.org")))
    await clinic.write(opted_out("c", "Patient/p", "sms"))
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.pass_by(hours=3)
    await clinic.work()

    [(_, sent)] = clinic.sink.taken
    assert sent.to == "amina@example.org"
    assert sent.subject == "Your appointment on Tue 2 Dec 2036"


@pytest.mark.parametrize("gone", [{"deceasedBoolean": True}, {"active": False}])
async def test_nobody_writes_to_who_has_died(clinic: World, gone: dict[str, bool]) -> None:
    """Neither to the dead, nor to a record that is not used any more."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    await clinic.write(patient("p", PHONE, **gone))
    clinic.clock.pass_by(hours=3)
    await clinic.work()

    assert clinic.sink.taken == []
    [said] = await clinic.all("Communication")
    assert said["statusReason"]["coding"][0]["code"] == "recipient-unavailable"


async def test_it_is_looked_at_again_right_before(clinic: World) -> None:
    """Cancelled after the row was taken, and before it was sent: nothing goes out."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.pass_by(hours=3)
    deliveries = clinic.deliveries()
    row = await deliveries.take()
    assert row is not None
    await clinic.write(appointment("a", TOMORROW, status="cancelled"))
    await deliveries.worked(row)

    assert clinic.sink.taken == []


async def test_who_comes_too_late_changes_nothing(clinic: World) -> None:
    """A worker whose lease is over sends with the same key, and writes over nobody's outcome."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.pass_by(hours=3)
    slow, quick = clinic.deliveries(), clinic.deliveries()
    first = await slow.take()
    assert first is not None
    assert await quick.take() is None, "it is taken"
    sending, go_on = asyncio.Event(), asyncio.Event()

    async def before(_: Outgoing) -> None:
        if not sending.is_set():
            sending.set()
            await go_on.wait()

    clinic.sink.before = before
    settings = clinic.context.settings.model_copy(update={"reminder_timeout_s": 30.0})
    slow.context = replace(clinic.context, settings=settings)
    task = asyncio.create_task(slow.worked(first))
    await sending.wait()
    clinic.clock.pass_by(seconds=61)
    second = await quick.take()
    assert second is not None
    assert (second.id, second.tried) == (first.id, 2)
    assert second.by != first.by
    await quick.worked(second)
    clinic.clock.pass_by(seconds=1)
    go_on.set()
    await task

    assert clinic.sink.keys == {first.id: 2}
    [said] = await clinic.all("Communication")
    assert said["meta"]["versionId"] == "1"


async def test_a_plan_that_is_overtaken_is_made_by_the_next(clinic: World) -> None:
    """A write between taking a plan and making it: the plan is that of the last write."""
    await clinic.write(appointment("a", TOMORROW))
    deliveries = clinic.deliveries()
    row = await deliveries.take()
    assert row is not None
    await clinic.write(appointment("a", TOMORROW + timedelta(days=1)))
    await deliveries.worked(row)
    assert await clinic.all("CommunicationRequest") == []
    await clinic.work()

    assert len(await clinic.all("CommunicationRequest")) == 2


async def test_what_fails_time_and_again_is_given_up(clinic: World) -> None:
    """Eight tries with waits that double; then the row is dead, and may be tried again."""
    tried: list[datetime] = []

    async def before(outgoing: Outgoing) -> None:
        tried.append(clinic.clock())
        raise Unsent("the gateway answered with 503")

    clinic.sink.before = before
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    clinic.clock.pass_by(hours=3)
    for _ in range(TRIES_MAX + 2):
        await clinic.work()
        for row in await clinic.rows(kind="message", state="waiting", tried={"$gt": 0}):
            clinic.clock.at = row["due"]

    waits = [(b - a).total_seconds() for a, b in pairwise(tried)]
    assert len(tried) == TRIES_MAX
    assert all(0.75 <= one / (30 * 2**n) <= 1.25 for n, one in enumerate(waits))
    [row] = await clinic.rows(state="dead")
    [said] = await clinic.all("Communication")
    assert said["statusReason"]["coding"][0]["code"] == "system-error"

    clinic.sink.before = None
    assert await clinic.context.store.outbox.repeat([row["_id"]], clinic.clock()) == 1
    await clinic.work()
    [said] = await clinic.all("Communication")
    assert said["status"] == "completed"


async def test_what_is_on_hold_waits(clinic: World) -> None:
    """A client may put a CommunicationRequest on hold, and have it go on; or never."""
    await clinic.write(appointment("a", TOMORROW))
    await clinic.work()
    first, second = await clinic.all("CommunicationRequest", _sort="occurrence")
    for one in (first, second):
        await clinic.write({**one, "status": "on-hold"})
    clinic.clock.pass_by(hours=3)
    await clinic.work()
    assert clinic.sink.taken == []
    await clinic.write(first)
    clinic.clock.pass_by(minutes=5)
    await clinic.work()
    assert [one.key for _, one in clinic.sink.taken] == [first["id"]]

    clinic.clock.pass_by(days=2)
    await clinic.work()
    assert [row["state"] for row in await clinic.rows(_id=second["id"])] == ["not-done"]
    assert len(clinic.sink.taken) == 1


async def test_without_channels_nothing_is_kept(mongodb_uri: str, emptied: Emptied) -> None:
    """Where nobody is to be reminded, a booking leaves no row."""
    name = emptied.take()
    async with opened(Settings.model_validate({"mongodb_database": name}), mongodb_uri) as plain:
        found = world(plain)
        await found.write(patient("p", PHONE))
        await found.write(appointment("a", TOMORROW))
        assert await found.rows() == []
    emptied.give_back(name)
