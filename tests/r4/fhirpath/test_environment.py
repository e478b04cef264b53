# https://hl7.org/fhir/R4/fhirpath.html
"""What an evaluation may cost, and what it asks for."""

from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_server.r4.fhirpath.engine import compiled
from fhir_server.r4.fhirpath.environment import Environment
from fhir_server.r4.fhirpath.faults import FhirPathError, TooCostly
from fhir_server.r4.fhirpath.model import Model, Node
from fhir_server.r4.questions import Canonical, Coded, CodeInValueSet, Target
from tests.r4.fhirpath.conftest import Evaluate

STEPS = 20_000
DOUBLING = "'abcdefgh'" + ".select($this + $this)" * 40
NAMES = [{"given": [f"name {number}" for number in range(30)]} for _ in range(30)]
PATIENT: dict[str, Any] = {"resourceType": "Patient", "name": NAMES}
_LONG = "'aaaaaaaaaaaaaaaaaaaa'" + ".replace('a', 'aaaaaaaaaaaaaaaaaaaa')" * 2
COSTLY = {
    "a string that doubles": DOUBLING,
    "a collection that doubles": "1" + ".combine($this)" * 3 + ".select($this.combine(2))" * 30,
    "a collection of itself": "name.given.select(%context.name.given.select(%context.name.given))",
    "what is repeated without an end": "1.repeat($this + 1)",
    "what grows as it is repeated": "'a'.repeat($this + 'a')",
    "a condition on everything, on everything": (
        "descendants().where(%context.descendants().where($this = 'x').exists())"
    ),
    "a string of many matches": "name.given.join('').replaceMatches('[a-z ]', 'x')",
    "everything compared": "descendants().select(%context).distinct()",
    "everything equal": "descendants().where(%context = %resource)",
    "a string of substitutions": "'aaaaaaaaaaaaaaaaaaaa'" + ".replace('a', 'aaaaaaaaaa')" * 9,
    "a string of patterns": "'aaaaaaaaaaaaaaaaaaaa'" + ".replaceMatches('a', 'aaaaaaaaaa')" * 9,
    "a string that is joined": (
        "name.given.select(%resource.name.given).join('a long text to stand between them')"
    ),
    "everything sorted": "name.given.select(%resource.name.given).sort($this)",
    "everything made distinct": "name.select(%resource.descendants()).distinct()",
    "encoding of encoding": "'abcdefghijklmnop'" + ".encode('hex')" * 40,
    "a pattern that unrolls": _LONG + ".matches('(a?){1,400}b')",
    "a whole pattern that unrolls": _LONG + ".matchesFull('(a?){1,400}b')",
    "a replaced pattern that looks to the end each time": _LONG + ".replaceMatches('a*b|a', '')",
    "a pattern of its own for each": "1.repeat($this + 1).where('a'.matches('b' + toString()))",
    "escapes of escapes": "'\\\\\\\\\\\\'" + ".escape('json')" * 40,
}


@pytest.mark.parametrize("text", COSTLY.values(), ids=COSTLY)
def test_what_costs_too_much_is_stopped(text: str, evaluate: Evaluate) -> None:
    """By steps or by characters, and the limit is in the sentence."""
    with pytest.raises(TooCostly, match=r"more than [0-9,]+ (steps|characters)"):
        evaluate(text, PATIENT, steps_max=STEPS)


CHEAP = {
    "10.power(400)": [],
    "2.power(31)": [],
    "2147483647 + 1": [],
    "(10.0).power(900)": None,
    "(10.0).power(900) * (10.0).power(900) * 10.0.power(900)": None,
    "1000.exp()": None,
    "1000000.exp()": [],
    "(10.0).power(400).toString().length()": [401],
    "(10.0).power(400).floor()": [],
    "1 / 0": [],
    "1.0 mod 0": [],
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!'.matches('^(a+)+$')": [False],
    "(-1).sqrt()": [],
    "1 = 1" + " = true" * 2000: [True],
    "true" + " and true or false" * 1000: [True],
    "a" + ".a" * 5000: [],
    "1" + " + 1" * 3000: [3001],
    "(" * 45 + "1" + ")" * 45: [1],
    "1.select(" * 45 + "$this" + ")" * 45: [1],
}


@pytest.mark.parametrize(("text", "expected"), CHEAP.items(), ids=lambda text: str(text)[:40])
def test_what_is_large_or_long_is_done(
    text: str, expected: list[Any] | None, evaluate: Evaluate
) -> None:
    """What overflows is nothing; long chains need no deep stack."""
    found = evaluate(text, steps_max=STEPS)

    assert expected is None or found == expected


@pytest.mark.parametrize("pattern", ["(", "a{1,1001}", "(?=a)", "\\\\1", "a" * 2001])
def test_what_is_no_pattern_is_refused(pattern: str, evaluate: Evaluate) -> None:
    """RE2 has no look-around, and bounds its repetitions."""
    with pytest.raises(FhirPathError, match="pattern"):
        evaluate(f"'a'.matches('{pattern}')")


def test_steps_of_contained_resources_are_not_multiplied(model: Model) -> None:
    """dom-3 looks through the whole resource for each contained one: once is enough."""
    text = (
        "contained.where(('#' + id in (%resource.descendants().reference"
        " | %resource.descendants().as(uri))).not()).empty()"
    )
    counts = []
    for count in (100, 200):
        root = model.resource(_with_contained(count))
        environment = Environment(model, resource=root, steps_max=10_000_000)
        counts.append(_steps(text, root, environment))

    assert counts[1] < 2.5 * counts[0]


def _with_contained(count: int) -> dict[str, Any]:
    return {
        "resourceType": "List",
        "contained": [{"resourceType": "Device", "id": f"d{at}"} for at in range(count)],
        "entry": [{"item": {"reference": f"#d{at}"}} for at in range(count)],
    }


def _steps(text: str, root: Node, environment: Environment) -> int:
    """Return the least number of steps that ``text`` takes, to within a hundred."""
    low, high = 0, 1_000_000
    while high - low > 100:
        environment.steps_max = (low + high) // 2
        environment.memo.clear()
        try:
            assert compiled(text).test(root, environment)
            high = environment.steps_max
        except TooCostly:
            low = environment.steps_max
    return high


# ---------------------------------------------------------------------------------- what is asked

OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "contained": [{"resourceType": "Device", "id": "d"}],
    "subject": {"reference": "Patient/1"},
    "device": {"reference": "#d"},
    "code": {"coding": [{"system": "http://loinc.org", "code": "1-8"}]},
    "valueCodeableConcept": {"coding": [{"code": "x"}]},
}


def test_a_reference_is_asked_for_once(model: Model) -> None:
    """Unknown, known, and known to lead nowhere."""
    root = model.resource(OBSERVATION)
    environment = Environment(model, resource=root)
    text = compiled("subject.resolve().birthDate")

    assert text.evaluate(root, environment) == []
    assert environment.asked == {Target("Patient/1")}
    patient = {"resourceType": "Patient", "birthDate": "2020-01-02"}
    environment = Environment(model, resource=root, known={Target("Patient/1"): patient})
    assert [one.value for one in text.evaluate(root, environment) if isinstance(one, Node)] == [
        "2020-01-02"
    ]
    assert environment.asked == set()
    environment = Environment(model, resource=root, known={Target("Patient/1"): None})
    assert text.evaluate(root, environment) == []
    assert environment.asked == set()


def test_what_is_contained_is_not_asked_for(evaluate: Evaluate) -> None:
    """A fragment is found in the resource around."""
    asked: set[Any] = set()

    assert evaluate("device.resolve() is Device", OBSERVATION, asked=asked) == [True]
    assert evaluate("'#'.resolve() is Observation", OBSERVATION, asked=asked) == [True]
    assert evaluate("'#nobody'.resolve()", OBSERVATION, asked=asked) == []
    assert asked == set()


def test_what_is_in_the_bundle_is_not_asked_for(model: Model) -> None:
    """By full url, by urn, and by type and id."""
    bundle = {
        "resourceType": "Bundle",
        "entry": [
            {"fullUrl": "http://x/fhir/Patient/1", "resource": {"resourceType": "Patient"}},
            {"fullUrl": "urn:uuid:2", "resource": {"resourceType": "Device"}},
            {"fullUrl": "http://x/fhir/Observation/3", "resource": OBSERVATION},
        ],
    }
    root = model.resource(bundle)
    observation = model.resource(OBSERVATION)
    environment = Environment(model, resource=observation, root_resource=root)

    for text in (
        "subject.resolve() is Patient",
        "'urn:uuid:2'.resolve() is Device",
        "'http://x/fhir/Patient/1'.resolve() is Patient",
    ):
        assert compiled(text).test(observation, environment)
    assert environment.asked == set()


URL = "http://x/ValueSet/v"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(Coded(True), [True]), (Coded(False, "no"), [False]), (Coded(None, "not here"), [])],
)
def test_a_code_is_asked_for(answer: Coded, expected: list[bool], evaluate: Evaluate) -> None:
    """The answer may be that nothing is known of it."""
    question = CodeInValueSet(URL, "http://loinc.org", "1-8")
    asked: set[Any] = set()
    text = f"code.memberOf('{URL}')"

    assert evaluate(text, OBSERVATION, asked=asked) == []
    assert asked == {question}
    assert evaluate(text, OBSERVATION, known={question: answer}) == expected


def test_a_profile_is_asked_for_or_judged(evaluate: Evaluate) -> None:
    """Types of the specification are known without asking."""
    asked: set[Any] = set()
    url = "http://x/StructureDefinition/p"
    base = "http://hl7.org/fhir/StructureDefinition/"

    assert evaluate(f"conformsTo('{url}')", OBSERVATION, asked=asked) == []
    assert asked == {Canonical("StructureDefinition", url)}
    judged = evaluate(f"conformsTo('{url}')", OBSERVATION, conforms=lambda node, url: True)
    assert judged == [True]
    assert evaluate(f"conformsTo('{base}DomainResource')", OBSERVATION) == [True]
    assert evaluate(f"conformsTo('{base}Patient')", OBSERVATION) == [False]


def test_codes_of_loaded_systems_are_subsumed(evaluate: Evaluate) -> None:
    """In both directions, by the hierarchy of the system."""
    system = "http://terminology.hl7.org/CodeSystem/condition-clinical"
    condition = {
        "resourceType": "Condition",
        "clinicalStatus": {"coding": [{"system": system, "code": "active"}]},
        "stage": [{"type": {"coding": [{"system": system, "code": "relapse"}]}}],
    }

    assert evaluate("clinicalStatus.subsumes(stage.type)", condition) == [True]
    assert evaluate("stage.type.subsumes(clinicalStatus)", condition) == [False]
    assert evaluate("stage.type.subsumedBy(clinicalStatus)", condition) == [True]


def test_there_is_no_clock_but_the_given_one(model: Model, evaluate: Evaluate) -> None:
    """Without it, the time is not known."""
    assert evaluate("now().toString()") == ["2024-02-29T13:05:30.250Z"]
    assert evaluate("today() = @2024-02-29 and timeOfDay() = @T13:05:30.250") == [True]
    with pytest.raises(FhirPathError, match=r"now\(\)"):
        compiled("now()").evaluate([], Environment(model))
    later = Environment(model, now=datetime(2025, 1, 1, tzinfo=UTC))
    assert compiled("now() > @2024-12-31").test([], later)


def test_variables(model: Model, evaluate: Evaluate) -> None:
    """Those of the specification, and those that the caller gives."""
    assert evaluate("%x + %`y z`", variables={"x": [1], "y z": [2]}) == [3]
    assert evaluate("%`ext-a`") == ["http://hl7.org/fhir/StructureDefinition/a"]
    with pytest.raises(FhirPathError, match="%nobody"):
        evaluate("%nobody")


def test_what_is_traced_is_told(evaluate: Evaluate) -> None:
    """With the projection, where there is one."""
    told: list[tuple[str, list[Any]]] = []

    evaluate(
        "(1 | 2).trace('n', $this + 1)", trace=lambda name, values: told.append((name, values))
    )

    assert told == [("n", [2, 3])]
