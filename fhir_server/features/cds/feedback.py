"""Feedback on cards: what is taken and what is refused. Pure.

https://cds-hooks.hl7.org/2.0/#feedback
"""

from datetime import UTC, datetime
from typing import Any

from fhir_server.features.cds.elements import part, parts, text
from fhir_server.outcome import FhirError, Issue

ITEMS_MAX = 100
_COMMENT_CHARACTERS = 2_000
_OUTCOMES = ("accepted", "overridden")


def feedback_items(body: Any, service: str, now: datetime) -> list[dict[str, Any]]:
    """Return the items of a feedback body as they are kept.

    Raises status 400 for the first bad one: then nothing is to be kept.
    """
    items = body.get("feedback") if isinstance(body, dict) else None
    if not isinstance(items, list) or not items:
        raise FhirError(Issue("structure", "feedback is to be a list of items.", "feedback"))
    if len(items) > ITEMS_MAX:
        raise FhirError(Issue("value", f"feedback has at most {ITEMS_MAX} items.", "feedback"))
    return [_item(one, f"feedback[{n}]", service, now) for n, one in enumerate(items)]


def _item(item: Any, place: str, service: str, now: datetime) -> dict[str, Any]:
    card, outcome = text(item, "card"), text(item, "outcome")
    if not card or len(card) > 100:
        raise FhirError(Issue("required", "card is the uuid of a card.", f"{place}.card"))
    if outcome not in _OUTCOMES:
        said = "outcome is accepted or overridden."
        raise FhirError(Issue("required", said, f"{place}.outcome"))
    accepted = [text(one, "id") for one in parts(item, "acceptedSuggestions")][:20]
    if outcome == "accepted" and not any(accepted):
        said = "accepted names the suggestions in acceptedSuggestions, each with its id."
        raise FhirError(Issue("required", said, f"{place}.acceptedSuggestions"))
    reason = part(item, "overrideReason")
    coding = part(reason, "reason")
    if coding and not text(coding, "code"):
        said = "overrideReason.reason has a code."
        raise FhirError(Issue("required", said, f"{place}.overrideReason.reason.code"))
    found = {
        "service": service,
        "card": card,
        "outcome": outcome,
        "outcomeAt": _instant(text(item, "outcomeTimestamp"), f"{place}.outcomeTimestamp"),
        "at": now,
        "accepted": accepted if outcome == "accepted" else [],
        "reason": text(coding, "code")[:100],
        "reasonSystem": text(coding, "system")[:200],
        "comment": text(reason, "userComment")[:_COMMENT_CHARACTERS],
    }
    return {name: value for name, value in found.items() if value not in ("", [])}


def _instant(said: str, place: str) -> str:
    """Return a UTC timestamp, in one form for equal times."""
    try:
        found = datetime.fromisoformat(said)
        if found.utcoffset() is None:
            raise ValueError
        return found.astimezone(UTC).isoformat()
    except (ValueError, OverflowError) as error:
        message = "outcomeTimestamp is a UTC time such as 2026-01-31T12:00:00Z."
        raise FhirError(Issue("value", message, place)) from error
