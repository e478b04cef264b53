"""design/scheduling.md, section 8: STOP, 1 and 2 by SMS, from the gateway and from nobody else."""

import asyncio
import hmac
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.features.scheduling import inbound
from fhir_server.features.scheduling.inbound import application
from fhir_server.features.scheduling.parameters import PARAMETERS
from fhir_server.features.scheduling.sms_replies import Reply, is_signed, mark
from fhir_server.messages import Request
from fhir_server.settings import Settings
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

SECRET = "k" * 32
PHONE = ("phone", "01711 000001")
TOMORROW = NOON + timedelta(days=1, hours=3)


@pytest.fixture
def settings(emptied: Emptied) -> Iterator[Settings]:
    """Settings by which answers are taken."""
    name = emptied.take()
    yield Settings.model_validate(
        {"mongodb_database": name, **REMINDING, "sms_inbound_secret": SECRET}
    )
    emptied.give_back(name)


@pytest.fixture
async def clinic(server: Server) -> World:
    """A clinic that has reminded one patient of an appointment."""
    found = world(server)
    await found.write(patient("p", PHONE), appointment("a", TOMORROW))
    await found.work()
    found.clock.pass_by(hours=3)
    await found.work()
    assert len(found.sink.taken) == 1
    return found


async def post(
    clinic: World, body: Any, *, secret: str = SECRET, old: int = 0, method: str = "POST"
) -> tuple[int, dict[str, Any]]:
    """Post ``body`` as the gateway does; return status and answer."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    timestamp = str(int(clinic.clock().timestamp()) - old)
    made = hmac.new(secret.encode(), timestamp.encode() + b"." + text, "sha256").hexdigest()
    scope = {
        "fhir_server.context": clinic.context,
        "method": method,
        "headers": [
            (b"x-timestamp", timestamp.encode()),
            (b"x-signature", f"sha256={made}".encode()),
        ],
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": text}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await application(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def said(text: str) -> dict[str, str]:
    """Return what the gateway posts for an answer of the patient."""
    return {"from": "+8801711000001", "text": text}


async def test_stop_and_start(clinic: World) -> None:
    """STOP writes one Consent, however often; then nothing is sent. START ends it."""
    assert await post(clinic, said("Stop")) == (200, {"did": "stop"})
    assert await post(clinic, said("STOP")) == (200, {"did": "stop"})
    [consent] = await clinic.all("Consent", status="active")
    assert consent["patient"] == {"reference": "Patient/p"}
    clinic.clock.pass_by(hours=22)
    await clinic.work()
    assert len(clinic.sink.taken) == 1

    assert await post(clinic, said("start")) == (200, {"did": "start"})
    assert await clinic.all("Consent", status="active") == []


async def test_start_ends_what_stop_began_and_no_more(clinic: World) -> None:
    """Who wants no messages at all has said so to the clinic, and perhaps shares the phone."""
    await clinic.write(opted_out("all", "Patient/p"))
    assert await post(clinic, said("START")) == (200, {"did": "start"})
    [consent] = await clinic.all("Consent", status="active")
    assert consent["id"] == "all"


async def test_one_confirms_and_two_cancels(clinic: World) -> None:
    """1 accepts for the patient, 2 cancels with the reason, and then 1 does nothing."""
    assert await post(clinic, said("1")) == (200, {"did": "confirm"})
    assert await post(clinic, said(" ২ ")) == (200, {"did": "cancel"})
    found = await clinic.ask(Request("read", "Appointment", "a"))
    assert (found["status"], found["cancelationReason"]["coding"][0]["code"]) == (
        "cancelled",
        "pat",
    )
    assert await post(clinic, said("1")) == (200, {"did": "nothing"})


async def test_what_is_not_plain_changes_nothing(clinic: World) -> None:
    """Another text, another number, an appointment that was moved, two people with one phone."""
    assert await post(clinic, said("2 please?")) == (200, {"did": "nothing"})
    assert await post(clinic, {"from": "+8801999999999", "text": "2"}) == (200, {"did": "nothing"})
    await clinic.write(appointment("a", TOMORROW + timedelta(days=1)))
    assert await post(clinic, said("2")) == (200, {"did": "nothing"})


async def test_a_patient_does_not_cancel_too_late(clinic: World) -> None:
    """What the rules of a Schedule leave to the clinic, 2 does not do."""
    part = {"url": "duration", "valueDuration": {"value": 30, "code": "min", "unit": "min"}}
    cutoff = {"url": "cancelCutoff", "valueDuration": {"value": 48, "code": "h", "unit": "h"}}
    rules = {"url": PARAMETERS, "extension": [part, cutoff]}
    who = [{"reference": "Practitioner/d"}]
    schedule = {"resourceType": "Schedule", "id": "s", "actor": who, "extension": [rules]}
    await clinic.write({"resourceType": "Practitioner", "id": "d"}, schedule)
    await clinic.write(appointment("a", TOMORROW, "Patient/p", "Practitioner/d"))

    assert await post(clinic, said("2")) == (200, {"did": "nothing"})
    assert await post(clinic, said("1")) == (200, {"did": "confirm"})


async def test_a_family_with_one_phone(clinic: World) -> None:
    """Where two were reminded on one phone at about one time, an answer is to neither."""
    at = datetime.fromisoformat("2036-12-02T10:00:00+00:00")
    await clinic.write(patient("q", PHONE), appointment("b", at, "Patient/q"))
    await clinic.work()
    clinic.clock.pass_by(hours=2)
    await clinic.work()
    assert len(clinic.sink.taken) == 2
    assert await post(clinic, said("2")) == (200, {"did": "nothing"})


async def test_an_answer_to_something_else_cancels_nothing(clinic: World) -> None:
    """What was sent last is what is answered: who declines an offer keeps the appointment."""
    [row] = await clinic.rows(state="sent")
    offer = {**row, "_id": "offer", "subject": "Appointment/w", "watched": ["Appointment/w"]}
    offer |= {"content": {**row["content"], "kind": "offer"}, "at": clinic.clock()}
    clinic.clock.pass_by(hours=14)
    await clinic.server.database["outbox"].insert_one({**offer, "at": clinic.clock()})
    assert await post(clinic, said("no")) == (200, {"did": "nothing"})
    await clinic.server.database["outbox"].delete_one({"_id": "offer"})
    assert await post(clinic, said("no")) == (200, {"did": "cancel"})


async def test_who_sends_a_body_slowly_is_not_waited_for(
    clinic: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not known yet who it is."""
    monkeypatch.setattr(inbound, "_BODY_S", 0.01)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    scope = {"fhir_server.context": clinic.context, "method": "POST", "headers": []}
    await application(scope, receive, send)
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("body", "more", "status"),
    [
        (said("STOP"), {"secret": "x" * 32}, 401),
        (said("STOP"), {"old": 400}, 401),
        (said("STOP"), {"old": -400}, 401),
        (said("STOP"), {"method": "GET"}, 405),
        ({"from": 1, "text": "STOP"}, {}, 400),
        (["STOP"], {}, 400),
        (b"{", {}, 400),
        (b"x" * 20_000, {}, 413),
    ],
)
async def test_nobody_else_is_heard(
    clinic: World, body: Any, more: dict[str, Any], status: int
) -> None:
    """What is not signed, old, or no answer is refused, and changes nothing."""
    assert (await post(clinic, body, **more))[0] == status
    assert await clinic.all("Consent") == []


def test_a_signature_is_of_one_body() -> None:
    """Nothing passes that was signed otherwise, or not at all."""
    made = hmac.new(b"s", b"1.x", "sha256").hexdigest()
    now = datetime.fromtimestamp(100, tz=NOON.tzinfo)
    assert is_signed("s", "1", f"sha256={made}", b"x", now)
    assert not is_signed("s", "1", f"sha256={made}", b"y", now)
    assert not is_signed("s", "2", f"sha256={made}", b"x", now)
    assert not is_signed("", "1", f"sha256={made}", b"x", now)
    assert not is_signed("s", "1é", "sha256=é", b"x", now)
    assert mark("12345") == ""
    assert Reply("", "").meaning == ""


async def test_what_was_given_up_is_listed_and_repeated(clinic: World) -> None:
    """$outbox shows it without address or text; $outbox-repeat lets it be tried again."""
    [row] = await clinic.rows(state="waiting", kind="message")
    await clinic.server.database["outbox"].update_one(
        {"_id": row["_id"]}, {"$set": {"state": "dead", "reason": "SMS: 503", "tried": 8}}
    )
    found = await clinic.ask(Request("$outbox"))
    [shown] = found["parameter"]
    parts = {one["name"]: next(v for n, v in one.items() if n != "name") for one in shown["part"]}
    assert (parts["id"], parts["reason"], parts["tried"]) == (row["_id"], "SMS: 503", 8)
    assert "1711" not in json.dumps(found)

    ids = [{"name": "id", "valueString": row["_id"]}, {"name": "id", "valueString": "other"}]
    body = {"resourceType": "Parameters", "parameter": ids}
    answer = await clinic.ask(Request("$outbox-repeat", body=body))
    assert answer["parameter"] == [{"name": "count", "valueUnsignedInt": 1}]
    assert (
        "parameter" not in (await clinic.ask(Request("$outbox")))
        or not (await clinic.ask(Request("$outbox")))["parameter"]
    )
