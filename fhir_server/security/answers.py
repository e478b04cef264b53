"""What clients are told of a grant: the token response, the claims of ``id_token``, introspection.

https://hl7.org/fhir/smart-app-launch/STU2.2/app-launch.html#response-5;
https://openid.net/specs/openid-connect-core-1_0.html#IDToken;
https://hl7.org/fhir/smart-app-launch/STU2.2/token-introspection.html
"""

from datetime import datetime
from typing import Any

from fhir_server.security.grants import ACCESS_S, Client, Grant, Tokens

_CONTEXT = (*("fhirContext", "need_patient_banner", "intent", "smart_style_url", "tenant"),)
"""The launch context besides patient and encounter, by the names of the token response."""


def token_response(tokens: Tokens, id_token: str = "") -> dict[str, Any]:
    """Return what the token endpoint answers. RFC 6749, section 5.1."""
    found: dict[str, Any] = {
        "access_token": tokens.access,
        "token_type": "Bearer",
        "expires_in": tokens.seconds,
        "scope": " ".join(tokens.grant.scopes),
        **launch_context(tokens.grant),
    }
    if tokens.refresh:
        found["refresh_token"] = tokens.refresh
    if id_token:
        found["id_token"] = id_token
    return found


def launch_context(grant: Grant) -> dict[str, Any]:
    """Return the launch context of ``grant``, as far as there is one."""
    found: dict[str, Any] = {}
    if grant.patient:
        found["patient"] = grant.patient
    if grant.encounter:
        found["encounter"] = grant.encounter
    return found | {name: grant.context[name] for name in _CONTEXT if name in grant.context}


def fhir_user(grant: Grant) -> str:
    """Return the absolute URL of the resource that is the user, ``""`` unless that was granted."""
    is_granted = "fhirUser" in grant.scopes or "profile" in grant.scopes
    return f"{grant.audience}/{grant.fhir_user}" if is_granted and grant.fhir_user else ""


def has_id_token(grant: Grant) -> bool:
    """Whether the client is told who the user is."""
    return "openid" in grant.scopes and bool(grant.user)


def id_token_claims(grant: Grant, issuer: str, nonce: str, now: datetime) -> dict[str, Any]:
    """Return the claims of the ``id_token`` of ``grant``."""
    found: dict[str, Any] = {
        "iss": issuer,
        "sub": grant.user,
        "aud": grant.client,
        "iat": int(now.timestamp()),
        "exp": int(now.timestamp()) + ACCESS_S,
    }
    if nonce:
        found["nonce"] = nonce
    if grant.auth_time is not None:
        found["auth_time"] = int(grant.auth_time.timestamp())
    if user := fhir_user(grant):
        found["fhirUser"] = user
        found["profile"] = user
    return found


def introspection(
    grant: Grant, client: Client, issuer: str, until: datetime, issued: datetime | None = None
) -> dict[str, Any]:
    """Return what is said of a good token. RFC 7662, section 2.2."""
    found: dict[str, Any] = {
        "active": True,
        "scope": " ".join(grant.scopes),
        "client_id": client.id,
        "exp": int(until.timestamp()),
        "aud": grant.audience,
        "iss": issuer,
        "sub": grant.user or client.id,
        **launch_context(grant),
    }
    if issued is not None:
        found |= {"iat": int(issued.timestamp()), "token_type": "Bearer"}
    if user := fhir_user(grant):
        found["fhirUser"] = user
    return found


INACTIVE = {"active": False}
"""What is said of every other token; why it is not good is told to nobody."""
