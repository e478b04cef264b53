"""design/cds.md, section 11: what was shown, accepted and overridden is counted right."""

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from fhir_server.app import Server, opened
from fhir_server.ending import end_of
from fhir_server.features.cds.record import Recorder
from fhir_server.settings import Settings
from fhir_server.store.cds import keep_calls
from tests.conformance.cds_hooks.conftest import full, order
from tests.features.cds.conftest import client_of
from tests.features.cds.test_fhir_side import ask

KEEP = "fhir_server.features.cds.record.keep_calls"
SIGN = "/cds-services/drug-safety-sign"
# A warning with warfarin, and a dose that is too high: two cards, each of one rule.
NAPROXEN = full(order("n", "naproxen", "draft"))


async def counts(server: Server, **parameters: str) -> dict[str, tuple[int, int, int]]:
    """Return rule -> shown, accepted, overridden."""
    response = await ask(server, "$cds-report", parameters=tuple(parameters.items()))
    assert response.status == 200, response.body
    found = {}
    for one in json.loads(response.body)["parameter"]:
        if one["name"] == "rule":
            said = {
                part["name"]: next(value for name, value in part.items() if name != "name")
                for part in one["part"]
            }
            found[said["id"]] = (said["shown"], said["accepted"], said["overridden"])
    return found


def said(card: dict[str, Any], outcome: str, second: int = 0) -> dict[str, Any]:
    item = {
        "card": card["uuid"],
        "outcome": outcome,
        "outcomeTimestamp": f"2026-11-22T10:05:{second:02}Z",
    }
    if outcome == "accepted":
        item["acceptedSuggestions"] = [{"id": card["suggestions"][0]["uuid"]}]
    return item


async def card_of(hooks: httpx.AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await hooks.post(SIGN, json=NAPROXEN)).json()["cards"][0]
    return found


async def test_many_at_once_count_once_each(server: Server) -> None:
    """Calls and feedback at the same time, the same feedback many times, outcomes that change."""
    async with client_of(server) as hooks:
        cards = await asyncio.gather(*(card_of(hooks) for _ in range(40)))
        bodies = [
            {"feedback": [said(card, "overridden", second) for second in (1, 2)]}
            for card in cards[:10]
        ]
        bodies += [{"feedback": [said(card, "accepted")]} for card in cards[8:15]]
        answers = await asyncio.gather(
            *(hooks.post(f"{SIGN}/feedback", json=body) for body in bodies * 3)
        )

    assert {one.status_code for one in answers} == {200}
    assert (await counts(server))["vka-nsaid"] == (40, 7, 10)


async def test_notes_count_by_rule_and_kind(server: Server) -> None:
    """A card with several notes counts for each of its rules, as the kind that the rule is."""
    body = full(
        order("n", "citalopram", "draft"),
        order("m", "ondansetron", "draft"),
        order("o", "amlodipine", "draft"),
    )
    async with client_of(server) as hooks:
        cards = (await hooks.post(SIGN, json=body)).json()["cards"]
        await hooks.post(
            f"{SIGN}/feedback", json={"feedback": [said(card, "overridden") for card in cards]}
        )
    found = await counts(server)

    assert found
    assert {(shown, overridden) for shown, _, overridden in found.values()} == {(1, 1)}


async def test_a_restart_and_another_time_to_keep_lose_nothing(mongodb_uri: str) -> None:
    """What was shown is written before the process ends; the next one goes on counting."""
    database = f"test-{uuid4().hex[:12]}"
    cards = []
    found: dict[str, Any] = {}
    for days in (400, 30):
        settings = Settings.model_validate(
            {"mongodb_database": database, "cds_keep_days": days, "cds_deadline_ms": 20_000}
        )
        async with opened(settings, mongodb_uri) as server:
            running = asyncio.create_task(server.registry.tasks["cds"].run(server.context))
            await asyncio.sleep(0.2)
            async with client_of(server) as hooks:
                cards.append(await card_of(hooks))
                body = {"feedback": [said(cards[0], "overridden")]}
                assert (await hooks.post(f"{SIGN}/feedback", json=body)).status_code == 200
            await end_of([running])
            assert running.cancelled()
            kept = (await server.database["cds_calls"].index_information())["at_1"]
            assert kept["expireAfterSeconds"] == days * 86_400
            found = await counts(server)
            if days == 30:
                await server.database.client.drop_database(database)

    assert found["vka-nsaid"] == (2, 0, 1)


async def test_the_end_waits_for_what_is_to_be_written(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops writes down first what it has shown."""

    async def later(*given: Any) -> None:
        await asyncio.sleep(0.3)
        await keep_calls(*given)

    monkeypatch.setattr(KEEP, later)
    running = asyncio.create_task(server.registry.tasks["cds"].run(server.context))
    await asyncio.sleep(0.2)
    endpoint = server.registry.routes["/cds-services"]
    endpoint.recorder.add({"_id": "1", "at": server.context.now(), "cards": []}, server.context)
    await end_of([running])

    assert await server.database["cds_calls"].count_documents({}) == 1


async def test_a_write_that_fails_is_tried_again_and_counted(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it may fail; then what is lost is counted, and what comes next is kept."""
    left = [1]

    async def failing(*given: Any) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("gone")
        await keep_calls(*given)

    monkeypatch.setattr(KEEP, failing)
    recorder = Recorder()
    for failures, first in ((1, 0), (2, 10)):
        left[0] = failures
        for number in range(3):
            row = {"_id": f"{first + number}", "at": server.context.now(), "cards": []}
            recorder.add(row, server.context)
        await recorder.written()

    assert recorder.dropped == 3
    assert await server.database["cds_calls"].count_documents({}) == 3


async def test_the_report_is_bounded(server: Server) -> None:
    """By time, and in pages; the whole is said."""
    now = server.context.now()
    rules = [f"interaction/r{number:03}" for number in range(30)]
    rows = [
        {"_id": f"{n}", "at": now, "cards": [{"uuid": f"u{n}", "rules": rules[: n + 1]}]}
        for n in range(30)
    ]
    await keep_calls(server.database, rows)

    async def page(**parameters: str) -> tuple[int, list[str]]:
        response = await ask(server, "$cds-report", parameters=tuple(parameters.items()))
        found = json.loads(response.body)["parameter"]
        names = [one["part"][0]["valueString"] for one in found if one["name"] == "rule"]
        return next(one["valueUnsignedInt"] for one in found if one["name"] == "total"), names

    every = [f"r{number:03}" for number in range(30)]
    assert await page() == (30, every)
    assert await page(count="10", offset="25") == (30, every[25:])
    assert await page(count="2") == (30, every[:2])
    assert await page(since="2999-01-01") == (0, [])
    for wrong in ({"count": "0"}, {"count": "1001"}, {"offset": "-1"}, {"since": "x"}, {"x": "1"}):
        response = await ask(server, "$cds-report", parameters=tuple(wrong.items()))
        assert response.status == 400
