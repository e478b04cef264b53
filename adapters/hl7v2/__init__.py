"""HL7 v2 in: messages become FHIR resources, in one transaction each, before they are acknowledged.

design/hl7v2.md; the rules of the mapping are those of the HL7 v2-to-FHIR implementation guide,
https://hl7.org/fhir/uv/v2mappings/

Over MLLP and ``POST /hl7v2``; operations for those who run the interface; ``fhir-server hl7 …``.
"""

from adapters.hl7v2.http import Endpoint
from adapters.hl7v2.interface import Interface
from adapters.hl7v2.operations import operations
from fhir_server.registry import Registry, Task


def register(registry: Registry) -> None:
    """Add the listeners and workers, the route and the operations."""
    interface = Interface()
    registry.task(Task("hl7v2", interface.run, interface.check))
    registry.route("/hl7v2", Endpoint(interface.intake))
    for operation in operations(interface):
        registry.operation(operation)
