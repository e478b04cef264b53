"""https://hl7.org/fhir/R4/consent.html, as SPEC_CHOICES.md reads it."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from fhir_server.app import Server
from fhir_server.interactions.consent_fields import KeyFields
from fhir_server.search.index import index
from fhir_server.security.consent import row_of, rule_in
from fhir_server.security.consent_codes import KNOWN_PURPOSES
from fhir_server.security.denying import Denial, Denying, Who
from fhir_server.security.predicates import allows
from fhir_server.store.documents import Document, document
from tests.security.consents import actor, coding, concept, consent

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
DOCTOR = Who(
    frozenset(("Practitioner/1", "PractitionerRole/1", "Organization/1")),
    frozenset((("http://terminology.hl7.org/CodeSystem/practitioner-role", "doctor"),)),
    has_person=True,
    has_organizations=True,
    has_roles=True,
)
SOMEBODY = Who(frozenset(("Practitioner/2",)), has_person=True)
LOINC = "http://loinc.org"


def _observation(code: str = "8480-6", *labels: str, **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": "o",
        "meta": {"versionId": "1", "lastUpdated": "2026-11-01T00:00:00Z"}
        | ({"security": [coding(one) for one in labels]} if labels else {}),
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": "Patient/a"},
        "effectiveDateTime": "2020-05-05",
    } | members


def _documents(server: Server, *resources: dict[str, Any]) -> Iterator[Document]:
    for one in resources:
        found = index(one, server.context.parameters)
        yield document(one, found, interaction="create", bytes_max=100_000)


def _is_shown(
    server: Server, given: Any, who: Who, resource: Any, letter: str = "r", *, exempt: bool = False
) -> bool:
    """Whether ``resource`` is left to ``who`` by the Consent ``given``."""
    row = row_of(given)
    if row is None or not row.begins <= NOW < row.ends:
        return True
    fields = KeyFields(server.context.parameters)
    denying = Denying(who, NOW, fields, [Denial(rule_in(row.rule), (row.patient,), exempt)])
    [found] = _documents(server, resource)
    return allows(denying.taken(resource["resourceType"], letter), found)


_HIV, _R, _V, _N = (
    *("v3-ActCode|HIV", "v3-Confidentiality|R"),
    *("v3-Confidentiality|V", "v3-Confidentiality|N"),
)
_TYPES = "http://hl7.org/fhir/resource-types"
_OF_TYPE = [{"system": _TYPES, "code": "Observation"}]
_OTHER_TYPE = [{"system": _TYPES, "code": "Condition"}]
_DENY = {"type": "deny"}
_TO_DOCTOR = {"type": "deny", "actor": [actor("Practitioner/1")]}
_PERMIT = {"type": "permit", "actor": [actor("Practitioner/1")]}
_PATIENT = {
    "resourceType": "Patient",
    "id": "a",
    "meta": {"versionId": "1", "lastUpdated": "2026-11-01T00:00:00Z"},
}


@pytest.mark.parametrize(
    ("provision", "policy", "who", "resource", "shown"),
    [
        # who
        (_DENY, "OPTIN", DOCTOR, _observation(), False),
        (_TO_DOCTOR, "OPTIN", DOCTOR, _observation(), False),
        (_TO_DOCTOR, "OPTIN", SOMEBODY, _observation(), True),
        (_TO_DOCTOR, "OPTIN", Who(), _observation(), False),
        ({**_DENY, "actor": [actor("Organization/1")]}, "OPTIN", DOCTOR, _observation(), False),
        ({**_DENY, "actor": [actor("Organization/9")]}, "OPTIN", DOCTOR, _observation(), True),
        ({**_DENY, "actor": [actor("Organization/9")]}, "OPTIN", SOMEBODY, _observation(), False),
        ({**_DENY, "actor": [actor("CareTeam/1")]}, "OPTIN", DOCTOR, _observation(), False),
        (
            {**_DENY, "actor": [actor("Organization/1", "practitioner-role|nurse")]},
            *("OPTIN", DOCTOR, _observation(), True),
        ),
        (
            {**_DENY, "actor": [actor("Organization/1", "practitioner-role|doctor")]},
            *("OPTIN", DOCTOR, _observation(), False),
        ),
        # an author is not who asks: whose data it is, is not known
        (
            {**_DENY, "actor": [actor("Practitioner/9", "v3-ParticipationType|AUT")]},
            *("OPTIN", DOCTOR, _observation(), False),
        ),
        (
            {**_DENY, "purpose": [coding("v3-ActReason|TREAT")]},
            "OPTIN",
            DOCTOR,
            _observation(),
            False,
        ),
        (
            {**_DENY, "purpose": [coding("v3-ActReason|HMARKT")]},
            "OPTIN",
            DOCTOR,
            _observation(),
            True,
        ),
        (
            {**_DENY, "purpose": [coding("v3-ActReason|odd")]},
            "OPTIN",
            DOCTOR,
            _observation(),
            False,
        ),
        # what
        ({**_DENY, "class": _OF_TYPE}, "OPTIN", DOCTOR, _observation(), False),
        ({**_DENY, "class": _OTHER_TYPE}, "OPTIN", DOCTOR, _observation(), True),
        (
            {**_DENY, "class": [{"system": "urn:ietf:bcp:13", "code": "application/hl7-cda+xml"}]},
            *("OPTIN", DOCTOR, _observation(), False),
        ),
        ({**_DENY, "code": [concept(f"{LOINC}|8480-6")]}, "OPTIN", DOCTOR, _observation(), False),
        ({**_DENY, "code": [concept("|8480-6")]}, "OPTIN", DOCTOR, _observation(), False),
        ({**_DENY, "code": [concept(f"{LOINC}|1-8")]}, "OPTIN", DOCTOR, _observation(), True),
        (
            {**_DENY, "code": [concept(f"{LOINC}|1-8")]},
            *("OPTIN", DOCTOR, _observation("8480-6") | {"code": {"text": "HIV test"}}, False),
        ),
        (
            {**_DENY, "code": [concept(f"{LOINC}|1-8")]},
            *(
                "OPTIN",
                DOCTOR,
                _observation(contained=[{"resourceType": "Basic", "id": "x"}]),
                False,
            ),
        ),
        ({**_DENY, "code": [{"text": "HIV"}]}, "OPTIN", DOCTOR, _observation(), False),
        ({**_DENY, "code": [concept(f"{LOINC}|1-8")]}, "OPTIN", DOCTOR, _PATIENT, True),
        (
            {**_DENY, "dataPeriod": {"start": "2020", "end": "2020"}},
            "OPTIN",
            DOCTOR,
            _observation(),
            False,
        ),
        ({**_DENY, "dataPeriod": {"start": "2021"}}, "OPTIN", DOCTOR, _observation(), True),
        (
            {**_DENY, "dataPeriod": {"start": "2021"}},
            *("OPTIN", DOCTOR, _observation(effectiveDateTime=None), False),
        ),
        ({**_DENY, "dataPeriod": {"start": "2021"}}, "OPTIN", DOCTOR, _PATIENT, True),
        (
            {
                **_DENY,
                "data": [{"meaning": "instance", "reference": {"reference": "Observation/o"}}],
            },
            *("OPTIN", DOCTOR, _observation(), False),
        ),
        (
            {
                **_DENY,
                "data": [{"meaning": "instance", "reference": {"reference": "Observation/p"}}],
            },
            *("OPTIN", DOCTOR, _observation(), True),
        ),
        (
            {**_DENY, "data": [{"meaning": "related", "reference": {"reference": "Task/1"}}]},
            *("OPTIN", DOCTOR, _observation(), False),
        ),
        # labels
        (
            {**_DENY, "securityLabel": [coding(_HIV)]},
            "OPTIN",
            DOCTOR,
            _observation("1", _HIV),
            False,
        ),
        ({**_DENY, "securityLabel": [coding(_HIV)]}, "OPTIN", DOCTOR, _observation(), True),
        (
            {**_DENY, "securityLabel": [coding("v3-ActCode|SUD")]},
            *("OPTIN", DOCTOR, _observation("1", "v3-ActCode|OPIOIDUD"), False),
        ),
        ({**_DENY, "securityLabel": [coding(_R)]}, "OPTIN", DOCTOR, _observation("1", _V), False),
        ({**_DENY, "securityLabel": [coding(_R)]}, "OPTIN", DOCTOR, _observation(), True),
        ({**_DENY, "securityLabel": [coding(_N)]}, "OPTIN", DOCTOR, _observation(), False),
        # when
        ({**_DENY, "period": {"end": "2025"}}, "OPTIN", DOCTOR, _observation(), True),
        ({**_DENY, "period": {"start": "2027"}}, "OPTIN", DOCTOR, _observation(), True),
        ({**_DENY, "period": {"start": "2026"}}, "OPTIN", DOCTOR, _observation(), False),
        # a policy that refuses, and what a provision permits
        (None, "OPTOUT", DOCTOR, _observation(), False),
        ({"period": {"end": "2025"}}, "OPTOUT", DOCTOR, _observation(), True),
        (_PERMIT, "OPTOUT", DOCTOR, _observation(), True),
        (_PERMIT, "OPTOUT", SOMEBODY, _observation(), False),
        (_PERMIT, "OPTOUT", Who(), _observation(), False),
        ({**_PERMIT, "class": _OF_TYPE}, "OPTOUT", DOCTOR, _observation(), True),
        ({**_PERMIT, "class": _OTHER_TYPE}, "OPTOUT", DOCTOR, _observation(), False),
        ({**_PERMIT, "securityLabel": [coding(_N)]}, "OPTOUT", DOCTOR, _observation(), True),
        (
            {**_PERMIT, "securityLabel": [coding(_N)]},
            "OPTOUT",
            DOCTOR,
            _observation("1", _R),
            False,
        ),
        ({**_PERMIT, "code": [concept(f"{LOINC}|8480-6")]}, "OPTOUT", DOCTOR, _observation(), True),
        ({**_PERMIT, "code": [concept("|8480-6")]}, "OPTOUT", DOCTOR, _observation(), False),
        ({**_PERMIT, "dataPeriod": {"start": "2020"}}, "OPTOUT", DOCTOR, _observation(), True),
        (
            {**_PERMIT, "data": [{"meaning": "related", "reference": {"reference": "Task/1"}}]},
            *("OPTOUT", DOCTOR, _observation(), False),
        ),
        # a nested provision over its parent, deny over permit beside it
        ({**_TO_DOCTOR, "provision": [_PERMIT]}, "OPTIN", DOCTOR, _observation(), True),
        (
            {**_TO_DOCTOR, "provision": [_PERMIT, _TO_DOCTOR]},
            "OPTIN",
            DOCTOR,
            _observation(),
            False,
        ),
        (
            {**_PERMIT, "provision": [{**_DENY, "securityLabel": [coding(_HIV)]}]},
            *("OPTOUT", DOCTOR, _observation("1", _HIV), False),
        ),
        (
            {**_PERMIT, "provision": [{**_DENY, "securityLabel": [coding(_HIV)]}]},
            *("OPTOUT", DOCTOR, _observation(), True),
        ),
        ({"provision": [_TO_DOCTOR]}, "OPTIN", DOCTOR, _observation(), False),
        (
            {**_PERMIT, "modifierExtension": [{"url": "urn:x"}]},
            "OPTOUT",
            DOCTOR,
            _observation(),
            False,
        ),
        (
            {**_DENY, "modifierExtension": [{"url": "urn:x"}]},
            "OPTIN",
            SOMEBODY,
            _observation(),
            False,
        ),
    ],
)
async def test_a_provision_denies_what_it_says_and_what_it_may_say(
    empty: Server, provision: Any, policy: str, who: Who, resource: Any, shown: bool
) -> None:
    """What a Consent denies is not shown; what cannot be judged is denied, and never permitted."""
    resource = {name: value for name, value in resource.items() if value is not None}
    assert _is_shown(empty, consent(provision, policy), who, resource) is shown


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        ({}, False),
        ({"status": "inactive"}, True),
        ({"status": "draft"}, True),
        ({"patient": {"reference": "Patient/b"}}, True),
        ({"scope": concept("consentscope|adr")}, True),
        ({"scope": concept("consentscope|treatment")}, True),
        ({"scope": concept("consentscope|research")}, True),
        ({"modifierExtension": [{"url": "urn:x"}]}, False),
    ],
)
async def test_a_consent_denies_while_it_is_active_and_about_data(
    empty: Server, more: Any, shown: bool
) -> None:
    """A Consent that is not in force, is about another patient or about something else denies
    nothing."""
    assert _is_shown(empty, consent(_DENY, **more), DOCTOR, _observation()) is shown


@pytest.mark.parametrize(
    ("action", "letter", "shown"),
    [
        ("access", "r", False),
        ("access", "u", False),
        ("correct", "r", True),
        ("correct", "u", False),
        ("disclose", "s", False),
    ],
)
async def test_to_correct_is_not_to_see(
    empty: Server, action: str, letter: str, shown: bool
) -> None:
    """Who may not correct may see; who may not see may not correct either."""
    given = consent({**_DENY, "action": [concept(f"consentaction|{action}")]})
    assert _is_shown(empty, given, DOCTOR, _observation(), letter) is shown


async def test_who_gave_the_consent_is_denied_nothing_unless_named(empty: Server) -> None:
    """The mother who consents for a child still sees; a father who is named does not."""
    mother = Who(frozenset(("RelatedPerson/m",)), frozenset(), "TREAT", True, True, True)
    given = consent(_DENY, performer=[{"reference": "RelatedPerson/m"}])
    row = row_of(given)
    assert row is not None
    assert row.exempt == ("Patient/a", "RelatedPerson/m")
    assert _is_shown(empty, given, mother, _observation(), exempt=True)
    named = consent({**_DENY, "actor": [actor("RelatedPerson/m")]})
    assert not _is_shown(empty, named, mother, _observation(), exempt=True)


# The examples of the specification (hl7.fhir.r4.examples, CC0), what they say of who and what.
_CST = actor("Organization/1", "v3-ParticipationType|CST")
_BOTH = [concept("consentaction|access"), concept("consentaction|correct")]
EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "basic": ("OPTIN", {"period": {"start": "1964-01-01", "end": "2030-01-01"}}),
    "Emergency": (
        "OPTOUT",
        {
            "actor": [_CST],
            "purpose": [coding("v3-ActReason|ETREAT")],
            "provision": [{"type": "deny", "actor": [_CST]}],
        },
    ),
    "grantor": (
        "OPTOUT",
        {"actor": [_CST, actor("Patient/example")], "action": [concept("consentaction|access")]},
    ),
    "notAuthor": ("OPTIN", {"actor": [_CST]}),
    "notOrg": ("OPTIN", {"type": "deny", "actor": [actor("Organization/1")], "action": _BOTH}),
    "notThem": ("OPTIN", {"actor": [actor("Practitioner/1")], "action": _BOTH}),
    "notThis": (
        "OPTIN",
        {"data": [{"meaning": "related", "reference": {"reference": "Task/example3"}}]},
    ),
    "notTime": ("OPTIN", {"period": {"start": "2015-01-01", "end": "2015-02-01"}}),
    "Out": ("OPTOUT", {"actor": [_CST]}),
    "pkb": (
        "OPTOUT",
        {
            "actor": [actor("Organization/1")],
            "action": [concept("consentaction|access")],
            "securityLabel": [coding(_N)],
            "provision": [{"actor": [actor("Organization/1")], "securityLabel": [coding(_N)]}],
        },
    ),
    "signature": (
        "OPTIN",
        {
            "period": {"start": "2015-10-10", "end": "2030-10-10"},
            "actor": [actor("Practitioner/1")],
            "provision": [{"type": "permit", "code": [concept("http://loinc.org|34133-9")]}],
        },
    ),
    "smartonfhir": (
        "OPTIN",
        {
            "period": {"start": "2016-06-23T17:02:33+10:00"},
            "provision": [{"type": "permit", "class": _OF_TYPE}],
        },
    ),
}


@pytest.mark.parametrize(
    ("name", "doctor", "somebody"),
    [
        ("basic", True, True),
        ("Emergency", False, False),
        ("grantor", False, False),
        ("notAuthor", False, False),
        ("notOrg", False, False),  # nobody knows where somebody works
        ("notThem", False, True),
        ("notThis", False, False),
        ("notTime", True, True),
        ("Out", False, False),
        ("pkb", False, False),
        ("signature", True, True),
        ("smartonfhir", True, True),
    ],
)
async def test_the_examples_of_the_specification(
    empty: Server, name: str, doctor: bool, somebody: bool
) -> None:
    """Each example of R4 denies what its narrative says, or more."""
    policy, provision = EXAMPLES[name]
    given = consent(provision, policy)
    assert _is_shown(empty, given, DOCTOR, _observation()) is doctor
    assert _is_shown(empty, given, SOMEBODY, _observation()) is somebody


_CONSTRAINTS = some.fixed_dictionaries(
    {},
    optional={
        "actor": some.lists(
            some.builds(
                actor,
                some.sampled_from(
                    ("Practitioner/1", "Practitioner/2", "Organization/1", "Group/1")
                ),
                some.sampled_from(
                    (
                        "v3-ParticipationType|PRCP",
                        "v3-ParticipationType|AUT",
                        "practitioner-role|nurse",
                    )
                ),
            ),
            min_size=1,
            max_size=2,
        ),
        "class": some.sampled_from((_OF_TYPE, _OTHER_TYPE)),
        "securityLabel": some.lists(
            some.sampled_from([coding(one) for one in (_HIV, _R, _N, _V)]), min_size=1, max_size=2
        ),
        "code": some.sampled_from(([concept(f"{LOINC}|8480-6")], [concept("|1"), {"text": "x"}])),
        "purpose": some.sampled_from(
            [[coding(f"v3-ActReason|{one}")] for one in [*sorted(KNOWN_PURPOSES)[:3], "TREAT"]]
        ),
        "dataPeriod": some.sampled_from(({"start": "2020"}, {"end": "2019"})),
        "period": some.sampled_from(({"start": "2020"}, {"end": "2019"})),
    },
)


def _typed(type: some.SearchStrategy[str], inner: some.SearchStrategy[Any]) -> Any:
    return some.builds(
        lambda type, rest, rules: {"type": type, **rest, **({"provision": rules} if rules else {})},
        type,
        _CONSTRAINTS,
        inner,
    )


_KINDS = some.sampled_from(("deny", "permit"))
_LEAVES = _typed(_KINDS, some.just([]))
_TREES = _typed(_KINDS, some.lists(_typed(_KINDS, some.lists(_LEAVES, max_size=2)), max_size=2))
_DENIALS = _typed(some.just("deny"), some.just([]))
_RESOURCES = some.sampled_from(
    (_observation(), _observation("1", _HIV), _observation("1-8", _V, effectiveDateTime="2018"))
)


@given(
    tree=_TREES,
    added=_DENIALS,
    place=some.integers(0, 5),
    policy=some.sampled_from(("OPTIN", "OPTOUT")),
    resource=_RESOURCES,
    who=some.sampled_from((DOCTOR, SOMEBODY, Who())),
)
async def test_a_further_denial_never_shows_more(
    empty: Server, tree: Any, added: Any, place: int, policy: str, resource: Any, who: Who
) -> None:
    """Wherever a provision that denies is added, nothing is shown that was not before."""
    before = _is_shown(empty, consent(tree, policy), who, resource)
    rules = tree.get("provision", [])
    if rules and place % 2:
        inner = rules[place % len(rules)]
        inner["provision"] = [*inner.get("provision", []), added]
    else:
        tree["provision"] = [*rules, added]
    assert before or not _is_shown(empty, consent(tree, policy), who, resource)


async def test_mongodb_judges_as_we_do(empty: Server) -> None:
    """What the predicates of all examples and provisions leave is the same in the database, where
    former versions have no keys."""
    resources = [
        _observation("8480-6", id="o1"),
        _observation("1-8", _HIV, id="o2"),
        _observation("2", _V, id="o3", effectiveDateTime="2018"),
        _observation(id="o4", contained=[{"resourceType": "Basic", "id": "b"}]),
    ]
    documents = list(_documents(empty, *resources))
    former = {**documents[0], "_id": {"id": "o1", "version": 1}}
    del former["keys"]
    table = empty.database["denied_documents"]
    await table.insert_many([*documents, former])
    fields = KeyFields(empty.context.parameters)
    constraints: list[dict[str, Any]] = [
        {"code": [concept(f"{LOINC}|8480-6")]},
        {"code": [concept("|8480-6")]},
        {"dataPeriod": {"end": "2019"}},
        {"securityLabel": [coding(_R)]},
        {"securityLabel": [coding(_N)]},
        {"securityLabel": [coding(_HIV)]},
        {"data": [{"meaning": "instance", "reference": {"reference": "Observation/o1"}}]},
        {"class": _OF_TYPE},
    ]
    try:
        for kind, policy in (("deny", "OPTIN"), ("permit", "OPTOUT")):
            for one in constraints:
                row = row_of(consent({"type": kind, **one}, policy))
                assert row is not None
                denials = [Denial(rule_in(row.rule), ("Patient/a",))]
                left = Denying(DOCTOR, NOW, fields, denials).taken("Observation", "r")
                found = [doc["_id"] async for doc in table.find(left, {"_id": 1})]
                ours = [doc["_id"] for doc in (*documents, former) if allows(left, doc)]
                assert found == ours, one
                if kind == "deny" and "securityLabel" not in one:
                    assert former["_id"] not in found, one
    finally:
        await table.drop()
