"""https://cds-hooks.hl7.org/2.0/#discovery: S-01 to S-08 of design/cds.md, section 16."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.features.cds.http import Endpoint
from fhir_server.features.cds.prefetch import TEMPLATES
from fhir_server.features.cds.request import HOOK_FIELDS
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.features.cds.services import DrugSafety
from fhir_server.features.cds.trust import load_clients
from tests.conformance.cds_hooks.conftest import EC, SIGN, empties, full, naproxen, order

# https://cds-hooks.hl7.org/2.0/#prefetch-query-restrictions
INSTANCE = re.compile(r"[A-Z]\w+/\{\{context\.\w+\}\}")
TYPE_LEVEL = re.compile(r"[A-Z]\w+\?.+")
TOKEN = re.compile(r"\{\{([^{}]*)\}\}")
USERS = ("userPractitionerId", "userPractitionerRoleId", "userPatientId", "userRelatedPersonId")


async def entries_of(hooks: httpx.AsyncClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await hooks.get("/cds-services")).json()["services"]
    return found


async def test_s01_discovery_answers_with_services(hooks: httpx.AsyncClient) -> None:
    """S-01: GET /cds-services is 200 and an object with an array ``services``."""
    response = await hooks.get("/cds-services")

    assert response.status_code == 200
    assert isinstance(response.json()["services"], list)


async def test_s01_no_service_is_an_empty_array(closed_server: Server) -> None:
    """S-01: the array is there also when it is empty."""
    said: list[dict[str, Any]] = []
    context = closed_server.context
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/cds-services",
        "headers": [],
        "fhir_server.context": context,
    }

    async def send(event: dict[str, Any]) -> None:
        said.append(event)

    await Endpoint({}, DrugSafety())(scope, None, send)

    assert said[0]["status"] == 200
    assert said[1]["body"] == b'{"services":[]}'


async def test_s02_entries_have_hook_id_description_and_title(hooks: httpx.AsyncClient) -> None:
    """S-02: each entry says which hook, under which id, what it does, and that it is a draft."""
    entries = await entries_of(hooks)

    assert len(entries) == 8
    for entry in entries:
        assert all(entry[name] for name in ("hook", "id", "description", "title"))
        assert entry["hook"] in HOOK_FIELDS
        assert re.fullmatch(r"[A-Za-z0-9.\-]+", entry["id"])
        assert "no pharmacist has reviewed" in entry["description"]


async def test_s03_tokens_are_primitive_fields_of_the_context(hooks: httpx.AsyncClient) -> None:
    """S-03: prefetch is text by key; a token is a root field of the hook's context, a primitive,
    or one of the four user tokens."""
    for entry in await entries_of(hooks):
        fields = HOOK_FIELDS[entry["hook"]]
        for key, template in entry["prefetch"].items():
            assert isinstance(template, str), key
            for token in TOKEN.findall(template):
                root, _, name = token.partition(".")
                assert token in USERS or (root == "context" and fields[name] is str), token


async def test_s04_queries_are_what_every_client_can_answer(open_server: Server) -> None:
    """S-04: a read, or a search of a type by references, tokens that are equal, date prefixes,
    ``_count`` and ``_sort``; no modifier, chain, list, ``_include`` or other result parameter."""
    parameters = open_server.context.parameters
    for key, template in TEMPLATES.items():
        if INSTANCE.fullmatch(template):
            continue
        assert TYPE_LEVEL.fullmatch(template), key
        type, _, query = TOKEN.sub("p1", template).partition("?")
        for name, value in parse_qsl(query, strict_parsing=True):
            assert re.fullmatch(r"_count|_sort|[a-z][a-z\-]*", name), name
            assert "," not in value, key
            if name == "_count":
                assert value.isdigit()
                continue
            code = value.removeprefix("-") if name == "_sort" else name
            parameter = parameters.of(type).get(code)
            assert parameter is not None, f"{type} has no {code}"
            kind = parameter.type
            assert kind in ("reference", "token", "date"), f"{code} is a {kind}"
            if kind == "token":
                assert re.fullmatch(r"(https?://[^|,]+\|)?[\w\-.]+", value), value
            if kind == "reference":
                assert value == "p1"


async def test_s04_our_own_server_answers_each_query(hooks: httpx.AsyncClient) -> None:
    """S-04: filled in, each is answered by a server that refuses what it does not know."""
    headers = {"Prefer": "handling=strict"}
    for key, template in TEMPLATES.items():
        response = await hooks.get(f"/fhir/{TOKEN.sub('p1', template)}", headers=headers)

        assert response.status_code == 200, f"{key}: {response.text}"
        assert response.json()["resourceType"] in ("Patient", "Bundle")


async def test_s05_one_id_for_each_hook(hooks: httpx.AsyncClient) -> None:
    """S-05: an id may be used for several hooks; ours are not."""
    entries = await entries_of(hooks)

    assert len({entry["id"] for entry in entries}) == len(entries)
    assert len({entry["hook"] for entry in entries}) == len(entries)


async def test_s06_nothing_is_empty(hooks: httpx.AsyncClient) -> None:
    """S-06: no null, empty text, array or object but ``cards`` and ``services``."""
    drafts = [naproxen(), order("s1", "sildenafil", "draft"), order("x", "Herbal mixture", "draft")]
    answers = [
        (await hooks.get("/cds-services")).json(),
        (await hooks.post(SIGN, json=full(*drafts))).json(),
        (await hooks.post(f"{SIGN}/feedback", json={})).json(),
    ]

    assert [empties(one) for one in answers] == [[], [], []]


@pytest.mark.parametrize("accept", ["application/json", "application/xml", "text/html", "*/*"])
async def test_s07_json_only(hooks: httpx.AsyncClient, accept: str) -> None:
    """S-07: application/json, whatever is asked for; refusals as well."""
    headers = {"Accept": accept}
    for response in (
        await hooks.get("/cds-services", headers=headers),
        await hooks.post(SIGN, json=full(naproxen()), headers=headers),
        await hooks.post(SIGN, content=b"{", headers=headers),
    ):
        assert response.headers["content-type"].partition(";")[0] == "application/json"


@pytest.mark.parametrize(
    ("mode", "base_url", "scheme", "status"),
    [
        ("production", "https://cds.example.org/fhir", "http", 200),  # TLS ends at the proxy
        ("production", "", "https", 200),
        ("production", "", "http", 403),
        ("production", "http://cds.example.org/fhir", "http", 403),
        ("development", "", "http", 200),
    ],
)
async def test_s08_https_in_production(
    open_server: Server, mode: str, base_url: str, scheme: str, status: int
) -> None:
    """S-08: in production a service is answered by https only, and discovery as well."""
    said: list[dict[str, Any]] = []
    settings = open_server.context.settings.model_copy(update={"mode": mode, "base_url": base_url})
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": scheme,
        "path": "/cds-services",
        "headers": [(b"host", b"cds.example.org")],
        "fhir_server.context": replace(open_server.context, settings=settings),
    }

    async def send(event: dict[str, Any]) -> None:
        said.append(event)

    await Endpoint({}, DrugSafety())(scope, None, send)

    assert said[0]["status"] == status
    if status == 403:
        assert b"FHIR_BASE_URL" in said[1]["body"]


@pytest.mark.parametrize(
    ("server", "is_taken"),
    [
        ("https://ehr.example.org/fhir", True),
        ("http://127.0.0.1:8080/fhir", True),
        ("http://ehr.example.org/fhir", False),
        ("ftp://ehr.example.org/fhir", False),
    ],
)
def test_s08_a_clients_fhir_server_is_https(tmp_path: Path, server: str, is_taken: bool) -> None:
    """S-08: nor is a FHIR server registered that would be read without TLS, but for one on this
    machine, to try it out."""
    path = tmp_path / "clients.json"
    path.write_text(registered(fhirServers=[server]), "utf-8")

    if is_taken:
        assert load_clients(path, is_trying=True)
    else:
        with pytest.raises(KnowledgeError, match="not plain https"):
            load_clients(path, is_trying=True)
    if not is_taken or server.startswith("http:"):
        with pytest.raises(KnowledgeError, match="not plain https"):
            load_clients(path)


def registered(**more: Any) -> str:
    """Return a file of clients with one."""
    keys = {"keys": [EC.as_dict(private=False)]}
    return json.dumps({"clients": [{"iss": "https://ehr.example.org", "keys": keys, **more}]})
