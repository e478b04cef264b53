"""Code systems that tests of several folders use."""

from typing import Any

from fhir_server.app import Server
from fhir_server.messages import Request
from tests.conftest import Fhir

PLANTS = "http://x/plants"


def a_concept(code: str, *parents: str, **properties: str) -> dict[str, Any]:
    """Return a concept as loaders give it, with its parents among its properties."""
    property = [{"code": "parent", "valueCode": one} for one in parents]
    property += [{"code": name, "valueString": value} for name, value in properties.items()]
    return {"code": code, "display": code.title(), **({"property": property} if property else {})}


CONCEPTS = [
    a_concept("plant"),
    a_concept("tree", "plant"),
    a_concept("oak", "tree"),
    a_concept("flower", "plant"),
    {
        **a_concept("rose", "flower", "tree", colour="red"),
        "designation": [{"language": "bn", "value": "গোলাপ"}],
    },
]


def kept(type: str, id: str, **more: Any) -> dict[str, Any]:
    """Return a conformance resource with what each needs."""
    return {"resourceType": type, "id": id, "url": f"http://x/{id}", "status": "active", **more}


async def loaded(server: Server, fhir: Fhir, *, finish: bool = True) -> None:
    """Put the plants in the database as a loader does: the resource, and the concepts."""
    head = kept("CodeSystem", "plants", version="1", content="complete")
    head["property"] = [{"code": "colour", "type": "string"}]
    assert (await fhir(Request("update", "CodeSystem", "plants", body=head))).status == 201
    loading = await server.context.store.concepts.begin(PLANTS, "1")
    await loading.add(CONCEPTS, "line 5")
    if finish:
        await loading.finish()
