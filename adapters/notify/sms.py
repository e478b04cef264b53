"""The channel ``sms``: an SMS gateway over HTTP, called as a site's file says (sms_request.py)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.notify.secrets import secret
from adapters.notify.sms_request import call_of, gateway, outcome
from fhir_server.context import Context
from fhir_server.registry import Channel, Outgoing, Send, Unsent
from fhir_server.remote.posting import Unposted, posting


@asynccontextmanager
async def opened(context: Context) -> AsyncIterator[Send]:
    """Open the channel. Raises ``ValueError`` for a file that cannot be used, ``OSError``."""
    settings = context.settings
    if settings.sms_gateway is None:
        raise ValueError("FHIR_SMS_GATEWAY is to name the file of the SMS gateway")
    described = gateway(settings.sms_gateway.read_text("utf-8"))
    key = secret(settings.sms_secret, settings.sms_secret_file)
    async with posting([described.url]) as poster:

        async def send(outgoing: Outgoing) -> None:
            call = call_of(described, outgoing.to, outgoing.text, outgoing.key, key)
            try:
                answer = await poster.send(
                    *(call.method, call.url, call.headers, call.body),
                    timeout_s=settings.reminder_timeout_s,
                    query=call.query,
                )
            except Unposted as error:
                raise Unsent(f"SMS: {error}") from None
            said = outcome(described, answer.status, answer.body)
            if said != "taken":
                why = f"SMS: the gateway answered with {answer.status}"
                raise Unsent(why, is_final=said == "never")

        yield send


SMS = Channel("sms", opened)
