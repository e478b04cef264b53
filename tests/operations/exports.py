"""What tests of ``$export`` share: to ask for one, have it worked on, read what came of it."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_server.app import Server
from fhir_server.context import Context
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Response
from fhir_server.operations.export_work import work
from fhir_server.route import query_parameters, route
from fhir_server.security.plan import Filter, Rights
from fhir_server.security.principal import SERVER, Principal

BASE = "http://localhost/fhir"
ASYNC = {"respond-async": ""}
BACKEND = Principal("client", "backend")


@dataclass(slots=True)
class Granted:
    """Rights by the name of a principal, which a test may change while a job is under way."""

    rights: dict[str, Rights] = field(default_factory=dict)

    async def __call__(self, principal: Principal, context: Context) -> Rights:
        """Return the rights of ``principal``."""
        return self.rights.get(principal.name, Rights({}))

    def open(self, name: str, types: Mapping[str, Filter], roles: tuple[str, ...] = ()) -> None:
        """Have ``name`` search and read ``types`` under their predicates."""
        may = {(type, letter): one for type, one in types.items() for letter in "rs"}
        self.rights[name] = Rights(may, roles)


@dataclass(slots=True)
class Exporting:
    """A client of ``server`` that exports, as ``principal``."""

    server: Server
    principal: Principal = SERVER

    async def ask(self, url: str, method: str = "GET", **more: Any) -> Response:
        """Ask for ``url``, relative to the base or absolute."""
        path, _, query = url.removeprefix(f"{BASE}/").partition("?")
        request = replace(
            route(method, path), parameters=query_parameters(query), base_url=BASE, **more
        )
        context = replace(self.server.context, principal=self.principal)
        return await answer(self.server.registry, request, context)

    async def begin(self, url: str = "$export", prefer: str = "", **more: Any) -> str:
        """Begin an export; return where to ask how far it is."""
        wishes = {**ASYNC, **({"handling": prefer} if prefer else {})}
        begun = await self.ask(url, prefer=wishes, **more)
        assert begun.status == 202, begun.body
        return dict(begun.headers)["Content-Location"]

    async def worked(self) -> None:
        """Have all that is to be done done."""
        while await work(self.server.context):
            pass

    async def manifest(self, place: str) -> dict[str, Any]:
        """Return the manifest of the export at ``place``, which is complete."""
        found = await self.ask(place)
        assert found.status == 200, (found.status, found.body, found.headers)
        assert found.media_type == "application/json"
        said: dict[str, Any] = json.loads(found.body)
        return said

    async def lines(self, url: str) -> list[dict[str, Any]]:
        """Return the resources in the file at ``url``."""
        found = await self.ask(url)
        assert found.status == 200, found.body
        assert found.media_type == "application/fhir+ndjson"
        assert found.pieces is not None
        text = b"".join([piece async for piece in found.pieces(0, 0)])
        return [json.loads(line) for line in text.splitlines()]

    async def output(self, said: Mapping[str, Any], kind: str = "output") -> list[dict[str, Any]]:
        """Return all resources of a manifest; its counts and types are looked at."""
        found = []
        for file in said[kind]:
            lines = await self.lines(file["url"])
            assert len(lines) == file["count"]
            assert {one["resourceType"] for one in lines} == {file["type"]}
            found += lines
        return found

    async def exported(self, url: str = "$export", **more: Any) -> list[dict[str, Any]]:
        """Export, and return all resources."""
        place = await self.begin(url, **more)
        await self.worked()
        return await self.output(await self.manifest(place))


def by(server: Server, **settings: Any) -> Server:
    """Return ``server`` with other ``settings``."""
    changed = server.context.settings.model_copy(update=settings)
    return replace(server, context=replace(server.context, settings=changed))


def names(resources: list[dict[str, Any]]) -> list[str]:
    """Return type and id of each of ``resources``, by alphabet; each is there once."""
    found = [f"{one['resourceType']}/{one['id']}" for one in resources]
    assert max(Counter(found).values(), default=1) == 1
    return sorted(found)


async def stored(server: Server, *resources: Mapping[str, Any]) -> None:
    """Write ``resources``, whose ids are theirs."""
    for one in resources:
        type, id = one["resourceType"], one["id"]
        await server.perform(Request("update", type, id, body=dict(one)))


def patient(id: str, **more: Any) -> dict[str, Any]:
    """Return a Patient."""
    return {"resourceType": "Patient", "id": id, **more}


def observation(id: str, of: str, **more: Any) -> dict[str, Any]:
    """Return an Observation of Patient/``of``."""
    return {
        "resourceType": "Observation",
        "id": id,
        "status": "final",
        "code": {"text": "weight"},
        "subject": {"reference": f"Patient/{of}"},
        **more,
    }


def group(id: str, *members: str, **more: Any) -> dict[str, Any]:
    """Return a Group of ``members``, such as ``Patient/a``."""
    listed = [{"entity": {"reference": one}} for one in members]
    return {
        "resourceType": "Group",
        "id": id,
        "type": "person",
        "actual": True,
        **({"member": listed} if listed else {}),
        **more,
    }
