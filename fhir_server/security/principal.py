"""Who asks: a user, an app for a user, a backend, this server itself, or nobody.

A principal is what is known once a token was verified; it holds no secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fhir_server.security.scopes import Scope

Kind = Literal["server", "demo", "user", "client", "nobody"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks.

    ``kind`` is ``server`` for what this process does itself (tasks, the command line), ``demo`` for
    a request without a token in development, ``user`` for a person (through an app or not),
    ``client`` for a backend, ``nobody`` for a request without a token in production.
    ``name`` is unique among a kind: the id of the user or client, the name of a task. ``client`` is
    the id of the app that a user acts through. ``scopes`` are what was granted, ``others`` the
    texts of scopes that are about no resource, ``roles`` what the user is here. ``fhir_user`` is
    ``Practitioner/1``, ``patient`` the id of the patient in context, both ``""`` where there is
    none. ``context`` is the rest of the launch context. ``token`` names the token without being
    it; ``address`` is where the request came from.
    """

    kind: Kind
    name: str
    client: str = ""
    scopes: tuple[Scope, ...] = ()
    roles: tuple[str, ...] = ()
    fhir_user: str = ""
    patient: str = ""
    purpose: str = "TREAT"
    token: str = ""
    address: str = ""
    request_id: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @property
    def is_unrestricted(self) -> bool:
        """Whether everything is open: this server itself, and the demo of development."""
        return self.kind in ("server", "demo")

    def at(self, address: str, request_id: str) -> "Principal":
        """Return this one, as it asks from ``address`` by the request ``request_id``."""
        return Principal(
            *(self.kind, self.name, self.client, self.scopes, self.roles, self.fhir_user),
            *(self.patient, self.purpose, self.token, address, request_id, self.context),
            self.others,
        )

    @property
    def key(self) -> str:
        """What tells this principal from others, for keys and page links that are its own; ``""``
        for those to whom everything is open."""
        if self.is_unrestricted:
            return ""
        return f"{self.kind}/{self.name}/{self.client}/{self.patient}"


SERVER = Principal("server", "server")
"""This process, for work that nobody asked for by a request."""

DEMO = Principal("demo", "demo", roles=("administrator",))
"""Whoever sends no token to a server in development."""

NOBODY = Principal("nobody", "nobody")
"""Whoever sends no token to a server in production."""
