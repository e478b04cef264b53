"""design/scheduling.md, section 8: the task as the server runs it, to a real mail server; doses."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from email import message_from_string, policy
from typing import Any

import pytest

from fhir_server.app import opened
from fhir_server.ending import end_of
from fhir_server.features.scheduling.reminding import Sending
from fhir_server.messages import Request
from fhir_server.settings import Settings
from fhir_server.store.outbox import Outbox, Row
from tests.adapters.notify.sinks import SmtpSink, running
from tests.conftest import Emptied
from tests.features.scheduling.reminder_world import (
    NOON,
    REMINDING,
    World,
    appointment,
    patient,
    world,
)

TOMORROW = NOON + timedelta(days=1, hours=3)


@asynccontextmanager
async def clinic(mongodb_uri: str, emptied: Emptied, **more: Any) -> AsyncIterator[World]:
    """A clinic with settings of its own."""
    name = emptied.take()
    made = Settings.model_validate({"mongodb_database": name, **REMINDING, **more})
    async with opened(made, mongodb_uri) as server:
        yield world(server)
    emptied.give_back(name)


async def test_the_task_sends_what_is_due(mongodb_uri: str, emptied: Emptied) -> None:
    """Booked, planned, sent by the server's own task over SMTP; the officer is told as well."""
    async with (
        running(SmtpSink()) as sink,
        clinic(
            *(mongodb_uri, emptied),
            reminder_channels=["email"],
            smtp_url=f"smtp://127.0.0.1:{sink.port}",
            smtp_from="desk@clinic.example",
            privacy_officer="officer@clinic.example",
        ) as found,
    ):
        bangla = [{"language": {"coding": [{"code": "bn"}]}}]
        await found.write(
            patient("p", ("email", "amina@example.org"), communication=bangla),
            appointment("a", TOMORROW),
        )
        opening = {
            "account": "user/1",
            "fhir_user": "Practitioner/1",
            "patient": "p",
            "reason": "unconscious",
            "at": NOON,
        }
        row = Row("break-glass/1/0", "break-glass", NOON, to="officer@clinic.example")
        await Outbox(found.server.database).put([replace(row, content=opening)])
        sending = Sending(found.server.registry.channels)
        task = asyncio.create_task(sending.run(found.context))
        async with asyncio.timeout(15):
            while not await found.rows(kind="message"):
                await asyncio.sleep(0.02)
            found.clock.pass_by(hours=3)
            while len(sink.messages) < 2 or await found.rows(state="sending"):
                await asyncio.sleep(0.02)
        await end_of([task])

        mails = {one["To"]: one for one in map(_mail, sink.messages)}
        assert "আপনার অ্যাপয়েন্টমেন্ট" in mails["amina@example.org"].get_content()
        assert mails["amina@example.org"]["Content-Language"] == "bn"
        assert "Patient/p was opened" in mails["officer@clinic.example"].get_content()
        assert len(await found.all("Communication", status="completed")) == 1


async def test_what_cannot_be_recorded_is_settled(mongodb_uri: str, emptied: Emptied) -> None:
    """A site that checks references, and a patient who is gone: the row ends and says so. Else it
    would be begun again each minute, or what was sent be sent eight times."""
    async with clinic(mongodb_uri, emptied, reference_targets_checked=["Patient"]) as found:
        await found.write(patient("p", ("phone", "+8801711000001")), appointment("a", TOMORROW))
        await found.work()
        found.clock.pass_by(hours=3)

        async def before(_: Any) -> None:
            await found.ask(Request("delete", "Patient", "p"))

        found.sink.before = before
        await found.work()
        found.clock.pass_by(hours=22)
        await found.work()

        rows = await found.rows(kind="message")
        assert [(one["state"], one["tried"]) for one in rows] == [("sent", 1), ("not-done", 1)]
        assert all("not recorded" in one["reason"] for one in rows)
        assert len(found.sink.taken) == 1


async def test_what_is_handed_over_as_the_server_stops_is_settled(
    mongodb_uri: str, emptied: Emptied
) -> None:
    """Else the next server would send it again."""
    async with clinic(mongodb_uri, emptied) as found:
        await found.write(patient("p", ("phone", "+8801711000001")), appointment("a", TOMORROW))
        await found.work()
        found.clock.pass_by(hours=3)
        going = asyncio.Event()

        async def before(_: Any) -> None:
            going.set()
            await asyncio.sleep(0.05)

        found.sink.before = before
        task = asyncio.create_task(found.deliveries().run())
        await going.wait()
        await end_of([task])
        assert len(found.sink.taken) == 1
        assert len(await found.rows(state="sent")) == 1


def _mail(text: str) -> Any:
    return message_from_string(text, policy=policy.default)


@pytest.mark.parametrize(
    "more",
    [
        {"reminder_channels": ["sms"]},
        {"reminder_channels": ["email"]},
        {"reminder_channels": ["webhook"]},
        {"reminder_channels": ["email"], "features": ["fhir_server.features.scheduling"]},
    ],
)
async def test_a_channel_that_is_not_set_up_is_named(
    mongodb_uri: str, emptied: Emptied, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is missing; nothing is sent, and nothing is lost."""
    async with clinic(mongodb_uri, emptied, **more) as found:
        sending = Sending(found.server.registry.channels)
        with pytest.raises(ValueError, match=r"[a-z]"):
            await sending.run(found.context)
    assert "No message is sent" in caplog.text


async def test_doses_are_reminded_of_until_the_order_stops(
    mongodb_uri: str, emptied: Emptied
) -> None:
    """R8: 1-0-1 is one message at the local morning and one at night, two days ahead, for all
    orders together; what is planned goes with the order."""
    phone = ("phone", "+8801711000001")
    async with clinic(mongodb_uri, emptied, reminder_medication=True) as found:
        await found.write(patient("p", phone), order("one"), order("two"))
        await found.work()
        due = [row["due"].isoformat() for row in await found.rows(kind="message")]
        assert due == [
            "2036-12-01T15:00:00+00:00",  # nine in the evening in Dhaka
            "2036-12-02T02:00:00+00:00",
            "2036-12-02T15:00:00+00:00",
            "2036-12-03T02:00:00+00:00",
        ]
        for request in await found.all("CommunicationRequest"):
            assert len(request["about"]) == 2
            assert "Metformin" not in json.dumps(request)
        found.clock.pass_by(hours=9)
        await found.work()
        assert len(found.sink.taken) == 1
        assert "(21:00)" in found.sink.taken[0][1].text

        found.clock.pass_by(hours=11)
        await found.work()
        assert len(found.sink.taken) == 2
        found.clock.pass_by(hours=4, minutes=1)  # planned again after a day
        await found.work()
        assert len(await found.rows(kind="message", state="waiting")) == 4

        await found.write(order("one", status="stopped"))
        await found.work()
        requests = await found.all("CommunicationRequest", status="active")
        assert {len(one["about"]) for one in requests} == {1}
        await found.ask(Request("delete", "MedicationRequest", "two"))
        await found.work()
        found.clock.pass_by(days=3)
        await found.work()
        assert len(found.sink.taken) == 2
        assert await found.rows(kind="plan") == []


async def test_doses_are_planned_though_none_is_near(mongodb_uri: str, emptied: Emptied) -> None:
    """R8: what is taken on Fridays is reminded of on Friday, though it was ordered on Monday; what
    is late is sent though a plan is made meanwhile; nobody is told to take what was stopped."""
    fridays = {"repeat": {"when": ["MORN"], "dayOfWeek": ["fri"]}}
    weekly = {**order("one"), "dosageInstruction": [{"timing": fridays}]}
    async with clinic(mongodb_uri, emptied, reminder_medication=True) as found:
        await found.write(patient("p", ("phone", "+8801711000001")), weekly)
        for _ in range(3):
            await found.work()
            assert await found.rows(kind="message", state="sent") == []
            found.clock.pass_by(days=1)
        await found.work()
        found.clock.at = datetime.fromisoformat("2036-12-05T02:01:00+00:00")
        await found.write(order("two"))
        await found.work()
        assert [one.about["about"] for _, one in found.sink.taken] == ["MedicationRequest/one"]

        found.clock.at = datetime.fromisoformat("2036-12-05T15:00:00+00:00")
        taken = await found.deliveries().take()
        assert taken is not None, "and whoever took it dies"
        await found.write(order("two", status="stopped"))
        await found.work()
        found.clock.pass_by(minutes=2)
        await found.work()
        assert len(found.sink.taken) == 1
        assert [row["state"] for row in await found.rows(_id=taken.id)] == ["withdrawn"]


def order(id: str, status: str = "active") -> dict[str, Any]:
    """Return an order of one tablet in the morning and one at night."""
    return {
        "resourceType": "MedicationRequest",
        "id": id,
        "status": status,
        "intent": "order",
        "subject": {"reference": "Patient/p"},
        "medicationCodeableConcept": {"text": "Metformin 500 mg"},
        "dosageInstruction": [{"text": "1-0-1"}],
    }
