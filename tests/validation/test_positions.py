"""Where in the text an expression is."""

import pytest

from fhir_server.validation.positions import position, positions

JSON = b"""{"resourceType": "Patient",
  "name": [
    {"family": "a\\"]}"},
    {"given": ["x", "y"]}
  ],
  "_birthDate": {"extension": [{"url": "u:v"}]},
  "deceasedBoolean": true
}"""
XML = b"""<Patient xmlns="http://hl7.org/fhir">
 <contained><Organization>
   <id value="1"/><name value="x"/></Organization></contained>
 <name><family value="a"/></name>
 <name>
  <given value="x"/><given value="y"/></name>
 <deceasedBoolean value="true"/>
</Patient>"""


@pytest.mark.parametrize(
    ("text", "expression", "expected"),
    [
        (JSON, "Patient", (1, 1)),
        (JSON, "Patient.name[0].family", (3, 6)),
        (JSON, "Patient.name[1].given[1]", (4, 21)),
        (JSON, "Patient.name[1].family", (4, 5)),
        (JSON, "Patient.birthDate.extension[0]", (6, 32)),
        (JSON, "Patient.deceased", (7, 3)),
        (JSON, "Patient.gender", (1, 1)),
        (XML, "Patient.name[1].given[1]", (6, 21)),
        (XML, "Patient.contained[0].name", (3, 19)),
        (XML, "Patient.deceased", (7, 2)),
        (b"[1", "Patient", None),
        (b"<a>", "Patient", None),
        (b"\xff", "Patient", None),
        (b"[" * 100_000, "Patient.a", None),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "Patient", None),
    ],
)
def test_positions(text: bytes, expression: str, expected: tuple[int, int] | None) -> None:
    """Line and column from 1; of what is missing, those of what is nearest above it."""
    assert position(text, expression) == expected
    assert positions(text, [expression, expression]) == [expected, expected]
