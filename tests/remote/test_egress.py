"""A10; design/security.md, section 5: no URL of others leads inside."""

import asyncio
import json
import os
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpcore
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fhir_server.app import Server
from fhir_server.remote import egress
from fhir_server.remote.client import Remote, Unanswered
from fhir_server.remote.egress import BYTES_MAX, Barred, outgoing
from fhir_server.remote.fetching import Fetcher, Unfetched
from fhir_server.remote.knowledge import KnowledgeBase, KnowledgeUnanswered
from tests.conftest import SHARED
from tests.http.conftest import application, exchange

# Ours, so that there is something where the shared collections are not.
HOSTS = """
    127.0.0.1 localhost [::1] [::] 0.0.0.0 [::ffff:127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::]
    2130706433 0x7f.1 0177.0.0.1 127.1 169.254.169.254 10.0.0.1 192.168.0.1 168.63.129.16
    inside.example user@127.0.0.1 user:secret@localhost fhir.example.org@127.0.0.1
""".split()
POSITIONS = ("key set", "FHIR server", "knowledge base", "terminology")


class Listener:
    """Sockets of this machine on one port, and how many connections they were given."""

    def __init__(self) -> None:
        self.count = 0
        self.port = 0
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"

    async def _taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.count += 1
        await reader.read(65_536)
        writer.write(self.answer)
        writer.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Listener"]:
        """Listen."""
        server = await asyncio.start_server(self._taken, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(server)
            try:
                other = await asyncio.start_server(self._taken, "::1", self.port)
                await stack.enter_async_context(other)
            except OSError:
                pass  # a machine without IPv6
            yield self


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    """What nobody is to connect to."""
    async with Listener().open() as made:
        yield made


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a connection was tried to; none is made."""
    tried: list[str] = []

    async def connect(self: Any, host: str, *_: Any, **__: Any) -> Any:
        tried.append(host)
        raise httpcore.ConnectError("not in a test")

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    return tried


def urls(port: int) -> list[str]:
    """Return hostile URLs: as they are, with our port, and with https."""
    found = [f"http://{host}/" for host in HOSTS]
    folder = Path(os.environ.get("FHIR_TEST_BADINPUT", SHARED / "badinput")) / "urls"
    for name in ("requests.b64", "redirect.b64"):
        if (folder / name).is_file():
            lines = (folder / name).read_text("ascii").splitlines()
            found += [b64decode(line).decode("utf-8", "replace") for line in lines]
    if (folder / "loopback_hosts.b64").is_file():
        for line in (folder / "loopback_hosts.b64").read_text("ascii").splitlines():
            host = b64decode(line).decode("utf-8", "replace")
            found += [f"http://{host}/", f"http://[{host}]/"]
    found += [_with_port(url, port) for url in found]
    found += [f"https:{url.partition(':')[2]}" for url in found if ":" in url]
    return list(dict.fromkeys(found))


def _with_port(url: str, port: int) -> str:
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        bare = host if host.endswith("]") else host.rpartition(":")[0] or host
        return parts._replace(netloc=f"{bare}:{port}").geturl()
    except ValueError:
        return url


async def inside(_host: str, _port: int) -> list[str]:
    """A name of an attacker that means this machine."""
    return ["127.0.0.1"]


async def half_inside(_host: str, _port: int) -> list[str]:
    """One that means a public address as well."""
    return ["9.9.9.9", "::1"]


class Changing:
    """A name that is public when it is first asked for, and inside from then on."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self, _host: str, _port: int) -> list[str]:
        self.asked += 1
        return ["9.9.9.9"] if self.asked == 1 else ["127.0.0.1"]


async def call(position: str, url: str, http: httpx.AsyncClient) -> None:
    """Have ``url`` called as each part of this server calls one."""
    try:
        if position == "key set":
            await Fetcher(http).get(url, bytes_max=1000, timeout_s=2)
        elif position == "FHIR server":
            await Fetcher(http).get(f"{url}/Patient/1", bytes_max=1000, timeout_s=2, token="t")
        elif position == "knowledge base":
            await KnowledgeBase(url, http).post("check", {}, 2)
        else:
            await Remote(url, 2, http).call("CodeSystem/$lookup")
    except (Unfetched, Unanswered, KnowledgeUnanswered, httpx.InvalidURL, ValueError):
        return
    raise AssertionError(f"{url} was answered")


@pytest.mark.parametrize("resolve", [egress.resolved, inside, half_inside])
@pytest.mark.parametrize("position", POSITIONS)
async def test_a10_nothing_inside_is_called(
    listener: Listener, position: str, resolve: Any
) -> None:
    """Hostile URLs, as they are, with our port and by https; names that lead inside."""
    async with outgoing(resolve=resolve) as http:
        for url in urls(listener.port):
            if resolve is egress.resolved and not _is_here(url):
                continue  # what names mean outside of this machine is not asked
            await call(position, url, http)
    assert listener.count == 0


def _is_here(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return True
    return host in ("", "localhost") or not host[-1].isalpha()


@pytest.mark.parametrize("position", POSITIONS)
async def test_a10_only_public_addresses_are_tried(attempts: list[str], position: str) -> None:
    """What is connected to is the address that was judged, whatever the name means later."""
    resolve = Changing()
    async with outgoing(resolve=resolve) as http:
        for url in urls(443):
            resolve.asked = 0
            await call(position, url, http)
            await call(position, url, http)
    assert set(attempts) == {"9.9.9.9"}


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a10_no_redirect_is_followed(listener: Listener, position: str, status: int) -> None:
    """Not from one origin that the operator has set to another either."""
    async with Listener().open() as first:
        base = f"http://127.0.0.1:{first.port}"
        other = f"http://127.0.0.1:{listener.port}"
        async with outgoing([base, other]) as http:
            for host in ("127.0.0.1", "localhost", "[::1]"):
                first.answer = (
                    f"HTTP/1.1 {status} Moved\r\nlocation: http://{host}:{listener.port}/\r\n"
                    "content-length: 0\r\n\r\n"
                ).encode()
                await call(position, base, http)
    assert first.count >= 1
    assert listener.count == 0


async def test_an_origin_that_is_set_is_called_wherever_it_is(listener: Listener) -> None:
    """That one exactly: not another port, another scheme, another name of the same address."""
    listed = f"http://127.0.0.1:{listener.port}/fhir"
    async with Listener().open() as other, outgoing([listed]) as http:
        assert await Fetcher(http).get(f"{listed}/x", bytes_max=9, timeout_s=2) == b"{}"
        assert listener.count == 1
        for url in (
            f"https://127.0.0.1:{listener.port}/fhir",
            f"http://localhost:{listener.port}/fhir",
            f"http://127.0.0.1:{other.port}/fhir",
            f"http://x@127.0.0.1:{listener.port}/fhir",
        ):
            with pytest.raises(Unfetched):
                await Fetcher(http).get(url, bytes_max=9, timeout_s=2)
        assert (listener.count, other.count) == (1, 0)


async def test_a10_what_clients_write_is_not_called(empty: Server, listener: Listener) -> None:
    """URLs in resources, headers and bodies of requests: stored or refused, never called."""
    site = application(empty)
    headers = {"content-type": "application/fhir+json"}
    for url in urls(listener.port)[::3]:
        entries = [
            {"fullUrl": url, "request": {"method": "GET", "url": url}},
            {"request": {"method": "GET", "url": f"ValueSet/$expand?url={quote(url)}"}},
            {"request": {"method": "GET", "url": f"CodeSystem/$lookup?system={quote(url)}&code=a"}},
        ]
        body = {"resourceType": "Bundle", "type": "batch", "entry": entries}
        answer = await exchange(site, "POST", "", headers, json.dumps(body).encode())
        assert answer.status_code < 500
        document = {
            "resourceType": "DocumentReference",
            "status": "current",
            "content": [{"attachment": {"contentType": "text/plain", "url": url}}],
        }
        resource = {"name": "resource", "resource": document}
        parameters = {"resourceType": "Parameters", "parameter": [resource]}
        answer = await exchange(
            site, "POST", "DocumentReference/$validate", headers, json.dumps(parameters).encode()
        )
        assert answer.status_code < 500
    assert listener.count == 0


# --------------------------------------------------------------------- what is public, and by TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with key and certificate for ``fhir.example.org``, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("fhir.example.org")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(pem + made.public_bytes(serialization.Encoding.PEM))
    return file


class Secure:
    """A server by TLS that keeps what it was asked by."""

    def __init__(self, certificates: Path) -> None:
        self.names: list[str] = []
        self.heads: list[bytes] = []
        self.body = b"{}"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificates)
        self.context.sni_callback = lambda _socket, name, _context: self.names.append(name)

    async def taken(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.body) + self.body)
        writer.close()


@pytest.fixture
async def public(
    certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Secure, httpx.AsyncClient, int]]:
    """A server whose address counts as public here, and a client that trusts its certificate."""
    secure = Secure(certificates)
    trusting = ssl.create_default_context(cafile=certificates)
    monkeypatch.setattr(egress, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(egress, "_tls", lambda: trusting)
    server = await asyncio.start_server(secure.taken, "127.0.0.1", 0, ssl=secure.context)
    async with server, outgoing(resolve=inside) as http:
        yield secure, http, server.sockets[0].getsockname()[1]


async def test_the_name_is_in_sni_and_host(public: Any) -> None:
    """The connection goes to the address that was judged; the certificate is that of the name."""
    secure, http, port = public
    answer = await http.get(f"https://fhir.example.org:{port}/a")

    assert answer.status_code == 200
    assert secure.names == ["fhir.example.org"]
    assert f"host: fhir.example.org:{port}".encode() in secure.heads[0].lower()
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        await http.get(f"https://other.example.org:{port}/a")


async def test_an_answer_has_an_end(public: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes and in seconds, whatever the caller asked for."""
    secure, http, port = public
    secure.body = b"x" * (BYTES_MAX + 1)
    with pytest.raises(Barred, match="over"):
        await http.get(f"https://fhir.example.org:{port}/a")

    monkeypatch.setattr(egress, "SECONDS_MAX", 0.3)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        writer.close()

    async with await asyncio.start_server(slow, "127.0.0.1", 0, ssl=secure.context) as silent:
        port = silent.sockets[0].getsockname()[1]
        with pytest.raises(Barred, match=r"0\.3 s"):
            await http.get(f"https://fhir.example.org:{port}/a")
