"""https://cds-hooks.hl7.org/2.0/#feedback: S-40 to S-42 of design/cds.md, section 16."""

from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from tests.conformance.cds_hooks.conftest import SIGN, cards_of, full, naproxen

PATH = f"{SIGN}/feedback"
AT = "2026-11-22T10:05:31Z"


@pytest.fixture
async def card(hooks: httpx.AsyncClient) -> dict[str, Any]:
    """A card that was shown."""
    found: dict[str, Any] = (await cards_of(hooks, full(naproxen())))[0]
    return found


def overridden(card: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return feedback with a reason of the card's list and a comment."""
    reason = {"reason": card["overrideReasons"][0], "userComment": "INR on Thursday"}
    item = {"card": card["uuid"], "outcome": "overridden", "overrideReason": reason}
    return {**item, "outcomeTimestamp": AT, **more}


def accepted(card: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return feedback that the card's suggestion was taken."""
    suggestions = [{"id": card["suggestions"][0]["uuid"]}]
    item = {"card": card["uuid"], "outcome": "accepted", "acceptedSuggestions": suggestions}
    return {**item, "outcomeTimestamp": AT, **more}


async def kept(server: Server, *cards: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is kept about ``cards``."""
    query = {"card": {"$in": [card["uuid"] for card in cards]}}
    found: list[dict[str, Any]] = await server.database["cds_feedback"].find(query).to_list()
    return found


BAD: dict[str, dict[str, Any]] = {
    "no card": {"card": None},
    "a card that is no text": {"card": 7},
    "another outcome": {"outcome": "ignored"},
    "no outcome": {"outcome": None},
    "accepted, but nothing": {"outcome": "accepted"},
    "accepted, but no list": {"outcome": "accepted", "acceptedSuggestions": "x"},
    "accepted without id": {"outcome": "accepted", "acceptedSuggestions": [{}]},
    "a reason without code": {"overrideReason": {"reason": {"display": "x"}}},
    "no time": {"outcomeTimestamp": None},
    "a time that is none": {"outcomeTimestamp": "yesterday"},
    "a time without zone": {"outcomeTimestamp": "2026-11-22T10:05:31"},
}


@pytest.mark.parametrize("what", BAD)
async def test_s40_what_is_refused(
    hooks: httpx.AsyncClient, open_server: Server, card: dict[str, Any], what: str
) -> None:
    """S-40: card, outcome, suggestions, reason and time are checked; one bad item refuses all."""
    bad = {k: v for k, v in {**overridden(card), **BAD[what]}.items() if v is not None}
    response = await hooks.post(PATH, json={"feedback": [overridden(card), bad]})

    assert response.status_code == 400
    assert "feedback[1]" in response.text
    assert await kept(open_server, card) == []


async def test_s40_what_is_kept(
    hooks: httpx.AsyncClient, open_server: Server, card: dict[str, Any]
) -> None:
    """S-40: at the service's own path; the time in UTC, the reason and the comment are kept."""
    later = "2026-11-22T16:05:31+06:00"
    item = overridden(card, outcomeTimestamp=later)
    response = await hooks.post(PATH, json={"feedback": [item]})
    elsewhere = await hooks.post("/cds-services/none/feedback", json={"feedback": [item]})
    (row,) = await kept(open_server, card)

    assert (response.status_code, elsewhere.status_code) == (200, 404)
    assert row["outcomeAt"] == "2026-11-22T10:05:31+00:00"
    assert row["reason"] == card["overrideReasons"][0]["code"]
    assert row["comment"] == "INR on Thursday"


async def test_s41_batches_and_repeats(
    hooks: httpx.AsyncClient, open_server: Server, card: dict[str, Any]
) -> None:
    """S-41: of several hook instances in one body, and the same again, counted once."""
    (other, *_) = await cards_of(hooks, full(naproxen()))
    items = [overridden(card), accepted(card), overridden(other)]
    for body in ({"feedback": items}, {"feedback": items[:1]}, {"feedback": items * 2}):
        assert (await hooks.post(PATH, json=body)).status_code == 200
    same = overridden(card, outcomeTimestamp="2026-11-22T11:05:31+01:00")
    assert (await hooks.post(PATH, json={"feedback": [same]})).status_code == 200

    assert len(await kept(open_server, card, other)) == 3


async def test_s42_no_feedback_is_expected(
    hooks: httpx.AsyncClient, open_server: Server, card: dict[str, Any]
) -> None:
    """S-42: a card about which nothing is said is no fault, and shown again as it was."""
    (again, *_) = await cards_of(hooks, full(naproxen()))

    assert await kept(open_server, card) == []
    assert again["summary"] == card["summary"]
    assert again["indicator"] == card["indicator"]


async def test_s42_a_card_that_nobody_knows(hooks: httpx.AsyncClient) -> None:
    """S-42: feedback on a card that is not known, or no longer, is taken."""
    unknown = {"card": "0f7c1b1e-6a0e-4c53-9a53-6f1d2c0a7d11", "outcome": "overridden"}
    body = {"feedback": [{**unknown, "outcomeTimestamp": AT}]}

    assert (await hooks.post(PATH, json=body)).status_code == 200
