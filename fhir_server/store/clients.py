"""The clients that are registered: apps and backends. design/security.md, section 2.1."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from fhir_server.security.grants import Client
from fhir_server.store.client import Database, Document, deadline

CLIENTS = "oauth_clients"
_LISTED_MAX = 10_000
_LISTS = ("redirect_uris", "scopes", "origins", "roles")
_NAMES = tuple(one.name for one in fields(Client) if one.name != "id")


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients in ``database``."""

    database: Database
    timeout_s: float

    async def ensure(self) -> None:
        """Make the collection and its index."""
        await self.database[CLIENTS].create_indexes([IndexModel([("origins", 1)])])

    async def client(self, id: str) -> Client | None:
        """Return the client ``id``."""
        async with self._bounded():
            found = await self.database[CLIENTS].find_one({"_id": id})
        return None if found is None else client_of(found)

    async def listed(self) -> list[Client]:
        """Return all clients, by id."""
        async with self._bounded():
            rows = await self.database[CLIENTS].find().sort("_id").limit(_LISTED_MAX).to_list()
        return [client_of(row) for row in rows]

    async def add(self, client: Client) -> bool:
        """Register ``client``; return whether its id was free."""
        async with self._bounded():
            try:
                await self.database[CLIENTS].insert_one(_row(client))
            except DuplicateKeyError:
                return False
        return True

    async def replace_secret(self, id: str, secret_hash: str) -> bool:
        """Give the client ``id`` another secret; return whether it is one that has a secret."""
        wanted = {"_id": id, "kind": "confidential-symmetric"}
        async with self._bounded():
            done = await self.database[CLIENTS].update_one(
                wanted, {"$set": {"secret_hash": secret_hash}}
            )
        return done.matched_count == 1

    async def remove(self, id: str) -> bool:
        """Remove the client ``id``; return whether it was there. Its tokens end with it."""
        async with self._bounded():
            done = await self.database[CLIENTS].delete_one({"_id": id})
        return done.deleted_count == 1

    async def origins(self) -> frozenset[str]:
        """Return the origins from which pages of registered apps may call."""
        async with self._bounded():
            found = await self.database[CLIENTS].distinct("origins")
        return frozenset(str(one) for one in found)

    def _bounded(self) -> Any:
        return deadline(self.timeout_s, "Try again.")


def _row(client: Client) -> Document:
    lists = {name: list(getattr(client, name)) for name in _LISTS}
    row = asdict(client) | lists
    return {"_id": row.pop("id"), **row}


def client_of(row: Document) -> Client:
    """Return the client that the document ``row`` is."""
    given = {name: row[name] for name in _NAMES if name in row}
    given |= {name: tuple(given.get(name, ())) for name in _LISTS}
    return Client(id=row["_id"], **given)
