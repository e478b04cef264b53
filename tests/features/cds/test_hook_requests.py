"""https://cds-hooks.hl7.org/2.0/: requests as clients send them, and the cards that they get."""

import json
from pathlib import Path
from typing import Any

import httpx

from fhir_server.app import Server

CASES = Path(__file__).resolve().parents[2] / "cases" / "cds"
ALL = json.loads((CASES / "hook-requests.json").read_text("utf-8"))
# What only a table of products tells: its code is of a product, and its text of another drug.
BY_PRODUCT = ("code-text-conflict", "dose-too-high")


async def test_requests(hooks: httpx.AsyncClient, server: Server) -> None:
    """Requests of clients, right and odd ones: their status, and what their cards are about."""
    lookup = server.context.settings.cds_lookup
    faults = {}
    for case in ALL["cases"]:
        if case["id"] in BY_PRODUCT and lookup is None:
            continue  # RxNorm's products, in ../shared/data, are not there
        response = await hooks.post(f"/cds-services/{case['service']}", json=case["request"])
        if fault := fault_of(response, case["expect"]):
            faults[case["id"]] = fault

    assert faults == {}
    assert len(ALL["cases"]) == 41


def fault_of(response: httpx.Response, expected: dict[str, Any]) -> str:
    """Return what is wrong with an answer."""
    if response.status_code != expected["status"]:
        return response.text
    if "cards" not in expected:
        is_outcome = response.json()["resourceType"] == "OperationOutcome"
        return "" if is_outcome else response.text
    cards = response.json()["cards"]
    said = [(card["source"]["topic"]["code"], card["indicator"]) for card in cards]
    if said != [(card["kind"], card["indicator"]) for card in expected["cards"]]:
        return f"{said}: {cards}"
    for card, one in zip(cards, expected["cards"], strict=True):
        words = f"{card['summary']} {card['detail']}".lower()
        if missing := [word for word in one.get("about", ()) if word.lower() not in words]:
            return f"{missing} not in {words}"
    return ""


async def test_feedback(hooks: httpx.AsyncClient, server: Server) -> None:
    """Feedback is taken whole or not at all, and counted once."""
    for case in ALL["feedback"]:
        await server.database["cds_feedback"].delete_many({})
        path = f"/cds-services/{case['service']}/feedback"
        for _ in range(2):
            response = await hooks.post(path, json=case["feedback"])
            assert response.status_code == case["expect"]["status"], case["id"]

        kept = await server.database["cds_feedback"].count_documents({})
        assert kept == (1 if case["expect"]["status"] == 200 else 0), case["id"]
