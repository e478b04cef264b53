"""https://hl7.org/fhir/R4/validation.html

Each fault of the table is put into a valid resource, alone, and must be found where it is.
"""

import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.json import decode
from fhir_server.validation.explain import Explainer
from fhir_server.validation.structure import Schemas, StructureValidator

LOINC = "http://loinc.org"
NARRATIVE = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">A</div>'}
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
URL = "https://example.org/extension"

VALID: dict[str, dict[str, Any]] = {
    "Patient": {
        "resourceType": "Patient",
        "id": "a",
        "text": NARRATIVE,
        "identifier": [{"system": "urn:oid:1.2.3", "value": "1"}],
        "active": True,
        "name": [{"family": "Doe", "given": ["A", "B"], "_given": [None, {"id": "x"}]}],
        "gender": "male",
        "birthDate": "2000-02-29",
        "_birthDate": {"extension": [{"url": URL, "valueDateTime": "2000-02-29T10:00:00Z"}]},
        "deceasedBoolean": False,
        "multipleBirthInteger": 2,
        "contact": [{"gender": "female"}],
        "photo": [{"contentType": "image/png", "data": "QUJD", "size": 3}],
        "generalPractitioner": [{"reference": "Practitioner/1", "type": "Practitioner"}],
        "link": [{"other": {"reference": "Patient/2"}, "type": "seealso"}],
    },
    "Observation": {
        "resourceType": "Observation",
        "contained": [{"resourceType": "Patient", "id": "p"}],
        "extension": [{"url": URL, "extension": [{"url": "a", "valueInteger": 1}]}],
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": "15074-8"}]},
        "subject": {"reference": "#p"},
        "effectiveDateTime": "2020-01-01T10:00:00.5+06:00",
        "issued": "2020-01-01T10:00:00Z",
        "performer": [{"reference": "https://example.org/fhir/Practitioner/1/_history/2"}],
        "valueQuantity": {"value": Decimal("6.30"), "unit": "mmol/l", "code": "mmol/L"},
        "component": [{"code": {"text": "x"}, "valueString": "y"}],
    },
    "Condition": {
        "resourceType": "Condition",
        "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active"}]},
        "subject": {"reference": "urn:uuid:8c7e2a2e-0000-4000-8000-000000000000"},
    },
    "Bundle": {
        "resourceType": "Bundle",
        "type": "collection",
        "total": 1,
        "entry": [
            {
                "fullUrl": "urn:uuid:1",
                "resource": {
                    "resourceType": "Group",
                    "type": "person",
                    "actual": True,
                    "member": [{"entity": {"reference": "Patient/1"}}],
                },
            },
        ],
    },
    "Parameters": {
        "resourceType": "Parameters",
        "parameter": [
            {
                "name": "a",
                "part": [
                    {"name": "b", "resource": {"resourceType": "Basic", "code": {"text": "x"}}}
                ],
            },
            {"name": "c", "valueOid": "urn:oid:1.2"},
        ],
    },
    "MeasureReport": {
        "resourceType": "MeasureReport",
        "status": "complete",
        "type": "summary",
        "measure": "https://example.org/Measure/1|2",
        "period": {"start": "2020", "end": "2020-12"},
    },
}

ABSENT = object()
Fault = tuple[str, str, Any, str, str]
"""Type, place as member names and indexes, what is put there, issue code, expression."""

FAULTS: dict[str, Fault] = {
    # https://hl7.org/fhir/R4/json.html
    "unknown element": ("Patient", "nmae", "x", "structure", "Patient.nmae"),
    "unknown element below": ("Patient", "name.0.first", "x", "structure", "Patient.name[0].first"),
    "comments of DSTU2": ("Patient", "fhir_comments", ["x"], "structure", "Patient.fhir_comments"),
    "type of no choice": ("Observation", "valueMoney", {}, "structure", "Observation.valueMoney"),
    "resourceType inside": ("Patient", "name.0.resourceType", "HumanName", "structure",
                            "Patient.name[0].resourceType"),
    "sibling of no primitive": ("Patient", "_name", [{}], "structure", "Patient._name"),
    "object for array": ("Patient", "name", {"family": "x"}, "structure", "Patient.name"),
    "array for object": ("Observation", "code", [{"text": "x"}], "structure", "Observation.code"),
    "array for string": ("Patient", "gender", ["male"], "structure", "Patient.gender"),
    "string for array": ("Patient", "name.0.given", "A", "structure", "Patient.name[0].given"),
    "string for object": ("Observation", "code", "x", "structure", "Observation.code"),
    "string in array": ("Patient", "name.0", "Doe", "structure", "Patient.name[0]"),
    "object for string": ("Patient", "birthDate", {}, "structure", "Patient.birthDate"),
    "string for boolean": ("Patient", "active", "true", "structure", "Patient.active"),
    "number for boolean": ("Patient", "active", 1, "structure", "Patient.active"),
    "boolean for integer": ("Patient", "multipleBirthInteger", True, "structure",
                            "Patient.multipleBirth"),
    "string for integer": ("Bundle", "total", "1", "structure", "Bundle.total"),
    "fraction for integer": ("Patient", "multipleBirthInteger", Decimal("1.0"), "structure",
                             "Patient.multipleBirth"),
    "string for decimal": ("Observation", "valueQuantity.value", "6.3", "structure",
                           "Observation.value.value"),
    "boolean for decimal": ("Observation", "valueQuantity.value", True, "structure",
                            "Observation.value.value"),
    "number for string": ("Patient", "name.0.family", 1, "structure", "Patient.name[0].family"),
    "null": ("Patient", "gender", None, "structure", "Patient.gender"),
    "null for array": ("Patient", "name", None, "structure", "Patient.name"),
    "null in array": ("Patient", "name.0.given.0", None, "structure", "Patient.name[0].given[0]"),
    "null among objects": ("Patient", "name.0", None, "structure", "Patient.name[0]"),
    "empty array": ("Patient", "name", [], "structure", "Patient.name"),
    "empty object": ("Patient", "name.0", {}, "structure", "Patient.name[0]"),
    "empty string": ("Patient", "name.0.family", "", "value", "Patient.name[0].family"),
    "only an id": ("Patient", "name.0", {"id": "x"}, "invariant", "Patient.name[0]"),
    "sibling is a string": ("Patient", "_birthDate", "x", "structure", "Patient.birthDate"),
    "sibling is empty": ("Patient", "_birthDate", {}, "structure", "Patient.birthDate"),
    "sibling of another length": ("Patient", "name.0._given", [None], "structure",
                                  "Patient.name[0].given"),
    "sibling without a value says nothing": ("Patient", "_language", {"id": "x"}, "invariant",
                                             "Patient.language"),
    # cardinality and choice
    "missing": ("Observation", "status", ABSENT, "required", "Observation"),
    "missing below": ("Patient", "link.0.type", ABSENT, "required", "Patient.link[0]"),
    "missing in an entry": ("Bundle", "entry.0.resource.actual", ABSENT, "required",
                            "Bundle.entry[0].resource"),
    "two types of a choice": ("Observation", "valueString", "x", "structure", "Observation.value"),
    "two types, one a sibling": ("Patient", "_deceasedDateTime", {"extension": [
        {"url": URL, "valueCode": "x"}]}, "structure", "Patient.deceased"),
    # https://hl7.org/fhir/R4/datatypes.html
    "31 February": ("Patient", "birthDate", "2001-02-31", "value", "Patient.birthDate"),
    "29 February of no leap year": ("Patient", "birthDate", "1900-02-29", "value",
                                    "Patient.birthDate"),
    "31 April": ("Observation", "effectiveDateTime", "2020-04-31", "value",
                 "Observation.effective"),
    "date with a time": ("Patient", "birthDate", "2001-02-03T00:00:00Z", "value",
                         "Patient.birthDate"),
    "day before month": ("Patient", "birthDate", "31-01-2001", "value", "Patient.birthDate"),
    "time without zone": ("Observation", "effectiveDateTime", "2020-01-01T10:00:00", "value",
                          "Observation.effective"),
    "time without seconds": ("Observation", "effectiveDateTime", "2020-01-01T10:00Z", "value",
                             "Observation.effective"),
    "instant of a day": ("Observation", "issued", "2020-01-01", "value", "Observation.issued"),
    "control character": ("Patient", "name.0.family", "a\x01", "value", "Patient.name[0].family"),
    "half a surrogate pair": ("Patient", "name.0.family", "\ud800", "value",
                              "Patient.name[0].family"),
    "string too long": ("Patient", "name.0.family", "a" * 1048577, "value",
                        "Patient.name[0].family"),
    "code with a blank": ("Patient", "photo.0.contentType", "image/png ", "value",
                          "Patient.photo[0].contentType"),
    "id with a blank": ("Patient", "id", "a b", "value", "Patient.id"),
    "id too long": ("Patient", "id", "a" * 65, "value", "Patient.id"),
    "uri with a blank": ("Patient", "identifier.0.system", "urn:a b", "value",
                         "Patient.identifier[0].system"),
    "uri without urn:": ("Patient", "identifier.0.system", "oid:1.2.3", "value",
                         "Patient.identifier[0].system"),
    "oid of letters": ("Parameters", "parameter.1.valueOid", "urn:oid:a", "value",
                       "Parameters.parameter[1].value"),
    "unsigned below zero": ("Bundle", "total", -1, "value", "Bundle.total"),
    "more than 32 bits": ("Patient", "multipleBirthInteger", 2**31, "value",
                          "Patient.multipleBirth"),
    "no base64": ("Patient", "photo.0.data", "QUJ", "value", "Patient.photo[0].data"),
    "padding in base64": ("Patient", "photo.0.data", "QQ==QUJD", "value", "Patient.photo[0].data"),
    # https://hl7.org/fhir/R4/terminologies.html#required
    "code of no value set": ("Patient", "gender", "mael", "code-invalid", "Patient.gender"),
    "code in capitals": ("Patient", "gender", "Male", "code-invalid", "Patient.gender"),
    "concept of no value set": ("Condition", "clinicalStatus.coding.0.code", "aktive",
                                "code-invalid", "Condition.clinicalStatus"),
    "concept of another system": ("Condition", "clinicalStatus.coding.0.system", LOINC,
                                  "code-invalid", "Condition.clinicalStatus"),
    "concept of text only": ("Condition", "clinicalStatus", {"text": "active"}, "code-invalid",
                             "Condition.clinicalStatus"),
    # https://hl7.org/fhir/R4/references.html
    "reference to another type": ("Patient", "link.0.other.reference", "Group/1", "value",
                                  "Patient.link[0].other.reference"),
    "absolute reference to another type": (
        "Patient", "link.0.other.reference", "https://example.org/fhir/Group/1", "value",
        "Patient.link[0].other.reference"),
    "conditional reference to another type": (
        "Patient", "link.0.other.reference", "Group?identifier=1", "value",
        "Patient.link[0].other.reference"),
    "versioned reference to another type": (
        "Bundle", "entry.0.resource.member.0.entity.reference", "Task/1/_history/2", "value",
        "Bundle.entry[0].resource.member[0].entity.reference"),
    "reference to no type": ("Patient", "link.0.other.reference", "Patent/1", "value",
                             "Patient.link[0].other.reference"),
    "reference that is empty": ("Patient", "link.0.other.reference", "", "value",
                                "Patient.link[0].other.reference"),
    "type against the reference": ("Patient", "generalPractitioner.0.type", "Organization",
                                   "value", "Patient.generalPractitioner[0].type"),
    "type that is not allowed": ("Patient", "generalPractitioner.0", {"type": "Group"}, "value",
                                 "Patient.generalPractitioner[0].type"),
    "fragment of nothing": ("Observation", "subject.reference", "#q", "value",
                            "Observation.subject.reference"),
    "fragment without contained": ("Patient", "link.0.other.reference", "#q", "value",
                                   "Patient.link[0].other.reference"),
    "fragment of another type": ("Observation", "performer.0.reference", "#", "value",
                                 "Observation.performer[0].reference"),
    # https://hl7.org/fhir/R4/references.html#contained
    "contained without id": ("Observation", "contained.0.id", ABSENT, "required",
                             "Observation.contained[0]"),
    "contained in contained": ("Observation", "contained.0.contained", [
        {"resourceType": "Patient", "id": "q"}], "invariant",
        "Observation.contained[0].contained"),
    "contained twice": ("Observation", "contained", [
        {"resourceType": "Patient", "id": "p"}, {"resourceType": "Patient", "id": "p"}],
        "invariant", "Observation.contained[1]"),
    "contained of a wrong shape": ("Observation", "contained.0.active", "yes", "structure",
                                   "Observation.contained[0].active"),
    "contained of no type": ("Observation", "contained.0.resourceType", ABSENT, "required",
                             "Observation.contained[0]"),
    "entry of an unknown type": ("Bundle", "entry.0.resource.resourceType", "Groop", "value",
                                 "Bundle.entry[0].resource"),
    "parameter of a wrong shape": (
        "Parameters", "parameter.0.part.0.resource.code.text", 1, "structure",
        "Parameters.parameter[0].part[0].resource.code.text"),
    # https://hl7.org/fhir/R4/extensibility.html#Extension
    "extension without url": ("Observation", "extension.0.url", ABSENT, "required",
                              "Observation.extension[0]"),
    "extension of nothing": ("Observation", "extension.0.extension", ABSENT, "invariant",
                             "Observation.extension[0]"),
    "extension of both": ("Observation", "extension.0.valueString", "x", "invariant",
                          "Observation.extension[0]"),
    "extension of two values": ("Observation", "extension.0", {
        "url": URL, "valueString": "x", "valueCode": "y"}, "structure",
        "Observation.extension[0].value"),
    "extension of a sibling": ("Patient", "_birthDate.extension.0.valueDateTime", "x", "value",
                               "Patient.birthDate.extension[0].value"),
    # https://hl7.org/fhir/R4/narrative.html#rules
    "script in the narrative": (
        "Patient", "text.div", '<div xmlns="http://www.w3.org/1999/xhtml"><script/></div>',
        "invariant", "Patient.text.div"),
}  # fmt: skip


def with_fault(resource: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    """Return a copy of ``resource`` with ``value`` at ``place``, or without what is there."""
    changed = copy.deepcopy(resource)
    *way, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    at: Any = changed
    for step in way:
        at = at[step]
    if value is ABSENT:
        del at[last]
    else:
        at[last] = value
    return changed


@pytest.mark.parametrize("type", VALID)
def test_what_the_table_starts_from_is_valid(validator: StructureValidator, type: str) -> None:
    """The resources that the faults are put into have none of their own."""
    assert validator.issues(VALID[type]) == ()
    assert validator.is_valid(VALID[type])


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found_where_it_is(validator: StructureValidator, fault: Fault) -> None:
    """One fault in a valid resource is refused, with its code and its FHIRPath."""
    type, place, value, code, expression = fault
    resource = with_fault(VALID[type], place, value)
    issues = validator.issues(resource)

    assert (issues[0].code, issues[0].expression) == (code, expression)
    assert not validator.is_valid(resource)


def test_a_slip_of_the_pen_is_answered_with_what_was_meant(validator: StructureValidator) -> None:
    """Unknown names and codes come with the nearest known one."""
    resource = {"resourceType": "Patient", "brithDate": "2000", "gender": "femal"}
    first, second = validator.issues(resource)

    assert "Did you mean birthDate" in first.diagnostics
    assert "Did you mean female" in second.diagnostics


def test_all_issues_are_reported_in_document_order(validator: StructureValidator) -> None:
    """Several faults give as many issues, in the order of the document, up to the limit."""
    resource = {
        "resourceType": "Patient",
        "gender": "x",
        "foo": 1,
        "name": [{"given": []}, {"use": "y"}],
        "link": [{}],
    }
    expressions = [issue.expression for issue in validator.issues(resource)]

    assert expressions == [
        "Patient.gender",
        "Patient.foo",
        "Patient.name[0].given",
        "Patient.name[1].use",
        *["Patient.link[0]"] * 3,
    ]
    assert validator.issues(resource) == validator.issues(resource)
    assert len(validator.issues(resource, issues_max=2)) == 2


NO_RESOURCES: tuple[Any, ...] = (
    *({}, {"resourceType": None}, {"resourceType": "Patent"}, {"resourceType": "DomainResource"}),
    *([], None, "x"),
)


@pytest.mark.parametrize("resource", NO_RESOURCES, ids=repr)
def test_what_is_no_resource_is_one_issue(validator: StructureValidator, resource: Any) -> None:
    """Without the name of a resource type there is nothing else to check."""
    assert len(validator.issues(resource)) == 1


def test_what_the_decoder_gives_for_one_to_the_second_is_a_decimal(
    validator: StructureValidator,
) -> None:
    """A decimal in an unusual notation is a subclass of Decimal, and as valid as another."""
    text = b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":'

    assert validator.is_valid(decode(text + b'{"value":1e2}}'))
    assert not validator.is_valid(decode(text.replace(b"Quantity", b"Integer") + b"1e2}"))


def test_every_type_compiles(definitions: Definitions, validator: StructureValidator) -> None:
    """An empty resource of each of the 146 types is judged by both paths without an exception."""
    for type in definitions.resource_types:
        issues = validator.issues({"resourceType": type})
        assert {issue.code for issue in issues} <= {"required"}
    assert len(definitions.resource_types) == 146


def test_nesting_without_end_is_an_issue(validator: StructureValidator) -> None:
    """What is deeper than any recursion can follow is refused, wherever it stands."""
    extension: dict[str, Any] = {"url": URL, "valueString": "x"}
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "collection"}
    for _ in range(100_000):
        extension = {"url": URL, "extension": [extension]}
        bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": bundle}]}
    basic = {"resourceType": "Basic", "code": {"text": "x"}}
    resources: list[Any] = [
        {**basic, "extension": [extension]},
        {**basic, "foo": extension},
        {**basic, "resourceType": extension},
        bundle,
    ]

    assert all(len(validator.issues(resource)) == 1 for resource in resources)


def test_numbers_without_end_are_issues(validator: StructureValidator) -> None:
    """A number that Python itself would not write is refused like any other."""
    resource = with_fault(VALID["Patient"], "multipleBirthInteger", 10**5000)

    assert "bits" in validator.issues(resource)[0].diagnostics


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.decimals() | st.floats()
    | st.text(st.characters(), max_size=8) | st.sampled_from(["#", "#p", "Patient/1", "2020-02-30"])
)  # fmt: skip
NAMES = st.text(max_size=4) | st.sampled_from(
    "id url extension valueString _value coding contained reference div resourceType".split()
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
PLACES = sorted({(type, place) for type, place, *_ in FAULTS.values()})


@settings(max_examples=800)
@given(place=st.sampled_from(PLACES), value=JSON)
def test_nothing_raises(
    validator: StructureValidator,
    schemas: Schemas,
    explainer: Explainer,
    place: tuple[str, str],
    value: Any,
) -> None:
    """Whatever stands under an element, the answer is issues, and no path contradicts the other."""
    resource = with_fault(VALID[place[0]], place[1], value)

    assert isinstance(validator.issues(resource), tuple)
    assert not schemas.passes(resource) or list(explainer.issues(resource)) == []


@settings(max_examples=300)
@given(st.sampled_from(sorted(VALID)), st.dictionaries(NAMES, JSON, max_size=4))
def test_nothing_raises_for_any_members(
    validator: StructureValidator, type: str, members: dict[str, Any]
) -> None:
    """Any members beside the resourceType give issues, never an exception."""
    assert isinstance(validator.issues({**members, "resourceType": type}), tuple)


@pytest.mark.parametrize(
    ("subject", "quick", "valid"),
    [
        ({"type": "Patient", "identifier": {"value": "1"}}, True, True),
        ({"type": "Patient", "reference": "Patient/1"}, True, True),
        ({"type": "Patient", "reference": "https://x.org/fhir/Patient/1/_history/2"}, True, True),
        ({"type": "Patient", "reference": "urn:uuid:05efabf0-4be2-4561"}, False, True),
        ({"type": "Patient", "reference": "Group/1"}, False, False),
        ({"type": "Patient", "reference": "https://x.org/fhir/Group/1"}, False, False),
        ({"type": "Medication", "display": "x"}, False, False),
        ({"type": "Patient", "reference": "Patient/"}, False, False),
        ({"type": "Patient", "reference": 1}, False, False),
    ],
)  # fmt: skip
def test_the_type_of_a_reference(
    schemas: Schemas, explainer: Explainer, subject: dict[str, Any], quick: bool, valid: bool
) -> None:
    """A reference with its type, as all of those by a number alone, is judged by the hot path."""
    resource = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": subject,
    }

    assert schemas.passes(resource) is quick
    assert (not list(explainer.issues(resource))) is valid
