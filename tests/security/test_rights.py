"""https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html

design/security.md, section 3.1. The table is tests/security/rights.txt: of each type, which letters
each kind of principal has, and of what. Who changes the code changes the table, where everybody
sees it; ``python -m tests.security.test_rights`` writes it anew.
"""

from functools import lru_cache
from pathlib import Path

import pytest

from fhir_server.app import specification
from fhir_server.artifacts import artifacts_root
from fhir_server.security.compartments import ALSO, NAME_OTHERS, UNIVERSAL
from fhir_server.security.labels import hidden
from fhir_server.security.plan import Filter, Rights
from fhir_server.security.principal import DEMO, NOBODY, SERVER, Principal
from fhir_server.security.rights import Known, rights
from fhir_server.security.roles import GROUPS, ROLES
from fhir_server.security.scopes import LETTERS, scopes_of
from fhir_server.security_settings import SecuritySettings
from fhir_server.settings import Settings
from tests.security.principals import CASES, Case, physician, user

TABLE = Path(__file__).with_name("rights.txt")


@lru_cache
def _known() -> Known:
    made = specification(artifacts_root(None), ())
    members = frozenset(made.parameters.compartment_types("Patient"))
    return Known(made.definitions.resource_types, members)


def _rights(case: Case, **constraints: Filter) -> Rights:
    known = _known()
    return rights(
        case.principal,
        Known(
            known.types,
            known.members,
            constraints,
            frozenset(case.related_only),
            frozenset(case.related),
        ),
    )


def _words(predicate: Filter) -> str:
    """Return ``predicate`` in a word or two."""
    if "$and" in predicate:
        return "&".join(sorted({_words(one) for one in predicate["$and"]}))
    if "$or" in predicate:
        return "|".join(sorted(_words(one) for one in predicate["$or"]))
    match predicate:
        case {"labels": {"$nin": list(labels)}}:
            names = {tuple(hidden(role.labels)): f"-{name}" for name, role in ROLES.items()}
            return names.get(tuple(labels), "labels?") if len(labels) < _ALL_LABELS else "-labels"
        case {"compartments": str(place)}:
            return place
        case {"compartments": {"$in": places}}:
            return ",".join(places)
        case {"compartments": {"$not": {"$elemMatch": {"$nin": _}}}}:
            return "alone"
        case {"compartments": {"$not": _}}:
            return "of-nobody"
        case {"_id": str(id)}:
            return f"id={id}"
        case {"_id": {"$in": ids}}:
            return f"id={','.join(ids)}"
    return str(predicate) if predicate else "all"


_ALL_LABELS = len(hidden(frozenset()))


def _cell(found: Rights, type: str) -> str:
    """Return the letters of ``type`` with what each is good for."""
    by_words: dict[str, str] = {}
    for letter in LETTERS:
        if found.allows(type, letter):
            words = _words(found.may[type, letter])
            by_words[words] = by_words.get(words, "") + letter
    return " ".join(f"{letters}:{words}" for words, letters in by_words.items())


def table() -> str:
    """Return the table: a block for each principal, types with the same rights in one line."""
    lines = []
    for name, case in CASES.items():
        found, by_cell = _rights(case), dict[str, list[str]]()
        for type in _known().types:
            by_cell.setdefault(_cell(found, type) or "nothing", []).append(type)
        lines.append(f"== {name}")
        lines += [f"{cell}\n    {' '.join(types)}" for cell, types in sorted(by_cell.items())]
    return "\n".join(lines) + "\n"


def test_the_rights_of_every_principal_are_those_of_the_table() -> None:
    """For each type, letter and principal: what the table says, and nothing else."""
    assert table() == TABLE.read_text("utf-8")


# ------------------------------------------------------------------------- what the table must say


@pytest.mark.parametrize(
    "name",
    [
        "none",
        "no role",
        "no role, all scopes",
        "A, no patient",
        "backend with user scopes",
    ],
)
def test_what_is_missing_is_nothing(name: str) -> None:
    """No role, no patient in context, scopes of another level: nothing, never everything."""
    assert _rights(CASES[name]).may == {}


@pytest.mark.parametrize(
    "principal",
    [
        NOBODY,
        SERVER,  # which asks for no rights
        DEMO,
        user("x", roles=("chief",), fhir_user="Practitioner/x"),
        user("x", roles=("patient",)),  # of whom?
        user("x", roles=("patient",), fhir_user="RelatedPerson/x"),
        user("x", "user/*.cruds", roles=("patient",)),
        user("x", "user/Observation.rs?code=a", roles=("physician",)),
        user("x", "patient/*.cruds", patient="a", fhir_user="Practitioner/x"),
        user("x", "system/*.cruds", roles=("physician",)),
        Principal("client", "x", scopes=scopes_of("system/*.cruds"), roles=("chief",)),
        Principal("client", "x", scopes=scopes_of("system/Observation.rs?code=a")),
        Principal("client", "x"),
    ],
    ids=str,
)
def test_who_has_no_rights(principal: Principal) -> None:
    """An unknown role, a patient who is nobody, a condition that is not known: nothing."""
    assert _rights(Case(principal)).may == {}


def test_the_compartment_for_access_is_the_one_of_r4_with_the_changes() -> None:
    """66 types, without four that name others, with four that are a patient's."""
    members = _known().members
    found = _rights(CASES["A"])
    own = {type for type in _known().types if found.allows(type, "u")}

    assert len(members) == 66
    assert members >= NAME_OTHERS
    assert not members & ALSO
    assert own == (members - NAME_OTHERS) | ALSO
    assert not UNIVERSAL & own


def test_nobody_has_a_patient_by_a_link() -> None:
    """A patient is seen by its id: Patient.link of another one opens nothing."""
    found = _rights(CASES["A"])

    assert {_words(found.may["Patient", letter]).split("&")[-1] for letter in LETTERS} == {"id=a"}


def test_scopes_never_widen_a_role() -> None:
    """Through an app with every scope, a user may do what the role says, and not a letter more."""
    for name in ("physician", "nurse", "front-desk", "billing", "lab", "analyst", "administrator"):
        principal = CASES[name].principal
        scopes = scopes_of("user/*.cruds")
        through = Principal(
            *("user", principal.name, "app", scopes),
            roles=principal.roles,
            fhir_user=principal.fhir_user,
        )
        assert _rights(Case(through)).may == _rights(CASES[name]).may


def test_scopes_of_one_type_are_joined_and_each_keeps_its_condition() -> None:
    """What one scope says of vital signs and another of laboratory results is both."""
    vital, lab = (
        "user/Observation.rs?category=vital-signs",
        "user/Observation.r?category=laboratory",
    )
    constraints: dict[str, Filter] = {vital: {"keys.category": "v"}, lab: {"keys.category": "l"}}
    found = _rights(Case(physician(f"{vital} {lab}")), **constraints)
    within = _rights(CASES["physician"]).may["Observation", "r"]

    assert found.may == {
        ("Observation", "r"): {
            "$or": [{"$and": [within, one]} for one in constraints.values()],
        },
        ("Observation", "s"): {"$and": [within, constraints[vital]]},
    }


def test_a_scope_without_a_condition_opens_what_one_with_a_condition_does_not() -> None:
    """Joined by OR, the wider one is what counts."""
    scoped = "user/Observation.rs?category=vital-signs"
    found = _rights(
        Case(physician(f"{scoped} user/Observation.rs")), **{scoped: {"keys.category": "v"}}
    )

    for letter in "rs":
        wide = found.may["Observation", letter]["$or"]
        assert _rights(CASES["physician"]).may["Observation", letter] in wide


@pytest.mark.parametrize(
    ("scopes", "roles"),
    [
        ("", ("administrator",)),
        ("user/*.cruds", ("administrator",)),
        ("user/*.*", ("administrator",)),
        ("user/*.rs", ()),
        ("patient/*.cruds", ()),
        ("user/Patient.cruds", ()),
        ("system/*.cruds", ()),
        ("user/*.cruds?_id=1", ()),
    ],
)
def test_who_administers_through_an_app_was_granted_everything(
    scopes: str, roles: tuple[str, ...]
) -> None:
    """An app with less than every scope does not act for the administrator it belongs to."""
    found = _rights(Case(user("root", scopes, roles=("administrator",), patient="a")))

    assert found.roles == roles


def test_every_type_is_in_one_group() -> None:
    """Each of the 146 types has its place in the table of roles."""
    types = [type for group in GROUPS.values() for type in group]

    assert sorted(types) == sorted(_known().types)


def test_the_setting_for_relationships_knows_all_roles_of_staff() -> None:
    """Every role that sees all patients by default can be made to need a relationship."""
    staff = {name for name, one in ROLES.items() if one.reach == "staff"} - {"administrator"}
    listed = Settings.model_validate({"care_relationship": ",".join(sorted(staff))})

    assert set(listed.care_relationship) == staff
    with pytest.raises(ValueError, match="physician"):
        SecuritySettings.model_validate({"care_relationship": "chief"})


if __name__ == "__main__":
    TABLE.write_text(table(), "utf-8")
