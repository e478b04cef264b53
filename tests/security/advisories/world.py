"""Two patients, a and b, and what the tests ask as patient a.

Each resource of b has its counterpart of a, so that a test sees both that what is allowed works and
that what is not does not.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode
from fhir_server.security.principal import Principal
from fhir_server.security.scopes import scopes_of

Resource = dict[str, Any]
Check = Callable[[Server], Awaitable[None]]

A = Principal("user", "a", "app", scopes_of("patient/*.cruds"), fhir_user="Patient/a", patient="a")
B = Principal("user", "b", "app", scopes_of("patient/*.cruds"), fhir_user="Patient/b", patient="b")


async def asked(
    server: Server, principal: Principal, interaction: str, *place: str, **more: Any
) -> Response:
    """Return the answer to ``interaction`` at ``place`` (type, id, version), as ``principal``."""
    context = replace(server.context, principal=principal)
    type, id, version = (*place, "", "", "")[:3]
    request = Request(interaction, type, id, version, **more)
    return await answer(server.registry, replace(request, base_url="http://x/fhir"), context)


async def searched(server: Server, principal: Principal, type: str, query: str) -> Resource:
    """Return the searchset of ``type?query``, which must be found."""
    pairs = tuple(one.partition("=")[::2] for one in query.split("&") if one)
    found = await asked(server, principal, "search-type", type, parameters=pairs)
    assert found.status == 200, found.body
    body: Resource = decode(found.body)
    return body


def names(bundle: Resource) -> set[str]:
    """Return ``Type/id`` of what ``bundle`` has, OperationOutcomes aside."""
    resources = [one["resource"] for one in bundle.get("entry", ())]
    return {
        f"{one['resourceType']}/{one['id']}"
        for one in resources
        if one["resourceType"] != "OperationOutcome"
    }


async def stored(server: Server, *resources: Resource) -> None:
    """Store ``resources`` as the server itself."""
    for one in resources:
        done = await server.perform(Request("update", one["resourceType"], one["id"], body=one))
        assert done.status in (200, 201)


def patient(id: str, **more: Any) -> Resource:
    """A patient."""
    return {"resourceType": "Patient", "id": id, "name": [{"family": f"Family{id}"}], **more}


def observation(id: str, subject: str, **more: Any) -> Resource:
    """An observation of ``Patient/subject``."""
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"reference": f"Patient/{subject}"},
        **more,
    }
