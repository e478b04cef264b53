"""What an instruction does to resources that its message does not mention: merges, moves, links.

design/hl7v2.md, section 10. Everything that names the one is made to name the other, in the
transaction of the message; a number of resources above :data:`MOVED_MAX` is left to a person.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapters.hl7v2.ack import Fault
from adapters.hl7v2.changes import Json, Stamp
from adapters.hl7v2.lookups import HeldError, Lookups
from adapters.hl7v2.plan import Merge, Write
from fhir_server.context import Context
from fhir_server.messages import Request
from fhir_server.r4.json import decode_stored

MOVED_MAX = 5000
_PAGE = 500
_STAYS = ("AuditEvent", "Patient", "Provenance")
# What is found by the search parameter that names an Encounter or an Account.
_NAMING = {"Encounter": "encounter", "Account": "account"}

Writes = Mapping[tuple[str, str], Write]


async def merge_writes(
    merge: Merge, writes: Writes, lookups: Lookups, context: Context
) -> list[Write]:
    """Return what ``merge`` has written, on top of ``writes``. Raises :class:`HeldError`."""
    work = _Work(merge, writes, lookups, context)
    match merge.kind:
        case "merge" if merge.type == "Patient":
            await work.merge()
        case "link" | "unlink":
            await work.see_also(present=merge.kind == "link")
        case "merge" | "move":
            await work.move()
        case "repatient":
            await work.repatient()
        case _:
            raise HeldError((Fault("207", f"A person must do this: {merge.kind}."),))
    return list(work.made.values())


class _Work:
    """One merge under way. ``made`` are the writes that it leads to."""

    def __init__(self, merge: Merge, writes: Writes, lookups: Lookups, context: Context) -> None:
        self.task = merge
        self.writes = writes
        self.lookups = lookups
        self.context = context
        self.made: dict[tuple[str, str], Write] = {}

    async def merge(self) -> None:
        """The prior Patient stands for the survivor from now on, with all that was said of it."""
        target, prior = self.task.target, self.task.prior
        survivor = await self._current("Patient", target)
        gone = await self._current("Patient", prior)
        if survivor is None or gone is None:
            return
        old = [{**one, "use": "old"} for one in gone.get("identifier", [])]
        self._write("Patient", target, {
            **survivor,
            "identifier": _with_numbers(survivor.get("identifier", []), old),
            "link": _with_link(survivor.get("link", []), f"Patient/{prior}", "replaces"),
        })  # fmt: skip
        self._write("Patient", prior, {
            **gone,
            "active": False,
            "link": _with_link(gone.get("link", []), f"Patient/{target}", "replaced-by"),
        })  # fmt: skip
        await self._compartment(f"Patient/{prior}", f"Patient/{target}")

    async def see_also(self, *, present: bool) -> None:
        """Two Patients are said to be, or not to be, about one person; both stay."""
        for one, other in (
            (self.task.target, self.task.prior),
            (self.task.prior, self.task.target),
        ):
            patient = await self._current("Patient", one)
            if patient is None:
                continue
            links = patient.get("link", [])
            place = f"Patient/{other}"
            changed = (
                _with_link(links, place, "seealso")
                if present
                else [link for link in links if not _is_link(link, place, "seealso")]
            )
            rest = {name: value for name, value in patient.items() if name != "link"}
            self._write("Patient", one, {**rest, **({"link": changed} if changed else {})})

    async def move(self) -> None:
        """What names the prior Encounter or Account names the other, its numbers included: a later
        message under one of them is about the other. The prior is an error."""
        type, target, prior = self.task.type, self.task.target, self.task.prior
        await self._named(f"{type}/{prior}", f"{type}/{target}")
        survivor, gone = await self._current(type, target), await self._current(type, prior)
        if survivor is None or gone is None:
            return
        old = [{**one, "use": "old"} for one in gone.get("identifier", [])]
        numbers = _with_numbers(survivor.get("identifier", []), old)
        self._write(type, target, {**survivor, "identifier": numbers})
        rest = {name: value for name, value in gone.items() if name != "identifier"}
        self._write(type, prior, {**rest, "status": "entered-in-error"})

    async def repatient(self) -> None:
        """The Encounter, and what names it, goes to another Patient."""
        place = f"{self.task.type}/{self.task.prior}"
        encounter = await self._current(self.task.type, self.task.prior)
        if encounter is None:
            return
        before = str(encounter.get("subject", {}).get("reference", ""))
        after = f"Patient/{self.task.target}"
        self._write(self.task.type, self.task.prior, _moved(encounter, before, after))
        await self._named(place, place, (before, after))

    async def _compartment(self, before: str, after: str) -> None:
        for type in await self.context.store.indexes.existing():
            if type in _STAYS:
                continue
            last = ""
            while True:
                found = await self.context.store.in_compartment(type, before, last, _PAGE)
                for one in found:
                    self.lookups.take(type, one)
                    await self._renamed(type, one.id, before, after)
                if len(found) < _PAGE:
                    break
                last = found[-1].id

    async def _named(self, before: str, after: str, patient: tuple[str, str] | None = None) -> None:
        """Have all that names ``before`` (an Encounter, an Account) name ``after``."""
        type = before.partition("/")[0]
        code = _NAMING.get(type)
        for other in await self.context.store.indexes.existing():
            if code is None or code not in self.context.parameters.of(other):
                continue
            parameters = ((code, before), ("_count", str(_PAGE)), ("_elements", "id"))
            request = Request("search-type", other, parameters=parameters)
            answer = await self.context.perform(request, self.context)
            entries = decode_stored(answer.body).get("entry", [])
            if len(entries) >= _PAGE:
                raise _too_many()
            for entry in entries:
                id = entry["resource"]["id"]
                await self._renamed(other, id, before, after)
                if patient:
                    await self._renamed(other, id, *patient)

    async def _renamed(self, type: str, id: str, before: str, after: str) -> None:
        resource = await self._current(type, id)
        if resource is not None:
            self._write(type, id, _moved(resource, before, after))
        if len(self.made) > MOVED_MAX:
            raise _too_many()

    async def _current(self, type: str, id: str) -> Json | None:
        """Return the resource as it is with all writes so far."""
        for writes in (self.made, self.writes):
            if (type, id) in writes:
                return writes[type, id].resource
        return await self.lookups.resource(type, id, self.context)

    def _write(self, type: str, id: str, resource: Json) -> None:
        before = self.made.get((type, id)) or self.writes.get((type, id))
        if before is not None:
            self.made[type, id] = replace(before, resource=resource)
            return
        stored = self.lookups.known.resources.get((type, id))
        self.made[type, id] = Write(type, id, resource, stored, Stamp(), self.task.source)


def _too_many() -> HeldError:
    text = f"More than {MOVED_MAX:,} resources would move; a person must see to it."
    return HeldError((Fault("207", text),))


def _moved(value: Any, before: str, after: str) -> Any:
    """Return ``value`` with references to ``before`` made to ``after``."""
    if isinstance(value, dict):
        return {
            name: after if name == "reference" and one == before else _moved(one, before, after)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [_moved(one, before, after) for one in value]
    return value


def _with_numbers(identifiers: list[Json], more: list[Json]) -> list[Json]:
    there = {(one.get("system"), one.get("value")) for one in identifiers}
    new = [one for one in more if (one.get("system"), one.get("value")) not in there]
    return [*identifiers, *new]


def _is_link(link: Json, place: str, type: str) -> bool:
    return link.get("type") == type and link.get("other", {}).get("reference") == place


def _with_link(links: list[Json], place: str, type: str) -> list[Json]:
    if any(_is_link(link, place, type) for link in links):
        return links
    return [*links, {"other": {"reference": place}, "type": type}]
