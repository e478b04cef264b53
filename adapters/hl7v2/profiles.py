"""The profiles of senders as they are now, with the ConceptMaps that they name.

design/hl7v2.md, sections 16 and 18. Mapping a message waits for nothing: what it needs is read
before, when the profiles are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from adapters.hl7v2.codetables import CodeTable, code_table, renaming
from adapters.hl7v2.rules import faults
from adapters.hl7v2.senders import Profile, ProfileFault, profile_of
from fhir_server.context import Context
from fhir_server.r4.json import decode_stored

MAP = "ConceptMap/"


@dataclass(frozen=True, slots=True)
class _Map:
    version: int
    table: CodeTable
    names: Mapping[str, str]


@dataclass(slots=True)
class Profiles:
    """Reads profiles; a ConceptMap that has not changed is not made a table of again."""

    _maps: dict[str, _Map] = field(default_factory=dict)

    async def read(self, context: Context) -> tuple[Profile, ...]:
        """Return the current profiles. A map that is not there (any more) has no codes."""
        stored = await context.store.inbox.senders()
        settings = context.settings
        found = [
            profile_of(
                one["profile"],
                server_zone=settings.hl7_time_zone,
                charset_fallback=settings.hl7_charset_fallback,
            )
            for one in stored
            if one.get("profile")
        ]
        await self._look_up({id for profile in found for id in _named(profile)}, context)
        return tuple(self._with_maps(profile) for profile in found)

    async def _look_up(self, ids: set[str], context: Context) -> None:
        there = await context.store.read_all("ConceptMap", sorted(ids)) if ids else []
        maps: dict[str, _Map] = {}
        for one in there:
            known = self._maps.get(one.id)
            if one.deleted:
                continue
            if known is None or known.version != one.version:
                resource = decode_stored(one.json)
                known = _Map(one.version, code_table(resource), renaming(resource))
            maps[one.id] = known
        self._maps = maps

    def _with_maps(self, profile: Profile) -> Profile:
        if not _named(profile):
            return profile
        empty = _Map(0, CodeTable({}), {})
        tables = {
            place: self._maps.get(_id(named), empty).table
            for place, named in profile.code_maps.items()
        }
        names = {named: self._maps.get(_id(named), empty).names for named in _translations(profile)}
        return replace(profile, code_tables=tables, translations=names)


async def checked(document: Mapping[str, Any], context: Context) -> Profile:
    """Return the profile that ``document`` describes, if it can be set.

    Raises :class:`ProfileFault` for what :func:`profile_of` refuses, rules and rows that cannot
    run, and ConceptMaps that are not here.
    """
    profile = profile_of(document)
    told = faults(profile)
    ids = _named(profile)
    there = await context.store.read_all("ConceptMap", sorted(ids)) if ids else []
    missing = ids - {one.id for one in there if not one.deleted}
    told += [f"{MAP}{id} is not on this server." for id in sorted(missing)]
    if told:
        raise ProfileFault(told)
    return profile


def _translations(profile: Profile) -> list[str]:
    return [str(rule["map"]) for rule in profile.before if rule.get("do") == "translate"]


def _named(profile: Profile) -> set[str]:
    return {_id(named) for named in (*profile.code_maps.values(), *_translations(profile))}


def _id(named: str) -> str:
    return named.removeprefix(MAP)
