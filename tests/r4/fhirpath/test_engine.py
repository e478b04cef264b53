# http://hl7.org/fhirpath/N1/, https://hl7.org/fhir/R4/fhirpath.html
"""What the official suite does not ask: the R4 model, primitives, quantities, choices."""

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.fhirpath.engine import compiled
from fhir_server.r4.fhirpath.environment import Environment
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.model import Model, Node, Value, system
from tests.r4.fhirpath.conftest import Evaluate

UCUM = "http://unitsofmeasure.org"
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "active": True,
    "name": [
        {"given": ["Eve", None, "Ada"], "_given": [None, {"extension": [{"url": "http://x"}]}]},
        {"family": "Roy", "_family": {"id": "f"}},
    ],
    "birthDate": "1974-12",
    "_birthDate": {"extension": [{"url": "http://t", "valueDateTime": "1974-12-25T14:35:45Z"}]},
    "_gender": {"extension": [{"url": "http://hidden", "valueCode": "x"}]},
    "multipleBirthInteger": 2,
    "unknown": 1,
    "contained": [{"resourceType": "Device", "id": "d", "udiCarrier": [{"issuer": "x"}]}],
    "contact": [{"period": {"start": "2020"}}],
}
OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "valueQuantity": {"value": Decimal("5.40"), "system": UCUM, "code": "mg"},
    "component": [
        {"valueQuantity": {"value": 2, "unit": "drops"}},
        {"valueQuantity": {"value": 3, "unit": "drops"}},
        {"valueQuantity": {"value": 3, "unit": "drips"}},
        {"valueQuantity": {"value": 3, "comparator": "<", "system": UCUM, "code": "mg"}},
        {"valueSampledData": {"period": 1}},
        {"valueBoolean": False},
    ],
}
ON_PATIENT: dict[str, list[Any]] = {
    "Patient.name.given": ["Eve", None, "Ada"],
    "name.given.count()": [3],
    "name.given.where(hasValue())": ["Eve", "Ada"],
    "name.given[1].extension.url": ["http://x"],
    "name.given[1].hasValue()": [False],
    "name.family.id": ["f"],
    "gender.exists() and gender.hasValue().not()": [True],
    "gender.extension('http://hidden').value is code": [True],
    "gender = 'male'": [False],
    "birthDate.extension('http://t').value.toDate() = @1974-12-25": [True],
    "birthDate.getValue() is Date": [True],
    "birthDate is date": [True],
    "birthDate < @1975": [True],
    "birthDate = @1974-12-25": [],
    "multipleBirth": [2],
    "multipleBirth is integer": [True],
    "multipleBirth + 1": [3],
    "multipleBirthInteger": [],
    "unknown": [],
    "nothing.at.all": [],
    "active and true": [True],
    "active = true": [True],
    "id is id": [True],
    "Resource.id": ["p"],
    "DomainResource.contained.ofType(Device).udiCarrier.issuer": ["x"],
    "contained.ofType(DomainResource).id": ["d"],
    "contained is Device": [True],
    "contact is BackboneElement": [True],
    "contact is Element": [True],
    "contact.period.type().name": ["Period"],
    "children().where($this is boolean)": [True],
    "descendants().ofType(dateTime)": ["1974-12-25T14:35:45Z", "2020"],
    "name.select(given.first() | family).join('+')": ["Eve+Roy"],
    "name.where($index = 1).family": ["Roy"],
    "name.all(given.exists() or family.exists())": [True],
    "name.exists(family = 'Roy')": [True],
    "(name | name).count()": [2],
    "name.combine(name).distinct().count()": [2],
    "name.first() in name": [True],
    "name.first() = name.last()": [False],
    "name.first() ~ name.first()": [True],
    "iif(name.empty(), 1 / 0, 'x')": ["x"],
    "%resource.name.count() + %context.name.count() + %rootResource.name.count()": [6],
    "name.given.first().length()": [3],
}


def plain(values: list[Value]) -> list[Any]:
    """Return what is in the nodes."""
    return [one.value if isinstance(one, Node) else one for one in values]


@pytest.mark.parametrize(("text", "expected"), ON_PATIENT.items(), ids=ON_PATIENT)
def test_on_a_patient(text: str, expected: list[Any], evaluate: Evaluate) -> None:
    """Choices, primitives with extensions and without a value, types and their ancestors."""
    assert plain(evaluate(text, PATIENT)) == expected


QUANTITIES = {
    "value = 5.4 'mg'": [True],
    "value = 0.0054 'g'": [True],
    "value > 0.005 'g'": [True],
    "value = 5.4 'mL'": [False],
    "value > 1 'mL'": [],
    "component[0].value < component[1].value": [True],
    "component[0].value < component[2].value": [],
    "component[1].value = component[2].value": [False],
    "component[3].value > 1 'mg'": [],
    "value + 600 'ug' = 6 'mg'": [True],
    "value * 2 = 10.8 'mg'": [True],
    "value / 2 'mL' = 2.7 'mg/mL'": [True],
    "value.toQuantity('g') = 0.0054 'g'": [True],
    "component.value.ofType(boolean)": [False],
    "1 year = 12 months": [True],
    "1 year = 1 'a'": [],
    "1 year ~ 1 'a'": [True],
    "1 day = 24 hours": [True],
    "(5 'mg').toString()": ["5 'mg'"],
    "37 'Cel' = 310.15 'K'": [True],
}


@pytest.mark.parametrize(("text", "expected"), QUANTITIES.items(), ids=QUANTITIES)
def test_quantities(text: str, expected: list[Any], evaluate: Evaluate) -> None:
    """Units are converted; what has no common unit is not ordered."""
    assert plain(evaluate(text, OBSERVATION)) == expected


WRONG = {
    "1 + 'a'": "System.Integer",
    "(1 | 2) + 1": "2",
    "1 < 'a'": "no order",
    "true < false": "no order",
    "'a'.substring('b')": "integer",
    "1.length()": "string",
    "name.single()": "2 items",
    "name is HumanName": "one item",
    "1 is Nonsense": "no type",
    "1 is Intger": "no type",
    "@2020 + 1 'cm'": "calendar",
    "-'a'": "means nothing",
    "name in name": "single item",
    "name[name]": "one item",
    "(1 | 2).toString()": "one item",
}


@pytest.mark.parametrize(("text", "words"), WRONG.items(), ids=WRONG)
def test_what_means_nothing_is_refused(text: str, words: str, evaluate: Evaluate) -> None:
    """The sentence says what is wrong."""
    with pytest.raises(FhirPathError, match=words):
        evaluate(text, PATIENT)


def test_decimals_are_exact(evaluate: Evaluate) -> None:
    """Digits are kept, and do not count in a comparison."""
    assert [str(one) for one in evaluate("0.1 + 0.2")] == ["0.3"]
    assert [str(system(one)) for one in evaluate("value.value", OBSERVATION)] == ["5.40"]
    assert evaluate("1.0 = 1.00 and 1 = 1.0") == [True]


DIV = '<div xmlns="http://www.w3.org/1999/xhtml">'
NARRATIVES = {
    f"{DIV}text</div>": True,
    f'{DIV}<p><img src="#a" alt="a"/></p></div>': True,
    f"{DIV}<p> </p></div>": False,
    f"{DIV}<script>x</script></div>": False,
    "<div>text</div>": False,
    f"{DIV}text": False,
}


@pytest.mark.parametrize(("div", "expected"), NARRATIVES.items(), ids=NARRATIVES)
def test_narratives(div: str, expected: bool, model: Model) -> None:
    """txt-1 and txt-2 have one expression for both of their sentences."""
    narrative = model.node("Narrative", {"status": "generated", "div": div})

    assert compiled("`div`.htmlChecks()").test(narrative, Environment(model)) is expected


def test_what_is_given_is_the_callers(evaluate: Evaluate) -> None:
    """Values that are shared inside do not change with the list that the caller has."""
    for text in ("true", "1 | 2", "%ucum", "exists()"):
        before = evaluate(text)
        evaluate(text).append(7)
        assert evaluate(text) == before


def test_an_element_that_is_no_resource(model: Model) -> None:
    """Invariants are evaluated on data types as well."""
    name = model.node("HumanName", {"given": ["Eve"]})

    assert compiled("given.exists() and HumanName.given = 'Eve'").test(name, Environment(model))


BROKEN: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "value given name _given extension reference code system start".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
EXPRESSIONS = (
    *("name.given", "descendants().count()", "children().value", "name.exists(given = 'a')"),
    *("birthDate < @2020", "name.period.start <= name.period.end", "name | contact", "id & 'x'"),
    *("contained.resolve()", "maritalStatus.memberOf('v')", "extension('x').value.code"),
)


@given(
    st.dictionaries(
        st.sampled_from(
            "name contact birthDate _birthDate id contained extension maritalStatus".split()
        ),
        BROKEN,
    )
)
def test_any_json_is_walked(definitions: Definitions, json: dict[str, Any]) -> None:
    """What is evaluated need not be valid: a fault is one of the expression, no other."""
    model = Model(definitions)
    root = model.resource({**json, "resourceType": "Patient"})
    for text in EXPRESSIONS:
        with suppress(FhirPathError):
            compiled(text).evaluate(root, Environment(model, resource=root))
