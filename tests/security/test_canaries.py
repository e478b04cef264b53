"""A16; design/security.md, section 8: what is sent here shows up in no log, and secrets nowhere."""

import gzip
import json
import logging
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request, Response
from fhir_server.security.principal import Principal
from fhir_server.settings import Settings
from tests.http.conftest import application, exchange

CANARY = "Qxzvkanary7"
SECRET = "Zsecretqx9"
BASIC = b64encode(f"app:{SECRET}".encode()).decode()
JSON = "application/fhir+json"
XML = "application/fhir+xml"
FORM = "application/x-www-form-urlencoded"

SECRETS = {
    "authorization": f"Bearer {SECRET}",
    "cookie": f"__Host-session={SECRET}",
    "proxy-authorization": f"Basic {BASIC}",
    "x-api-key": SECRET,
}
PATIENT = {"resourceType": "Patient", "id": "p", "name": [{"family": CANARY}]}
BAD: dict[str, Any] = {"resourceType": "Patient", "gender": CANARY, CANARY: 1, "birthDate": CANARY}

# method, target, type, body
INPUTS: list[tuple[str, str, str, bytes]] = [
    ("PUT", "Patient/p", JSON, json.dumps(PATIENT).encode()),
    ("GET", "Patient/p", JSON, b""),
    ("GET", f"Patient?family={CANARY}", JSON, b""),
    ("GET", f"Patient?{CANARY}={CANARY}", JSON, b""),
    ("GET", f"Patient?birthdate={CANARY}", JSON, b""),
    ("GET", f"Patient?_filter={CANARY}", JSON, b""),
    ("GET", f"Patient/{CANARY}", JSON, b""),
    ("GET", f"{CANARY}/1", JSON, b""),
    ("GET", f"/{CANARY}", JSON, b""),
    ("GET", f"${CANARY}", JSON, b""),
    ("POST", "Patient", JSON, json.dumps(BAD).encode()),
    ("POST", "Patient", JSON, f'{{"a":"{CANARY}'.encode()),
    ("POST", "Patient", XML, f"<Patient><{CANARY}".encode()),
    ("POST", "Patient", f"text/{CANARY}", b"x"),
    ("POST", "Patient/_search", FORM, f"family={CANARY}&client_secret={SECRET}".encode()),
    ("POST", "Patient/$validate", JSON, json.dumps(BAD).encode()),
    ("PATCH", "Patient/p", "application/json-patch+json", f'[{{"op":"{CANARY}"}}]'.encode()),
    ("POST", "Binary", f"application/{CANARY}", CANARY.encode()),
    ("GET", f"ValueSet/$expand?url=http://{CANARY}", JSON, b""),
    ("POST", "", JSON, b'{"resourceType":"Bundle","type":"batch","entry":[{"fullUrl":"%b"}]}'
     % CANARY.encode()),
    (CANARY, "Patient", JSON, b""),
]  # fmt: skip
HEADERS = {
    "x-request-id": f"a b {CANARY}",
    "user-agent": CANARY,
    "if-none-exist": f"identifier={CANARY}",
    "prefer": f"return={CANARY}",
    "if-modified-since": CANARY,
    "if-match": CANARY,
    "origin": f"https://{CANARY}.example",
    "referer": f"https://{CANARY}.example",
}


async def test_a16_logs_have_nothing_of_what_was_sent(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """At any level: paths, queries, bodies, headers, good and bad. Secrets are in no answer."""
    caplog.set_level(logging.DEBUG, "fhir_server")
    site = application(server)
    ways: list[Callable[[bytes], tuple[dict[str, str], bytes]]] = [
        lambda body: ({}, body),
        lambda body: ({"content-encoding": "gzip"}, gzip.compress(body)),
        lambda body: (HEADERS, body),
    ]
    for method, target, kind, body in INPUTS:
        for way in ways:
            more, sent = way(body)
            headers = {"content-type": kind, **SECRETS, **more}
            answer = await exchange(site, method, target, headers, sent)
            assert answer.status_code < 500, answer.text
            assert SECRET not in answer.text
            assert SECRET not in str(answer.headers)
            assert BASIC not in answer.text
    said = "\n".join(f"{one.getMessage()} {one.exc_text}" for one in caplog.records)

    assert len(caplog.records) >= 2 * len(INPUTS)
    for canary in (CANARY, SECRET, BASIC):
        assert canary.lower() not in said.lower()


async def test_a16_a_failure_says_nothing_of_what_it_met(
    empty: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The database's own messages carry whole documents: neither log nor answer has them."""

    async def fails(request: Request, principal: Principal) -> Response:
        raise RuntimeError(f"duplicate key: {{ name: '{CANARY}' }}") from KeyError(SECRET)

    inner = application(empty)
    site = replace(inner, facade=replace(inner.facade, perform=fails))
    answer = await exchange(site, "GET", "Patient/p", SECRETS)

    assert answer.status_code == 500
    assert "RuntimeError" in caplog.text
    for canary in (CANARY, SECRET):
        assert canary not in answer.text
        assert canary not in caplog.text


def test_a16_settings_do_not_show_secrets() -> None:
    """However they are printed."""
    uri = f"mongodb://user:{SECRET}@db.example/"
    settings = Settings.model_validate({"master_key": SECRET * 8, "mongodb_uri": uri})
    assert SECRET not in f"{settings!r} {settings} {settings.master_key!r}"
    assert settings.master_key_text() == SECRET * 8


async def test_a16_the_context_does_not_show_its_keys(empty: Server) -> None:
    """A context is in many a traceback."""
    assert len(empty.context.master_key) >= 32
    for key in (empty.context.master_key, empty.context.page_key):
        assert str(key) not in repr(empty.context)
