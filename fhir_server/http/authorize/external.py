"""Tokens of another issuer (FHIR_AUTH_ISSUER), which takes the place of the built-in server.

They are verified by the keys that it publishes, or asked about by introspection.
https://openid.net/specs/openid-connect-discovery-1_0.html; https://www.rfc-editor.org/rfc/rfc7662
"""

import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from joserfc.jwk import KeySet

from fhir_server.http.authorize.bearer import Verdict
from fhir_server.outcome import FhirError, Issue
from fhir_server.remote.documents import listed, posted
from fhir_server.remote.fetching import Unfetched
from fhir_server.remote.key_sets import Published, document_set
from fhir_server.security.claims import CLAIMS, check_claims, principal_of
from fhir_server.security.jose import Untrusted, read_key_set, said_by, verified
from fhir_server.settings import Settings

_log = logging.getLogger("fhir_server.authorize")
Ask = Callable[[str, Mapping[str, str], tuple[str, str]], Awaitable[bytes]]
"""URL, form, and id and secret -> what is answered by POST. Raises :class:`Unfetched`."""


async def _posted(url: str, form: Mapping[str, str], basic: tuple[str, str]) -> bytes:
    return await posted(url, form, basic, listed(url))


def metadata_url(issuer: str) -> str:
    """Return where ``issuer`` says what it is. OpenID Connect Discovery, section 4."""
    return f"{issuer.rstrip('/')}/.well-known/openid-configuration"


def read_metadata(document: bytes, issuer: str) -> Mapping[str, Any]:
    """Return the metadata of ``issuer``. Raises ``ValueError`` for those of another one."""
    found = json.loads(document)
    if not isinstance(found, dict) or found.get("issuer") != issuer:
        raise ValueError("it is not of this issuer")
    return found


@dataclass(frozen=True, slots=True)
class ExternalIssuer:
    """Judges tokens of the issuer that ``settings`` name. ``bases`` are our own FHIR bases."""

    settings: Settings
    bases: tuple[str, ...]
    now: Callable[[], float]
    keys: Published[KeySet] = field(default_factory=lambda: Published(read_key_set, document_set))
    metadata: Published[Mapping[str, Any]] = field(
        default_factory=lambda: Published(read_metadata, document_set)
    )
    ask: Ask = _posted

    async def __call__(self, token: str) -> Verdict | None:
        """Return whose ``token`` it is, ``None`` for one that is not good. Raises ``transient``
        where the issuer cannot be asked."""
        try:
            claims = await self._claims(token)
            check_claims(claims, self.settings.auth_issuer, self._audiences(), self.now())
            table = {**CLAIMS, **self.settings.auth_claims}
            name = sha256(token.encode()).hexdigest()[:16]
            return Verdict(principal_of(claims, table, self.bases, name))
        except (Untrusted, ValueError) as error:
            _log.info('"a token is refused: %s"', str(error).replace('"', "'"))
            return None
        except Unfetched as error:
            _log.warning('"the issuer of tokens cannot be asked: %s"', error)
            text = "The issuer of tokens cannot be asked at the moment. Try again."
            raise FhirError(Issue("transient", text), headers=(("Retry-After", "5"),)) from error

    def _audiences(self) -> Collection[str]:
        said = self.settings.auth_audience
        return (said.rstrip("/"),) if said else self.bases

    async def _claims(self, token: str) -> Mapping[str, Any]:
        settings = self.settings
        if settings.auth_introspection_url:
            return await self._introspected(token)
        said = said_by(token)
        if said.claims.get("iss") != settings.auth_issuer:
            raise Untrusted("iss is another issuer")  # before anything is asked for
        kid = said.kid
        url = settings.auth_jwks_url or await self._jwks_url()
        keys = await self.keys.at(
            url,
            settings.auth_algorithm,
            lambda keys: not kid or any(key.kid == kid for key in keys.keys),
        )
        return verified(token, keys, settings.auth_algorithm)

    async def _introspected(self, token: str) -> Mapping[str, Any]:
        settings = self.settings
        secret = settings.auth_introspection_secret.get_secret_value()
        document = await self.ask(
            settings.auth_introspection_url,
            {"token": token},
            (settings.auth_introspection_client, secret),
        )
        found = json.loads(document)
        if not isinstance(found, dict) or found.get("active") is not True:
            raise Untrusted("the issuer says that it is not active")
        return found

    async def _jwks_url(self) -> str:
        issuer = self.settings.auth_issuer
        found = (await self.metadata.at(metadata_url(issuer), issuer)).get("jwks_uri")
        if not isinstance(found, str):
            raise Unfetched("the issuer names no jwks_uri")
        return found
