"""https://hl7.org/fhir/R4/fhirpatch.html"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.patch.bounds import Bounds
from fhir_server.patch.fhirpath_patch import operations, patched
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.json import canonical, decode, encode
from tests.conftest import SHARED

BOUNDS = Bounds(operations_max=1000, bytes_max=6_291_456, depth_max=100)


def shared_cases() -> list[Any]:
    """Return the cases of HL7's fhir-test-cases."""
    file = SHARED / "fhir-patch" / "cases.json"
    found = json.loads(file.read_text("utf-8")) if file.is_file() else []
    return [pytest.param(case, id=case["name"]) for case in found]


@pytest.mark.parametrize("case", shared_cases())
def test_shared_case(definitions: Definitions, case: dict[str, Any]) -> None:
    """Every case of HL7, forwards."""
    if case["error"]:
        with pytest.raises(FhirError) as refused:
            apply(definitions, case["input"], case["diff"])
        assert refused.value.status == 422
    else:
        assert apply(definitions, case["input"], case["diff"]) == case["output"]


def apply(definitions: Definitions, resource: Any, parameters: Any) -> Any:
    """Return what the FHIRPath Patch ``parameters`` makes of ``resource``."""
    return patched(resource, operations(parameters, definitions, BOUNDS), definitions, BOUNDS)


def operation(type: str, path: str, **parts: Any) -> dict[str, Any]:
    """Return one operation; ``parts`` are name and index …, and value[x], ``part`` or resource."""
    said = [{"name": "type", "valueCode": type}, {"name": "path", "valueString": path}]
    value = {
        name: parts.pop(name)
        for name in list(parts)
        if name.lstrip("_").startswith("value") or name in ("part", "resource")
    }
    for name, one in parts.items():
        kind = "valueString" if isinstance(one, str) else "valueInteger"
        said.append({"name": name, kind: one})
    if value:
        said.append({"name": "value", **value})
    return {"name": "operation", "part": said}


def patch(*operations: dict[str, Any]) -> dict[str, Any]:
    """Return the Parameters of ``operations``."""
    return {"resourceType": "Parameters", "parameter": [*operations]}


def parts(**members: Any) -> list[dict[str, Any]]:
    """Return parts that build something without a type name: name__kind=value."""
    return [
        {"name": name.partition("__")[0], name.partition("__")[2] or "part": value}
        for name, value in members.items()
    ]


URL = "http://example.org/x"
EXTENSION = {"url": URL, "valueString": "y"}
PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "active": True,
    "name": [
        {"use": "official", "family": "Rahman", "given": ["Ayesha", "K"]},
        {"use": "usual", "given": ["Asha", None], "_given": [None, {"extension": [EXTENSION]}]},
    ],
    "identifier": [{"system": "urn:a", "value": "1"}, {"system": "urn:b", "value": "2"}],
    "birthDate": "1974-12-25",
    "_birthDate": {"id": "b", "extension": [EXTENSION]},
    "deceasedBoolean": False,
    "extension": [EXTENSION, {"url": URL + "2", "valueCode": "c"}],
    "contained": [{"resourceType": "Organization", "id": "o", "name": "O"}],
}


def without(*names: str, **others: Any) -> dict[str, Any]:
    """Return the patient without the members ``names`` and with ``others``."""
    return {name: one for name, one in PATIENT.items() if name not in names} | others


def name(index: int, **others: Any) -> dict[str, Any]:
    """Return the patient with other members in a name; ``None`` takes one out."""
    names = [dict(one) for one in PATIENT["name"]]  # type: ignore[attr-defined]
    changed = names[index] | others
    names[index] = {key: value for key, value in changed.items() if value is not None}
    return {**PATIENT, "name": names}


# What is done -> the operation, what becomes of the patient.
DONE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a choice is added by its bare name": (
        operation("add", "Patient", name="multipleBirth", valueInteger=2),
        {**PATIENT, "multipleBirthInteger": 2},
    ),
    "a choice is replaced by another type": (
        operation("replace", "Patient.deceased", valueDateTime="2024-01-02"),
        without("deceasedBoolean", deceasedDateTime="2024-01-02"),
    ),
    "a choice is deleted": (
        operation("delete", "Patient.deceased"),
        without("deceasedBoolean"),
    ),
    "a choice by its type": (
        operation("delete", "Patient.deceased.ofType(boolean)"),
        without("deceasedBoolean"),
    ),
    "a choice by another type is not there": (
        operation("delete", "(Patient.deceased as dateTime)"),
        PATIENT,
    ),
    "where": (
        operation("replace", "Patient.identifier.where(system='urn:b').value", valueString="9"),
        without(identifier=[{"system": "urn:a", "value": "1"}, {"system": "urn:b", "value": "9"}]),
    ),
    "where with and": (
        operation("delete", "Patient.identifier.where(system = 'urn:b' and value != '1')"),
        without(identifier=[{"system": "urn:a", "value": "1"}]),
    ),
    "where with or, and exists": (
        operation(
            "delete",
            "Patient.identifier.where((system='x' or system='urn:a') and value.exists())",
        ),
        without(identifier=[{"system": "urn:b", "value": "2"}]),
    ),
    "first": (
        operation("delete", "Patient.identifier.first()"),
        without(identifier=[{"system": "urn:b", "value": "2"}]),
    ),
    "last": (
        operation("delete", "Patient.identifier.last()"),
        without(identifier=[{"system": "urn:a", "value": "1"}]),
    ),
    "a path without the type's name": (
        operation("replace", "birthDate", valueDate="1974-12-26"),
        without("_birthDate", birthDate="1974-12-26"),
    ),
    "an extension by its url": (
        operation("delete", f"Patient.extension('{URL}2')"),
        without(extension=[EXTENSION]),
    ),
    "the value of an extension": (
        operation("replace", f"Patient.extension('{URL}').value", valueInteger=3),
        without(extension=[{"url": URL, "valueInteger": 3}, {"url": URL + "2", "valueCode": "c"}]),
    ),
    "an extension of a primitive": (
        operation("delete", f"Patient.birthDate.extension('{URL}')"),
        without(_birthDate={"id": "b"}),
    ),
    "an extension added, in parts": (
        operation(
            "add",
            "Patient",
            name="extension",
            part=parts(url__valueUri="urn:n", value__valueCode="z"),
        ),
        without(
            extension=[*PATIENT["extension"], {"url": "urn:n", "valueCode": "z"}]  # type: ignore[misc]
        ),
    ),
    "an extension added to a primitive that has none": (
        operation(
            "add",
            "Patient.active",
            name="extension",
            part=parts(url__valueUri=URL, value__valueString="y"),
        ),
        without(_active={"extension": [EXTENSION]}),
    ),
    "an extension added to a primitive in a list": (
        operation(
            "add",
            "Patient.name[0].given[1]",
            name="extension",
            part=parts(url__valueUri=URL, value__valueString="y"),
        ),
        name(0, _given=[None, {"extension": [EXTENSION]}]),
    ),
    "a primitive in a list goes with what is beside it": (
        operation("delete", "Patient.name[1].given[0]"),
        name(1, given=None, _given=[{"extension": [EXTENSION]}]),
    ),
    "a primitive in a list that is an extension only": (
        operation("delete", "Patient.name[1].given[1]"),
        name(1, given=["Asha"], _given=None),
    ),
    "a primitive is moved with what is beside it": (
        operation("move", "Patient.name[1].given", source=1, destination=0),
        name(1, given=[None, "Asha"], _given=[{"extension": [EXTENSION]}, None]),
    ),
    "a primitive is added behind one that is an extension only": (
        operation("add", "Patient.name[1]", name="given", valueString="N"),
        name(1, given=["Asha", None, "N"], _given=[None, {"extension": [EXTENSION]}, None]),
    ),
    "a primitive is inserted before one that has an extension": (
        operation("insert", "Patient.name[1].given", index=1, valueString="N"),
        name(1, given=["Asha", "N", None], _given=[None, None, {"extension": [EXTENSION]}]),
    ),
    "a primitive by its value": (
        operation("delete", "Patient.name[0].given.where($this = 'K')"),
        name(0, given=["Ayesha"]),
    ),
    "a primitive with extensions": (
        operation("add", "Patient", name="gender", valueCode="male", _valueCode={"id": "g"}),
        {**PATIENT, "gender": "male", "_gender": {"id": "g"}},
    ),
    "a primitive that is an extension only": (
        operation("add", "Patient", name="gender", _valueCode={"extension": [EXTENSION]}),
        {**PATIENT, "_gender": {"extension": [EXTENSION]}},
    ),
    "all of a list": (
        operation("insert", "Patient.identifier", index=2, valueIdentifier={"value": "3"}),
        without(identifier=[*PATIENT["identifier"], {"value": "3"}]),  # type: ignore[misc]
    ),
    "parts in parts": (
        operation(
            "add",
            "Patient",
            name="contact",
            part=parts(
                name=parts(family__valueString="F", given__valueString="G")
                + parts(given__valueString="H"),
                telecom__valueContactPoint={"value": "1"},
            ),
        ),
        {
            **PATIENT,
            "contact": [
                {"name": {"family": "F", "given": ["G", "H"]}, "telecom": [{"value": "1"}]}
            ],
        },
    ),
    "a contained resource": (
        operation("add", "Patient", name="contained", resource={"resourceType": "Basic"}),
        without(
            contained=[*PATIENT["contained"], {"resourceType": "Basic"}]  # type: ignore[misc]
        ),
    ),
    "an element of a contained resource": (
        operation("replace", "Patient.contained.where(id='o').name", valueString="N"),
        without(contained=[{"resourceType": "Organization", "id": "o", "name": "N"}]),
    ),
    "a string for a code": (
        operation("add", "Patient", name="gender", valueString="male"),
        {**PATIENT, "gender": "male"},
    ),
    "deleting what is not there": (operation("delete", "Patient.maritalStatus.coding"), PATIENT),
    "deleting in what has another type": (operation("delete", "Patient.deceased.start"), PATIENT),
}


@pytest.mark.parametrize(("step", "expected"), DONE.values(), ids=DONE)
def test_what_an_operation_does(
    definitions: Definitions, step: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The table of fhirpatch.html over a patient; what went in stays as it was."""
    before = encode([PATIENT, step])

    assert canonical(apply(definitions, PATIENT, patch(step))) == canonical(expected)
    assert encode([PATIENT, step]) == before


# Why -> the operation. "it is an error if no element matches the specified path", and more.
INAPPLICABLE: dict[str, dict[str, Any]] = {
    "an index that is no number": operation("delete", "Patient.name[x]"),
    "a date": operation("delete", "Patient.where(birthDate = @2024)"),
    "add below nothing": operation("add", "Patient.contact", name="gender", valueCode="male"),
    "add below several": operation("add", "Patient.name", name="family", valueString="x"),
    "add over what is there": operation("add", "Patient", name="active", valueBoolean=False),
    "add over another choice": operation(
        "add", "Patient", name="deceased", valueDateTime="2024-01-01"
    ),
    "add over an extension alone": operation(
        "add", "Patient.name[1].given[1]", name="id", valueString="x"
    )
    | {"part": operation("add", "Patient.birthDate", name="id", valueString="x")["part"]},
    "add of an unknown element": operation("add", "Patient", name="gendre", valueCode="male"),
    "add of a type that a choice has not": operation(
        "add", "Patient", name="multipleBirth", valueString="x"
    ),
    "add of another type": operation("add", "Patient", name="gender", valueBoolean=True),
    "add of a string for a date": operation("replace", "Patient.birthDate", valueString="2024"),
    "add of a type for what has none": operation(
        "add", "Patient", name="contact", valueHumanName={"text": "x"}
    ),
    "add of parts to a primitive": operation(
        "add", "Patient", name="gender", part=parts(value__valueString="x")
    ),
    "add of an unknown part": operation(
        "add", "Patient", name="contact", part=parts(x__valueString="x")
    ),
    "add of a part twice": operation(
        "add",
        "Patient",
        name="contact",
        part=parts(gender__valueCode="male") + parts(gender__valueCode="female"),
    ),
    "delete of several": operation("delete", "Patient.identifier"),
    "delete of everything": operation("delete", "Patient"),
    "replace of everything": operation("replace", "Patient", valueString="x"),
    "replace of nothing": operation("replace", "Patient.gender", valueCode="male"),
    "replace of several": operation("replace", "Patient.name.given", valueString="x"),
    "insert into nothing": operation("insert", "Patient.photo", index=0, valueAttachment={}),
    "insert behind the end": operation(
        "insert", "Patient.identifier", index=3, valueIdentifier={"value": "x"}
    ),
    "insert before the beginning": operation(
        "insert", "Patient.identifier", index=-1, valueIdentifier={"value": "x"}
    ),
    "insert into what is no list": operation(
        "insert", "Patient.birthDate", index=0, valueDate="2024-01-01"
    ),
    "insert into a part of a list": operation(
        "insert",
        "Patient.identifier.where(system='urn:a')",
        index=0,
        valueIdentifier={"value": "x"},
    ),
    "insert into two lists": operation("insert", "Patient.name.given", index=0, valueString="x"),
    "move from behind the end": operation("move", "Patient.identifier", source=2, destination=0),
    "move behind the end": operation("move", "Patient.identifier", source=0, destination=2),
    "move from before the beginning": operation(
        "move", "Patient.identifier", source=-1, destination=0
    ),
    "another type": operation("delete", "Observation.status"),
    "an unknown element": operation("delete", "Patient.nam"),
    "an unknown element further on": operation("delete", "Patient.name.famly"),
    "a member of the JSON": operation("delete", "Patient.deceasedBoolean"),
    "another resource": operation("delete", "Patient.generalPractitioner.resolve().name"),
    "something computed": operation("delete", "Patient.name.exists()"),
    "a literal": operation("delete", "'x'"),
    "an unknown function": operation("delete", "Patient.name.repeat(given)"),
    "a union": operation("delete", "Patient.name | Patient.contact"),
    "a condition of several values": operation("delete", "Patient.where(name.given)"),
    "a comparison of objects": operation("delete", "Patient.name.where($this = %resource)"),
    "an unknown variable": operation("delete", "%ucum"),
}


@pytest.mark.parametrize("step", INAPPLICABLE.values(), ids=INAPPLICABLE)
def test_what_does_not_fit_is_422_and_named(definitions: Definitions, step: dict[str, Any]) -> None:
    """The refusal says which operation it is, and the resource is as it was."""
    before = encode(PATIENT)
    first = operation("delete", "Patient.maritalStatus")
    with pytest.raises(FhirError) as refused:
        apply(definitions, PATIENT, patch(first, step))
    [issue] = refused.value.issues
    assert refused.value.status == 422
    assert issue.diagnostics.startswith("Operation [1] of the patch (")
    assert issue.expression == "Parameters.parameter[1]"
    assert encode(PATIENT) == before


def _of(*said: dict[str, Any]) -> dict[str, Any]:
    return {"name": "operation", "part": [*said]}


TYPE, PATH = {"name": "type", "valueCode": "delete"}, {"name": "path", "valueString": "Patient.id"}
MALFORMED: dict[str, dict[str, Any]] = {
    "another name": {"name": "operations", "part": [TYPE, PATH]},
    "nothing in it": {"name": "operation"},
    "no type": _of(PATH),
    "no path": _of(TYPE),
    "a type twice": _of(TYPE, TYPE, PATH),
    "an unknown type": _of({"name": "type", "valueCode": "remove"}, PATH),
    "a type that is a number": _of({"name": "type", "valueInteger": 1}, PATH),
    "a path that is a number": _of(TYPE, {"name": "path", "valueInteger": 1}),
    "an unknown part": _of(TYPE, PATH, {"name": "pth", "valueString": "x"}),
    "no name": operation("add", "Patient", valueCode="male"),
    "no value": operation("add", "Patient", name="gender"),
    "an empty value": _of(*operation("add", "Patient", name="x")["part"], {"name": "value"}),
    "two values": operation("replace", "Patient.active", valueBoolean=True, valueString="x"),
    "a value and parts": operation("replace", "Patient.active", valueBoolean=True, part=[]),
    "no index": operation("insert", "Patient.identifier", valueIdentifier={"value": "x"}),
    "an index that is a string": operation(
        "insert", "Patient.identifier", index="1", valueIdentifier={"value": "x"}
    ),
    "no source": operation("move", "Patient.identifier", destination=0),
    "no destination": operation("move", "Patient.identifier", source=0),
    "a path that is none": operation("delete", "Patient..name"),
    "a path that ends early": operation("delete", "Patient.name["),
    "an empty path": operation("delete", ""),
    "a path too long": operation("delete", "Patient." + "a" * 1000),
    "a path too deep": operation("delete", "(" * 400 + "a" + ")" * 400),
}


@pytest.mark.parametrize("step", MALFORMED.values(), ids=MALFORMED)
def test_what_is_no_fhirpath_patch_is_400(definitions: Definitions, step: dict[str, Any]) -> None:
    """Whatever the resource is; it is not looked at."""
    with pytest.raises(FhirError) as refused:
        operations(patch(step), definitions, BOUNDS)
    assert refused.value.status == 400
    assert refused.value.issues[0].expression == "Parameters.parameter[0]"


def test_operations_see_what_those_before_have_done(definitions: Definitions) -> None:
    """They are done in their order; an object that one has emptied is there for the next."""
    steps = patch(
        operation("delete", "Patient.contact[0].name.text"),
        operation("add", "Patient.contact[0].name", name="family", valueString="F"),
        operation("add", "Patient", name="contact", part=parts(gender__valueCode="male")),
        operation("replace", "Patient.contact[1].gender", valueCode="female"),
        operation("move", "Patient.contact", source=1, destination=0),
    )
    resource = {"resourceType": "Patient", "contact": [{"name": {"text": "x"}}]}
    once = operations(steps, definitions, BOUNDS)

    for _ in range(2):  # the patch may be applied again, and is as it was
        assert patched(resource, once, definitions, BOUNDS) == {
            "resourceType": "Patient",
            "contact": [{"gender": "female"}, {"name": {"family": "F"}}],
        }


def test_decimals_are_kept_as_written(definitions: Definitions) -> None:
    """Those of the resource and those of the patch; a comparison is by value."""
    resource = decode(
        b'{"resourceType":"Observation","component":[{"valueQuantity":{"value":6.30}},'
        b'{"valueQuantity":{"value":1e2}}]}'
    )
    steps = decode(
        encode(
            patch(
                operation("delete", "Observation.component.where(value.value = 6.3).value.unit"),
                operation("add", "Observation", name="value", valueQuantity={"value": 0}),
            )
        ).replace(b'{"value":0}', b'{"value":0.10}')
    )

    assert encode(apply(definitions, resource, steps)) == (
        b'{"resourceType":"Observation","component":[{"valueQuantity":{"value":6.30}},'
        b'{"valueQuantity":{"value":1e2}}],"valueQuantity":{"value":0.10}}'
    )


def test_a_recursive_element(definitions: Definitions) -> None:
    """Questionnaire.item.item is what Questionnaire.item is."""
    resource = {
        "resourceType": "Questionnaire",
        "item": [{"linkId": "a", "item": [{"linkId": "b"}]}],
    }
    steps = patch(
        operation(
            "add", "Questionnaire.item.item", name="item", part=parts(linkId__valueString="c")
        ),
        operation(
            "insert", "Questionnaire.item.item.item", index=0, part=parts(linkId__valueString="d")
        ),
        operation("replace", "Questionnaire.item.item.item[1].linkId", valueString="e"),
    )

    assert apply(definitions, resource, steps)["item"][0]["item"][0]["item"] == [
        {"linkId": "d"},
        {"linkId": "e"},
    ]


def test_too_many_operations_are_413(definitions: Definitions) -> None:
    """The refusal says the number and the limit."""
    with pytest.raises(FhirError, match="1,001 operations; the limit is 1,000") as refused:
        operations(patch(*[operation("delete", "Patient.id")] * 1001), definitions, BOUNDS)
    assert refused.value.status == 413


EXPENSIVE = {
    "each for each": "Patient.identifier.where(%resource.identifier.where(value='x').empty())",
    "twice": "Patient.identifier.where(%resource.identifier.exists(%resource.identifier.exists()))",
}


@pytest.mark.parametrize("path", EXPENSIVE.values(), ids=EXPENSIVE)
def test_a_path_that_looks_at_everything_for_everything_ends(
    definitions: Definitions, path: str
) -> None:
    """What all paths of a patch look at is counted."""
    resource = {"resourceType": "Patient", "identifier": [{"value": str(n)} for n in range(5000)]}
    with pytest.raises(FhirError, match="too many elements"):
        apply(definitions, resource, patch(operation("delete", path)))


WORDS = st.sampled_from(
    [
        *("Patient", "name", "given", "identifier", "deceased", "birthDate", "contained", "id"),
        *(".", ".", ".", "[0]", "[1]", "(", ")", "where(", "exists()", "first()", "$this", "="),
        *("'x'", "1", "true", "and", "or", "%resource", "ofType(boolean)", "extension('urn:x')"),
        *("not()", "as", "is", "|", "'", "`", "@", "\\", "é", "\n"),
    ]
)
PATHS = st.lists(WORDS, max_size=8).map("".join) | st.text(max_size=12)
VALUED = st.sampled_from(
    [
        *({"valueString": "x"}, {"valueBoolean": True}, {"valueHumanName": {"text": "x"}}, {}),
        *({"part": [{"name": "given", "valueString": "x"}]}, {"resource": {"resourceType": "X"}}),
        *({"_valueString": {"id": "x"}}, {"valueNonsense": 1}, {"valueString": None}),
    ]
)
STEPS = st.builds(
    lambda type, path, numbers, name, value: (
        operation(
            type,
            path,
            **dict(zip(("index", "source", "destination"), numbers, strict=True)),
            name=name,
        )
        | {"extra": value}
    ),
    st.sampled_from(["add", "insert", "delete", "replace", "move"]),
    PATHS,
    st.tuples(*[st.integers(-1, 2)] * 3),
    st.sampled_from(["name", "given", "id", "deceased", "contained", "extension", "x", ""]),
    VALUED,
)


@settings(max_examples=400)
@given(st.lists(STEPS, max_size=3))
def test_any_patch_is_applied_whole_or_refused(definitions: Definitions, steps: list[Any]) -> None:
    """Whatever it is: a resource, or a refusal of the client; the patient stays as it was."""
    for step in steps:
        if value := step.pop("extra"):
            step["part"].append({"name": "value", **value})
    before = encode([PATIENT, steps])
    try:
        apply(definitions, PATIENT, patch(*steps))
        status = 200
    except FhirError as refused:
        status = refused.status

    assert status in (200, 400, 413, 422)
    assert encode([PATIENT, steps]) == before


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), st.data())
def test_a_patch_and_its_inverse_cancel(
    definitions: Definitions, values: list[str], data: st.DataObject
) -> None:
    """Insert and delete, move and move back, replace and replace back, in a list of primitives."""
    path, last = "Patient.name.given", len(values) - 1
    resource = {
        "resourceType": "Patient",
        "name": [{"given": values, "_given": [{"id": one} for one in values]}],
    }
    at, to = data.draw(st.integers(0, last)), data.draw(st.integers(0, last))
    there_and_back = [
        (
            operation("insert", path, index=at, valueString="x"),
            operation("delete", f"{path}[{at}]"),
        ),
        (
            operation("move", path, source=at, destination=to),
            operation("move", path, source=to, destination=at),
        ),
        (
            operation("replace", f"{path}[{at}]", valueString="x"),
            operation(
                "replace", f"{path}[{at}]", valueString=values[at], _valueString={"id": values[at]}
            ),
        ),
    ]
    for there, back in there_and_back:
        assert apply(definitions, resource, patch(there, back)) == resource
