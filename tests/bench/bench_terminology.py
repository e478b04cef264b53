"""What a large code system costs: 350,000 concepts in a hierarchy with several parents each.

Run by ``make bench``; by hand with another size::

    FHIR_BENCH_CONCEPTS=350000 make bench ARGS="-k terminology"

The server runs in the process of the bench, without HTTP, and shares the machine's cores with its
MongoDB. Codes are drawn at random, so that nearly every one is read from the database. Of each
operation the best of :data:`RUNS` short runs counts: what else the machine does only slows it down.
What is printed is Markdown, for ``docs/performance.md``.
"""

import asyncio
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request
from fhir_server.settings import Settings
from fhir_server.store import embedded
from tests.interactions.asking import json_of

CONCEPTS = int(os.environ.get("FHIR_BENCH_CONCEPTS", "50000"))
SYSTEM, VERSION = "http://bench.example.org/large", "1"
AT_ONCE, RUNS, SECONDS = 16, 3, 1.5
WORDS = "acute chronic heart lung kidney disorder procedure left right of the finding bone".split()


def code_of(number: int) -> str:
    """Return the code of a concept, as long as those of SNOMED CT."""
    return str(100_000_000 + number * 7)


def concepts(count: int) -> Iterator[dict[str, Any]]:
    """Yield concepts: 12 levels, a third of them with a second parent and a ninth with a third."""
    chance = Random(5)
    for number in range(count):
        parents = {number // 3} if number else set()
        for odds in (3, 9):
            if number > 10 and number % odds == 0:
                parents.add(chance.randrange(number // 3 + 1))
        display = " ".join(chance.sample(WORDS, 4)) + f" {number}"
        property: list[dict[str, Any]] = [
            {"code": "parent", "valueCode": code_of(one)} for one in sorted(parents - {number})
        ]
        property.append({"code": "kind", "valueCode": f"k{number % 50}"})
        use = {"system": "http://snomed.info/sct", "code": "900000000000013009"}
        also = {"language": "en", "use": use, "value": f"{display} (finding)"}
        yield {
            "code": code_of(number),
            "display": display,
            "designation": [also],
            "property": property,
        }


async def loaded(server: Server) -> tuple[float, float]:
    """Load the system; return the seconds for adding and for finishing."""
    head = {
        "resourceType": "CodeSystem",
        "id": "large",
        "url": SYSTEM,
        "version": VERSION,
        "status": "active",
        "content": "complete",
        "property": [{"code": "kind", "type": "code"}],
    }
    put = Request("update", "CodeSystem", "large", body=head)
    assert (await answer(server.registry, put, server.context)).status < 300
    began = time.monotonic()
    loading = await server.context.store.concepts.begin(SYSTEM, VERSION)
    batch = []
    for one in concepts(CONCEPTS):
        batch.append(one)
        if len(batch) == 5000:
            await loading.add(batch)
            batch = []
    await loading.add(batch)
    added = time.monotonic()
    await loading.finish()
    return added - began, time.monotonic() - added


def ask(path: str, **parameters: str) -> Request:
    type, _, name = path.partition("/")
    return Request(name, type, parameters=tuple(parameters.items()), reading=True)


async def best_rate(server: Server, request: Callable[[], Request]) -> float:
    """Return the best of a few short runs."""
    return max([await rate(server, request) for _ in range(RUNS)])


async def rate(server: Server, request: Callable[[], Request]) -> float:
    """Return how many of the requests are answered a second, with some at once."""
    end = time.monotonic() + SECONDS
    count = 0

    async def client() -> None:
        nonlocal count
        while time.monotonic() < end:
            found = await answer(server.registry, request(), server.context)
            assert found.status == 200, found.body
            count += 1

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return count / SECONDS


def memory_mb() -> float:
    """Return the memory of this process now, and the most that it was."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


async def measured(server: Server) -> None:
    """Print what each operation costs."""
    chance = Random(7)
    adding, finishing = await loaded(server)
    sizes = await server.database.command("collStats", "concepts")
    indexes = sum(sizes["indexSizes"].values()) >> 20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n| {CONCEPTS:,} concepts, {AT_ONCE} clients | |\n| --- | ---: |")
    print(f"| load: add and finish | {adding:.0f} s + {finishing:.0f} s |")
    print(f"| load: memory of the process at most | {peak:.0f} MB |")
    print(f"| on disk: concepts and indexes | {sizes['storageSize'] >> 20} + {indexes} MB |")

    def code() -> str:
        return code_of(chance.randrange(CONCEPTS))

    includes: dict[str, dict[str, Any]] = {
        "all": {"system": SYSTEM},
        "isa": {
            "system": SYSTEM,
            "filter": [{"property": "concept", "op": "is-a", "value": code_of(13)}],
        },
    }
    for id, part in includes.items():
        value_set: dict[str, Any] = {"resourceType": "ValueSet", "id": id, "url": f"http://b/{id}"}
        value_set |= {"status": "active", "compose": {"include": [part]}}
        put = Request("update", "ValueSet", id, body=value_set)
        assert (await answer(server.registry, put, server.context)).status < 300

    def page(id: str, **more: str) -> Callable[[], Request]:
        def made() -> Request:
            offset = str(chance.randrange(2000) if "filter" not in more else 0)
            return ask("ValueSet/$expand", url=f"http://b/{id}", offset=offset, count="20", **more)

        return made

    asked: dict[str, Callable[[], Request]] = {
        "$lookup": lambda: ask("CodeSystem/$lookup", system=SYSTEM, code=code()),
        "CodeSystem/$validate-code": lambda: ask(
            "CodeSystem/$validate-code", url=SYSTEM, code=code()
        ),
        "ValueSet/$validate-code, is-a": lambda: ask(
            "ValueSet/$validate-code", url="http://b/isa", coding=f"{SYSTEM}|{code()}"
        ),
        "$subsumes": lambda: ask("CodeSystem/$subsumes", system=SYSTEM, codeA=code(), codeB=code()),
        "$expand, 20 of all": page("all"),
        "$expand, 20 of is-a": page("isa"),
        "$expand, filter 'kidn' of all": page("all", filter="kidn"),
        "$expand, filter 'kidn 1234' of is-a": page("isa", filter="kidn 1234"),
    }
    first = time.monotonic()
    total = json_of(await answer(server.registry, page("isa")(), server.context))
    codes = total["expansion"]["total"]
    print(f"| first page of is-a, {codes:,} codes | {time.monotonic() - first:.3f} s |")
    for name, request in asked.items():
        print(f"| {name} | {await best_rate(server, request):,.0f} a second |", flush=True)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| memory of the process afterwards, and at most | {memory_mb():.0f}, {most:.0f} MB |")


def test_terminology(tmp_path: Path) -> None:
    """Load, ask, and print."""

    async def run() -> None:
        mongod = await embedded.start(tmp_path, cache_mb=1024)
        try:
            settings = Settings.model_validate({"mongodb_database": "bench"})
            async with opened(settings, mongod.uri) as server:
                await measured(server)
        finally:
            await mongod.stop()

    asyncio.run(run())
