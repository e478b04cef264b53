"""The endpoints of the authorization server: one table for each module that has some."""

from fhir_server.http.authorize.application import Authorization, authorization
from fhir_server.http.authorize.pages import PAGES


def authorization_server() -> Authorization:
    """Return the application with all its endpoints."""
    return authorization(PAGES)
