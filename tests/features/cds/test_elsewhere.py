"""design/cds.md, sections 3.2 and 13: key sets by URL, and a client's own FHIR server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from fhir_server.app import Server, opened
from fhir_server.ending import end_of
from fhir_server.features.cds.elsewhere import is_below
from fhir_server.features.cds.keys import KEPT_S, PAUSE_S, NoKeys, PublishedKeys, key_set
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.features.cds.trust import load_clients
from fhir_server.settings import Settings
from tests.conformance.cds_hooks.conftest import PATIENT, bundle, hook, order
from tests.conftest import drop
from tests.features.cds.conftest import client_of

ISSUER = "https://ehr.example.org"
SIGN = "/cds-services/drug-safety-sign"
KEY = ECKey.generate_key("P-384", {"kid": "k1"}, private=True)
OTHER = ECKey.generate_key("P-384", {"kid": "k2"}, private=True)


class Neighbour:
    """Another server on this machine: what it is asked, and what it answers: head and body."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.port = 0
        self.answers: dict[str, tuple[str, bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def says(self, path: str, body: Any, head: str = "200 OK") -> None:
        """Have ``path`` answered with ``body``, as JSON or as it is."""
        said = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[path] = head, said

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        target = head.split(" ", 2)[1]
        self.asked.append(target)
        for line in head.splitlines():
            if line.lower().startswith("authorization:"):
                self.tokens.append(line.partition(":")[2].strip())
        status, body = self.answers.get(target, self.answers.get("*", ("404 Not Found", b"{}")))
        if status == "hang":
            await reader.read()  # until the other gives up
        length = "" if "\r\n" in status else f"\r\nContent-Length: {len(body)}"
        writer.write(f"HTTP/1.1 {status}{length}\r\nConnection: close\r\n\r\n".encode() + body)
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()


@pytest.fixture
async def neighbour() -> AsyncIterator[Neighbour]:
    """A server beside ours, at a port of its own."""
    made = Neighbour()
    serving = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.port = serving.sockets[0].getsockname()[1]
    made.says("/keys", published(KEY))
    yield made
    serving.close()


def published(*keys: Any) -> dict[str, Any]:
    return {"keys": [key.as_dict(private=False) for key in keys]}


def token(key: Any = KEY, **header: Any) -> dict[str, str]:
    """Return the header of a signed call."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "aud": f"http://cds.example.org{SIGN}",
        "exp": now + 120,
        "iat": now,
        "jti": str(uuid4()),
    }
    head = {"alg": "ES384", "typ": "JWT", "kid": key.kid, **header}
    made = jwt.encode(head, said, key, algorithms=["ES384", "HS256"])
    return {"Authorization": f"Bearer {made}"}


@asynccontextmanager
async def served(
    mongodb_uri: str, tmp_path: Path, neighbour: Neighbour, **more: Any
) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    """A server whose client publishes its keys at ``neighbour``, and has FHIR there."""
    path = tmp_path / "clients.json"
    client = {
        "iss": ISSUER,
        "keysUrl": f"{neighbour.url}/keys",
        "fhirServers": [f"{neighbour.url}/fhir"],
    }
    path.write_text(json.dumps({"clients": [client]}), "utf-8")
    settings = Settings.model_validate(
        {
            "mongodb_database": f"test-{uuid4().hex[:12]}",
            "cds_clients": path,
            "cds_services": "*",
            "cds_deadline_ms": 5_000,
            "base_url": "http://cds.example.org/fhir",
            **more,
        }
    )
    async with opened(settings, mongodb_uri) as server:
        running = asyncio.create_task(server.registry.tasks["cds"].run(server.context))
        while server.registry.routes["/cds-services"].fetcher is None:
            assert not running.done(), running.exception()
            await asyncio.sleep(0.01)
        try:
            async with client_of(server) as http:
                yield server, http
        finally:
            await end_of([running])
            await drop(server.database)


async def test_keys_by_url(mongodb_uri: str, tmp_path: Path, neighbour: Neighbour) -> None:
    """The key set is read once; an unknown key, another ``jku`` or a MAC has nothing else read."""
    async with served(mongodb_uri, tmp_path, neighbour) as (_, http):

        async def status(**headers: str) -> int:
            answer = await http.post(SIGN, json=hook(order("n", "naproxen")), headers=headers)
            return answer.status_code

        mac = OctKey.import_key(json.dumps(published(KEY)["keys"][0]), {"kid": "k1"})
        good = [await status(**token()) for _ in range(3)]
        same = await status(**token(jku=f"{neighbour.url}/keys"))
        bad = [
            await status(**token(jku=f"{neighbour.url}/mine")),
            await status(**token(jku="http://169.254.169.254/keys")),
            await status(**token(OTHER)),
            await status(**token(OTHER)),
            await status(**token(OTHER, kid="k1")),
            await status(**token(mac, alg="HS256")),
        ]

    assert (good, same) == ([412] * 3, 412), "they are let in, without data to judge by"
    assert bad == [401] * len(bad)
    assert neighbour.asked == ["/keys"]


def far(document: Any) -> tuple[PublishedKeys, list[str], list[float], list[Any]]:
    """Return key sets at a source that is counted, with a clock and a document to be changed."""
    asked: list[str] = []
    now, said = [0.0], [document]

    async def fetch(url: str) -> bytes:
        asked.append(url)
        if isinstance(said[0], Exception):
            raise said[0]
        return json.dumps(said[0]).encode()

    return PublishedKeys(fetch, (OSError,), lambda: now[0]), asked, now, said


async def test_an_unknown_key_is_looked_up_once_a_minute() -> None:
    """S-55: many calls with it are one look-up; a set that cannot be read leaves what is known."""
    keys, asked, now, said = far(published(KEY))
    await keys.keys("u", "k1", "ES384")
    for moment in (1, PAUSE_S - 1):
        now[0] = moment
        with pytest.raises(NoKeys):
            await keys.keys("u", "k2", "ES384")
    assert len(asked) == 1

    now[0] = PAUSE_S + 1
    said[0] = published(KEY, OTHER)
    await asyncio.gather(*(keys.keys("u", "k2", "ES384") for _ in range(20)))
    assert len(asked) == 2

    now[0] += KEPT_S
    said[0] = OSError("gone")
    await keys.keys("u", "k1", "ES384")
    assert len(asked) == 3

    now[0] += PAUSE_S
    said[0] = published(OTHER)
    with pytest.raises(NoKeys):
        await keys.keys("u", "k1", "ES384")


async def test_who_comes_while_keys_are_read_waits() -> None:
    """After a start many calls are one look-up, and all of them get the key."""
    asked: list[str] = []

    async def slow(url: str) -> bytes:
        asked.append(url)
        await asyncio.sleep(0.01)
        return json.dumps(published(KEY)).encode()

    keys = PublishedKeys(slow, (OSError,))
    found = await asyncio.gather(*(keys.keys("u", "k1", "ES384") for _ in range(8)))

    assert len(found) == 8
    assert asked == ["u"]


async def test_clients_of_two_algorithms_may_share_a_url() -> None:
    """Each has the keys that it signs with, and neither those of the other."""
    rsa = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
    keys, asked, _, _ = far(published(KEY, rsa))
    assert [one.kid for one in (await keys.keys("u", "k1", "ES384")).keys] == ["k1"]
    assert [one.kid for one in (await keys.keys("u", "rsa", "RS384")).keys] == ["rsa"]
    with pytest.raises(NoKeys):
        await keys.keys("u", "rsa", "ES384")

    assert asked == ["u", "u"]


def test_of_keys_registered_by_hand_those_that_sign_are_taken(tmp_path: Path) -> None:
    """One for encryption is passed over; no list is a fault that is named."""
    path = tmp_path / "clients.json"
    for rows, kids in (
        ([KEY.as_dict(private=False), {**OTHER.as_dict(private=False), "use": "enc"}], ["k1"]),
        (["no key"], None),
        (7, None),
    ):
        clients = {"clients": [{"iss": ISSUER, "keys": {"keys": rows}}]}
        path.write_text(json.dumps(clients), "utf-8")
        if kids is None:
            with pytest.raises(KnowledgeError, match="FHIR_CDS_CLIENTS"):
                load_clients(path)
            continue
        found = load_clients(path)[ISSUER].keys
        assert found is not None
        assert [key.kid for key in found.keys] == kids


async def test_a_key_set_that_cannot_be_read_is_tried_again_later() -> None:
    """A storm of calls does not become a storm of requests."""
    keys, asked, now, said = far(OSError("gone"))
    for _ in range(5):
        with pytest.raises(NoKeys):
            await keys.keys("u", "k1", "ES384")
    assert len(asked) == 1

    now[0], said[0] = PAUSE_S + 1, published(KEY)
    assert await keys.keys("u", "k1", "ES384")


def test_only_keys_that_can_verify_are_taken() -> None:
    """Others in a set are passed over; a set without one is refused."""
    good = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
    (rsa,) = published(good)["keys"]
    rows = [
        *published(KEY)["keys"],
        {**published(OTHER)["keys"][0], "use": "enc"},
        {k: v for k, v in published(OTHER)["keys"][0].items() if k != "kid"},
        {"kty": "EC", "crv": "P-384", "kid": "odd", "x": "AA", "y": "AA"},
        {"kty": "oct", "kid": "mac", "k": "c2VjcmV0"},
        OTHER.as_dict(private=True),
        "no key",
    ]

    assert [key.kid for key in key_set(json.dumps({"keys": rows}).encode(), "ES384").keys] == ["k1"]
    assert key_set(json.dumps({"keys": [*rows, rsa]}).encode(), "RS384").keys
    for document in (
        b"",
        b"[]",
        b"[" * 10_000,
        b'{"keys": 1}',
        json.dumps(published(KEY)).encode(),
        json.dumps({"keys": rows * 10}).encode(),
        json.dumps({"keys": [{**rsa, "n": rsa["n"][:171]}]}).encode(),
    ):
        with pytest.raises(ValueError, match="key"):
            key_set(document, "RS384")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("302 Found\r\nLocation: http://127.0.0.1:{port}/real\r\nContent-Length: 0", b""),
        ("301 Moved\r\nLocation: /real\r\nContent-Length: 0", b""),
        ("200 OK", b'{"keys": [' + b" " * 70_000 + b"]}"),
        ("200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2", b"\x1f\x8b"),
        ("200 OK", b"<html>"),
        ("500 Oops", b"{}"),
        ("hang", b""),
        ("nonsense", b""),
    ],
)
async def test_hostile_key_servers(
    mongodb_uri: str,
    tmp_path: Path,
    neighbour: Neighbour,
    monkeypatch: pytest.MonkeyPatch,
    head: str,
    body: bytes,
) -> None:
    """Redirects, endless, compressed, late and broken answers: 401, soon, and nothing followed."""
    monkeypatch.setattr("fhir_server.features.cds.http.TIMEOUT_S", 0.3)
    neighbour.says("/keys", body, head.format(port=neighbour.port))
    neighbour.says("/real", published(KEY))
    async with served(mongodb_uri, tmp_path, neighbour) as (_, http):
        answer = await http.post(SIGN, json=hook(order("n", "naproxen")), headers=token())

    assert answer.status_code == 401
    assert neighbour.asked == ["/keys"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"keysUrl": "http://ehr.example.org/keys"}, "not plain https"),
        ({"keysUrl": "https://me:secret@ehr.example.org/keys"}, "not plain https"),
        ({"keysUrl": "file:///etc/passwd"}, "not plain https"),
        ({"keysUrl": "http://127.0.0.1/keys"}, "not plain https"),
        ({"keysUrl": "https://ehr.example.org/keys", "keys": {"keys": []}}, "either"),
        ({"keysUrl": "", "keys": {"keys": []}}, "either"),
        ({"keysUrl": ""}, "not plain https"),
        ({"keysUrl": "https://ehr.example.org/keys", "fhirServers": [""]}, "not plain https"),
        ({}, "either"),
    ],
)
def test_registrations_that_are_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    """In production key sets are read by https; http on this machine is for trying out."""
    path = tmp_path / "clients.json"
    path.write_text(json.dumps({"clients": [{"iss": ISSUER, **row}]}), "utf-8")

    with pytest.raises(KnowledgeError, match=said):
        load_clients(path)
    if row == {"keysUrl": "http://127.0.0.1/keys"}:
        assert load_clients(path, is_trying=True)


def reading(neighbour: Neighbour, **more: Any) -> dict[str, Any]:
    """Return a request without prefetch, to be completed at ``neighbour``."""
    return hook(
        order("n", "naproxen", "draft"),
        fhirServer=f"{neighbour.url}/fhir",
        fhirAuthorization={"access_token": "the-token", "token_type": "Bearer"},
        **more,
    )


MEDICATIONS = "/fhir/MedicationRequest?patient=p1&status=active"


def filled(neighbour: Neighbour) -> None:
    """Have ``neighbour`` know a patient on warfarin, on the second page."""
    empty = {"resourceType": "Bundle", "type": "searchset"}
    link = [{"relation": "next", "url": f"{neighbour.url}/fhir/page/2"}]
    neighbour.says("*", empty)
    neighbour.says("/fhir/Patient/p1", PATIENT)
    neighbour.says(MEDICATIONS, {**bundle(order("a", "metformin")), "link": link})
    neighbour.says("/fhir/page/2", bundle(order("w", "warfarin")))
    neighbour.says("/keys", published(KEY))


async def test_a_registered_server_is_read(
    mongodb_uri: str, tmp_path: Path, neighbour: Neighbour, caplog: pytest.LogCaptureFixture
) -> None:
    """With the token, by pages; the token is neither kept nor logged."""
    caplog.set_level("DEBUG")
    filled(neighbour)
    async with served(mongodb_uri, tmp_path, neighbour) as (server, http):
        answer = await http.post(SIGN, json=reading(neighbour), headers=token())
        cards = answer.json()["cards"]
        await server.registry.routes["/cds-services"].recorder.written()
        kept = [str(row) async for row in server.database["cds_calls"].find()]

    assert "warfarin" in cards[0]["summary"]
    assert "/fhir/page/2" in neighbour.asked
    assert set(neighbour.tokens) == {"Bearer the-token"}
    assert "the-token" not in caplog.text + "".join(kept)


@pytest.mark.parametrize("hostile", ["elsewhere", "above", "large", "html", "refused"])
async def test_a_hostile_server_gets_nothing(
    mongodb_uri: str, tmp_path: Path, neighbour: Neighbour, hostile: str
) -> None:
    """What leads elsewhere is not followed; what cannot be read is said."""
    filled(neighbour)
    first = bundle(order("a", "metformin"))
    links = {
        "elsewhere": f"http://127.0.0.1:{neighbour.port}9/fhir/page/2",
        "above": f"{neighbour.url}/fhir/%2e%2e/secret",
    }
    if hostile in links:
        link = [{"relation": "next", "url": links[hostile]}]
        neighbour.says(MEDICATIONS, {**first, "link": link})
    elif hostile == "large":
        neighbour.says(MEDICATIONS, json.dumps(first).encode() + b" " * 1_100_000)
    elif hostile == "html":
        neighbour.says(MEDICATIONS, b"<html>")
    else:
        neighbour.says(MEDICATIONS, {}, "401 Unauthorized")
    async with served(mongodb_uri, tmp_path, neighbour) as (_, http):
        answer = await http.post(SIGN, json=reading(neighbour), headers=token())

    assert answer.status_code == 200
    assert "medications" in answer.json()["cards"][-1]["summary"]
    assert not [one for one in neighbour.asked if "secret" in one]


async def test_servers_of_others_and_calls_without_a_token(
    mongodb_uri: str, tmp_path: Path, neighbour: Neighbour
) -> None:
    """A server that is not listed for the client, and reading without a right to: nothing asked."""
    filled(neighbour)
    unlisted = {**reading(neighbour), "fhirServer": f"{neighbour.url}/other"}
    without = {k: v for k, v in reading(neighbour).items() if k != "fhirAuthorization"}
    broken = {**reading(neighbour), "fhirAuthorization": {"access_token": "a\r\nHost: x"}}
    async with served(mongodb_uri, tmp_path, neighbour) as (_, http):
        answers = [
            (await http.post(SIGN, json=body, headers=token())).status_code
            for body in (unlisted, without, broken)
        ]

    assert answers == [412] * 3
    assert neighbour.asked == ["/keys"]


async def test_a_server_that_hangs_does_not_hold_up(
    mongodb_uri: str, tmp_path: Path, neighbour: Neighbour
) -> None:
    """The deadline of the answer holds."""
    filled(neighbour)
    neighbour.says(MEDICATIONS, b"", "hang")
    async with served(mongodb_uri, tmp_path, neighbour, cds_deadline_ms=500) as (_, http):
        await http.post(SIGN, json=reading(neighbour), headers=token())
        began = time.monotonic()
        answer = await http.post(SIGN, json=reading(neighbour), headers=token())

    assert answer.status_code == 200
    assert "medications" in answer.json()["cards"][-1]["summary"]
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("url", "below"),
    [
        ("https://a.org/fhir/Patient/1?x=1", True),
        ("https://a.org/fhir/../admin", False),
        ("https://a.org/fhir/%2e%2e/admin", False),
        ("https://a.org/fhir/%252e%252e/admin", False),
        ("https://a.org/fhir/..\\admin", False),
        ("https://a.org/fhirs/1", False),
        ("https://a.org.evil.org/fhir/1", False),
        ("https://a.org/fhir/1#x", False),
        ("https://a.org/fhir/1\r\nHost: b", False),
        ("https://a.org/fhir/ü", False),
        ("http://a.org/fhir/1", False),
    ],
)
def test_what_is_below_a_server(url: str, below: bool) -> None:
    """However it is written."""
    assert is_below(url, "https://a.org/fhir") == below
