"""https://hl7.org/fhir/R4/searchparameter-registry.html

Every search parameter finds something: in the official examples, or it is on a list of those that
no example has data for; and in a resource made for it, in every form that its element has.
"""

import gzip
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.r4.json import decode, encode
from fhir_server.search.index import index
from fhir_server.search.parameters import ParameterTable
from fhir_server.settings import Settings
from fhir_server.store.changes import Change
from tests.conformance.brute_paths import lines, parameters, values
from tests.conformance.brute_values import READS
from tests.conformance.synthetic import Filled, exercised, resources
from tests.conftest import Fhir
from tests.interactions.asking import BASE, json_of
from tests.search.matching import found_by

LIST = Path(__file__).with_name("parameters_without_examples.txt")
# No element answers these; tests/interactions/test_search_special.py, tests/search/test_filter.py.
WITHOUT_EXPRESSION = {"DomainResource-text", "Resource-content", "Resource-query", "filter"}
# Answered from what the server gives every resource.
OWN = {"Resource-id", "Resource-lastUpdated"}
BATCH = 500


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings by which an Appointment may have any status: those made here have a word of ours."""
    return settings.model_copy(update={"scheduling_enforce": "off"})


@pytest.fixture(scope="module")
def examples(shared: Path) -> list[Any]:
    """The official examples."""
    text = gzip.decompress((shared / "examples/examples-702.ndjson.gz").read_bytes())
    return [decode(line) for line in text.splitlines()]


def ids_of(path: Path) -> set[str]:
    """Return the lines of a list; what begins with # is a comment."""
    return {line for line in path.read_text().splitlines() if line and not line.startswith("#")}


def test_the_list_of_parameters_without_examples_is_exact(
    examples: list[Any], server: Server
) -> None:
    """Every definition has a key in some example, or is on the list; none is on it for nothing."""
    table = server.context.parameters
    met = set(OWN)
    for resource in examples:
        type, keys = resource["resourceType"], index(resource, table).keys
        met |= {
            parameters(type)[one.code]["id"]
            for one in table.of(type).values()
            if one.key and keys.get(one.key)
        }
    everything = {one["id"] for one in lines("SearchParameter")}

    assert len(everything) == 1385
    assert everything - met - WITHOUT_EXPRESSION == ids_of(LIST)


def test_examples_have_keys_where_another_engine_finds_elements(
    examples: list[Any], server: Server
) -> None:
    """For every example and parameter, the tests' own FHIRPath and the server's see an element."""
    table = server.context.parameters
    faults = [
        (resource["resourceType"], resource["id"], code)
        for resource in examples
        for keys in [index(resource, table).keys]
        for code, definition in parameters(resource["resourceType"]).items()
        if definition["type"] not in ("composite", "special")
        if differs(resource, definition, keys, table)
    ]

    assert faults == []


def differs(resource: Any, definition: Any, keys: Any, table: ParameterTable) -> bool:
    """Whether one of the two sees an element that the other does not."""
    field = table.of(resource["resourceType"])[definition["code"]].key
    if field is None:
        return False
    reads = READS[definition["type"]].split()
    found = values(resource, definition)
    seen = any(one.type in reads or definition["type"] == "reference" for one in found)
    return seen is not (field in keys) and not _is_attachment(found)


def _is_attachment(found: list[Any]) -> bool:
    return any(one.type == "Attachment" for one in found)  # Consent.source, which may be either


def test_a_resource_is_made_for_every_parameter() -> None:
    """None is left out but those without an expression, and each for every type that has it."""
    made = list(resources())
    pairs = {(one.resource["resourceType"], one.definition["id"]) for one in made}
    types = {one.resource["resourceType"] for one in made}
    everything = {one["id"] for one in lines("SearchParameter")}

    assert everything - exercised(made) == WITHOUT_EXPRESSION
    assert pairs == {(type, one["id"]) for type in types for one in parameters(type).values()}
    assert len(pairs) == 2582


def negation(one: Filled) -> tuple[str, str]:
    """Return a search that must not find what ``one`` finds."""
    code, kind = one.definition["code"], one.definition["type"]
    if kind == "composite":
        return code, f"z{one.value}"  # the first part is a code or a reference
    if kind == "token":
        return f"{code}:not", one.value
    if kind in ("date", "number", "quantity"):
        return code, f"ne{one.value}"
    return f"{code}:missing", "true"


async def test_a_query_written_from_each_resource_finds_it(server: Server, fhir: Fhir) -> None:
    """For each definition a resource is stored, and searched: that one is found, and no other."""
    everything = [one for one in resources() if one.definition["id"] not in OWN]
    made = list({str(one.definition["id"]): one for one in everything}.values())
    for start in range(0, len(made), BATCH):
        some = [decode(encode(one.resource)) for one in made[start : start + BATCH]]
        changes = [Change("update", one["resourceType"], one["id"], one) for one in some]
        await server.context.store.write(changes, server.context.now())
    faults = []
    assert len(made) == 1379
    for one in made:
        id = one.resource["id"]
        found = await ids(fhir, one, (one.definition["code"], one.value))
        if id not in found or (one.unique and found != [id]):
            faults.append((one.definition["id"], one.resource, one.value, found[:3]))

    assert faults == []


def test_each_form_is_found_and_not_by_the_negation(server: Server) -> None:
    """3,000 resources: each is found, but not with ``:not``, ``ne``, another value, as missing."""
    table = server.context.parameters
    faults = [
        (one.definition["id"], one.resource, negation(one))
        for one in resources()
        if one.definition["id"] not in OWN
        for resource in [decode(encode(one.resource))]
        if found_by(table, resource, negation(one))
        or not found_by(table, resource, (one.definition["code"], one.value))
    ]

    assert faults == []


async def ids(fhir: Fhir, one: Filled, pair: tuple[str, str]) -> list[str]:
    """Return what the search ``pair`` of the type of ``one`` finds, or its refusal."""
    parameters = (pair, ("_count", "1000"), ("_elements", "id"))
    type = one.resource["resourceType"]
    answer = await fhir(Request("search-type", type, parameters=parameters, base_url=BASE))
    body = json_of(answer)
    if answer.status != 200:
        return [body["issue"][0]["diagnostics"]]
    return [entry["resource"]["id"] for entry in body.get("entry", ())]
