"""Clinical decision support: drug safety over CDS Hooks 2.0, on the FHIR side, and as an operation.

https://cds-hooks.hl7.org/2.0/; design/cds.md. No pharmacist has reviewed the knowledge.
"""

import json
import logging
from contextlib import AsyncExitStack
from functools import partial

from fhir_server.context import Context
from fhir_server.features.cds.enforce import Enforcement
from fhir_server.features.cds.http import PATH, Endpoint
from fhir_server.features.cds.http_provider import HttpProvider, load_providers
from fhir_server.features.cds.operations import operations
from fhir_server.features.cds.reloading import keep_reloading
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.features.cds.services import DrugSafety, services
from fhir_server.outcome import FhirError, Issue
from fhir_server.registry import Registry, Task
from fhir_server.remote.fetching import fetching
from fhir_server.remote.knowledge import KnowledgeUnanswered, knowledge_bases

_LOG = logging.getLogger("fhir_server.cds")


def register(registry: Registry) -> None:
    """Add the services, their endpoint, and what loads the knowledge before the first call."""
    safety = DrugSafety()
    endpoint = Endpoint(registry.hooks, safety)
    for service in services(safety):
        registry.hook(service)
    registry.route(PATH, endpoint)
    registry.route(f"{PATH}/", endpoint)
    for operation in operations(safety):
        registry.operation(operation)
    registry.guard("cds", Enforcement(safety))
    registry.task(Task("cds", partial(_begin, safety, endpoint), partial(_check, safety, endpoint)))


async def _check(safety: DrugSafety, endpoint: Endpoint, context: Context) -> None:
    """Raise ``FhirError`` that names the file, what is in it, and why it cannot be used."""
    try:
        endpoint.clients(context.settings)
        load_providers(context.settings.cds_providers)
    except KnowledgeError as error:
        raise FhirError(Issue("processing", str(error))) from error
    await safety.knowledge(context)


async def _begin(safety: DrugSafety, endpoint: Endpoint, context: Context) -> None:
    """Load everything once, so that the first call does not wait for it."""
    clients = endpoint.clients(context.settings)
    try:
        await safety.knowledge(context)
    except FhirError as error:  # calls say it as well; $reload-knowledge mends it
        _LOG.error("%s", json.dumps(error.issues[0].diagnostics))
    await endpoint.recorder.ready(context)
    named = load_providers(context.settings.cds_providers)
    reads = any(one.keys_url or one.fhir_servers for one in clients.values())
    async with AsyncExitStack() as open:
        if reads:
            endpoint.fetcher = await open.enter_async_context(fetching(endpoint.named_urls()))
        if named:
            urls = [one.url for one in named]
            bases = await open.enter_async_context(knowledge_bases(urls))
            timeout_s = context.settings.cds_provider_timeout_ms / 1000
            safety.providers = [
                HttpProvider(
                    one.label, one.kinds, one.severities, base, (KnowledgeUnanswered,), timeout_s
                )
                for one, base in zip(named, bases, strict=True)
            ]
        try:
            await keep_reloading(safety, context)  # until the server stops
        finally:
            await endpoint.recorder.written()  # what was shown counts
