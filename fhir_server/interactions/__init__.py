"""The interactions of http.html, one module each, named by the specification's word.

https://hl7.org/fhir/R4/http.html
"""

from collections.abc import Callable, Mapping

from fhir_server.context import Context
from fhir_server.interactions import create, delete, patch, update
from fhir_server.interactions.binary import giving, taking
from fhir_server.interactions.capabilities import capabilities
from fhir_server.interactions.conditional import conditional
from fhir_server.interactions.history import history
from fhir_server.interactions.read import read, vread
from fhir_server.interactions.search_compartment import search_compartment
from fhir_server.interactions.search_system import search_system
from fhir_server.interactions.search_type import search_type
from fhir_server.interactions.transaction import transaction
from fhir_server.messages import Request
from fhir_server.registry import Handler
from fhir_server.store.changes import Change

INTERACTIONS: Mapping[str, Handler] = {
    "capabilities": capabilities,
    "read": giving(read),
    "vread": giving(vread),
    "update": taking(update.update),
    "patch": patch.patch,
    "delete": delete.delete,
    "history-instance": history,
    "history-type": history,
    "history-system": history,
    "create": taking(create.create),
    "conditional-update": taking(conditional),
    "conditional-patch": conditional,
    "conditional-delete": conditional,
    "search-type": search_type,
    "search-system": search_system,
    "search-compartment": search_compartment,
    "transaction": transaction,
}

# What a writing interaction comes to, without the writing: a transaction makes many at once.
CHANGES: Mapping[str, Callable[[Request, Context], Change]] = {
    "create": create.change,
    "update": update.change,
    "patch": patch.change,
    "delete": delete.change,
}
