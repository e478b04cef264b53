"""What somebody answers to an SMS, and whether it really comes from the gateway. Pure.

The body is signed like a webhook of ours: ``X-Signature: sha256=<hex>`` is the HMAC-SHA256 of
``<X-Timestamp>.<body>``, the timestamp in seconds since 1970, five minutes old at most.
"""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from fhir_server.outcome import FhirError, Issue
from fhir_server.store.outbox import Row

Meaning = Literal["stop", "start", "confirm", "cancel", ""]

AGE_MAX_S = 300
_WORDS: dict[str, Meaning] = {
    **dict.fromkeys(("stop", "stopall", "unsubscribe", "end", "quit", "বন্ধ"), "stop"),
    **dict.fromkeys(("start", "unstop", "চালু"), "start"),
    **dict.fromkeys(("1", "১", "yes", "হ্যাঁ"), "confirm"),
    **dict.fromkeys(("2", "২", "no", "না"), "cancel"),
}
_DIGITS_THAT_COUNT = 9
_APART = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came in: the number it came from, and its text."""

    sender: str
    text: str

    @property
    def meaning(self) -> Meaning:
        """What it means; ``""`` where that is not plain: then nothing is done.

        >>> Reply("", " Stop. ").meaning, Reply("", "1").meaning, Reply("", "1 or 2?").meaning
        ('stop', 'confirm', '')
        """
        return _WORDS.get(self.text.strip().strip(".!").casefold(), "")


def is_signed(secret: str, timestamp: str, signature: str, body: bytes, now: datetime) -> bool:
    """Whether ``signature`` is that of ``body``, made a short while ago."""
    if not secret or not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    made = hmac.new(secret.encode(), timestamp.encode() + b"." + body, "sha256").hexdigest()
    is_right = hmac.compare_digest(
        f"sha256={made}".encode(), signature.encode("latin-1", "replace")
    )
    return is_right and abs(now.timestamp() - int(timestamp)) <= AGE_MAX_S


def reply_of(body: Any) -> Reply:
    """Return what ``{"from": "+880…", "text": "STOP"}`` says. Raises ``structure``."""
    sender, text = (body.get("from"), body.get("text")) if isinstance(body, dict) else (None, None)
    if not isinstance(sender, str) or not isinstance(text, str):
        raise FhirError(Issue("structure", "The body has from and text, both texts."))
    return Reply(sender, text)


def mark(number: str) -> str:
    """Return by what the messages to ``number`` are found: its last nine digits, since a gateway
    writes numbers in its own way; ``""`` for too few.

    >>> mark("+880 1711-000001") == mark("01711000001")
    True
    """
    digits = "".join(one for one in number if one in "0123456789")
    return f"sms:{digits[-_DIGITS_THAT_COUNT:]}" if len(digits) >= _DIGITS_THAT_COUNT else ""


def meant(rows: Sequence[Row], now: datetime) -> Row | None:
    """Return which of ``rows``, sent to one number, newest first, an answer is about: the last that
    was sent, if it is of an appointment to come. ``None`` where something else came after it, such
    as the offer of another time, or another appointment was told of at about that time, as to a
    family with one phone: then it is not known."""
    asked = [
        one
        for one in rows
        if one.content.get("kind") in ("reminder", "moved") and one.content["start"] > now
    ]
    if not asked:
        return None
    last = asked[0]
    if rows[0].subject != last.subject:
        return None
    for one in asked[1:]:
        near = last.at is None or one.at is None or last.at - one.at < _APART
        if one.subject != last.subject and near:
            return None
    return last
