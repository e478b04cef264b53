"""The knowledge, read again while the server runs, by ``$reload-knowledge``.

design/cds.md, section 8. It is loaded beside what is in use and takes its place as a whole; a fault
leaves everything as it is. What one process has taken up the others take up within seconds.
"""

import asyncio
import json
import logging

from fhir_server.context import Context
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.features.cds.services import DrugSafety
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import encode
from fhir_server.store.cds import ask_to_reload, reloads_asked

LOOK_S = 5.0
"""How often a process looks whether another was asked to reload."""
_LOG = logging.getLogger("fhir_server.cds")


async def reload_knowledge(safety: DrugSafety, request: Request, context: Context) -> Response:
    """``$reload-knowledge``: take up the files as they are now. Raises ``invalid`` (422) that names
    file, rule and reason; then what was in use still is."""
    try:
        knowledge = await safety.reload(context)
    except KnowledgeError as error:
        raise FhirError(Issue("invalid", f"Nothing has changed. {error}"), status=422) from error
    await ask_to_reload(context.store.database)
    parts = [
        {"name": "name", "valueString": knowledge.label},
        {"name": "version", "valueString": knowledge.version},
    ]
    body = {"resourceType": "Parameters", "parameter": [{"name": "knowledge", "part": parts}]}
    return Response(200, encode(body))


async def keep_reloading(safety: DrugSafety, context: Context) -> None:
    """Reload when another process was asked to, until the server stops."""
    known = await reloads_asked(context.store.database)
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            if (asked := await reloads_asked(context.store.database)) != known:
                known = asked
                await _taken_up(safety, context)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may do
            _LOG.warning('"the knowledge was not looked for: %s"', type(error).__name__)


async def _taken_up(safety: DrugSafety, context: Context) -> None:
    try:
        knowledge = await safety.reload(context)
    except KnowledgeError as error:
        said = f"the knowledge is not taken up, what is in use stays: {error}"
        _LOG.error("%s", json.dumps(said))
        return
    _LOG.info('"the knowledge %s is in use"', knowledge.version)
