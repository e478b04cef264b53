"""design/cds.md, section 15, A17: what holds for every answer, whatever is sent."""

from typing import Any

import httpx
from hypothesis import HealthCheck, given
from hypothesis import settings as limits
from hypothesis import strategies as st

from fhir_server.features.cds.cards import Making, cards, overview
from fhir_server.features.cds.drug import KINDS, SEVERITIES, Finding, NotChecked
from fhir_server.features.cds.knowledge import Knowledge
from fhir_server.features.cds.request import HOOK_FIELDS
from fhir_server.features.cds.services import SERVICES
from fhir_server.validation.cards import cds_hooks_issues
from tests.conformance.cds_hooks.conftest import empties
from tests.features.cds.test_properties import KNOWLEDGE

REASONS = ("unknown-drug", "list-missing", "out-of-time", "provider-failed", "no-limit")
DRAFTS = tuple(f"MedicationRequest/n{n}" for n in range(3))
OTHERS = tuple(f"MedicationRequest/c{n}" for n in range(3))

# Long ones are short ones many times over: to draw each letter of them takes longer than to test.
words = st.builds(lambda text, times: text * times, st.text(max_size=6), st.integers(1, 60))
# Names as they are written: never empty, since an order without one is called by its id.
names = words.filter(lambda name: bool(name.strip()))
findings = st.lists(
    st.builds(
        Finding,
        kind=st.sampled_from(KINDS),
        severity=st.sampled_from(SEVERITIES),
        orders=st.lists(st.sampled_from(DRAFTS), min_size=1, max_size=2, unique=True).map(tuple),
        others=st.lists(st.sampled_from(OTHERS), max_size=2, unique=True).map(tuple),
        title=names,
        effect=names,
        mechanism=words,
        management=words,
        rule=st.sampled_from(("vka-nsaid", "x")),
        code=st.just("DRG"),
        evidence=st.lists(words, max_size=2).map(tuple),
        judged=words,
    ),
    max_size=4,
)
missing = st.lists(st.builds(NotChecked, names, st.sampled_from(REASONS), words), max_size=5)


@given(findings, missing, st.dictionaries(st.sampled_from((*DRAFTS, *OTHERS)), names), st.data())
@limits(max_examples=1000)
def test_every_card_is_one(
    found: list[Finding], lost: list[NotChecked], named: dict[str, str], data: st.DataObject
) -> None:
    """Summaries below 140 characters, nothing empty, every id another one, nothing missing that a
    card has to have; whatever the findings and the names are."""
    numbers = iter(range(10_000))
    making = Making(
        KNOWLEDGE,
        lambda: f"00000000-0000-4000-8000-{next(numbers):012}",
        {id: {"id": id} for id in DRAFTS},
        named,
        named,
        links={"vka-nsaid": "https://monographs.example.org"},
        with_evidence=data.draw(st.booleans()),
    )
    most = data.draw(st.integers(3, 10))
    for made in (cards(found, lost, making, cards_max=most), overview(found, lost, making)):
        answer = {"cards": [card.json for card in made]}
        assert [*cds_hooks_issues(answer)] == []
        assert empties(answer) in ([], [".cards"])
        assert all(0 < len(card.json["summary"]) < 140 for card in made)
        assert len({card.json["uuid"] for card in made}) == len(made) <= most
        assert bool(made) == bool(found or lost)


FIELDS = sorted({name for fields in HOOK_FIELDS.values() for name in fields})
MEMBERS = (
    *("resourceType", "id", "entry", "resource", "code", "coding", "text", "system", "status"),
    *("medicationCodeableConcept", "medicationReference", "reference", "contained", "ingredient"),
    *("dosageInstruction", "timing", "repeat", "frequency", "period", "periodUnit", "doseAndRate"),
    *("doseQuantity", "value", "unit", "birthDate", "gender", "valueQuantity", "reaction", "link"),
    *("dispenseRequest", "expectedSupplyDuration", "authoredOn", "effectiveDateTime", "url"),
)
VALUES = (
    *("MedicationRequest", "Medication", "Bundle", "Patient", "Observation", "OperationOutcome"),
    *("AllergyIntolerance", "warfarin", "naproxen", "active", "draft", "mg", "d", "2020-01-01"),
    *("29463-7", "2160-0", "MedicationRequest/a", "#a", "", "next"),
)
leaves: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(VALUES),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=4),
)
anythings: st.SearchStrategy[Any] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=3),
    ),
    max_leaves=8,
)
resources = st.dictionaries(st.sampled_from(MEMBERS), anythings, max_size=4).flatmap(
    lambda found: st.sampled_from(VALUES[:7]).map(lambda type: {**found, "resourceType": type})
)
bundles = st.lists(resources, max_size=2).map(
    lambda found: {"resourceType": "Bundle", "entry": [{"resource": one} for one in found]}
)
values = st.one_of(bundles, anythings)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[str, Any]:
    """Return the id of a service, and a body that is a request or nearly one."""
    kind = draw(st.sampled_from(SERVICES))
    context: dict[str, Any] = dict.fromkeys(HOOK_FIELDS[kind.hook], "p1")
    context |= draw(st.dictionaries(st.sampled_from(FIELDS), values, max_size=3))
    for name, type in HOOK_FIELDS[kind.hook].items():
        if type is not str and draw(st.booleans()):
            context[name] = draw(bundles if type is dict else st.lists(leaves, max_size=2))
    body = {
        "hook": kind.hook,
        "hookInstance": "1",
        "context": context,
        "prefetch": draw(st.dictionaries(st.sampled_from(sorted(kind.keys)), values, max_size=3)),
    }
    more = st.dictionaries(st.sampled_from(("extension", "context", "prefetch", "hook")), anythings)
    return kind.id, {**body, **draw(st.one_of(st.just({}), more))}


@given(bodies())
@limits(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_json_gets_an_answer(hooks: httpx.AsyncClient, sent: tuple[str, Any]) -> None:
    """Whatever is sent: cards that are well formed, or a refusal; never a failure of ours."""
    service, body = sent
    response = await hooks.post(f"/cds-services/{service}", json=body)

    assert response.status_code in (200, 400, 412), response.text
    answer = response.json()
    if response.status_code == 200:
        assert [*cds_hooks_issues(answer)] == []
        assert empties(answer) in ([], [".cards"])
    else:
        assert answer["resourceType"] == "OperationOutcome"


@given(anythings, st.sampled_from(("", "/feedback")))
@limits(max_examples=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_json_is_refused_if_it_is_no_request(
    hooks: httpx.AsyncClient, body: Any, path: str
) -> None:
    """A body that is nothing like a request: 400, and a sentence."""
    response = await hooks.post(f"/cds-services/drug-safety-sign{path}", json=body)

    assert response.status_code == 400, response.text
    assert response.json()["issue"][0]["diagnostics"]


def test_the_knowledge_is_the_shipped_one(knowledge: Knowledge) -> None:
    """The properties hold of what is shipped."""
    assert knowledge.version == KNOWLEDGE.version
