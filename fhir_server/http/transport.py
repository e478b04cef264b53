"""How bytes reach this server: TLS of its own, and which proxies in front are believed."""

import ssl
from typing import Any

from uvicorn import Config

from fhir_server.settings import Settings

# RFC 9325, 4.2: forward secrecy and authenticated encryption; TLS 1.3 has no others.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


def transport_of(settings: Settings) -> dict[str, Any]:
    """Return what uvicorn is told of TLS and of proxies.

    ``X-Forwarded-For`` and ``X-Forwarded-Proto`` of anybody else are not heard; uvicorn's own
    default believes every program on this machine.
    """
    proxies = ",".join(settings.trusted_proxies)
    said: dict[str, Any] = {"proxy_headers": bool(proxies), "forwarded_allow_ips": proxies}
    if settings.tls_cert is not None and settings.tls_key is not None:
        said |= {
            "ssl_certfile": settings.tls_cert,
            "ssl_keyfile": settings.tls_key,
            "ssl_ciphers": _CIPHERS,
            "ssl_context_factory": _context,
        }
    return said


def _context(_config: Config, default: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
