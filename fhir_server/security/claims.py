"""The claims of another issuer's token -> who asks. One table; what is not in it gives no rights.

design/security.md, section 2.1; https://www.rfc-editor.org/rfc/rfc9068;
https://www.rfc-editor.org/rfc/rfc7662. Whether the token is signed, or active, is known before.
"""

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

import re2 as re

from fhir_server.security.jose import Untrusted, audiences_of, check_times
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import OF_BACKENDS, POWERS, scopes_of

CLAIMS: Mapping[str, str] = {
    "name": "sub",
    "client": "client_id",
    "scopes": "scope",
    "fhir_user": "fhirUser",
    "patient": "patient",
    "encounter": "encounter",
    "roles": "roles",
}
"""What is known of a principal -> the claim that says it; ``a.b`` is the member b of a."""

_FHIR_USER = re.compile(
    r"(?:Patient|Practitioner|PractitionerRole|RelatedPerson|Person)/[A-Za-z0-9\-\.]{1,64}"
)
_ID = re.compile(r"[A-Za-z0-9\-\.]{1,64}")
_NAME_CHARACTERS_MAX = 255
_UNNAMED = "?"
"""The app of a token that names none: whoever has no app would be held to no scopes. Names that
are said are quoted, so none of them is this."""
_SCOPES_CHARACTERS_MAX = 20_000


def check_claims(
    claims: Mapping[str, Any], issuer: str, audiences: Collection[str], now: float
) -> None:
    """Raise :class:`Untrusted` unless ``claims`` are of ``issuer``, for one of ``audiences``, and
    good at ``now`` (seconds since 1970)."""
    if claims.get("iss") != issuer:
        raise Untrusted("iss is another issuer")
    if not any(one.rstrip("/") in audiences for one in audiences_of(claims)):
        raise Untrusted("aud is not this server")
    check_times(claims, now)


def principal_of(
    claims: Mapping[str, Any], table: Mapping[str, str], bases: Collection[str], token: str
) -> Principal:
    """Return who asks, by the claims that ``table`` names (see :data:`CLAIMS`).

    ``bases`` are the FHIR bases that are ours: a ``fhirUser`` of another server is nobody here.
    ``token`` names the token. Raises :class:`Untrusted` where nobody is named.
    """
    name, client = (_named(_text(claims, table, one)) for one in ("name", "client"))
    if not name:
        raise Untrusted("the token names nobody")
    patient, encounter = (_text(claims, table, one) for one in ("patient", "encounter"))
    if (patient and not _ID.fullmatch(patient)) or (encounter and not _ID.fullmatch(encounter)):
        raise Untrusted("patient or encounter is no id")
    return Principal(
        "client" if name == client else "user",
        name,
        client or _UNNAMED,
        scopes_of(" ".join(_words(claims, table, "scopes"))[:_SCOPES_CHARACTERS_MAX]),
        _words(claims, table, "roles"),
        _fhir_user(_text(claims, table, "fhir_user"), bases),
        patient,
        token=token,
        context={"encounter": encounter} if encounter else {},
        others=tuple(one for one in _words(claims, table, "scopes") if one in OF_BACKENDS | POWERS),
    )


def _named(said: str) -> str:
    """Return ``said`` as a name here: without a slash, which is between the parts of keys.

    Raises :class:`Untrusted` for a long one; cut off, it could be another's.
    """
    if len(said) > _NAME_CHARACTERS_MAX:
        raise Untrusted("sub or client is too long")
    return quote(said, safe="@|:+=, ")


def _claim(claims: Mapping[str, Any], table: Mapping[str, str], name: str) -> Any:
    found: Any = claims
    for part in table.get(name, "").split("."):
        found = found.get(part) if isinstance(found, Mapping) and part else None
    return found


def _text(claims: Mapping[str, Any], table: Mapping[str, str], name: str) -> str:
    found = _claim(claims, table, name)
    return found if isinstance(found, str) else ""


def _words(claims: Mapping[str, Any], table: Mapping[str, str], name: str) -> tuple[str, ...]:
    found = _claim(claims, table, name)
    listed = found.split() if isinstance(found, str) else found
    if not isinstance(listed, list):
        return ()
    return tuple(one for one in listed if isinstance(one, str) and " " not in one)


def _fhir_user(said: str, bases: Collection[str]) -> str:
    for base in bases:
        said = said.removeprefix(f"{base}/")
    return said if _FHIR_USER.fullmatch(said) else ""
