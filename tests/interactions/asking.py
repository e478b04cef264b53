"""How tests of interactions put their questions and read the answers."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl

from fhir_server.app import Server
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Resource, Response
from fhir_server.r4.json import decode
from tests.conftest import Fhir

BASE = "http://localhost/fhir"


def patient(id: str = "p", **members: Any) -> Resource:
    """Return a Patient; ``members`` are further elements."""
    return {"resourceType": "Patient", "id": id, **members}


def put(resource: Resource, **members: Any) -> Request:
    """Return the update that writes ``resource`` under its id."""
    return Request(
        "update",
        resource["resourceType"],
        resource["id"],
        body=resource,
        base_url=BASE,
        **members,
    )


def entry(
    method: str, url: str, resource: Any = None, full_url: str = "", **request: str
) -> Resource:
    """Return a Bundle entry; ``request`` are further members of its request."""
    return {
        **({"fullUrl": full_url} if full_url else {}),
        **({"resource": resource} if resource is not None else {}),
        "request": {"method": method, "url": url, **request},
    }


def bundle(*entries: Any, type: str = "transaction", **members: Any) -> Request:
    """Return the request that posts a Bundle of ``entries`` to the base."""
    body = {"resourceType": "Bundle", "type": type, **({"entry": [*entries]} if entries else {})}
    return Request("transaction", body=body, base_url=BASE, **members)


def json_of(response: Response) -> Any:
    """Return the body of ``response``."""
    return decode(response.body)


def issues_of(response: Response) -> list[tuple[str, str]]:
    """Return code and expression of each issue of the OperationOutcome in ``response``."""
    outcome = json_of(response)
    assert outcome["resourceType"] == "OperationOutcome"
    return [(one["code"], one.get("expression", [""])[0]) for one in outcome["issue"]]


def statuses(response: Response) -> list[str]:
    """Return the status codes of the entries of a response Bundle."""
    return [one["response"]["status"][:3] for one in json_of(response).get("entry", [])]


def places(response: Response) -> list[str]:
    """Return ``Type/id`` of what each entry of a response Bundle wrote."""
    return [
        one["response"]["location"].removeprefix(f"{BASE}/").partition("/_history/")[0]
        for one in json_of(response)["entry"]
    ]


def with_clock(server: Server, now: Callable[[], datetime]) -> Fhir:
    """Return the front door of ``server`` with another clock."""
    context = replace(server.context, now=now)

    async def ask(request: Request) -> Response:
        return await answer(server.registry, request, context)

    return ask


async def read(fhir: Fhir, place: str) -> Any:
    """Return the resource at ``place`` (``Type/id``), which must be there."""
    type, _, id = place.partition("/")
    response = await fhir(Request("read", type, id, base_url=BASE))
    assert response.status == 200, place
    return json_of(response)


async def versions(fhir: Fhir, place: str) -> list[Any]:
    """Return the entries of the history of ``place``, newest first, all of them."""
    type, _, id = place.partition("/")
    parameters = (("_count", "1000"),)
    request = Request("history-instance", type, id, parameters=parameters, base_url=BASE)
    response = await fhir(request)
    assert response.status == 200, place
    found: list[Any] = json_of(response)["entry"]
    return found


def tags(entries: list[Any]) -> list[int]:
    """Return the version numbers of history ``entries`` as their ETags say."""
    return [int(one["response"]["etag"].removeprefix('W/"').removesuffix('"')) for one in entries]


def search(text: str) -> Request:
    """Return the search that ``text`` is, ``Type?parameters`` as in an address."""
    type, _, query = text.partition("?")
    return Request("search-type", type, parameters=tuple(parse_qsl(query)), base_url=BASE)
