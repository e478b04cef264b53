"""https://cds-hooks.hl7.org/2.0/#cds-service-response: S-20 to S-30 of design/cds.md, 16."""

import re
from typing import Any
from uuid import UUID

import httpx
import pytest

from fhir_server.features.cds.policy import monographs
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.validation.cards import cds_hooks_issues
from tests.conformance.cds_hooks.conftest import (
    MONOGRAPH,
    SIGN,
    cards_of,
    full,
    naproxen,
    order,
)

TOO_MUCH = order(
    "d1",
    "methotrexate 2.5 mg",
    "draft",
    dosageInstruction=[
        {
            "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}},
            "doseAndRate": [{"doseQuantity": {"value": 500, "unit": "mg", "code": "mg"}}],
        }
    ],
)
DRAFTS = (
    naproxen(),
    order("s1", "sildenafil", "draft"),
    order("i1", "isosorbide mononitrate", "draft"),
    order("w2", "warfarin", "draft"),
    order("x", "Herbs <b>&", "draft"),
    order("l1", "ibuprofen " + "of a very long name " * 9, "draft"),
    TOO_MUCH,
)


@pytest.fixture
async def cards(hooks: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Cards of all kinds: interactions, duplicates, a dose, what was not checked."""
    found = await cards_of(hooks, full(*DRAFTS))
    assert {card["source"]["topic"]["code"] for card in found} >= {
        *("interaction", "duplicate", "dose", "not-checked"),
    }
    return found


async def test_s20_summaries_are_short(cards: list[dict[str, Any]]) -> None:
    """S-20: a summary of less than 140 characters, whatever the names."""
    assert all(0 < len(card["summary"]) < 140 for card in cards)


async def test_s21_indicators(cards: list[dict[str, Any]]) -> None:
    """S-21: info, warning or critical; the most serious come first."""
    ranks = {"critical": 0, "warning": 1, "info": 2}
    findings = [card for card in cards if card["source"]["topic"]["code"] != "not-checked"]

    assert {card["indicator"] for card in cards} <= set(ranks)
    assert [ranks[card["indicator"]] for card in findings] == sorted(
        ranks[card["indicator"]] for card in findings
    )


async def test_s22_sources(cards: list[dict[str, Any]]) -> None:
    """S-22: ``source.label``, a topic with system and code; URLs are absolute."""
    for card in cards:
        source = card["source"]
        assert source["label"]
        assert re.match(r"https?://", source["topic"]["system"])
        assert source["topic"]["code"]
        assert all(
            source[name].startswith("https://") for name in ("url", "icon") if name in source
        )


async def test_s23_names_from_outside_are_text(hooks: httpx.AsyncClient) -> None:
    """S-23: Markdown in a name stays what it is: no element, no link."""
    name = "[x](https://evil.example.org) <img src=x onerror=alert(1)> **bold**"
    (card,) = await cards_of(hooks, full(order("x", name, "draft")))

    assert "\\[x\\]" in card["detail"]
    assert "<img" not in card["detail"].replace("\\<", "")
    assert "://" not in card["detail"]


async def test_s24_each_card_has_its_uuid(
    hooks: httpx.AsyncClient, cards: list[dict[str, Any]]
) -> None:
    """S-24: a UUID for each card, another one each time."""
    again = await cards_of(hooks, full(*DRAFTS))
    ids = [str(UUID(card["uuid"])) for card in (*cards, *again)]

    assert len(set(ids)) == len(ids) == 2 * len(cards)


async def test_s25_selection_behavior(cards: list[dict[str, Any]]) -> None:
    """S-25: with suggestions only; of several at most one is recommended."""
    counts = {len(card.get("suggestions", ())) for card in cards}
    assert counts >= {0, 1, 2}
    for card in cards:
        suggestions = card.get("suggestions", [])
        expected = {0: None, 1: "any"}.get(len(suggestions), "at-most-one")
        assert card.get("selectionBehavior") == expected
        assert sum(one["isRecommended"] for one in suggestions) <= 1


async def test_s26_suggestions(cards: list[dict[str, Any]]) -> None:
    """S-26: a label, a UUID of its own and at least one action."""
    suggestions = [one for card in cards for one in card.get("suggestions", ())]

    assert suggestions
    assert all(one["label"] and one["actions"] for one in suggestions)
    assert len({str(UUID(one["uuid"])) for one in suggestions}) == len(suggestions)


async def test_s27_actions(cards: list[dict[str, Any]]) -> None:
    """S-27: described; delete names the draft; create and update carry the whole resource."""
    drafts = {f"MedicationRequest/{one['id']}": one for one in DRAFTS}
    for card in cards:
        for suggestion in card.get("suggestions", ()):
            for action in suggestion["actions"]:
                assert action["description"]
                assert action["type"] in ("create", "update", "delete")
                if action["type"] == "delete":
                    assert action["resourceId"] in drafts
                    assert "resource" not in action
                else:
                    resource = action["resource"]
                    draft = drafts[f"MedicationRequest/{resource['id']}"]
                    kept = {name: resource[name] for name in draft if name != "dosageInstruction"}
                    assert kept == {
                        name: value for name, value in draft.items() if name != "dosageInstruction"
                    }


async def test_s28_override_reasons_are_codings(cards: list[dict[str, Any]]) -> None:
    """S-28: reasons have code, system and display; findings have reasons."""
    for card in cards:
        if card["source"]["topic"]["code"] != "not-checked":
            assert card["overrideReasons"]
        for reason in card.get("overrideReasons", ()):
            assert set(reason) == {"code", "system", "display"}
            assert all(reason.values())


async def test_s29_links(hooks: httpx.AsyncClient) -> None:
    """S-29: a link has label, url and type; ``appContext`` is for smart links only. A site names
    its pages by rule; other cards have none."""
    cards = await cards_of(hooks, full(naproxen(), order("s1", "sildenafil", "draft")))
    links = {card["summary"].partition(":")[0]: card.get("links") for card in cards}

    assert links["naproxen with warfarin"] == [
        {"label": "Monograph", "url": MONOGRAPH, "type": "absolute"}
    ]
    assert [one for one in links.values() if one] == [links["naproxen with warfarin"]]


@pytest.mark.parametrize(
    "links",
    [
        {"vka-nsaid": "http://monographs.example.org"},
        {"vka-nsaid": "javascript:alert(1)"},
        {"vka-nsaid": "/monograph"},
        {"vka-nsaid": "https://user@monographs.example.org"},
        {"vka-nsaid": {"url": "https://x.example.org", "appContext": "x"}},
        ["https://x.example.org"],
    ],
)
def test_s29_a_link_is_an_https_url(links: Any) -> None:
    """S-29: what is no absolute https URL is refused, and its rule named."""
    with pytest.raises(KnowledgeError, match="policy, links"):
        monographs(links)


def test_s29_only_smart_links_have_a_context() -> None:
    """S-29: our own judge of cards says so of others' cards."""
    card = {"summary": "s", "indicator": "info", "source": {"label": "l"}}
    wrong = {"label": "l", "url": "https://x.example.org", "type": "absolute", "appContext": "c"}
    right = {**wrong, "type": "smart"}

    assert not [*cds_hooks_issues({"cards": [{**card, "links": [right]}]})]
    assert [*cds_hooks_issues({"cards": [{**card, "links": [wrong]}]})]


async def test_s30_no_system_actions(hooks: httpx.AsyncClient) -> None:
    """S-30: ``systemActions`` is left out; and the answer as a whole is what a response may be."""
    response = await hooks.post(SIGN, json=full(*DRAFTS))

    assert set(response.json()) == {"cards"}
    assert [*cds_hooks_issues(response.json())] == []
