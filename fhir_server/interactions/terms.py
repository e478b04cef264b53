"""Code systems, value sets and concept maps by their canonical, wherever they are kept.

In this order: what a request brings along, what the loaded packages have whole, what is stored,
what follows from a grammar or from the form of the url, and what a package has in parts.

Computing with them waits for nothing: it is begun, notes what it lacks (:class:`Lacking`), and is
begun again when that was looked up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fhir_server.context import Context
from fhir_server.interactions.defining import decoded
from fhir_server.interactions.stored import of_url
from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.codes import Hierarchy
from fhir_server.r4.expansion import Expander, Listed, Selection, Shelved, Unexpandable
from fhir_server.r4.selections import asked, settled
from fhir_server.search.wanted import Artifact
from fhir_server.store.concepts import Shelf
from fhir_server.store.conformance import Memory
from fhir_server.terminology.grammars import grammar_system
from fhir_server.terminology.implicit import all_of, implicit_value_set
from fhir_server.terminology.judging import Concept

T = TypeVar("T")
System = Listed | Shelved

LOOKUPS_MAX = 500
"""The code systems and value sets that one request may lead to."""
CODES_MAX = 200_000
"""The codes that are listed for one value set."""
_NOT_YET = object()
_CODE_BYTES = 60
_ENTRY_BYTES = 400  # of a name that nothing is known of; clients can ask for any
_CONCEPTS_APART = 1000  # a hierarchy of more is made in a thread
_WHOLE = ("complete", None)  # a value set has no content


class Lacking(Exception):
    """``(type, name)`` is to be looked up first."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What a value set takes of each system, and in which version of it."""

    selection: Selection
    versions: Mapping[str, Collection[str]]
    concepts: Mapping[tuple[str, str], Concept]
    """What the value set itself says of the codes that it lists: displays and designations."""

    def canonical(self, system: str) -> str:
        """Return the canonical of ``system``, with the version that the value set asks for."""
        return self.canonicals(system)[0]

    def canonicals(self, system: str) -> list[str]:
        """Return the canonicals of ``system`` in all versions that the value set asks for."""
        versions = sorted(self.versions.get(system, ()))
        return [f"{system}|{version}" for version in versions] or [system]


@dataclass(slots=True)
class Terms:
    """What one request needs to know of terminology. ``given`` came with the request.

    ``version_of`` returns the canonical of a code system that is used in the place of another.
    """

    context: Context
    memory: Memory
    given: Mapping[tuple[str, str], Resource] = field(default_factory=dict)
    version_of: Callable[[str], str] = str
    is_common: bool = True
    _found: dict[tuple[str, str], Any] = field(default_factory=dict)

    @classmethod
    async def of(
        cls,
        context: Context,
        given: Iterable[Resource] = (),
        version_of: Callable[[str], str] | None = None,
    ) -> "Terms":
        """Return the terms of a request that brings the resources ``given`` along."""
        known: dict[tuple[str, str], Resource] = {}
        for one in given:
            if url := one.get("url"):
                known[one["resourceType"], url] = one
                known[one["resourceType"], f"{url}|{one.get('version', '')}"] = one
        memory = await context.store.conformance.memory()
        common = not known and version_of is None
        return cls(context, memory, known, version_of or str, common)

    def find(self, type: str, name: str) -> Any:
        """Return what is known as ``name``, or ``None``. Raises :class:`Lacking`."""
        if type == "CodeSystem":
            name = self.version_of(name)
        if (found := self._found.get((type, name), _NOT_YET)) is _NOT_YET:
            raise Lacking(type, name)
        return found

    async def artifact(self, type: str, name: str) -> Any:
        """Return the CodeSystem, ValueSet or ConceptMap ``name``, or ``None``.

        A code system comes as :class:`Listed` or :class:`Shelved`, or without its concepts.
        """
        return await self.settled(lambda: self.find(type, name))

    async def system(self, name: str) -> System | None:
        """Return the code system ``name`` if its codes can be told, all of them or a part."""
        found = await self.artifact("CodeSystem", name)
        return found if isinstance(found, Listed | Shelved) else None

    async def settled(self, compute: Callable[[], T]) -> T:
        """Return what ``compute`` gives once all that it looks for has been looked up."""
        while True:
            try:
                return compute()
            except Lacking as lacking:
                type, name = lacking.args
                await self._learned(type, name)

    async def _learned(self, type: str, name: str) -> Any:
        """Look ``name`` up. Raises ``too-costly`` where that leads too far."""
        if len(self._found) >= LOOKUPS_MAX:
            text = f"This leads to more than {LOOKUPS_MAX} code systems and value sets."
            raise FhirError(Issue("too-costly", text))
        self._found[type, name] = await self._looked_up(type, name)
        return self._found[type, name]

    async def selected(self, name: str) -> Selected:
        """Return what the value set ``name`` takes. Raises :class:`Unexpandable`."""
        key = "selected", name
        if self.is_common and (kept := self.memory.get(key)) is not None:
            if isinstance(kept, str):
                raise Unexpandable(kept)
            return kept  # type: ignore[no-any-return]
        try:
            found = await self._selected(name)
        except Unexpandable as error:
            if self.is_common:
                self.memory.put(key, str(error), _ENTRY_BYTES + 4 * len(name))
            raise
        if self.is_common:
            count = sum(len(c) for c in found.selection.values() if isinstance(c, frozenset))
            count += 3 * len(found.concepts)
            self.memory.put(key, found, 200 + _CODE_BYTES * count)
        return found

    async def _selected(self, name: str) -> Selected:
        # One for all attempts: what it has counted and computed stays, however often it has to ask.
        expander = Expander(self.find, CODES_MAX)
        selection = dict(await self._computed(expander, name))
        value_set = await self.artifact("ValueSet", name)
        made = Selected(selection, expander.versions, _listed(value_set))
        for system, codes in selection.items():
            if needed := asked(codes):
                whole = await self.system(made.canonical(system))
                known = await self.concepts(whole, needed) if whole is not None else {}
                selection[system] = settled(codes, known)
        return made

    async def _computed(self, expander: Expander, name: str) -> Selection:
        """Return what the value set takes. It is computed in a thread: its definition says how long
        that takes, and everybody else would wait. What it names is looked up level by level."""
        while True:
            try:
                return await asyncio.to_thread(expander.selection, name)
            except Lacking as lacking:
                type, missing = lacking.args
                found = await self._learned(type, missing)
                for of, canonical in _named(found or {}):
                    each = self.version_of(canonical) if of == "CodeSystem" else canonical
                    if (of, each) not in self._found:
                        await self._learned(of, each)

    async def concepts(self, system: System, codes: Collection[str]) -> dict[str, Concept]:
        """Return those of ``codes`` that ``system`` has, by code."""
        if isinstance(system, Shelved) and system.shelf is not None:
            number = system.shelf.number
            found = await self.context.store.concepts.read([(number, code) for code in codes])
            return {code: concept for (_, code), concept in found.items()}
        known = {code: plain_concept(system, code) for code in codes}
        return {code: concept for code, concept in known.items() if concept is not None}

    async def _looked_up(self, type: str, name: str) -> Any:
        url, _, version = name.partition("|")
        if found := self.given.get((type, f"{url}|{version}" if version else url)):
            return await self._whole(found, url) if type == "CodeSystem" else found
        key = "artifact", type, name
        if (kept := self.memory.get(key, _NOT_YET)) is not _NOT_YET:
            return kept
        found, weight = await _SOURCES[type](self, name)
        return self.memory.put(key, found, weight + _ENTRY_BYTES + 2 * len(name))

    async def _code_system(self, name: str) -> tuple[Any, int]:
        url, _, version = name.partition("|")
        loaded = self.context.definitions.artifact("CodeSystem", name)
        if loaded and loaded.get("content") == "complete":
            return Listed(loaded, self.context.definitions.hierarchy(str(loaded["url"]))), 200
        stored, weight = await of_url(Artifact("CodeSystem", name), self.context)
        if stored is not None:
            return await self._whole(stored, url), weight
        known = self.context.definitions
        if not version and (made := grammar_system(url, known.units, known.displays)):
            return made, 200
        return (Listed(loaded) if loaded and "concept" in loaded else loaded), 200

    async def _whole(self, stored: Mapping[str, Any], url: str) -> Any:
        """Return the stored code system with its concepts, wherever they are."""
        if isinstance(stored, Listed):
            return stored
        if len(stored.get("concept", ())) > _CONCEPTS_APART:
            return await asyncio.to_thread(Listed, stored)
        if "concept" in stored:
            return Listed(stored)
        shelf = await self.context.store.concepts.shelf(url, stored.get("version", ""))
        if shelf is None:
            content = stored.get("content")
            return {**stored, "content": "not loaded" if content == "complete" else content}
        return shelved(stored, shelf)

    async def _value_set(self, name: str) -> tuple[Any, int]:
        if name.startswith("ValueSet/"):
            return await self._by_id(name)
        loaded = self.context.definitions.artifact("ValueSet", name)
        if loaded:
            return loaded, 200
        stored, weight = await of_url(Artifact("ValueSet", name), self.context)
        if stored is not None:
            return stored, weight
        system = self.context.definitions.implied(name)
        if system is None:
            system = await self.context.store.conformance.implied(name)
        return (all_of(name, system) if system else implicit_value_set(name)), 1000

    async def _by_id(self, name: str) -> tuple[Any, int]:
        type, _, id = name.partition("/")
        stored = await self.context.store.as_server.read(type, id)
        if stored is not None and not stored.deleted:
            return await decoded(stored, self.context), len(stored.json)
        return self.context.definitions.artifact(type, name), 200

    async def _concept_map(self, name: str) -> tuple[Any, int]:
        if name.startswith("ConceptMap/"):
            return await self._by_id(name)
        loaded = self.context.definitions.artifact("ConceptMap", name)
        return (loaded, 200) if loaded else await of_url(Artifact("ConceptMap", name), self.context)


_SOURCES: Mapping[str, Callable[[Terms, str], Awaitable[tuple[Any, int]]]] = {
    "CodeSystem": Terms._code_system,
    "ValueSet": Terms._value_set,
    "ConceptMap": Terms._concept_map,
}


def _named(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the value sets and code systems that a value set is computed from."""
    if found.get("resourceType") != "ValueSet":
        return
    compose = found.get("compose", {})
    for part in (*compose.get("include", ()), *compose.get("exclude", ())):
        if "system" in part and "concept" not in part:
            version = part.get("version")
            yield "CodeSystem", f"{part['system']}|{version}" if version else part["system"]
        for one in part.get("valueSet", ()):
            yield "ValueSet", one


def _listed(value_set: Mapping[str, Any]) -> dict[tuple[str, str], Concept]:
    """Return the concepts that the definition of ``value_set`` lists, by system and code."""
    if "compose" not in value_set:
        return dict(_expanded(value_set.get("expansion", {}).get("contains", ())))
    return {
        (part.get("system", ""), one["code"]): one
        for part in value_set["compose"].get("include", ())
        for one in part.get("concept", ())
    }


def _expanded(entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], Concept]]:
    """Yield what the expansion of a value set without a definition says of its codes."""
    for one in entries:
        if "code" in one:
            yield (one.get("system", ""), one["code"]), one
        yield from _expanded(one.get("contains", ()))


def shelved(head: Mapping[str, Any], shelf: Shelf) -> Shelved:
    """Return the code system ``head``, whose concepts are on ``shelf``."""
    found = Shelved(head)
    found.shelf = shelf
    return found


def hierarchy_of(system: System) -> Hierarchy | None:
    """Return the concepts of a system that lists them."""
    return system.hierarchy if isinstance(system, Listed) else None


def plain_concept(system: System, code: str) -> Concept | None:
    """Return the concept ``code`` of a system that is in memory."""
    if isinstance(system, Listed):
        found = system.hierarchy.concepts.get(code)
        if found is None and system.get("caseSensitive") is False:
            return system.hierarchy.concepts.get(system.folded.get(code.casefold(), ""))
        return found
    return system.grammar(code) if system.grammar else None
