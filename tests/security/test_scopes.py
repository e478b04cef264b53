"""https://hl7.org/fhir/smart-app-launch/STU2.2/scopes-and-launch-context.html"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.security.scopes import (
    LETTERS,
    OVERRIDE,
    Scope,
    common,
    covers,
    granted,
    is_context,
    scope_of,
    scope_text,
)

# What a text says: level, type, letters, parameters; None for no scope about resources.
READ = {
    "patient/Observation.rs": ("patient", "Observation", "rs", ()),
    "user/*.cruds": ("user", "*", "cruds", ()),
    "system/Patient.r": ("system", "Patient", "r", ()),
    "patient/*.read": ("patient", "*", "rs", ()),
    "user/Condition.write": ("user", "Condition", "cud", ()),
    "system/*.*": ("system", "*", "cruds", ()),
    "patient/Observation.rs?category=laboratory": (
        *("patient", "Observation", "rs"),
        (("category", "laboratory"),),
    ),
    "patient/Observation.rs?category=http://a.b/c|d&code=e%20f": (
        *("patient", "Observation", "rs"),
        (("category", "http://a.b/c|d"), ("code", "e f")),
    ),
    "patient/Observation.sr": None,
    "patient/Observation.rrs": None,
    "patient/Observation.": None,
    "patient/Observation": None,
    "patient/observation.rs": None,
    "patient/.rs": None,
    "Patient/Observation.rs": None,
    "patient/Observation.rs?": None,
    "patient/Observation.read?code=a": None,
    'patient/Observation.rs?code="a"': None,
    "patient/Observation.rs?code=a b": None,
    "patient/Observation.RS": None,
    "patient/Observation.rs\n": None,
    "openid": None,
    "": None,
}


@pytest.mark.parametrize(("text", "said"), READ.items(), ids=READ)
def test_what_a_scope_says(text: str, said: tuple[object, ...] | None) -> None:
    """A scope is read as it is written, in both versions; what is no scope is none."""
    scope = scope_of(text)

    assert (scope and (scope.level, scope.type, scope.letters, scope.parameters)) == said
    assert scope is None or scope.text == text


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        *((one, True) for one in ("launch", "launch/patient", "launch/imagingstudy", "openid")),
        *((one, True) for one in ("fhirUser", "profile", "offline_access", "online_access")),
        *((one, False) for one in ("launch/", "launch/Patient", "fhiruser", "line_access", "")),
    ],
)
def test_which_scopes_are_about_context(text: str, is_one: bool) -> None:
    """Launch, identity and refresh tokens have scopes of their own, spelled in one way."""
    assert is_context(text) is is_one


LEVELS = st.sampled_from(("patient", "user", "system"))
TYPES = st.sampled_from(("*", "Patient", "Observation", "MedicationRequest"))
SOME = st.integers(1, 31).map(
    lambda bits: "".join(one for place, one in enumerate(LETTERS) if bits >> place & 1)
)
NAMES = st.sampled_from(("category", "code", "status", "code:in", "date"))
VALUES = st.text(st.characters(codec="utf-8"), max_size=20)
PARAMETERS = st.lists(st.tuples(NAMES, VALUES), max_size=2)


@given(LEVELS, TYPES, SOME, PARAMETERS)
def test_what_is_written_is_read(
    level: str, type: str, letters: str, parameters: list[tuple[str, str]]
) -> None:
    """Whatever a scope says is the same after it was written and read."""
    scope = scope_of(scope_text(level, type, letters, parameters))  # type: ignore[arg-type]

    assert scope is not None
    assert (scope.level, scope.type, scope.letters) == (level, type, letters)
    assert scope.parameters == tuple(parameters)


def _scopes() -> st.SearchStrategy[Scope]:
    plain = st.lists(st.tuples(NAMES, st.sampled_from(("a", "b"))), max_size=2)
    made = st.builds(scope_text, LEVELS, TYPES, SOME, plain)
    return made.map(lambda text: scope_of(text) or pytest.fail(text))


@given(_scopes(), _scopes())
def test_what_two_scopes_have_in_common(one: Scope, other: Scope) -> None:
    """What is common to two is covered by each, and is the narrower one where one covers the
    other; what covers nothing in common has none."""
    both = common(one, other)

    assert covers(one, one)
    if both is not None:
        assert covers(one, both)
        assert covers(other, both)
        assert scope_of(both.text) is not None
    if covers(one, other) or covers(other, one):
        assert both in (one, other)
    disjoint = one.level != other.level or not set(one.letters) & set(other.letters)
    assert not (disjoint and both)


REGISTERED = (
    "launch/patient openid fhirUser patient/*.rs user/Observation.cruds "
    "user/Condition.rs?category=problem-list-item system/Patient.rs"
).split()
USERS = ("patient", "user")

# Asked by somebody who signs in -> granted.
GRANTED = {
    "patient/Observation.rs": "patient/Observation.rs",
    "patient/Observation.read": "patient/Observation.read",
    "patient/*.cruds": "patient/*.rs",
    "patient/*.*": "patient/*.rs",
    "patient/Observation.c": "",
    "user/*.rs": "user/Observation.rs user/Condition.rs?category=problem-list-item",
    "user/Condition.rs": "user/Condition.rs?category=problem-list-item",
    "user/Condition.r?category=problem-list-item&code=a": (
        "user/Condition.r?category=problem-list-item&code=a"
    ),
    "user/Patient.rs": "",
    "system/Patient.rs": "",
    "launch/patient openid": "launch/patient openid",
    "launch offline_access nonsense": "",
    "introspect": "",
    "openid openid": "openid",
}


@pytest.mark.parametrize(("asked", "given"), GRANTED.items(), ids=GRANTED)
def test_what_is_granted(asked: str, given: str) -> None:
    """What is granted is in what is asked and in what is registered, and nothing is unknown."""
    found = granted(asked.split(), REGISTERED, USERS, is_possible=lambda scope: True)

    assert found == tuple(given.split())


def test_a_backend_is_granted_nothing_of_users() -> None:
    """Where nobody signs in there is no context, and no level but ``system``."""
    asked = ("openid", "patient/*.rs", "system/*.rs", "introspect")

    assert granted(asked, REGISTERED, ("system",)) == ("system/Patient.rs",)
    assert granted(asked, ("introspect",), ("system",)) == ("introspect",)


def test_parameters_that_mean_nothing_are_not_granted() -> None:
    """Unless somebody says that parameters are possible, no scope with some is granted."""
    asked = ("user/Condition.rs", "user/Observation.rs?code=a", "fhirUser")

    assert granted(asked, REGISTERED, USERS, has_fhir_user=False) == ()


@given(st.lists(_scopes(), max_size=4), st.lists(_scopes(), max_size=4))
def test_nothing_is_widened(asked: list[Scope], registered: list[Scope]) -> None:
    """Each scope that is granted is covered by one that was asked and by one registered."""
    texts = [one.text for one in asked], [one.text for one in registered]
    found = granted(*texts, ("patient", "user", "system"), is_possible=lambda scope: True)

    for text in found:
        scope = scope_of(text)
        assert scope is not None
        assert any(covers(one, scope) for one in asked)
        assert any(covers(one, scope) for one in registered)
    for one in asked:
        if any(covers(other, one) for other in registered):
            assert one.text in found


@pytest.mark.parametrize("levels", [("patient", "user"), ("system",)])
def test_a_power_is_granted_to_who_is_registered_for_it(levels: tuple[str, ...]) -> None:
    """To an app and to a backend; what comes of it is up to the roles (``security/rights.py``)."""
    assert granted([OVERRIDE], [OVERRIDE], levels) == (OVERRIDE,)
    assert granted([OVERRIDE], ["user/*.cruds"], levels) == ()
