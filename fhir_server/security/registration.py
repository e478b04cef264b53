"""What a client may be registered with; the same rules for the command line, REST and RFC 7591.

https://www.rfc-editor.org/rfc/rfc7591; https://www.rfc-editor.org/rfc/rfc8252 for native apps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import re2 as re

from fhir_server.security.grants import Client
from fhir_server.security.jose import CLIENT_ALGORITHMS, Untrusted, public_keys
from fhir_server.security.scopes import OF_BACKENDS, POWERS, is_context, scope_of

KINDS = ("public", "confidential-symmetric", "confidential-asymmetric")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-\._~]{0,99}")
_URI = re.compile(r"[!-~]+")
_URI_CHARACTERS_MAX = 2_000
_PRIVATE_SCHEME = re.compile(r"[a-z][a-z0-9+\-]*(?:\.[a-z0-9+\-]+)+")
_NAME_CHARACTERS_MAX = 200
_MANY = 50
_SCOPES_MAX = 500
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Unregistrable(ValueError):
    """The client cannot be registered so. ``about`` is the member that is wrong, by the word of RFC
    7591, such as ``redirect_uris``."""

    def __init__(self, about: str, text: str) -> None:
        super().__init__(text)
        self.about = about


@dataclass(frozen=True, slots=True)
class Application:
    """What somebody asks to register, not yet judged; ``jwks`` is a JSON Web Key Set."""

    id: str
    name: str
    kind: str = "public"
    redirect_uris: tuple[str, ...] = ()
    launch_uri: str = ""
    scopes: tuple[str, ...] = ()
    jwks: Mapping[str, Any] = field(default_factory=dict)
    jwks_uri: str = ""
    algorithm: str = ""
    origins: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    is_backend: bool = False
    requests_a_second: int = 0


def client_for(application: Application, secret_hash: str = "") -> Client:
    """Return the client to register. ``secret_hash`` is that of the secret which a
    ``confidential-symmetric`` one is given. Raises :class:`Unregistrable`."""
    asked = application
    if not _ID.fullmatch(asked.id):
        raise Unregistrable("client_id", "An id is letters, digits and -._~, at most 100.")
    if not 0 < len(asked.name) <= _NAME_CHARACTERS_MAX or not asked.name.isprintable():
        raise Unregistrable("client_name", "A client has a name, which its users are shown.")
    if asked.kind not in KINDS:
        raise Unregistrable("token_endpoint_auth_method", f"A client is one of {', '.join(KINDS)}.")
    _check_uris(asked)
    _check_scopes(asked)
    keys, algorithm = _keys(asked)
    if not 0 <= asked.requests_a_second <= 100_000:
        raise Unregistrable("requests_a_second", "Requests a second are 0 to 100,000.")
    return Client(
        asked.id,
        asked.name,
        asked.kind,  # type: ignore[arg-type]
        asked.redirect_uris,
        asked.launch_uri,
        asked.scopes,
        secret_hash if asked.kind == "confidential-symmetric" else "",
        keys,
        asked.jwks_uri,
        algorithm,
        asked.origins,
        asked.roles if asked.is_backend else (),
        asked.is_backend,
        asked.requests_a_second,
    )


def _check_uris(asked: Application) -> None:
    for about, uris in (("redirect_uris", asked.redirect_uris), ("origins", asked.origins)):
        if len(uris) > _MANY or len(set(uris)) != len(uris):
            raise Unregistrable(about, f"{about} are at most {_MANY}, each once.")
    for uri in asked.redirect_uris:
        if not _is_redirection(uri):
            text = f"{uri[:200]!r} is no redirect URI: https, http on this machine, or a.b.c:/…"
            raise Unregistrable("redirect_uris", f"{text}; without # and user name.")
    if asked.launch_uri and not is_safe_url(asked.launch_uri):
        raise Unregistrable("initiate_login_uri", "The launch URI is an https URL.")
    for origin in asked.origins:
        parts = urlsplit(origin)
        if not is_safe_url(origin) or origin != f"{parts.scheme}://{parts.netloc}":
            raise Unregistrable("origins", f"{origin[:200]!r} is no origin: https://app.example")
    if asked.is_backend and asked.kind == "public":
        raise Unregistrable("grant_types", "A backend proves who it is: it is confidential.")
    if not asked.is_backend and not asked.redirect_uris:
        raise Unregistrable("redirect_uris", "An app has a redirect URI.")


def _check_scopes(asked: Application) -> None:
    if len(asked.scopes) > _SCOPES_MAX:
        raise Unregistrable("scope", f"A client has at most {_SCOPES_MAX} scopes.")
    for text in asked.scopes:
        found = scope_of(text)
        if not is_scope(text) or len(text) > 2_000:
            raise Unregistrable("scope", f"{text[:200]!r} is no scope that can be granted here.")
        if found is None or found.level != "system":
            continue
        if not asked.is_backend or asked.kind != "confidential-asymmetric":
            raise Unregistrable("scope", f"{text[:200]!r} is for backends that sign with a key.")


def _keys(asked: Application) -> tuple[dict[str, Any], str]:
    """Return the keys to store, public halves alone, and the algorithm that they are for."""
    if asked.kind != "confidential-asymmetric":
        if asked.jwks or asked.jwks_uri or asked.algorithm:
            raise Unregistrable("jwks", "Keys are for confidential-asymmetric clients.")
        return {}, ""
    if asked.algorithm and asked.algorithm not in CLIENT_ALGORITHMS:
        said = " or ".join(CLIENT_ALGORITHMS)
        raise Unregistrable("token_endpoint_auth_signing_alg", f"The algorithm is {said}.")
    if bool(asked.jwks) == bool(asked.jwks_uri):
        raise Unregistrable("jwks", "A client has either keys or the URL of its keys.")
    if asked.jwks_uri:
        if not is_safe_url(asked.jwks_uri):
            raise Unregistrable("jwks_uri", "The URL of the keys is https.")
        if not asked.algorithm:
            raise Unregistrable("token_endpoint_auth_signing_alg", "Say the algorithm of the keys.")
        return {}, asked.algorithm
    return _by_hand(asked)


def _by_hand(asked: Application) -> tuple[dict[str, Any], str]:
    why = ""
    for algorithm in (asked.algorithm,) if asked.algorithm else CLIENT_ALGORITHMS:
        try:
            found = public_keys(asked.jwks.get("keys"), algorithm)
        except (ValueError, Untrusted, LookupError, TypeError) as error:
            why = str(error)
            continue
        if any(not key.get("kid") for key in found):
            raise Unregistrable("jwks", "Each key has a kid.")
        return {"keys": found}, algorithm
    raise Unregistrable("jwks", f"The keys cannot be used: {why}.")


def is_safe_url(url: str) -> bool:
    """Whether ``url`` is plain https, or http on this machine: no user, no fragment."""
    if len(url) > _URI_CHARACTERS_MAX or not _URI.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    has_host = bool(parts.hostname) and port != 0 and "\\" not in url
    is_plain = parts.username is None and parts.password is None and "#" not in url
    is_here = parts.scheme == "http" and parts.hostname in _LOOPBACK
    return has_host and is_plain and (parts.scheme == "https" or is_here)


def _is_redirection(uri: str) -> bool:
    if is_safe_url(uri):
        return True
    scheme = uri.partition(":")[0]
    is_plain = len(uri) <= _URI_CHARACTERS_MAX and _URI.fullmatch(uri) and "#" not in uri
    return bool(is_plain and _PRIVATE_SCHEME.fullmatch(scheme))


def is_scope(text: str) -> bool:
    """Whether a client may be registered for the scope ``text``."""
    return is_context(text) or text in OF_BACKENDS | POWERS or scope_of(text) is not None


def words(text: Iterable[str]) -> tuple[str, ...]:
    """Return the words in all of ``text``, each once: scopes may come in one string or several.

    >>> words(["openid fhirUser", "openid"])
    ('openid', 'fhirUser')
    """
    return tuple(dict.fromkeys(word for one in text for word in one.split()))
