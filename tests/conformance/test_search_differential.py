"""https://hl7.org/fhir/R4/search.html

Thousands of random searches, each asked at the front door and decided by brute force as well: by an
evaluator that shares nothing with the server (``brute_force.py``). The resources are the official
examples, where they are there, and awkward ones. ``FHIR_TEST_SEARCHES`` asks more of them.
"""

import gzip
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from fhir_server.app import Server
from fhir_server.messages import Request
from fhir_server.r4.json import decode
from fhir_server.settings import Settings
from fhir_server.store.changes import Change
from tests.conformance.awkward import resources
from tests.conformance.brute_force import Brute
from tests.conformance.questions import Asker, Pairs
from tests.conftest import SHARED, Fhir
from tests.interactions.asking import BASE, json_of

EXAMPLES = Path("examples/examples-702.ndjson.gz")
SEARCHES = int(os.environ.get("FHIR_TEST_SEARCHES", "1200"))
SEED = int(os.environ.get("FHIR_TEST_SEED", "1"))
BATCH = 200


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Settings of a server that knows its own address, so that absolute references to it are local,
    and records nothing: that record is searched by less than AuditEvent has."""
    return settings.model_copy(update={"base_url": BASE, "audit": False})


async def ids(fhir: Fhir, type: str, pairs: Pairs) -> list[str] | str:
    """Return what a search finds, or its refusal."""
    parameters = (*pairs, ("_count", "1000"), ("_elements", "id"))
    answer = await fhir(Request("search-type", type, parameters=parameters, base_url=BASE))
    body = json_of(answer)
    if answer.status != 200:
        return f"{answer.status} {body['issue'][0]['diagnostics']}"
    return [one["resource"]["id"] for one in body.get("entry", ())]


def fault(brute: Brute, type: str, pairs: Pairs, found: list[str] | str) -> str:
    """Return how ``found`` differs from what brute force says, or nothing."""
    if isinstance(found, str):
        return found
    if len(set(found)) < len(found):
        return "twice"
    everything = {one["id"]: one for one in brute.of_type[type]}
    if pairs[0][0] == "_sort":
        return disorder(brute, everything, pairs[0][1], found)
    wrong, missing = [], []
    for id, resource in everything.items():
        answers = [brute.finds(resource, name, value) for name, value in pairs]
        if False in answers and id in found:
            wrong.append(id)
        if answers == [True] * len(answers) and id not in found:
            missing.append(id)
    return f"wrong {wrong[:3]} missing {missing[:3]}" if wrong or missing else ""


def disorder(brute: Brute, everything: dict[str, Any], name: str, found: list[str]) -> str:
    """Return where ``found`` is not all of ``everything`` in order, missing values last."""
    if set(found) != set(everything):
        return "not everything"
    keys = [brute.order(everything[id], name) for id in found]
    there = [key for key in keys if key is not None]
    if keys[: len(there)] != there:
        return "missing values are not last"
    return "" if there == sorted(there, reverse=name.startswith("-")) else f"order {there[:20]}"


async def test_random_searches_find_what_brute_force_finds(server: Server, fhir: Fhir) -> None:
    """Types, modifiers, prefixes, alternatives, chains and orders: no difference."""
    stored = list(resources(SEED, BASE))
    if (SHARED / EXAMPLES).is_file():
        stored += [
            decode(line) for line in gzip.decompress((SHARED / EXAMPLES).read_bytes()).splitlines()
        ]
    for start in range(0, len(stored), BATCH):
        changes = [
            Change("update", one["resourceType"], one["id"], one)
            for one in stored[start : start + BATCH]
        ]
        await server.context.store.write(changes, server.context.now())
    brute = Brute(stored, BASE)
    asker = Asker(Random(SEED), brute)
    faults: dict[str, str] = {}
    met = 0
    for _ in range(SEARCHES):
        type, pairs = asker.question()
        found = await ids(fhir, type, pairs)
        met += bool(found)
        if wrong := fault(brute, type, pairs, found):
            faults[f"{type}?{'&'.join('='.join(pair) for pair in pairs)}"] = wrong

    assert not faults, "\n".join(f"{asked}: {wrong}" for asked, wrong in faults.items())
    assert met > SEARCHES * 0.7
