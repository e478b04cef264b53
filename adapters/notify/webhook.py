"""The channel ``webhook``: each message as JSON to one URL of the settings, signed.

``X-Signature: sha256=<hex>`` is the HMAC-SHA256 (RFC 2104) of ``<X-Timestamp>.<body>``.
"""

import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fhir_server.context import Context
from fhir_server.registry import Channel, Outgoing, Send, Unsent
from fhir_server.remote.posting import Unposted, posting


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return what ``body`` is signed with at ``timestamp``, seconds since 1970.

    >>> signature("secret", "1", b"{}")[:20]
    'sha256=1122767b19311'
    """
    made = hmac.new(secret.encode(), timestamp.encode() + b"." + body, "sha256")
    return f"sha256={made.hexdigest()}"


@asynccontextmanager
async def opened(context: Context) -> AsyncIterator[Send]:
    """Open the channel. Raises ``ValueError`` without URL or secret."""
    settings = context.settings
    url, key = settings.webhook_url, settings.webhook_secret.get_secret_value()
    if not url or not key:
        raise ValueError("FHIR_WEBHOOK_URL and FHIR_WEBHOOK_SECRET are to be set")
    async with posting([url]) as poster:

        async def send(outgoing: Outgoing) -> None:
            said = {
                "id": outgoing.key,
                "text": outgoing.text,
                "language": outgoing.language,
                **outgoing.about,
            }
            body = json.dumps(said, ensure_ascii=False).encode()
            timestamp = str(int(context.now().timestamp()))
            headers = {
                "Content-Type": "application/json",
                "Idempotency-Key": outgoing.key,
                "X-Timestamp": timestamp,
                "X-Signature": signature(key, timestamp, body),
            }
            try:
                answer = await poster.send(
                    *("POST", url, headers, body), timeout_s=settings.reminder_timeout_s
                )
            except Unposted as error:
                raise Unsent(f"webhook: {error}") from None
            if not 200 <= answer.status < 300:
                raise Unsent(f"webhook: it answered with {answer.status}")

        yield send


WEBHOOK = Channel("webhook", opened)
