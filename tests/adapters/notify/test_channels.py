"""RFC 5321, RFC 5322 and RFC 2104: what goes out by each channel, to real servers on loopback."""

import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_string, policy
from pathlib import Path
from typing import Any

import pytest

from adapters.notify.email import EMAIL
from adapters.notify.sms import SMS
from adapters.notify.webhook import WEBHOOK
from fhir_server.app import Server
from fhir_server.registry import Channel, Outgoing, Send, Unsent
from fhir_server.settings import Settings
from tests.adapters.notify.sinks import HttpSink, SmtpSink, running

MESSAGE = Outgoing(
    "9f2c", "amina@example.org", "বার্তা: Tue 15:00", "Your appointment", "bn", {"kind": "reminder"}
)
NOW = datetime(2036, 12, 1, tzinfo=UTC)


@asynccontextmanager
async def channel(empty: Server, channel: Channel, **settings: Any) -> AsyncIterator[Send]:
    """Open ``channel`` with ``settings``."""
    made = Settings.model_validate({"reminder_timeout_s": 0.5, **settings})
    context = replace(empty.context, settings=made, now=lambda: NOW)
    async with channel.opened(context) as send:
        yield send


@asynccontextmanager
async def mail(empty: Server, sink: SmtpSink) -> AsyncIterator[Send]:
    """Open the channel ``email`` to ``sink``."""
    url = f"smtp://127.0.0.1:{sink.port}"
    async with channel(empty, EMAIL, smtp_url=url, smtp_from="desk@clinic.example") as send:
        yield send


async def test_a_mail_has_the_key_as_its_id(empty: Server) -> None:
    """The same message has the same Message-ID whenever it is sent; its text arrives as it is."""
    async with running(SmtpSink()) as sink, mail(empty, sink) as send:
        await send(MESSAGE)
        await send(MESSAGE)

    first, second = (message_from_string(one, policy=policy.default) for one in sink.messages)
    assert first["Message-ID"] == second["Message-ID"] == "<9f2c@clinic.example>"
    assert (first["From"], first["To"]) == ("desk@clinic.example", "amina@example.org")
    assert first["Subject"] == "Your appointment"
    assert first["Auto-Submitted"] == "auto-generated"
    assert first.get_content().strip() == MESSAGE.text


@pytest.mark.parametrize(
    ("says", "is_final"),
    [
        ({"RCPT": "550 no such user"}, True),
        ({"RCPT": "450 try later"}, False),
        ({"MAIL": "550 not you"}, False),
        ({"CONNECT": "554 go away"}, False),
        ({"END": "451 disk full"}, False),
        ({"CONNECT": "nonsense"}, False),
        ({"CONNECT": "HANG"}, False),
        ({"END": "HANG"}, False),
        ({"EHLO": "DRIP", "HELO": "DRIP"}, False),
    ],
)
async def test_a_mail_that_is_not_taken_is_not_sent(
    empty: Server, says: dict[str, str], is_final: bool
) -> None:
    """A refusal of the recipient is for good, everything else for now; within a bound of time."""
    async with running(SmtpSink(says)) as sink, mail(empty, sink) as send:
        began = time.monotonic()
        with pytest.raises(Unsent) as caught:
            await send(MESSAGE)
        seconds = time.monotonic() - began

    assert caught.value.is_final is is_final
    assert seconds < 2
    assert "amina" not in str(caught.value)


@pytest.mark.parametrize("to", ["a@b.example\r\nBcc: x@y.example", "a@b.example\nRCPT TO:<x@y>"])
async def test_an_address_is_no_command(empty: Server, to: str) -> None:
    """What stands in a record does not become a header or a command."""
    async with running(SmtpSink()) as sink, mail(empty, sink) as send:
        with pytest.raises(Unsent) as caught:
            await send(replace(MESSAGE, to=to))

    assert caught.value.is_final
    assert sink.messages == []
    assert not any("x@y" in one for one in sink.commands)


async def test_without_tls_only_this_machine(empty: Server) -> None:
    """To any other machine TLS begins before anything is said; a server without it gets nothing."""
    with pytest.raises(ValueError, match="smtps"):
        Settings.model_validate({"smtp_url": "http://mail.example"})
    with pytest.raises(ValueError, match="setting of its own"):
        Settings.model_validate({"smtp_url": "smtps://a:secret@mail.example"})
    async with running(SmtpSink()) as sink:
        url = f"smtp://127.0.0.2:{sink.port}"  # this machine, by a name that it is not known by
        with pytest.raises(ValueError, match="FHIR_SMTP"):
            async with channel(empty, EMAIL, smtp_url="smtp://", smtp_from="a@b.example"):
                pass
        async with channel(empty, EMAIL, smtp_url=url, smtp_from="a@b.example") as send:
            with pytest.raises(Unsent):
                await send(MESSAGE)
    assert sink.messages == []


GATEWAY: dict[str, Any] = {
    "headers": {"Authorization": "Bearer {secret}"},
    "json": {"to": "{to}", "message": {"body": "{text}"}, "tags": ["{key}"], "flash": False},
    "accepted": {"path": ["status"], "values": ["ok"]},
}


@asynccontextmanager
async def sms(
    empty: Server, sink: HttpSink, folder: Path, given: dict[str, Any]
) -> AsyncIterator[Send]:
    """Open the channel ``sms`` to ``sink``."""
    path = folder / "gateway.json"
    path.write_text(json.dumps({"url": f"{sink.url}/send", **given}))
    async with channel(empty, SMS, sms_gateway=path, sms_secret="s3cret") as send:
        yield send


async def test_an_sms_is_asked_for_as_the_file_says(empty: Server, tmp_path: Path) -> None:
    """Each name is replaced in its place; the key goes with it."""
    async with (
        running(HttpSink(body=b'{"status":"ok"}')) as sink,
        sms(empty, sink, tmp_path, GATEWAY) as send,
    ):
        await send(replace(MESSAGE, to="+8801711000001", text='"}, {key} {secret} &to=x'))

    [(line, headers, body)] = sink.requests
    assert line == "POST /send HTTP/1.1"
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["idempotency-key"] == "9f2c"
    assert json.loads(body) == {
        "to": "+8801711000001",
        "message": {"body": '"}, {key} {secret} &to=x'},
        "tags": ["9f2c"],
        "flash": False,
    }


@pytest.mark.parametrize("form", ["form", "query"])
async def test_a_text_does_not_become_another_field(
    empty: Server, tmp_path: Path, form: str
) -> None:
    """In a form and in a query it is encoded."""
    given: dict[str, Any] = {form: {"to": "{to}", "text": "{text}"}}
    async with running(HttpSink()) as sink, sms(empty, sink, tmp_path, given) as send:
        await send(replace(MESSAGE, to="+880", text="x&to=+999#?"))

    [(line, _, body)] = sink.requests
    said = body.decode() if form == "form" else line
    assert "to=%2B880&text=x%26to%3D%2B999%23%3F" in said
    assert (form == "query") is ("?to=" in line)


@pytest.mark.parametrize(
    ("status", "body", "is_final"),
    [
        (200, b'{"status":"no credit"}', False),
        (200, b"<html>", False),
        (500, b"", False),
        (503, b"", False),
        (429, b"", False),
        (401, b"", False),
        (302, b"", False),
        (400, b"", True),
        (422, b"", True),
    ],
)
async def test_an_sms_that_is_not_taken_is_not_sent(
    empty: Server, tmp_path: Path, status: int, body: bytes, is_final: bool
) -> None:
    """What the gateway says decides whether it is tried again; a redirect is not followed."""
    sink = HttpSink(status, body, "Location: http://127.0.0.1:1/\r\n" if status == 302 else "")
    async with running(sink), sms(empty, sink, tmp_path, GATEWAY) as send:
        with pytest.raises(Unsent) as caught:
            await send(MESSAGE)

    assert caught.value.is_final is is_final
    assert len(sink.requests) == 1
    assert "s3cret" not in str(caught.value)


async def test_a_gateway_that_hangs_is_left(empty: Server, tmp_path: Path) -> None:
    """Within the time that the settings give it."""
    async with running(HttpSink(hangs=True)) as sink, sms(empty, sink, tmp_path, GATEWAY) as send:
        began = time.monotonic()
        with pytest.raises(Unsent):
            await send(MESSAGE)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "given",
    [
        {"url": "http://gateway.example"},
        {"url": "https://gateway.example/{to}"},
        {"url": "https://user:pass@gateway.example"},
        {"method": "DELETE"},
        {"headers": {"X-To": "{to}"}},
        {"headers": {"X To": "a"}},
        {"form": {"a": "b"}},
        {"url": "https://gateway.example/?v=1", "json": {}, "query": {}},
        {"method": "GET"},
        {"accepted": {"jsonpath": "$.x"}},
        {"shell": "rm"},
    ],
)
async def test_a_file_that_would_be_unsafe_is_refused(
    empty: Server, tmp_path: Path, given: dict[str, Any]
) -> None:
    """Names in the URL or in other headers, plain http, members that mean nothing."""
    with pytest.raises(ValueError, match=r"[a-z]"):
        async with sms(empty, HttpSink(port=1), tmp_path, {**GATEWAY, **given}):
            pass


async def test_a_webhook_is_signed(empty: Server) -> None:
    """Whoever has the secret can tell that it comes from here, and when; names are not in it."""
    async with running(HttpSink(204, b"")) as sink:
        settings = {"webhook_url": f"{sink.url}/hook", "webhook_secret": "k" * 32}
        async with channel(empty, WEBHOOK, **settings) as send:
            await send(MESSAGE)
            sink.status = 500
            with pytest.raises(Unsent):
                await send(MESSAGE)

    _, headers, body = sink.requests[0]
    signed = headers["x-timestamp"].encode() + b"." + body
    assert headers["x-signature"] == "sha256=" + hmac.new(b"k" * 32, signed, "sha256").hexdigest()
    assert headers["x-timestamp"] == str(int(NOW.timestamp()))
    assert json.loads(body)["id"] == headers["idempotency-key"] == "9f2c"


def test_no_secret_is_shown() -> None:
    """Settings and what is made of them do not print their secrets."""
    names = ("smtp_password", "sms_secret", "sms_inbound_secret", "webhook_secret")
    made = Settings.model_validate(dict.fromkeys(names, "s3cret" * 8))
    assert "s3cret" not in repr(made)
