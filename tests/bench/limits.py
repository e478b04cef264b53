"""What the machine could do if a server did nothing: HTTP alone, and MongoDB alone.

``python -m tests.bench.limits http PORT`` answers 2 KB to whatever is asked, by the transport of
the server and nothing behind it. ``… mongod URI DATABASE WHAT SECONDS TASKS`` asks MongoDB as the
server does, by PyMongo; it prints how many a second, and its own processor seconds.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any

import uvicorn
import uvloop

from fhir_server.store.client import Database, connect, database_of
from tests.bench.generate import OBSERVATIONS, id_of

_ANSWER = b'{"resourceType":"Observation","text":"' + b"x" * 2000 + b'"}'
_HEADERS = [
    (b"content-type", b"application/fhir+json"),
    (b"content-length", str(len(_ANSWER)).encode()),
]
_PAGE = 50


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answer, an ASGI application."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _ANSWER})


Step = Callable[[Database, Random], Awaitable[object]]


async def _find(data: Database, chance: Random) -> object:
    return await data["Observation"].find_one({"_id": id_of("obs", chance.randrange(OBSERVATIONS))})


async def _page(data: Database, chance: Random) -> object:
    first = id_of("obs", chance.randrange(OBSERVATIONS))
    return await data["Observation"].find({"_id": {"$gte": first}}).limit(_PAGE).to_list()


async def _insert(data: Database, chance: Random) -> object:
    body = {"n": chance.random(), "json": _ANSWER}
    return await data["bench-limits"].insert_one(body)


STEPS: Mapping[str, Step] = {"find one": _find, "page of 50": _page, "insert": _insert}


async def _asked(uri: str, name: str, what: str, seconds: float, tasks: int) -> dict[str, float]:
    client = connect(uri, connections_max=tasks)
    data, step, chance = database_of(client, name), STEPS[what], Random(1)
    end = time.perf_counter() + seconds

    async def work() -> int:
        number = 0
        while time.perf_counter() < end:
            await step(data, chance)
            number += 1
        return number

    before, began = time.process_time(), time.perf_counter()
    answers = sum(await asyncio.gather(*(work() for _ in range(tasks))))
    took = time.perf_counter() - began
    await data.drop_collection("bench-limits")
    await client.close()
    return {
        "answers": answers,
        "seconds": took,
        "processor": time.process_time() - before,
    }


def main(kind: str, *rest: str) -> None:
    """Be one of the limits."""
    if kind == "http":
        uvicorn.run(bare, host="127.0.0.1", port=int(rest[0]), log_level="critical", lifespan="off")
        return
    uri, name, what, seconds, tasks = rest
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_asked(uri, name, what, float(seconds), int(tasks)))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
