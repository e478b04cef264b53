"""Mail to one person over SMTP (RFC 5321, RFC 3207): the only module that imports aiosmtplib.

A connection for each message: reminders are spread over the day, and a connection that is kept has
to be watched. It can be cancelled at any point, which a client in a thread cannot: so the time that
a message may take has a bound, whatever the server does.
"""

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from urllib.parse import unquote, urlsplit

import aiosmtplib

from fhir_server.security.addresses import host_fault

_HERE = ("127.0.0.1", "::1", "localhost")
_PORTS = {"smtp": 587, "smtps": 465}
_REFUSED_FOR_GOOD = range(500, 600)
_GOODBYE_S = 2.0


class Undelivered(Exception):
    """The server did not take the message; the text says why, without addresses. ``is_final``: it
    has refused this recipient for good."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class Mail:
    """One message as plain text. ``id`` becomes its Message-ID, the same whenever it is sent."""

    id: str
    sender: str
    to: str
    subject: str
    text: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class MailServer:
    """The server that takes mail. Without TLS only on this machine."""

    host: str
    port: int
    user: str
    is_tls: bool
    password: str = field(default="", repr=False)

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        return self.host in _HERE

    async def send(self, mail: Mail, *, timeout_s: float) -> None:
        """Hand ``mail`` over within ``timeout_s``. Raises :class:`Undelivered`."""
        client = self._client(timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                await client.connect()
                await client.send_message(_message(mail), sender=mail.sender, recipients=[mail.to])
            with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):  # it was taken, whatever is answered now
                    await client.quit()
        except aiosmtplib.SMTPRecipientsRefused as error:
            codes = [one.code for one in error.recipients]
            final = bool(codes) and all(one in _REFUSED_FOR_GOOD for one in codes)
            raise Undelivered("the recipient was refused", is_final=final) from None
        except aiosmtplib.SMTPResponseException as error:
            raise Undelivered(f"the mail server answered with {error.code}") from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError):
            raise Undelivered("the mail server did not answer as it should") from None
        except ValueError:  # an address that cannot be written
            raise Undelivered("it cannot be addressed", is_final=True) from None
        finally:
            client.close()

    def _client(self, timeout_s: float) -> aiosmtplib.SMTP:
        return aiosmtplib.SMTP(
            hostname=self.host,
            port=self.port,
            username=self.user or None,
            password=self.password or None,
            use_tls=self.is_tls,
            start_tls=not (self.is_tls or self.is_here),
            tls_context=None if self.is_here else _tls(),
            timeout=timeout_s,
            local_hostname="localhost",  # the name of this machine is nobody's business
        )


def mail_server(url: str, password: str) -> MailServer:
    """Return the server at ``url``, as ``smtps://user@mail.example:465``. Raises ``ValueError``."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host or host_fault(host):
        raise ValueError("FHIR_SMTP_URL is no URL of a mail server, as smtps://mail.example")
    is_tls = parts.scheme == "smtps"
    port = parts.port or _PORTS[parts.scheme]
    return MailServer(host, port, unquote(parts.username or ""), is_tls, password)


def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _message(mail: Mail) -> EmailMessage:
    """Return ``mail`` as it is sent. A line break in a header raises ``ValueError``."""
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"] = mail.sender
    message["To"] = mail.to
    message["Subject"] = mail.subject
    message["Message-ID"] = f"<{mail.id}@{mail.sender.rpartition('@')[2] or 'localhost'}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's holiday notice comes back
    message.set_content(mail.text)  # before other headers of the content, which it removes
    if mail.language:
        message["Content-Language"] = mail.language
    return message
