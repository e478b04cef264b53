"""What holds for every answer, whoever gives it: its headers, and by which name we are called.

https://owasp.org/www-project-secure-headers/; design/security.md, sections 1 and 6.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from fhir_server.http.remembered import remembered
from fhir_server.outcome import FhirError, Issue, operation_outcome
from fhir_server.r4.json import encode
from fhir_server.settings import Settings

Headers = list[tuple[bytes, bytes]]

# Patient data is not to stay in caches, nor to be guessed at by a browser; a URL with a patient's
# name is not to be told to the next site.
ALWAYS: Headers = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"vary", b"Authorization, Accept, Prefer, Accept-Encoding"),
]
PAGE_POLICY = (
    b"content-security-policy",
    (
        b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
        b"frame-ancestors 'none'"
    ),
)
"""What a page may do: nothing but what comes from here in files of its own; it is not framed."""
HSTS = (b"strict-transport-security", b"max-age=31536000")

_HERE = (b"localhost", b"127.0.0.1", b"[::1]")
_OF_PROXIES = frozenset((b"x-forwarded-for", b"x-real-ip", b"forwarded"))
_OPEN_TO_ALL = ("/live", "/ready")  # whoever watches the process calls it by its address


def names_of(settings: Settings) -> frozenset[bytes]:
    """Return by which names this server is called.

    In development those of this machine: a page of the web could have its own name point here, and
    a browser would then take us for the site of that page (DNS rebinding). ``FHIR_BASE_URL`` names
    another, and in production the only one.
    """
    public = (urlsplit(settings.base_url).hostname or "").encode()
    public = b"[%b]" % public if b":" in public else public
    here = _HERE if settings.mode == "development" else ()
    return frozenset(filter(None, (*here, public)))


def is_called(scope: Any, names: frozenset[bytes]) -> bool:
    """Whether each Host of a request, and there is one, is among ``names``."""
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if hosts and names.issuperset(map(_name, hosts)):
        return True
    return scope["path"] in _OPEN_TO_ALL


def is_sent_on(scope: Any) -> bool:
    """Whether a proxy says that it has sent this on for somebody else."""
    names = {name for name, _ in scope["headers"]}
    return not names.isdisjoint(_OF_PROXIES) and scope["path"] not in _OPEN_TO_ALL


@remembered
def _name(host: bytes) -> bytes:
    end = host.find(b"]") + 1 if host.startswith(b"[") else host.find(b":")
    return (host[:end] if end > 0 else host).lower()


async def refuse_host(send: Any) -> None:
    """Answer who calls us by another name, which is not repeated."""
    text = (
        "The Host of this request is not a name of this server. In development it is localhost; "
        "FHIR_BASE_URL has another one."
    )
    await answer_refusal(FhirError(Issue("forbidden", text)), send)


async def refuse_proxy(send: Any) -> None:
    """Answer what a proxy has sent on to a server in development, where who has no token may do
    everything: it would be open to whomever the proxy is."""
    text = (
        "A proxy has sent this on. In development the server is for its own machine; "
        "FHIR_TRUSTED_PROXIES names proxies that may."
    )
    await answer_refusal(FhirError(Issue("forbidden", text)), send)


async def answer_refusal(error: FhirError, send: Any) -> None:
    """Answer with the OperationOutcome of ``error``, before anything of the request was read."""
    body = encode(operation_outcome(error.issues))
    headers = [
        *ALWAYS,
        *((name.lower().encode(), value.encode()) for name, value in error.headers),
        (b"content-type", b"application/fhir+json;charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def protecting(send: Any, always: Iterable[tuple[bytes, bytes]]) -> Any:
    """Return ``send`` that adds those headers of ``always`` that an answer does not have."""

    async def sending(event: Any) -> None:
        if event["type"] == "http.response.start":
            said = list(event.get("headers", ()))
            names = {name for name, _ in said}
            said += [one for one in always if one[0] not in names]
            event = {**event, "headers": said}
        await send(event)

    return sending
