"""Rules of Consents and who asks -> the predicate of what is denied. Pure.

Each constraint is judged twice: ``over`` holds for all that it may mean, ``under`` for what it
surely means. A denial takes the one, a permission the other, so that what nobody can tell is
denied. Deny wins over permit at equal depth, a nested provision over its parent.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

from fhir_server.security.consent import Actor, Code, Rule
from fhir_server.security.consent_codes import (
    ACT_REASON,
    CONFIDENTIALITY,
    CONSENT_ACTION,
    KNOWN_PURPOSES,
    LEVELS,
    purposes,
    sensitivities,
)
from fhir_server.security.plan import Filter, Rights, both

Predicate = Filter | None
"""``{}`` is met by everything, ``None`` by nothing."""


class Judged(NamedTuple):
    """What a constraint may mean, and what it surely means."""

    over: Predicate
    under: Predicate


SURELY = Judged({}, {})
PERHAPS = Judged({}, None)
NEVER = Judged(None, None)
_OF: Mapping[bool | None, Judged] = {True: SURELY, None: PERHAPS, False: NEVER}

# Action -> whether it is to see, and whether it is to change; of others nobody can tell.
_SEES = {(CONSENT_ACTION, "access"): True, (CONSENT_ACTION, "correct"): False}
_CHANGES = {(CONSENT_ACTION, "correct"): True}


class Fields(Protocol):
    """What is known of the keys of documents."""

    def coded(self, type: str, codes: Sequence[Code]) -> Judged:
        """Judge whether one of ``codes`` is in a resource of ``type``."""

    def dated(self, type: str, begins: datetime, ends: datetime) -> Judged:
        """Judge whether a resource of ``type`` is of that time."""


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, as Consents name people.

    ``names`` are such as ``Practitioner/1`` and what that one is part of. ``has_person`` says that
    all persons are known that this one is; ``has_organizations`` the same of organizations.
    ``roles`` are those of staff, all of them if ``has_roles``.
    """

    names: frozenset[str] = frozenset()
    roles: frozenset[Code] = frozenset()
    purpose: str = "TREAT"
    has_person: bool = False
    has_organizations: bool = False
    has_roles: bool = False

    def is_(self, actor: Actor) -> bool | None:
        """Whether this is ``actor``; ``None`` where nobody can tell."""
        if not actor.asks:
            return None
        if actor.roles and self.roles.isdisjoint(actor.roles):
            return False if self.has_roles else None
        if not actor.who:
            return None
        if actor.who in self.names:
            return True
        known = self.has_organizations if _is_organization(actor.who) else self.has_person
        return False if known else None


def _is_organization(name: str) -> bool:
    return name.startswith("Organization/")


@dataclass(frozen=True, slots=True)
class Denial:
    """A rule for ``patients`` (``Patient/1``), as it is for who asks now. ``exempt`` says that who
    asks is denied nothing unless named."""

    rule: Rule
    patients: tuple[str, ...]
    exempt: bool = False


@dataclass(slots=True)
class Denying:
    """What ``denials`` take from ``who`` at the moment ``now``."""

    who: Who
    now: datetime
    fields: Fields
    denials: Sequence[Denial]
    _made: dict[tuple[str, bool], Filter] = field(default_factory=dict)

    def taken(self, type: str, letter: str) -> Filter:
        """Return the predicate to be met by what remains of ``type``; ``{}`` for all of it."""
        key = type, letter in "cud"
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = self._remaining(*key)
        return found

    def _remaining(self, type: str, changes: bool) -> Filter:
        denied: list[Filter] = []
        for one in self.denials:
            judge = _Judge(self, type, changes, one.exempt)
            predicate = judge.denied(one.rule)
            if predicate is not None:
                patients = list(one.patients)
                inside: Filter = {
                    "compartments": patients[0] if len(patients) == 1 else {"$in": patients}
                }
                denied.append(both(inside, predicate))
        return {"$nor": denied} if denied else {}


@dataclass(slots=True)
class Denied:
    """What holds for a principal from ``since`` until ``until``, while the rows have ``number``.

    ``opened`` are the ids of the patients whose record is open by break-glass. ``last`` are the
    rights that were asked for last, and what is left of them.
    """

    number: int
    since: datetime
    until: datetime
    denying: Denying
    opened: frozenset[str]
    last: tuple[Rights, Rights] | None = None

    def holds(self, number: int, now: datetime) -> bool:
        """Whether it is still so at ``now``, where the rows have ``number``."""
        return self.number == number and self.since <= now < self.until


@dataclass(frozen=True, slots=True)
class _Judge:
    """Judges rules for one type, as it is seen or as it is changed."""

    of: Denying
    type: str
    changes: bool
    exempt: bool

    def denied(self, rule: Rule) -> Predicate:
        """Return what ``rule`` may deny."""
        constraint = self._constraint(rule)
        if constraint.over is None:
            return None
        ways = [self.denied(one) for one in rule.rules]
        if rule.type == "deny":
            ways.append(_not(_any(self.permitted(one) for one in rule.rules)))
        return _all((constraint.over, _any(ways)))

    def permitted(self, rule: Rule) -> Predicate:
        """Return what ``rule`` surely permits."""
        constraint = self._constraint(rule)
        if constraint.under is None:
            return None
        ways = [self.permitted(one) for one in rule.rules]
        if rule.type == "permit":
            ways.append({})
        denied = _any(self.denied(one) for one in rule.rules)
        return _all((constraint.under, _any(ways), _not(denied)))

    def _constraint(self, rule: Rule) -> Judged:
        judged = [judge(self, rule) for judge in _CONSTRAINTS]
        return Judged(_all(one.over for one in judged), _all(one.under for one in judged))

    def _of_all(self, rule: Rule) -> Judged:
        period = rule.period
        if period is not None and not period[0] <= self.of.now < period[1]:
            return NEVER
        return PERHAPS if rule.unjudged else SURELY

    def _of_actors(self, rule: Rule) -> Judged:
        if not rule.actors:
            return _OF[not self.exempt]
        found = [self.of.who.is_(one) for one in rule.actors]
        return _OF[_either(False if self.exempt and one is None else one for one in found)]

    def _of_purposes(self, rule: Rule) -> Judged:
        if not rule.purposes:
            return SURELY
        return _OF[_either(_is_for(self.of.who.purpose, one) for one in rule.purposes)]

    def _of_actions(self, rule: Rule) -> Judged:
        if not rule.actions:
            return SURELY
        table = _CHANGES if self.changes else _SEES
        return _OF[_either(table.get(one) for one in rule.actions)]

    def _of_types(self, rule: Rule) -> Judged:
        return _OF[not rule.types or self.type in rule.types]

    def _of_data(self, rule: Rule) -> Judged:
        if not rule.data:
            return SURELY
        ids = [place.partition("/")[2] for place in rule.data if place.startswith(f"{self.type}/")]
        # In the history of a type the id is a part of the key.
        predicate: Filter = {"$or": [{"_id": {"$in": ids}}, {"_id.id": {"$in": ids}}]}
        return Judged(predicate, predicate) if ids else NEVER

    def _of_labels(self, rule: Rule) -> Judged:
        found = [_labelled(one) for one in rule.labels]
        if not found:
            return SURELY
        return Judged(_any(one.over for one in found), _all(one.under for one in found))

    def _of_codes(self, rule: Rule) -> Judged:
        return self.of.fields.coded(self.type, rule.codes) if rule.codes else SURELY

    def _of_data_period(self, rule: Rule) -> Judged:
        return self.of.fields.dated(self.type, *rule.data_period) if rule.data_period else SURELY


_CONSTRAINTS: tuple[Callable[[_Judge, Rule], Judged], ...] = (
    _Judge._of_all,
    _Judge._of_actors,
    _Judge._of_purposes,
    _Judge._of_actions,
    _Judge._of_types,
    _Judge._of_data,
    _Judge._of_labels,
    _Judge._of_codes,
    _Judge._of_data_period,
)


def _is_for(purpose: str, wanted: Code) -> bool | None:
    """Whether ``purpose`` is ``wanted``, or a kind of it."""
    system, code = wanted
    if system != ACT_REASON or code not in KNOWN_PURPOSES or purpose not in KNOWN_PURPOSES:
        return None
    return purpose in purposes(code)


def _labelled(label: Code) -> Judged:
    """Judge whether a resource has ``label``.

    A permission of ``N`` is one of all that is as confidential or less; a denial of ``R`` one of
    all that is as confidential or more.
    """
    system, code = label
    if system != CONFIDENTIALITY:
        kinds = sorted(f"{system}|{one}" for one in sensitivities(code))
        return Judged({"labels": {"$in": kinds}}, {"labels": f"{system}|{code}"})
    if code not in LEVELS:
        return PERHAPS
    place, usual = LEVELS.index(code), LEVELS.index("N")
    lower = [f"{system}|{one}" for one in LEVELS[:place]]
    same_or_lower = [f"{system}|{one}" for one in LEVELS[: place + 1]]
    same_or_higher = [f"{system}|{one}" for one in LEVELS[place:]]
    higher = [f"{system}|{one}" for one in LEVELS[place + 1 :]]
    over: list[Filter] = [{"labels": {"$in": same_or_higher}}]
    if place <= usual:  # what has no label is as usual
        over.append({"labels": {"$nin": lower}})
    under: list[Filter] = [{"labels": {"$nin": higher}}]
    if place < usual:
        under.append({"labels": {"$in": same_or_lower}})
    return Judged(_any(over), both(*under))


def _either(found: Iterable[bool | None]) -> bool | None:
    """Whether one is true; ``None`` where one may be."""
    judged = list(found)
    return True if True in judged else None if None in judged else False


def _any(predicates: Iterable[Predicate]) -> Predicate:
    found = [one for one in predicates if one is not None]
    if not found or {} in found:
        return {} if found else None
    return found[0] if len(found) == 1 else {"$or": found}


def _all(predicates: Iterable[Predicate]) -> Predicate:
    found = list(predicates)
    if None in found:
        return None
    return both(*(one for one in found if one))


def _not(predicate: Predicate) -> Predicate:
    if predicate is None:
        return {}
    return {"$nor": [predicate]} if predicate else None
