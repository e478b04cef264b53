"""Requests to the authorization server, judged: authorization and token requests, PKCE, errors.

https://www.rfc-editor.org/rfc/rfc6749; https://www.rfc-editor.org/rfc/rfc7636;
https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html; design/security.md, section 2.1.
"""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlencode

import re2 as re

from fhir_server.security.grants import Client
from fhir_server.security.scopes import Scope, granted

Parameters = Iterable[tuple[str, str]]

STATE_CHARACTERS_MAX = 2_000
_CHALLENGE = re.compile(r"[A-Za-z0-9\-_]{43}")
_VERIFIER = re.compile(r"[A-Za-z0-9\-\._~]{43,128}")
_PRINTABLE = re.compile(r"[ -~]+")
_DESCRIBED = re.compile(r"[^ !#-\[\]-~]")


class OAuthError(Exception):
    """A refusal by RFC 6749, section 5.2 (token) and 4.1.2.1 (authorize, told by redirection).

    ``error`` is a code such as ``invalid_grant``; ``description`` a sentence for the developer.
    """

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        # Section 5.2 leaves out quotes, backslashes and what is not ASCII.
        self.description = _DESCRIBED.sub("?", description)
        self.status = status

    @property
    def members(self) -> dict[str, str]:
        """Return what the client is told."""
        return {"error": self.error, "error_description": self.description}


class NotRedirected(Exception):
    """An authorization request whose client or ``redirect_uri`` is not known: the user is told
    here, and sent nowhere. RFC 6749, section 4.1.2.1."""


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A good authorization request. ``scopes`` is what of its scopes the client may have at all;
    ``challenge`` the S256 code challenge, ``launch`` the value of an EHR launch."""

    client: Client
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str
    audience: str
    challenge: str
    launch: str = ""
    nonce: str = ""
    prompt: str = ""


def once(parameters: Parameters) -> dict[str, str]:
    """Return ``parameters`` by name, without empty ones, which count as left out.

    Raises ``invalid_request`` for one that comes twice. RFC 6749, section 3.1.
    """
    found: dict[str, str] = {}
    for name, value in parameters:
        if name in found:
            raise OAuthError("invalid_request", f"{name[:40]} is there twice.")
        if value:
            found[name] = value
    return found


def redirection(
    parameters: Parameters, client: Client | None
) -> tuple[Client, str, Mapping[str, str]]:
    """Return the client, where it may be answered, and the parameters by name.

    ``client`` is the one that ``client_id`` names. Raises :class:`NotRedirected`.
    """
    pairs = list(parameters)
    uris = [value for name, value in pairs if name == "redirect_uri"]
    ids = [value for name, value in pairs if name == "client_id"]
    if client is None or ids != [client.id]:
        raise NotRedirected("The app that sent you here is not registered with this server.")
    if len(uris) != 1 or uris[0] not in client.redirect_uris:
        raise NotRedirected(
            f"{client.name} asks to send you to an address that is not registered for it."
        )
    first: dict[str, str] = {}
    for name, value in pairs:
        first.setdefault(name, value)
    return client, uris[0], first


def authorization_request(
    parameters: Parameters,
    client: Client,
    bases: Collection[str],
    *,
    is_possible: Callable[[Scope], bool] = lambda _: True,
) -> AuthorizationRequest:
    """Return what is asked for, once :func:`redirection` has found ``client``.

    ``bases`` are the FHIR bases that are ours; ``is_possible`` says whether a scope can be granted
    at all (``interactions/access.py``). Raises :class:`OAuthError`, which goes to the
    client's ``redirect_uri`` with the ``state`` (:func:`redirected`).
    """
    given = once(parameters)
    if given.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "response_type must be code.")
    if "request" in given or "request_uri" in given:
        error = "request_not_supported" if "request" in given else "request_uri_not_supported"
        raise OAuthError(error, "Send the parameters themselves.")
    state = given.get("state", "")
    if not state or len(state) > STATE_CHARACTERS_MAX:
        raise OAuthError("invalid_request", "state is required, 2,000 characters at most.")
    if given.get("code_challenge_method") != "S256":
        raise OAuthError("invalid_request", "code_challenge_method must be S256.")
    if not _CHALLENGE.fullmatch(given.get("code_challenge", "")):
        raise OAuthError("invalid_request", "code_challenge must be a SHA-256 in base64url.")
    audience = given.get("aud", "").rstrip("/")
    if audience not in bases:
        raise OAuthError("invalid_request", "aud must be the FHIR base of this server.")
    nonce = given.get("nonce", "")
    if len(nonce) > STATE_CHARACTERS_MAX or (nonce and not _PRINTABLE.fullmatch(nonce)):
        raise OAuthError("invalid_request", "nonce is printable ASCII, 2,000 characters at most.")
    return AuthorizationRequest(
        client,
        given["redirect_uri"],
        _scopes(given.get("scope", ""), client, is_possible),
        state,
        audience,
        given["code_challenge"],
        given.get("launch", "")[:STATE_CHARACTERS_MAX],
        nonce,
        given.get("prompt", ""),
    )


def _scopes(text: str, client: Client, is_possible: Callable[[Scope], bool]) -> tuple[str, ...]:
    if len(text) > 20_000:
        raise OAuthError("invalid_scope", "scope is too long.")
    levels = ("patient", "user")
    found = granted(text.split(), client.scopes, levels, is_possible=is_possible)
    if not found:
        raise OAuthError("invalid_scope", "The client is registered for none of these scopes.")
    return found


def redirected(redirect_uri: str, answer: Mapping[str, str]) -> str:
    """Return ``redirect_uri`` with the parameters ``answer`` (``code`` and ``state``, or those of
    an error) added to its query."""
    sign = "&" if "?" in redirect_uri else "?"
    return f"{redirect_uri}{sign}{urlencode(answer)}"


def challenge_of(verifier: str) -> str:
    """Return the S256 challenge of a code verifier. RFC 7636, section 4.2. Raises
    ``invalid_grant`` for one that is not 43 to 128 unreserved characters.

    >>> challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")
    'E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM'
    """
    if not _VERIFIER.fullmatch(verifier):
        raise OAuthError("invalid_grant", "code_verifier is 43 to 128 unreserved characters.")
    return urlsafe_b64encode(sha256(verifier.encode("ascii")).digest()).decode().rstrip("=")


def same(one: str, other: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(one.encode(), other.encode())
