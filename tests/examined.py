"""What MongoDB looks at to answer: documents and keys, by its own profiler.

``explain`` of one command would miss what a request asks in several, and what ``$lookup`` reads.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fhir_server.store.client import Database

_BYTES = 64 * 1024 * 1024
_READING = ("query", "getmore", "command")


@dataclass(slots=True)
class Examined:
    """The sums over all commands on a database, and the plans that they took."""

    documents: int = 0
    keys: int = 0
    plans: list[str] = field(default_factory=list)
    commands: list[dict[str, Any]] = field(default_factory=list)


@asynccontextmanager
async def examining(database: Database) -> AsyncIterator[Examined]:
    """Yield what is filled in at the end of the block. ``database`` must be nobody else's."""
    await database.command("profile", 0)
    await database.drop_collection("system.profile")
    await database.create_collection("system.profile", capped=True, size=_BYTES)
    await database.command("profile", 2)
    found = Examined()
    try:
        yield found
    finally:
        await database.command("profile", 0)
        rows = await database["system.profile"].find({"op": {"$in": list(_READING)}}).to_list()
        for row in rows:
            found.documents += row.get("docsExamined", 0)
            found.keys += row.get("keysExamined", 0)
            if "planSummary" in row:
                found.plans.append(row["planSummary"])
            found.commands.append(row)
