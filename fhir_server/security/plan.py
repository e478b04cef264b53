"""What one request may see and change: a predicate by type, and nothing where there is none.

design/security.md, section 3. A predicate is a MongoDB filter over ``_id``, ``compartments``,
``labels`` and ``keys``, made here and never by a client.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter
from typing import Any, Literal

import msgspec

Filter = dict[str, Any]

NOTHING: Filter = {"_id": {"$in": []}}
"""Matches no document."""

Letter = Literal["c", "r", "u", "d", "s"]


@dataclass(frozen=True, slots=True)
class AccessPlan:
    """What one request may see and change. A type that is not named: nothing.

    ``see`` is type -> predicate, ``change`` (type, ``c``, ``u`` or ``d``) -> predicate; ``{}`` is
    everything. ``purpose`` is for the audit record: ``TREAT``, ``BTG``. ``own`` says that somebody
    acts for himself, as a patient does. ``kept`` is for what others make of a plan, since its
    requests are many.
    """

    see: Mapping[str, Filter]
    change: Mapping[tuple[str, str], Filter]
    purpose: str = "TREAT"
    own: bool = False
    kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    _names: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def seen(self, type: str) -> Filter:
        """Return the predicate of what may be seen of ``type``."""
        return self.see.get(type, NOTHING)

    def name(self, type: str) -> str:
        """Return what tells the predicate of ``type`` from others: equal ones have the same, ``""``
        is everything."""
        if type not in self._names:
            seen = self.seen(type)
            self._names[type] = repr(seen) if seen else ""
        return self._names[type]

    def changed(self, type: str, letter: str) -> Filter:
        """Return the predicate of what may be created, updated or deleted of ``type``."""
        return self.change.get((type, letter), NOTHING)


@dataclass(frozen=True, slots=True)
class Rights:
    """All that a principal may do: (type, letter) -> predicate. Plans of requests are made of it.

    ``roles`` open operations that belong to no type. ``own`` is that of a plan. A plan is made
    once: one of a clinician has some 700 predicates, and takes milliseconds.
    """

    may: Mapping[tuple[str, str], Filter]
    roles: tuple[str, ...] = ()
    purpose: str = "TREAT"
    own: bool = False
    _plans: dict[str, AccessPlan] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _digest: list[bytes] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def digest(self) -> bytes:
        """What tells these rights from others: SHA-256 over them."""
        if not self._digest:
            may = [[*key, one] for key, one in sorted(self.may.items(), key=itemgetter(0))]
            self._digest.append(sha256(msgspec.json.encode(may)).digest())
        return self._digest[0]

    def allows(self, type: str, letter: str) -> bool:
        """Whether anything of ``type`` may be done that ``letter`` stands for."""
        return (type, letter) in self.may

    def plan(self, letters: str) -> AccessPlan:
        """Return the plan of a request that sees what ``letters`` (``r``, ``s``, ``rs``) open."""
        if letters not in self._plans:
            self._plans[letters] = self._plan(letters)
        return self._plans[letters]

    def _plan(self, letters: str) -> AccessPlan:
        see: dict[str, Filter] = {}
        for (type, letter), predicate in self.may.items():
            if letter in letters:
                see[type] = either(see[type], predicate) if type in see else predicate
        change = {key: one for key, one in self.may.items() if key[1] in "cud"}
        return AccessPlan(see, change, self.purpose, self.own)


def either(one: Filter, other: Filter) -> Filter:
    """Return the predicate of what meets ``one`` or ``other``; ``{}`` is everything."""
    if not one or not other or one == other:
        return one if not one or one == other else other
    return {"$or": [one, other]}


def both(*predicates: Filter) -> Filter:
    """Return the predicate of what meets all of ``predicates``."""
    wanted = [one for one in predicates if one]
    if len(wanted) < 2:
        return wanted[0] if wanted else {}
    return {"$and": wanted}
