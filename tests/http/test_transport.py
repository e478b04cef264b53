"""design/security.md, section 6: TLS of our own, and whose word about addresses is believed."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from fhir_server.http.transport import transport_of
from fhir_server.settings import Settings


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer who asks, as it is understood here, and by which scheme."""
    said = f"{scope['client'][0]} {scope['scheme']}".encode()
    headers = [(b"content-length", b"%d" % len(said))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said})


@asynccontextmanager
async def serving(**named: Any) -> AsyncIterator[int]:
    """Run uvicorn with the transport of these settings; give its port."""
    settings = Settings.model_validate(named)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(_echo, lifespan="off", log_level="critical", **transport_of(settings))
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        running.should_exit = True
        await task
        listening.close()


def trusting(file: Path, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """Return a client's side of TLS that knows the certificate and no version above ``newest``."""
    context = ssl.create_default_context(cafile=file)
    context.minimum_version = min(newest, ssl.TLSVersion.TLSv1_2)
    context.maximum_version = newest
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


async def test_tls_is_new_enough(files: tuple[Path, Path]) -> None:
    """1.3 and 1.2 are spoken, 1.1 is not, and of 1.2 no cipher without forward secrecy."""
    async with serving(tls_cert=files[0], tls_key=files[1]) as port:
        for newest in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
            context = trusting(files[0], newest)
            async with httpx.AsyncClient(verify=context) as client:
                answer = await client.get(f"https://localhost:{port}/")
            assert answer.text.endswith(" https")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old = trusting(files[0], ssl.TLSVersion.TLSv1_1)
        weak = trusting(files[0], ssl.TLSVersion.TLSv1_2)
        weak.set_ciphers("ECDHE+AES+SHA:@SECLEVEL=0")
        for context in (old, weak):
            async with httpx.AsyncClient(verify=context) as client:
                with pytest.raises(httpx.TransportError):
                    await client.get(f"https://localhost:{port}/")


# Trusted proxies, X-Forwarded-For -> who asks.
PROXIES = [
    ("", "203.0.113.7", "127.0.0.1 http"),
    ("10.0.0.1", "203.0.113.7", "127.0.0.1 http"),
    ("127.0.0.1", "203.0.113.7", "203.0.113.7 https"),
    ("127.0.0.0/8", "198.51.100.1, 203.0.113.7", "203.0.113.7 https"),
    ("127.0.0.0/8,203.0.113.7", "198.51.100.1, 203.0.113.7", "198.51.100.1 https"),
]


@pytest.mark.parametrize(("proxies", "sent", "said"), PROXIES)
async def test_only_trusted_proxies_are_believed(proxies: str, sent: str, said: str) -> None:
    """None by default, not even on this machine; what a client wrote before them is not heard."""
    headers = {"x-forwarded-for": sent, "x-forwarded-proto": "https"}
    async with serving(trusted_proxies=proxies) as port, httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}/", headers=headers)
    assert answer.text == said


def test_certificate_and_key_go_together(files: tuple[Path, Path]) -> None:
    """One without the other stops the start."""
    with pytest.raises(ValidationError, match="go together"):
        Settings.model_validate({"tls_cert": files[0]})
