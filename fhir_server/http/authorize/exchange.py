"""One request to the authorization server, and the answer to it: what its endpoints are given.

Each answer is ``no-store`` unless it says otherwise. RFC 6749, section 5.1.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.context import Context
from fhir_server.http.site import FHIR_PATH
from fhir_server.r4.json import encode
from fhir_server.route import query_parameters
from fhir_server.security.oauth import OAuthError

AUTH_PATH = "/auth"
"""Where the endpoints are, beside the FHIR base."""
BODY_BYTES_MAX = 65_536
Headers = tuple[tuple[str, str], ...]
_NO_STORE: Headers = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


@dataclass(frozen=True, slots=True)
class Call:
    """A request: ``query`` and ``form`` are names and values in their order, ``text`` the body
    where it is no form, ``address`` where it came from."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    context: Context
    scheme: str = "http"
    query: tuple[tuple[str, str], ...] = ()
    form: tuple[tuple[str, str], ...] = ()
    text: bytes = b""
    address: str = ""

    @property
    def base(self) -> str:
        """The FHIR base, as the client calls it."""
        if base := self.context.settings.base_url:
            return base.rstrip("/")
        host = self.header(b"host") or f"{self.context.settings.host}:{self.context.settings.port}"
        return f"{self.scheme}://{host}{FHIR_PATH}"

    @property
    def issuer(self) -> str:
        """The name of the authorization server: the base without ``/fhir``."""
        return self.base.removesuffix(FHIR_PATH)

    def endpoint(self, name: str) -> str:
        """Return the URL of an endpoint: ``token`` -> ``https://…/auth/token``."""
        return f"{self.issuer}{AUTH_PATH}/{name}"

    def header(self, name: bytes) -> str:
        """Return a header, or nothing."""
        return self.headers.get(name, b"").decode("latin-1")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Headers = _NO_STORE


Endpoint = Callable[[Call], Awaitable[Answer]]
"""Answers a call. Raises :class:`OAuthError` for a refusal, ``FhirError`` where the database does
not answer."""


def json_answer(value: Any, status: int = 200, headers: Headers = _NO_STORE) -> Answer:
    """Return ``value`` as JSON."""
    return Answer(status, encode(value), headers=headers)


def redirect(location: str, headers: Headers = ()) -> Answer:
    """Return the answer that sends the browser to ``location``, by GET. RFC 9700, section 4.12."""
    return Answer(303, b"", "text/plain", (("Location", location), *_NO_STORE, *headers))


def refusal(error: OAuthError) -> Answer:
    """Return the refusal as JSON. RFC 6749, section 5.2."""
    headers = _NO_STORE
    if error.status == 401:
        headers += (("WWW-Authenticate", 'Basic realm="token", charset="UTF-8"'),)
    return json_answer(error.members, error.status, headers)


def form_of(text: bytes) -> tuple[tuple[str, str], ...]:
    """Return names and values of ``application/x-www-form-urlencoded``. Raises
    ``invalid_request`` for what is not ASCII."""
    if not text.isascii():
        raise OAuthError("invalid_request", "The form is not percent-encoded.")
    return query_parameters(text.decode("ascii"))
