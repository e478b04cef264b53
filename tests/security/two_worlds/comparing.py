"""Two worlds that are equal but for patient B, asked the same."""

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import uuid4

from fhir_server.app import opened
from fhir_server.settings import Settings
from tests.conftest import drop
from tests.security.two_worlds.worlds import Answer, Call, World, world_of

Worlds = tuple[World, World]

_LINK = re.compile(
    rb'"relation":"(?:next|previous)","url":"http://two.example.org/fhir/?([^"?]*)[?]([^"]*)"'
)
_FOLLOWED = 2
_SHOWN = 700


def _settings() -> Settings:
    return Settings.model_validate(
        {
            "mongodb_database": f"test-{uuid4().hex[:12]}",
            "reference_targets_checked": ["*"],
            "referential_integrity": ["*"],
            "search_explain": "on",
        }
    )


@asynccontextmanager
async def two_worlds(uri: str, *, few: bool) -> AsyncIterator[Worlds]:
    """Open a world with A alone and one with A beside B, with ``few`` types or all."""
    async with opened(_settings(), uri) as first, opened(_settings(), uri) as second:
        alone, beside = world_of(first), world_of(second)
        await alone.load(few, with_b=False)
        await beside.load(few, with_b=True)
        yield alone, beside
        for server in (first, second):
            await drop(server.database)


async def differences(worlds: Worlds, asked: Iterable[Call], run: str) -> list[str]:
    """Ask both worlds the same; return what was answered differently. Page links are followed.

    What patient B asks is not compared: who is B, knows.
    """
    for world in worlds:
        world.begin(run)
    found = []
    for number, call in enumerate(asked):
        waiting = [call]
        for _ in range(1 + _FOLLOWED):
            if not waiting:
                break
            one = waiting.pop()
            answers = [await world.ask(one) for world in worlds]
            if one.asker == "other":
                for world in worlds:
                    world.begin(f"{run}-{number}")
                break
            if answers[0] != answers[1]:
                found.append(_said(one, *answers))
                break
            if link := _LINK.search(answers[0].body):
                path, query = (part.decode() for part in link.groups())
                waiting = [Call(one.row, "GET", path, query, asker=one.asker)]
    for world in worlds:
        await world.forget()
    return found


def _said(call: Call, one: Answer, other: Answer) -> str:
    answers = "".join(f"\n   {each.status} {each.body[:_SHOWN]!r}" for each in (one, other))
    return f"{call}{answers}"
