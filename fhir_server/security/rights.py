"""Principal -> what it may do: role and scopes, as predicates by type and letter. Pure.

design/security.md, section 3.1. Consent is taken away afterwards, by whoever knows it.

=======================  ====================================================================
who                      what
=======================  ====================================================================
a user without an app    what the roles say
a user through an app    for each scope what it says, as far as the roles do: ``patient/`` of
                         the patient in context, ``user/`` of what the roles reach
a backend                its ``system/`` scopes, as far as its role says
anybody else             nothing
=======================  ====================================================================
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from fhir_server.security.compartments import (
    PATIENT,
    PRIVATE,
    UNIVERSAL,
    belonging,
    open_to_patients,
    parties,
    to_change,
)
from fhir_server.security.labels import without_hidden
from fhir_server.security.plan import Filter, Rights, both, either
from fhir_server.security.principal import Principal
from fhir_server.security.roles import ADMINISTRATOR, BACKEND, GROUPS, ROLES, Role
from fhir_server.security.roles import PATIENT as AS_PATIENT
from fhir_server.security.scopes import EVERY_TYPE, LETTERS, Scope

May = Mapping[tuple[str, str], Filter]
"""(type, letter) -> predicate. What is not there: nothing."""
Pairs = Iterable[tuple[tuple[str, str], Filter]]

_STAFF = ("Practitioner/", "PractitionerRole/", "Person/")


@dataclass(frozen=True, slots=True)
class Known:
    """What has to be known besides the principal.

    ``types`` are all resource types, ``members`` those of the patient compartment of R4.
    ``constraints`` is the text of a scope with parameters -> the predicate that they are; a scope
    that is not there: nothing. ``related_only`` are the roles that see nobody but the patients
    they care for, and ``related`` are those (``Patient/1``).
    """

    types: tuple[str, ...]
    members: frozenset[str]
    constraints: Mapping[str, Filter] = field(default_factory=dict)
    related_only: frozenset[str] = frozenset()
    related: frozenset[str] = frozenset()


def rights(principal: Principal, known: Known) -> Rights:
    """Return all that ``principal`` may do, consent aside."""
    may: May = {}
    if principal.kind == "user" and principal.client:
        may = _granted(principal, known)
    elif principal.kind == "user":
        may = _of_roles(principal.roles, _own(principal), principal, known)
    elif principal.kind == "client":
        roles = principal.roles or (BACKEND.name,)
        may = _scoped(principal.scopes, "system", _of_roles(roles, (), principal, known), known)
    return Rights(may, _offices(principal), principal.purpose, is_own(principal))


def is_own(principal: Principal) -> bool:
    """Whether ``principal`` acts for himself, as a patient does: not staff, a backend, the server
    itself."""
    if principal.is_unrestricted or principal.kind == "client":
        return False
    return all(ROLES[name].reach == "own" for name in principal.roles if name in ROLES)


def has_power(principal: Principal, power: str) -> bool:
    """Whether ``principal`` has the right ``power``, which belongs to no type: a user by a role,
    and through an app only with its scope; a backend by its scope."""
    if principal.is_unrestricted:
        return True
    if principal.kind == "client":
        return power in principal.others
    by_role = any(power in ROLES[name].powers for name in principal.roles if name in ROLES)
    return (
        principal.kind == "user" and by_role and (not principal.client or power in principal.others)
    )


def is_granted(principal: Principal, type: str, letter: str) -> bool:
    """Whether the app of a user, if there is one, was granted ``letter`` of ``type`` whoever the
    patient is. What the user's roles say is asked elsewhere."""
    return not principal.client or any(
        scope.level == "user"
        and scope.type in (type, EVERY_TYPE)
        and letter in scope.letters
        and not scope.parameters
        for scope in principal.scopes
    )


def _own(principal: Principal) -> tuple[str, ...]:
    """Return whose data is the user's own. A missing ``fhirUser``: nobody's."""
    return (principal.fhir_user,) if principal.fhir_user.startswith("Patient/") else ()


def _offices(principal: Principal) -> tuple[str, ...]:
    """Return the roles that open operations: to administer by way of an app or as a backend takes
    the scope for everything, since no narrower one says so."""
    level = "system" if principal.kind == "client" else "user"
    everything = any(
        scope.level == level
        and scope.type == EVERY_TYPE
        and scope.letters == LETTERS
        and not scope.parameters
        for scope in principal.scopes
    )
    if everything or (principal.kind == "user" and not principal.client):
        return principal.roles
    return tuple(role for role in principal.roles if role != ADMINISTRATOR.name)


def _granted(principal: Principal, known: Known) -> May:
    scopes = principal.scopes
    of_user = _of_roles(principal.roles, _own(principal), principal, known)
    may = dict(_scoped(scopes, "user", of_user, known))
    if principal.patient:
        of_patient = _of_one_patient(principal, known)
        _join(may, _scoped(scopes, "patient", of_patient, known).items())
    return may


def _of_one_patient(principal: Principal, known: Known) -> May:
    """Return what may be done with the data of the patient in context, at most.

    Whoever has no role is a patient or somebody for them, and what the scopes say was granted by
    them; staff without a role is nobody. Others stay within their roles.
    """
    patients = (f"{PATIENT}/{principal.patient}",)
    if not principal.roles and principal.fhir_user.startswith(_STAFF):
        return {}
    roles = [ROLES[name] for name in principal.roles if name in ROLES]
    may: dict[tuple[str, str], Filter] = {}
    theirs = _patients(patients, known)
    for role in roles if principal.roles else (_EVERYTHING,):
        within = _reached(role, patients, principal, known)
        if role.reach == "own":
            _join(may, within.items())
        else:
            pairs = ((key, both(theirs[key], one)) for key, one in within.items() if key in theirs)
            _join(may, pairs)
    return may


_EVERYTHING = Role(
    AS_PATIENT.name,
    AS_PATIENT.title,
    {group: LETTERS for group in BACKEND.letters if group != "audit"},
    reach="own",
    labels=AS_PATIENT.labels,
)
"""What a patient may let an app do: more than the patient may without one, if it is granted."""


def _patients(patients: Collection[str], known: Known) -> May:
    """Return what is open of ``patients`` and to them, labels aside."""
    if not patients:
        return {}
    may = _lettered(patients, known)
    may.update(
        ((type, letter), predicate) for type, letter, predicate in open_to_patients(patients)
    )
    return may


def _lettered(patients: Collection[str], known: Known) -> dict[tuple[str, str], Filter]:
    """Return what belongs to ``patients``, by type and letter."""
    seen = belonging(patients, known.members)
    changed = to_change(patients, seen)
    return {
        (type, letter): (changed if letter in "cud" else seen)[type]
        for type in seen
        for letter in LETTERS
    }


def _of_roles(
    roles: Iterable[str], own: Collection[str], principal: Principal, known: Known
) -> May:
    """Return what ``roles`` may do, joined by OR; ``own`` are the patients who are meant by that
    word. A role that is not in the table: nothing."""
    may: dict[tuple[str, str], Filter] = {}
    for name in roles:
        if name in ROLES:
            _join(may, _reached(ROLES[name], own, principal, known).items())
    return may


def _reached(role: Role, own: Collection[str], principal: Principal, known: Known) -> May:
    """Return what ``role`` may do with what it reaches, less what its labels hide."""
    hidden = without_hidden(role.labels)
    if role.reach == "own":
        reached = _patients(own, known)
    elif role.reach == "staff" and role.name in known.related_only:
        reached = _of_related(known)
    else:
        reached = {(type, letter): {} for type in known.types for letter in LETTERS}
    if role.reach == "staff":
        mine = parties((principal.fhir_user,) if principal.fhir_user else ())
        reached = {**reached, **{(PRIVATE, letter): mine for letter in LETTERS}}
    return {key: _less(reached[key], hidden) for key in role.each() if key in reached}


def _less(predicate: Filter, hidden: Filter) -> Filter:
    return predicate if "labels" in predicate else both(predicate, hidden)


def _of_related(known: Known) -> May:
    """Return what is of the patients who are cared for, and what is of no patient at all."""
    nobodys: May = {
        (type, letter): {} for type in (*UNIVERSAL, *GROUPS["catalogue"]) for letter in LETTERS
    }
    may = {**nobodys, **_lettered(known.related, known)}
    may.update(
        ((type, letter), one)
        for type, letter, one in open_to_patients(known.related)
        if type not in UNIVERSAL
    )
    return {**may, ("AuditEvent", "c"): {}}


def _scoped(scopes: Iterable[Scope], level: str, within: May, known: Known) -> May:
    """Return what the ``scopes`` of ``level`` open of ``within``, joined by OR."""
    may: dict[tuple[str, str], Filter] = {}
    for scope in scopes:
        if scope.level != level:
            continue
        constraint: Filter | None = {}
        if scope.parameters:
            constraint = known.constraints.get(scope.text)
        if constraint is None:
            continue
        types = known.types if scope.type == EVERY_TYPE else (scope.type,)
        keys = ((type, letter) for type in types for letter in scope.letters)
        _join(may, ((key, both(within[key], constraint)) for key in keys if key in within))
    return may


def _join(may: dict[tuple[str, str], Filter], others: Pairs) -> None:
    for key, predicate in others:
        may[key] = either(may[key], predicate) if key in may else predicate
