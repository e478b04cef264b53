"""Which FHIR packages were added, and what of each is stored.

A document in the collection ``packages`` for each: ``_id`` is ``name#version``, ``state`` is
``adding`` until everything is written, ``complete`` then, and ``removing`` from before the first
deletion. What a package that is not complete has written is not used (``conformance.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.store.client import Database

PACKAGES = "packages"
SOURCE = "urn:fhir-server:package:"
"""What ``meta.source`` of a resource of a package begins with; its key follows."""


@dataclass(frozen=True, slots=True)
class PackageRecord:
    """A package as it was added.

    ``resources`` are ``(Type/id, canonical)``; ``left_out`` are sentences about those that are not
    stored.
    """

    name: str
    version: str
    checksum: str
    state: str
    dependencies: dict[str, str] = field(default_factory=dict)
    resources: Sequence[tuple[str, str]] = ()
    left_out: Sequence[str] = ()

    @property
    def key(self) -> str:
        """``name#version``."""
        return f"{self.name}#{self.version}"


@dataclass(frozen=True, slots=True)
class Packages:
    """The records of the packages in ``database``."""

    database: Database

    async def all(self) -> list[PackageRecord]:
        """Return all records, by name and version."""
        rows = await self.database[PACKAGES].find({}, sort=[("_id", 1)]).to_list()
        return [_record(row) for row in rows]

    async def incomplete(self) -> frozenset[str]:
        """Return the keys of the packages of which only a part may be stored."""
        rows = self.database[PACKAGES].find({"state": {"$ne": "complete"}}, projection={"_id": 1})
        return frozenset([row["_id"] async for row in rows])

    async def put(self, record: PackageRecord) -> None:
        """Write ``record`` in the place of the one before it."""
        document = {
            "name": record.name,
            "version": record.version,
            "checksum": record.checksum,
            "state": record.state,
            # A name of a package has dots, which a field had better not have.
            "dependencies": sorted(record.dependencies.items()),
            "resources": list(record.resources),
            "left_out": list(record.left_out),
        }
        await self.database[PACKAGES].replace_one({"_id": record.key}, document, upsert=True)

    async def forget(self, key: str) -> None:
        """Remove the record of ``key``; what it names is to be gone before."""
        await self.database[PACKAGES].delete_one({"_id": key})


def _record(row: dict[str, Any]) -> PackageRecord:
    return PackageRecord(
        row["name"],
        row["version"],
        row["checksum"],
        row["state"],
        dict(row["dependencies"]),
        tuple((place, url) for place, url in row["resources"]),
        tuple(row["left_out"]),
    )
