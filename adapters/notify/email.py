"""The channel ``email``: one message in plain text for each, over the mail server of the settings.

https://www.rfc-editor.org/rfc/rfc5321; the Message-ID has the key of the message (RFC 5322, 3.6.4).
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adapters.notify.secrets import secret
from fhir_server.context import Context
from fhir_server.registry import Channel, Outgoing, Send, Unsent
from fhir_server.remote.mail import Mail, Undelivered, mail_server


@asynccontextmanager
async def opened(context: Context) -> AsyncIterator[Send]:
    """Open the channel. Raises ``ValueError`` without server or sender."""
    settings = context.settings
    server = mail_server(
        settings.smtp_url, secret(settings.smtp_password, settings.smtp_password_file)
    )
    if "@" not in settings.smtp_from:
        raise ValueError("FHIR_SMTP_FROM is to be the address that e-mails come from")

    async def send(outgoing: Outgoing) -> None:
        mail = Mail(
            outgoing.key.replace("/", "."),
            settings.smtp_from,
            outgoing.to,
            outgoing.subject,
            outgoing.text,
            outgoing.language,
        )
        try:
            await server.send(mail, timeout_s=settings.reminder_timeout_s)
        except Undelivered as error:
            raise Unsent(f"e-mail: {error}", is_final=error.is_final) from None

    yield send


EMAIL = Channel("email", opened)
