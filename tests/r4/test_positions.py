"""Lines and columns: https://hl7.org/fhir/R4/extension-operationoutcome-issue-line.html"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4 import positions as module
from fhir_server.r4.positions import positions

JSON = b"""{
  "resourceType": "Patient",
  "name": [
    {"family": "Rahman", "given": ["Amina", "B"]},
    {"family": "\xe0\xa6\x85", "_given": [{"id": "x"}], "use": "old"}
  ],
  "multipleBirthInteger": 3,
  "contact": [{"name": {"family": "X"}}]
}
"""
XML = b"""<Patient xmlns="http://hl7.org/fhir">
  <contained><Organization>
    <name value="A"/>
  </Organization></contained>
  <name><family value="Rahman"/>
    <given value="Amina"/><given value="B"/>
  </name>
  <multipleBirthInteger value="3"/>
</Patient>
"""
IN_JSON = {
    "Patient": (1, 1),
    "Patient.name": (4, 5),
    "Patient.name[0]": (4, 5),
    "Patient.name[0].given[1]": (4, 45),
    "Patient.name[1].family": (5, 6),
    "Patient.name[1].use": (5, 46),
    "Patient.name[1].given[0]": (5, 32),
    "Patient.name[1].period": (5, 5),
    "Patient.multipleBirth": (7, 3),
    "Patient.contact[0].name.family": (8, 25),
    "Patient.gender": (1, 1),
    "Patient.name.where(use = 'x')": (4, 5),
}
IN_XML = {
    "Patient": (1, 1),
    "Patient.contained[0].name": (3, 5),
    "Patient.name[0].family": (5, 9),
    "Patient.name[0].given[1]": (6, 27),
    "Patient.multipleBirth": (8, 3),
    "Patient.gender": (1, 1),
}


@pytest.mark.parametrize(("expression", "place"), IN_JSON.items(), ids=IN_JSON)
def test_places_in_json(expression: str, place: tuple[int, int]) -> None:
    """An element is where its member is; what is missing is where it would be."""
    assert positions(JSON, [expression])[expression] == place


@pytest.mark.parametrize(("expression", "place"), IN_XML.items(), ids=IN_XML)
def test_places_in_xml(expression: str, place: tuple[int, int]) -> None:
    """An element is where its tag begins."""
    assert positions(XML, [expression], is_xml=True)[expression] == place


def test_a_resource_inside_parameters() -> None:
    """The steps to a resource go before the expressions, which do not know of them."""
    text = b'{"parameter": [{"name": "a"},\n {"resource": {"name": [\n{"use": "x"}]}}]}'
    found = positions(text, ["Patient.name[0].use"], inside="parameter[1].resource")

    assert found == {"Patient.name[0].use": (3, 2)}


def test_nothing_is_looked_for_in_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit there are no places, and no work."""
    monkeypatch.setattr(module, "TEXT_BYTES_MAX", 10)

    assert positions(JSON, ["Patient"]) == {}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=15,
)


@given(VALUES, st.text(max_size=20))
def test_any_text_and_any_expression(value: Any, expression: str) -> None:
    """Whatever is in a text, and whatever is asked, there is an answer."""
    text = json.dumps({"a": value}, indent=1).encode()

    for one in positions(text, [expression, "Patient.a[0].b"]).values():
        assert min(one) >= 1
