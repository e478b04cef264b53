"""The endpoints of the authorization server: one table for each module that has some."""

from fhir_server.http.authorize.application import (
    SMART_CONFIGURATION,
    Authorization,
    Endpoints,
    authorization,
)
from fhir_server.http.authorize.authenticate import authenticator
from fhir_server.http.authorize.discovery import Discovery
from fhir_server.http.authorize.exchange import AUTH_PATH
from fhir_server.http.authorize.external import read_metadata
from fhir_server.http.authorize.introspect import Introspection, Revocation
from fhir_server.http.authorize.register import register
from fhir_server.http.authorize.token import TokenEndpoint
from fhir_server.remote.key_sets import Published, document_set

OPENID_CONFIGURATION = "/.well-known/openid-configuration"
_JWKS = f"{AUTH_PATH}/jwks"
PUBLIC = frozenset((SMART_CONFIGURATION, OPENID_CONFIGURATION, _JWKS))


def authorization_server(*signing_in: Endpoints) -> Authorization:
    """Return the application with all its endpoints; ``signing_in`` are those for people."""
    tokens = _tokens()
    paths = {path for table in (tokens, *signing_in) for path in table} | {_JWKS}
    discovery = Discovery(paths, Published(read_metadata, document_set))
    described: Endpoints = {
        SMART_CONFIGURATION: {"GET": discovery.smart},
        OPENID_CONFIGURATION: {"GET": discovery.openid},
        _JWKS: {"GET": discovery.jwks},
    }
    return authorization(tokens, described, *signing_in, public=PUBLIC)


def _tokens() -> Endpoints:
    clients = authenticator()
    return {
        f"{AUTH_PATH}/token": {"POST": TokenEndpoint(clients)},
        f"{AUTH_PATH}/introspect": {"POST": Introspection(clients)},
        f"{AUTH_PATH}/revoke": {"POST": Revocation(clients)},
        f"{AUTH_PATH}/register": {"POST": register},
    }
