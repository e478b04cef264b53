"""What a handler is given besides the request: the parts of the server, made in ``app.py``."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import Issue
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.links import Links
from fhir_server.r4.xml import Xml
from fhir_server.remote.terminology import TerminologyServers
from fhir_server.search.parameters import ParameterTable
from fhir_server.settings import Settings
from fhir_server.store.changes import Change
from fhir_server.store.contents import Contents
from fhir_server.store.reindex import Reindex
from fhir_server.store.resources import ResourceStore


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of the server.

    ``perform`` is the front door; ``prepare`` judges a writing request the same way and returns
    the change that it asks for, so that a transaction can make many changes at once. ``validate``
    returns the issues of a resource. ``now`` is UTC; ``new_id`` makes a logical id. ``page_key``
    signs page links. ``terminology`` are servers that know code systems which are not here.
    ``capabilities`` returns the CapabilityStatement for a base URL, as JSON, and its entity tag.
    """

    settings: Settings
    definitions: Definitions
    xml: Xml
    links: Links
    store: ResourceStore
    contents: Contents
    reindex: Reindex
    terminology: TerminologyServers
    validate: Callable[[Resource], tuple[Issue, ...]]
    now: Callable[[], datetime]
    new_id: Callable[[], str]
    page_key: bytes
    perform: Callable[[Request, "Context"], Awaitable[Response]]
    prepare: Callable[[Request, "Context"], Change]
    capabilities: Callable[[str], tuple[bytes, str]]

    @property
    def parameters(self) -> ParameterTable:
        """The search parameters as they are now: a site may add some while the server runs."""
        return self.store.keys.table
