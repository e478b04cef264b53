"""What the authorization server can do, for apps and for OpenID Connect, and its public keys.

https://hl7.org/fhir/smart-app-launch/STU2.2/conformance.html;
https://openid.net/specs/openid-connect-discovery-1_0.html. What has no endpoint is not announced,
and no capability without a test.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fhir_server.http.authorize.exchange import AUTH_PATH, Answer, Call, json_answer
from fhir_server.http.authorize.external import metadata_url
from fhir_server.http.authorize.token import GRANT_TYPES
from fhir_server.remote.fetching import Unfetched
from fhir_server.remote.key_sets import Published
from fhir_server.security.jose import CLIENT_ALGORITHMS
from fhir_server.security.oauth import OAuthError
from fhir_server.security.scopes import OF_BACKENDS, POWERS
from fhir_server.store.signing_keys import SIGNING_ALGORITHMS

_KEPT = (("Cache-Control", "public, max-age=300"),)
_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
_ENDPOINTS = {
    "authorization_endpoint": "authorize",
    "token_endpoint": "token",
    "introspection_endpoint": "introspect",
    "revocation_endpoint": "revoke",
    "jwks_uri": "jwks",
}
_OF_TOKENS = ("client-confidential-symmetric", "client-confidential-asymmetric")
CAPABILITIES = (
    *("launch-ehr", "launch-standalone", "authorize-post", "client-public"),
    *("sso-openid-connect", "context-banner", "context-standalone-patient"),
    *("context-standalone-encounter", "context-ehr-patient", "context-ehr-encounter"),
    *("permission-offline", "permission-online", "permission-patient", "permission-user"),
    *("permission-v1", "permission-v2"),
)
"""Those of a server at which people sign in. Each has a test."""


_OF_ANOTHER = (
    *("issuer", "authorization_endpoint", "token_endpoint", "introspection_endpoint"),
    *("revocation_endpoint", "registration_endpoint", "jwks_uri", "grant_types_supported"),
    *("scopes_supported", "response_types_supported", "token_endpoint_auth_methods_supported"),
    "token_endpoint_auth_signing_alg_values_supported",
)
_BY_ANOTHER = ("permission-patient", "permission-user", "permission-v1", "permission-v2")


@dataclass(frozen=True, slots=True)
class Discovery:
    """Answers the well-known URIs and ``/auth/jwks``. ``paths`` are the endpoints there are;
    ``others`` what another issuer says of itself."""

    paths: Collection[str]
    others: Published[Mapping[str, Any]]

    async def smart(self, call: Call) -> Answer:
        """``[base]/.well-known/smart-configuration``."""
        if issuer := call.context.settings.auth_issuer:
            return await self._of_another(issuer)
        capabilities = [*_OF_TOKENS, *(CAPABILITIES if self._has("authorize") else ())]
        found = self._endpoints(call) | {"capabilities": capabilities}
        return json_answer(found, headers=_KEPT)

    async def openid(self, call: Call) -> Answer:
        """``/.well-known/openid-configuration``."""
        found = self._endpoints(call) | {
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [SIGNING_ALGORITHMS[0]],
            "claims_supported": ["iss", "sub", "aud", "exp", "iat", "nonce", "fhirUser", "profile"],
            "response_modes_supported": ["query"],
            "request_parameter_supported": False,
            "request_uri_parameter_supported": False,
        }
        return json_answer(found, headers=_KEPT)

    async def jwks(self, call: Call) -> Answer:
        """The public keys, as a JSON Web Key Set."""
        return json_answer({"keys": await call.context.accounts.keys.published()}, headers=_KEPT)

    async def _of_another(self, issuer: str) -> Answer:
        try:
            found = await self.others.at(metadata_url(issuer), issuer)
        except Unfetched as error:
            raise OAuthError("temporarily_unavailable", f"The issuer: {error}.", 503) from error
        said = {name: found[name] for name in _OF_ANOTHER if name in found}
        methods = found.get("code_challenge_methods_supported", ())
        said["code_challenge_methods_supported"] = [one for one in methods if one == "S256"]
        return json_answer(said | {"capabilities": list(_BY_ANOTHER)}, headers=_KEPT)

    def _has(self, name: str) -> bool:
        return f"{AUTH_PATH}/{name}" in self.paths

    def _endpoints(self, call: Call) -> dict[str, Any]:
        found: dict[str, Any] = {"issuer": call.issuer}
        found |= {
            member: call.endpoint(name) for member, name in _ENDPOINTS.items() if self._has(name)
        }
        if call.context.settings.client_registration:
            found["registration_endpoint"] = call.endpoint("register")
        return found | {
            "grant_types_supported": list(GRANT_TYPES),
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": list(_METHODS),
            "token_endpoint_auth_signing_alg_values_supported": list(CLIENT_ALGORITHMS),
            "introspection_endpoint_auth_methods_supported": list(_METHODS),
            "revocation_endpoint_auth_methods_supported": ["none", *_METHODS],
            "scopes_supported": [
                *_CONTEXT_SCOPES,
                *OF_BACKENDS,
                *POWERS,
                *(f"{level}/*.{letters}" for level in _LEVELS for letters in _LETTERS),
            ],
        }


_CONTEXT_SCOPES = (
    *("openid", "fhirUser", "profile", "launch", "launch/patient", "launch/encounter"),
    *("offline_access", "online_access"),
)
_LEVELS = ("patient", "user", "system")
_LETTERS = ("cruds", "rs", "read", "write", "*")
