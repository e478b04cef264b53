"""What a handler is given besides the request: the parts of the server, made in ``app.py``."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any, Protocol

from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import Issue
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.links import Links
from fhir_server.r4.published import Published
from fhir_server.r4.questions import Answers
from fhir_server.r4.xml import Xml
from fhir_server.remote.terminology import TerminologyServers
from fhir_server.search.page import bound_key
from fhir_server.search.parameters import ParameterTable
from fhir_server.security.plan import Rights
from fhir_server.security.principal import SERVER, Principal
from fhir_server.security.rates import Rates
from fhir_server.settings import Settings
from fhir_server.store.accounts import Accounts
from fhir_server.store.changes import Change
from fhir_server.store.contents import Contents
from fhir_server.store.exports import Exports
from fhir_server.store.guides import Guides
from fhir_server.store.reindex import Reindex
from fhir_server.store.resources import ResourceStore
from fhir_server.store.turns import Turns
from fhir_server.validation.profiles import ProfileValidator


class Capabilities(Protocol):
    """Makes the CapabilityStatement."""

    def __call__(self, base_url: str, guides: Guides = ...) -> tuple[bytes, str]:
        """Return it as JSON for a base URL and the guides that are stored, with its entity tag."""


class Access(Protocol):
    """Says what a principal may do."""

    async def __call__(self, principal: Principal, context: "Context") -> Rights:
        """Return all that ``principal`` may do, as of a second ago at most."""


@dataclass(frozen=True, slots=True, repr=False)  # keys are in it
class Context:
    """The parts of the server.

    ``perform`` is the front door; ``prepare`` judges a writing request the same way and returns
    the change that it asks for, so that a transaction can make many changes at once. ``validate``
    returns the issues of a resource. ``now`` is UTC; ``new_id`` makes a logical id. ``page_key``
    is what the keys of page links are made of; ``master_key`` is what secrets in the database are
    sealed under (security/sealing.py), ``b""`` for one that only observes; ``rates`` counts who
    asks how often, ``turns`` how many bundles are worked on. ``terminology`` are servers that know
    code systems which are not here.
    ``capabilities`` returns the CapabilityStatement for a base URL and the stored guides, as JSON,
    and its entity tag. ``published`` is what the packages on disk define, ``profiles`` judges by
    profiles. ``answers`` is what was looked up for this request so that it can be judged.
    ``principal`` is who asks; ``access`` returns what that one may do, and ``rights`` is that,
    once the front door has looked: ``None`` for those to whom everything is open. ``accounts`` are
    the clients, grants and tokens of the authorization server.

    ``store`` comes first and ``principal`` and ``rights`` last, for those who make a context anew.
    """

    store: ResourceStore
    settings: Settings
    definitions: Definitions
    xml: Xml
    links: Links
    published: Published
    contents: Contents
    reindex: Reindex
    exports: Exports
    terminology: TerminologyServers
    validate: Callable[[Resource], tuple[Issue, ...]]
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    page_key: bytes = field(repr=False)
    perform: Callable[[Request, "Context"], Awaitable[Response]]
    prepare: Callable[[Request, "Context"], Change]
    profiles: ProfileValidator
    capabilities: Capabilities
    access: Access
    accounts: Accounts
    master_key: bytes = field(default=b"", repr=False)
    rates: Rates = field(default_factory=Rates)
    turns: Turns = field(default_factory=Turns)

    answers: Answers = field(default_factory=dict)
    principal: Principal = SERVER
    rights: Rights | None = None

    @property
    def link_key(self) -> bytes:
        """The key of the page links that are given to who asks; nobody else can use them."""
        return bound_key(self.page_key, self.principal.key)

    def asked_by(self, principal: Principal) -> "Context":
        """Return this for a request of ``principal``, of whose rights nothing is known yet. Each
        request passes here, and ``replace`` takes four times as long."""
        return Context(*(*_parts(self)[:-2], principal))

    def seeing(self, store: ResourceStore, rights: Rights) -> "Context":
        """Return this with what a request sees of the store, by the ``rights`` of who asks."""
        return Context(*(store, *_parts(self)[1:-1], rights))

    def under(self, name: str) -> "Context":
        """Return this for what the server does on behalf of ``name``, such as a sender of messages:
        with its own rights, after others have said what may be done."""
        return replace(self, principal=Principal("server", name))

    @property
    def parameters(self) -> ParameterTable:
        """The search parameters as they are now: a site may add some while the server runs."""
        return self.store.keys.table


_parts: Callable[[Context], tuple[Any, ...]] = attrgetter(*(one.name for one in fields(Context)))
