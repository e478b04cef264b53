"""FHIR packages -> stored resources, through the front door.

Decision 6 has the reasons. A package becomes ordinary resources of this server, each with its
origin as ``meta.source``, and a record of what was written (``store/packages.py``). The record is
there before the first resource and says ``adding`` until the last one is; a command that was killed
is repeated, and goes on.

Two versions of a guide have resources of the same ids. Whoever comes first has the id; the next one
gets the id with a few digits of what it is behind it, always the same ones.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from fhir_server.messages import Request, Resource, Response
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.json import decode_stored, encode
from fhir_server.r4.packages import CONFORMANCE, Package, missing
from fhir_server.store.conformance import Conformance
from fhir_server.store.packages import SOURCE, PackageRecord, Packages

_GROUP_ENTRIES = 500
_GROUP_BYTES = 16_777_216
_NEEDED = ("StructureDefinition", "ValueSet", "CodeSystem")
_ID_MAX = 64
_DIGITS = 10
_HEARD_S = 1.2  # until every process knows that a package is not complete
_AT_ONCE = 32

Perform = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a package: ``resources`` that it has here, ``written`` of them now."""

    key: str
    resources: int
    written: int
    left_out: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Installer:
    """Adds and removes packages. ``issues_of`` tells what is wrong with a resource, or why it
    cannot be served; ``built_in`` are the packages on disk, name -> versions."""

    perform: Perform
    records: Packages
    conformance: Conformance
    issues_of: Callable[[Resource], Sequence[Issue]]
    built_in: dict[str, list[str]]

    async def add(self, package: Package, *, without_dependencies: bool = False) -> Added:
        """Store the conformance resources of ``package``; adding it again writes nothing.

        Raises ``not-found`` that names missing dependencies, ``conflict`` for a package that is
        here with other content, and ``invalid`` for one whose resources are not valid R4.
        """
        records = await self.records.all()
        before = next((one for one in records if one.key == package.key), None)
        if before is not None and before.checksum != package.checksum:
            text = (
                f"{package.key} is here with other content; remove it first, with "
                f"fhir-server package remove {package.key}"
            )
            raise FhirError(Issue("conflict", f"{text}."))
        if before is not None and before.state == "complete":
            return Added(package.key, len(before.resources), 0, before.left_out)
        if not without_dependencies:
            self._check_dependencies(package, records)
        placed, left_out = self._usable(package, await self._placed(package, before))
        record = PackageRecord(
            *(package.name, package.version, package.checksum, "adding"),
            dict(package.dependencies),
            [(f"{one['resourceType']}/{one['id']}", _canonical(one)) for one in placed],
            left_out,
        )
        await self.records.put(record)
        written = await self._written(placed)
        await self.records.put(replace(record, state="complete"))
        await self.conformance.changed(CONFORMANCE)
        return Added(package.key, len(placed), written, left_out)

    async def remove(self, key: str) -> int:
        """Delete what the package ``key`` (``name#version``) has stored; return how much that was.

        What somebody has changed since stays. Raises ``not-found`` for a package that is not here,
        ``conflict`` for one that others need.
        """
        records = await self.records.all()
        found = next((one for one in records if one.key == key), None)
        if found is None:
            known = ", ".join(one.key for one in records) or "none"
            raise FhirError(Issue("not-found", f"{key} is not here; here are: {known}."))
        there = self._there([one for one in records if one.key != key])
        needed = [
            one.key
            for one in records
            if one.key != key and found.name in one.dependencies and _lacks(one, found.name, there)
        ]
        if needed:
            text = f"{key} is needed by {', '.join(needed)}; remove that first."
            raise FhirError(Issue("conflict", text))
        await self.records.put(replace(found, state="removing"))
        places = [place for place, _ in found.resources]
        stored = await self._all(self._stored(place) for place in places)
        own = [
            {"request": {"method": "DELETE", "url": place}}
            for place, one in zip(places, stored, strict=True)
            if one is not None and _source(one) == SOURCE + key
        ]
        for start in range(0, len(own), _GROUP_ENTRIES):
            await self._transaction(own[start : start + _GROUP_ENTRIES])
        await self.records.forget(key)
        await self.conformance.changed(CONFORMANCE)
        return len(own)

    def _check_dependencies(self, package: Package, records: Sequence[PackageRecord]) -> None:
        there = self._there([one for one in records if one.state == "complete"])
        if lacking := missing(package, there):
            text = (
                f"{package.key} needs packages that are not here: {', '.join(lacking)}. Add them "
                "first or in the same command, or go on without with --without-dependencies."
            )
            raise FhirError(Issue("not-found", text))

    def _there(self, records: Sequence[PackageRecord]) -> dict[str, list[str]]:
        found = {name: list(versions) for name, versions in self.built_in.items()}
        for one in records:
            found.setdefault(one.name, []).append(one.version)
        return found

    def _usable(
        self, package: Package, placed: Sequence[Resource]
    ) -> tuple[list[Resource], list[str]]:
        """Return what can be stored, and why the rest cannot, such as parameters that cannot be
        served. Without a profile or its codes the others would be judged by half of the rules."""
        usable: list[Resource] = []
        left_out: list[str] = []
        faults: list[str] = []
        for one in placed:
            issues = self.issues_of(one)
            if not issues:
                usable.append(one)
            elif one["resourceType"] not in _NEEDED:
                left_out.append(f"{_canonical(one)}: {issues[0].diagnostics}")
            else:
                faults.append(f"{_canonical(one)}: {issues[0].expression} {issues[0].diagnostics}")
        if faults:
            more = f" And {len(faults) - 5} more." if len(faults) > 5 else ""
            text = (
                f"{package.key} has resources that are not valid R4. {' '.join(faults[:5])}{more}"
            )
            raise FhirError(Issue("invalid", text))
        return usable, left_out

    async def _placed(self, package: Package, before: PackageRecord | None) -> list[Resource]:
        """Return the resources with the ids that they have here, and with their origin."""
        resources = [{"id": _digest(_canonical(one)), **one} for one in package.resources]
        chosen = {place for place, _ in before.resources} if before else set()
        stored = await self._all(
            self._stored(f"{one['resourceType']}/{one['id']}") for one in resources
        )
        source = SOURCE + package.key
        placed = []
        for one, there in zip(resources, stored, strict=True):
            id, meta = one["id"], one.get("meta", {})
            if not isinstance(id, str) or not isinstance(meta, dict):
                placed.append(one)  # its issues say so
                continue
            own = there is None or _source(there) == source
            if not own and f"{one['resourceType']}/{id}" not in chosen:
                id = f"{id[: _ID_MAX - _DIGITS - 1]}-{_digest(package.key + id)}"
            placed.append({**one, "id": id, "meta": {**meta, "source": source}})
        return placed

    async def _stored(self, place: str) -> Resource | None:
        type, _, id = place.partition("/")
        try:
            return decode_stored((await self.perform(Request("read", type, id))).body)
        except FhirError:
            return None

    async def _all(self, reads: Iterator[Awaitable[Any]] | Any) -> list[Any]:
        turn = asyncio.Semaphore(_AT_ONCE)

        async def one(work: Awaitable[Any]) -> Any:
            async with turn:
                return await work

        return list(await asyncio.gather(*map(one, reads)))

    async def _written(self, resources: Sequence[Resource]) -> int:
        """Write ``resources``; in one transaction unless they are too many."""
        groups = list(_groups(resources))
        if len(groups) > 1:  # others have to know first that this is a part
            await self.conformance.changed(CONFORMANCE)
            await asyncio.sleep(_HEARD_S)
        written = 0
        for group in groups:
            written += await self._transaction(
                [
                    {
                        "resource": one,
                        "request": {"method": "PUT", "url": f"{one['resourceType']}/{one['id']}"},
                    }
                    for one in group
                ]
            )
        return written

    async def _transaction(self, entries: Sequence[Resource]) -> int:
        body: Resource = {"resourceType": "Bundle", "type": "transaction", "entry": list(entries)}
        response = await self.perform(Request("transaction", body=body))
        return response.body.count(b'"status":"201')


def in_order(packages: Sequence[Package]) -> list[Package]:
    """Return ``packages`` so that each comes after those of them that it needs."""
    waiting = {one.key: one for one in packages}
    ordered: list[Package] = []
    while waiting:
        names = {one.name for one in waiting.values()}
        ready = [one for one in waiting.values() if names.isdisjoint(one.dependencies)]
        for one in ready or list(waiting.values()):  # those that need each other: as they come
            ordered.append(waiting.pop(one.key))
    return ordered


def _lacks(record: PackageRecord, name: str, there: dict[str, list[str]]) -> bool:
    wanted = Package(record.name, record.version, {name: record.dependencies[name]}, ())
    return bool(missing(wanted, there))


def _groups(resources: Sequence[Resource]) -> Iterator[list[Resource]]:
    group: list[Resource] = []
    size = 0
    for one in resources:
        bytes = len(encode(one))
        if group and (len(group) == _GROUP_ENTRIES or size + bytes > _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(one)
        size += bytes
    if group:
        yield group


def _canonical(resource: Resource) -> str:
    url, version = resource.get("url", ""), resource.get("version", "")
    named = url or f"{resource['resourceType']}/{resource.get('id', '')}"
    return f"{named}|{version}" if version else named


def _source(resource: Resource) -> str:
    return str(resource.get("meta", {}).get("source", ""))


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:_DIGITS]
