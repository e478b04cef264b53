"""What a profile may demand, by small profiles of our own: one table of demands and faults."""

from collections.abc import Mapping
from typing import Any

import pytest

from fhir_server.r4.questions import Canonical, Coded, CodeInValueSet, Target
from fhir_server.terminology.judging import untold
from fhir_server.validation.profiles import ProfileValidator
from fhir_server.validation.running import ProfileOptions
from tests.validation.asking import judged

Json = dict[str, Any]
URL = "http://example.org/StructureDefinition/"
R4 = "http://hl7.org/fhir/StructureDefinition/"


def profile(name: str, type: str, *elements: Json, base: str = "", **more: Any) -> Json:
    """Return a profile that has a differential only; paths are below the type."""
    return {
        "resourceType": "StructureDefinition",
        "url": URL + name,
        "name": name,
        "status": "active",
        "kind": "resource",
        "abstract": False,
        "type": type,
        "baseDefinition": base or R4 + type,
        "derivation": "constraint",
        **more,
        "differential": {
            "element": [{"path": type}]
            + [{**one, "path": f"{type}.{one['path']}"} for one in elements]
        },
    }


def by(type: str, path: str, rules: str = "open", **more: Any) -> Json:
    return {"discriminator": [{"type": type, "path": path}], "rules": rules, **more}


def telecoms(*systems: str) -> Json:
    return {
        "resourceType": "Patient",
        "telecom": [{"system": system, "value": "1"} for system in systems],
    }


def observation(**more: Any) -> Json:
    return {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, **more}


def coding(code: str, system: str = "http://example.org/s") -> Json:
    return {"coding": [{"system": system, "code": code}]}


SYSTEMS = (
    {"path": "telecom", "slicing": by("value", "system")},
    {"path": "telecom", "sliceName": "phone", "min": 1, "max": "1"},
    {"path": "telecom.system", "fixedCode": "phone"},
    {"path": "telecom", "sliceName": "email"},
    {"path": "telecom.system", "fixedCode": "email"},
    {"path": "telecom.use", "min": 1},
)


def sliced(rules: str, **more: Any) -> tuple[Json, ...]:
    return ({"path": "telecom", "slicing": by("value", "system", rules, **more)}, *SYSTEMS[1:5])


ADDRESS_PROFILE = profile("address", "Address", {"path": "city", "min": 1}, kind="complex-type")
EXTENSION = profile(
    "colour",
    "Extension",
    {"path": "extension", "max": "0"},
    {"path": "url", "fixedUri": URL + "colour"},
    {"path": "value[x]", "min": 1, "type": [{"code": "code"}]},
    kind="complex-type",
    context=[{"type": "element", "expression": "Patient"}],
)
COMPLEX = profile(
    "complex",
    "Extension",
    {"path": "extension", "sliceName": "part", "min": 1},
    {"path": "extension.url", "fixedUri": "part"},
    {"path": "extension.value[x]", "type": [{"code": "string"}]},
    {"path": "url", "fixedUri": URL + "complex"},
    {"path": "value[x]", "max": "0"},
    kind="complex-type",
    context=[{"type": "element", "expression": "Element"}],
)
PLACES = {one["url"]: one for one in (ADDRESS_PROFILE, EXTENSION, COMPLEX)}
PATIENT: Json = {"resourceType": "Patient"}

# Name: (type, elements of the differential, a resource that is right, one that is wrong, where).
DEMANDS: Mapping[str, tuple[str, tuple[Json, ...], Json, Json, str]] = {
    "min": (
        "Patient", ({"path": "gender", "min": 1},),
        {**PATIENT, "gender": "female"}, {**PATIENT, "active": True}, "Patient",
    ),
    "max": (
        "Patient", ({"path": "name", "max": "1"},),
        {**PATIENT, "name": [{"family": "a"}]},
        {**PATIENT, "name": [{"family": "a"}, {"family": "b"}]}, "Patient",
    ),
    "max 0": (
        "Patient", ({"path": "photo", "max": "0"},),
        {**PATIENT, "active": True}, {**PATIENT, "photo": [{"url": "x:y"}]}, "Patient.photo[0]",
    ),
    "below a data type": (
        "Patient", ({"path": "name.family", "min": 1},),
        {**PATIENT, "name": [{"family": "a"}]}, {**PATIENT, "name": [{"text": "b"}]},
        "Patient.name[0]",
    ),
    "fixed": (
        "Patient", ({"path": "gender", "fixedCode": "male"},),
        {**PATIENT, "gender": "male"}, {**PATIENT, "gender": "female"}, "Patient.gender",
    ),
    "fixed object": (
        "Patient", ({"path": "maritalStatus", "fixedCodeableConcept": coding("a")},),
        {**PATIENT, "maritalStatus": coding("a")},
        {**PATIENT, "maritalStatus": {**coding("a"), "text": "more"}}, "Patient.maritalStatus",
    ),
    "pattern": (
        "Observation", ({"path": "code", "patternCodeableConcept": coding("a")},),
        observation(code={**coding("a"), "text": "more"}), observation(code=coding("b")),
        "Observation.code",
    ),
    "pattern finds one of several": (
        "Observation", ({"path": "code", "patternCodeableConcept": coding("a")},),
        observation(code={"coding": coding("b")["coding"] + coding("a")["coding"]}),
        observation(code={"coding": []}) | {"code": coding("c")}, "Observation.code",
    ),
    "choice of types": (
        "Observation", ({"path": "value[x]", "type": [{"code": "Quantity"}, {"code": "string"}]},),
        observation(valueString="x"), observation(valueBoolean=True), "Observation.value",
    ),
    "one of the types by its name": (
        "Observation",
        ({"path": "valueQuantity", "min": 1}, {"path": "valueQuantity.unit", "min": 1}),
        observation(valueQuantity={"value": 1, "unit": "x"}), observation(valueString="x"),
        "Observation.value",
    ),
    "below one of the types": (
        "Observation", ({"path": "valueQuantity.unit", "min": 1},),
        observation(valueQuantity={"value": 1, "unit": "x"}),
        observation(valueQuantity={"value": 1}),
        "Observation.value",
    ),
    "minValue": (
        "Observation", ({"path": "valueInteger", "minValueInteger": 3},),
        observation(valueInteger=3), observation(valueInteger=2), "Observation.value",
    ),
    "maxValue of dates": (
        "Patient", ({"path": "birthDate", "maxValueDate": "2020-06"},),
        {**PATIENT, "birthDate": "2020-06-30"}, {**PATIENT, "birthDate": "2020-07-01"},
        "Patient.birthDate",
    ),
    "maxLength": (
        "Patient", ({"path": "name.family", "maxLength": 3},),
        {**PATIENT, "name": [{"family": "abc"}]}, {**PATIENT, "name": [{"family": "abcd"}]},
        "Patient.name[0].family",
    ),
    "required binding": (
        "Patient",
        ({"path": "maritalStatus", "binding": {
            "strength": "required", "valueSet": "http://hl7.org/fhir/ValueSet/administrative-gender"}},),
        {**PATIENT, "maritalStatus": coding("male", "http://hl7.org/fhir/administrative-gender")},
        {**PATIENT, "maritalStatus": coding("mail", "http://hl7.org/fhir/administrative-gender")},
        "Patient.maritalStatus",
    ),
    "the largest set": (
        "Patient",
        ({"path": "maritalStatus", "binding": {
            "strength": "extensible", "valueSet": "http://hl7.org/fhir/ValueSet/marital-status",
            "extension": [{
                "url": R4 + "elementdefinition-maxValueSet",
                "valueCanonical": "http://hl7.org/fhir/ValueSet/administrative-gender"}]}},),
        {**PATIENT, "maritalStatus": coding("male", "http://hl7.org/fhir/administrative-gender")},
        {**PATIENT, "maritalStatus": coding("x")}, "Patient.maritalStatus",
    ),
    "profile of a type": (
        "Patient",
        ({"path": "address", "type": [{"code": "Address", "profile": [URL + "address"]}]},),
        {**PATIENT, "address": [{"city": "a"}]}, {**PATIENT, "address": [{"text": "a"}]},
        "Patient.address[0]",
    ),
    "target": (
        "Observation",
        ({"path": "subject", "type": [{"code": "Reference", "targetProfile": [R4 + "Patient"]}]},),
        observation(subject={"reference": "Patient/1"}),
        observation(subject={"reference": "Group/1"}), "Observation.subject",
    ),
    "invariant": (
        "Patient",
        ({"path": "name", "constraint": [{
            "key": "own-1", "severity": "error", "human": "A name has a family",
            "expression": "family.exists()"}]},),
        {**PATIENT, "name": [{"family": "a"}]}, {**PATIENT, "name": [{"text": "b"}]},
        "Patient.name[0]",
    ),
    "slice is missing": ("Patient", SYSTEMS, telecoms("phone"), telecoms("fax"), "Patient"),
    "slice is there too often": (
        "Patient", SYSTEMS, telecoms("phone", "fax"), telecoms("phone", "phone"),
        "Patient.telecom[1]",
    ),
    "below a slice": (
        "Patient", SYSTEMS, telecoms("phone"), telecoms("phone", "email"), "Patient.telecom[1]",
    ),
    "closed": (
        "Patient", sliced("closed"), telecoms("phone", "email"), telecoms("phone", "fax"),
        "Patient.telecom[1]",
    ),
    "open at the end": (
        "Patient", sliced("openAtEnd"), telecoms("phone", "fax"), telecoms("fax", "phone"),
        "Patient.telecom[0]",
    ),
    "ordered": (
        "Patient", sliced("open", ordered=True), telecoms("phone", "email"),
        telecoms("email", "phone"), "Patient.telecom[1]",
    ),
    "default slice": (
        "Patient",
        (*sliced("closed"), {"path": "telecom", "sliceName": "@default"},
         {"path": "telecom.rank", "min": 1}),
        telecoms("phone"), telecoms("phone", "fax"), "Patient.telecom[1]",
    ),
    "slice by pattern": (
        "Observation",
        ({"path": "category", "slicing": by("pattern", "$this")},
         {"path": "category", "sliceName": "a", "min": 1, "patternCodeableConcept": coding("a")}),
        observation(category=[coding("a")]), observation(category=[coding("b")]), "Observation",
    ),
    "slice by what exists": (
        "Patient",
        ({"path": "name", "slicing": by("exists", "period")},
         {"path": "name", "sliceName": "old", "max": "1"}, {"path": "name.period", "min": 1},
         {"path": "name", "sliceName": "now"}, {"path": "name.period", "max": "0"},
         {"path": "name.family", "min": 1}),
        {**PATIENT, "name": [{"text": "a", "period": {"start": "2020"}}, {"family": "b"}]},
        {**PATIENT, "name": [{"text": "a"}]}, "Patient.name[0]",
    ),
    "slice by type": (
        "Observation",
        ({"path": "value[x]", "slicing": by("type", "$this")},
         {"path": "value[x]", "sliceName": "valueString", "type": [{"code": "string"}],
          "maxLength": 2}),
        observation(valueString="ab"), observation(valueString="abc"), "Observation.value",
    ),
    "slice by profile": (
        "Patient",
        ({"path": "address", "slicing": by("profile", "$this")},
         {"path": "address", "sliceName": "city", "min": 1,
          "type": [{"code": "Address", "profile": [URL + "address"]}]}),
        {**PATIENT, "address": [{"text": "x"}, {"city": "y"}]},
        {**PATIENT, "address": [{"text": "x"}]},
        "Patient",
    ),
    "slice by the type of a target": (
        "Observation",
        ({"path": "performer", "slicing": by("type", "resolve()")},
         {"path": "performer", "sliceName": "org", "min": 1,
          "type": [{"code": "Reference", "targetProfile": [R4 + "Organization"]}]}),
        observation(
            contained=[{"resourceType": "Organization", "id": "o", "name": "x"}],
            performer=[{"reference": "#o"}]),
        observation(
            contained=[{"resourceType": "Practitioner", "id": "o", "active": True}],
            performer=[{"reference": "#o"}]),
        "Observation",
    ),
    "slice by an extension": (
        "Patient",
        ({"path": "name", "slicing": by("exists", f"extension('{URL}complex')")},
         {"path": "name", "sliceName": "special", "min": 1},
         {"path": "name.extension", "sliceName": "c", "min": 1,
          "type": [{"code": "Extension", "profile": [URL + "complex"]}]}),
        {**PATIENT, "name": [{"extension": [
            {"url": URL + "complex", "extension": [{"url": "part", "valueString": "x"}]}]}]},
        {**PATIENT, "name": [{"text": "x"}]}, "Patient",
    ),
    "slices of slices": (
        "Patient",
        ({"path": "telecom", "slicing": by("value", "system")},
         {"path": "telecom", "sliceName": "phone", "slicing": by("value", "use", "closed")},
         {"path": "telecom.system", "fixedCode": "phone"},
         {"path": "telecom", "sliceName": "phone/home", "max": "1"},
         {"path": "telecom.use", "fixedCode": "home"}),
        {**PATIENT, "telecom": [{"system": "phone", "use": "home"}, {"system": "fax"}]},
        {**PATIENT, "telecom": [{"system": "phone", "use": "work"}]}, "Patient.telecom[0]",
    ),
    "slices inside of slices": (
        "Observation",
        ({"path": "component", "slicing": by("pattern", "code")},
         {"path": "component", "sliceName": "a"},
         {"path": "component.code", "patternCodeableConcept": coding("a")},
         {"path": "component.extension", "sliceName": "c", "min": 1,
          "type": [{"code": "Extension", "profile": [URL + "complex"]}]}),
        observation(component=[{"code": coding("b"), "valueString": "x"}]),
        observation(component=[{"code": coding("a"), "valueString": "x"}]),
        "Observation.component[0]",
    ),
    "content reference": (
        "Questionnaire", ({"path": "item.item.text", "min": 1},),
        {"resourceType": "Questionnaire", "status": "draft", "item": [
            {"linkId": "1", "type": "group",
             "item": [{"linkId": "2", "type": "display", "text": "x"}]}]},
        {"resourceType": "Questionnaire", "status": "draft", "item": [
            {"linkId": "1", "type": "group", "item": [{"linkId": "2", "type": "display"}]}]},
        "Questionnaire.item[0].item[0]",
    ),
    "value of an extension": (
        "Patient", (),
        {**PATIENT, "extension": [{"url": URL + "colour", "valueCode": "red"}]},
        {**PATIENT, "extension": [{"url": URL + "colour", "valueString": "red"}]},
        "Patient.extension[0].value",
    ),
    "place of an extension": (
        "Patient", (),
        {**PATIENT, "extension": [{"url": URL + "colour", "valueCode": "red"}]},
        {**PATIENT, "name": [{"extension": [{"url": URL + "colour", "valueCode": "red"}]}]},
        "Patient.name[0].extension[0]",
    ),
    "place of an extension beside a primitive": (
        "Patient", (),
        {**PATIENT, "birthDate": "2020"},
        {**PATIENT, "birthDate": "2020",
         "_birthDate": {"extension": [{"url": URL + "colour", "valueCode": "red"}]}},
        "Patient.birthDate.extension[0]",
    ),
    "parts of an extension": (
        "Patient", (),
        {**PATIENT, "extension": [
            {"url": URL + "complex", "extension": [{"url": "part", "valueString": "x"}]}]},
        {**PATIENT, "extension": [{"url": URL + "complex", "extension": [
            {"url": "part", "valueString": "x"}, {"url": "prat", "valueString": "x"}]}]},
        "Patient.extension[0].extension[1].url",
    ),
    "modifier extension": (
        "Patient", (),
        {**PATIENT, "active": True},
        {**PATIENT, "modifierExtension": [{"url": URL + "colour", "valueCode": "red"}]},
        "Patient.modifierExtension[0]",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEMANDS)
def test_demands(name: str, profiles: ProfileValidator) -> None:
    """What is right has no error; what is wrong has one, at its place."""
    type, elements, right, wrong, where = DEMANDS[name]
    demanded = profile(name.replace(" ", "-"), type, *elements)
    known = {**PLACES, demanded["url"]: demanded}
    found = judged(profiles, right, known, [demanded["url"]])
    assert [one for one in found.issues if one.severity == "error"] == []
    found = judged(profiles, wrong, known, [demanded["url"]])
    assert where in {one.expression for one in found.issues if one.severity == "error"}


def test_messages_name_profile_and_way_out(profiles: ProfileValidator) -> None:
    """An issue says what was expected, by which profile, and what may have been meant."""
    type, elements, _, wrong, _ = DEMANDS["required binding"]
    demanded = profile("words", type, *elements)
    found = judged(profiles, wrong, {demanded["url"]: demanded}, [demanded["url"]])
    text = " ".join(one.diagnostics for one in found.issues)
    assert demanded["url"] in text
    assert "Did you mean male" in text


@pytest.mark.parametrize(
    ("strength", "severity"),
    [("required", "error"), ("extensible", "warning"), ("preferred", "information")],
)
def test_strengths(strength: str, severity: str, profiles: ProfileValidator) -> None:
    """A code outside of the set counts as much as the binding says; the terminology is asked."""
    value_set = "http://example.org/ValueSet/v"
    bound = profile(
        f"bound-{strength}",
        "Patient",
        {"path": "maritalStatus", "binding": {"strength": strength, "valueSet": value_set}},
    )
    resource = {**PATIENT, "maritalStatus": coding("a")}
    question = CodeInValueSet(value_set, "http://example.org/s", "a")
    for result, expected in ((True, set()), (False, {severity})):
        known: dict[Any, Any] = {
            question: Coded(result),
            Canonical("StructureDefinition", bound["url"]): bound,
        }
        found = judged(profiles, resource, {}, [bound["url"]], known=known)
        told = {one.severity for one in found.issues if value_set in one.diagnostics}
        assert told == expected


def test_what_cannot_be_told_is_said_once(profiles: ProfileValidator) -> None:
    """The reason follows, without the same words again."""
    value_set = "http://example.org/ValueSet/untold"
    binding = {"strength": "required", "valueSet": value_set}
    bound = profile("untold", "Patient", {"path": "maritalStatus", "binding": binding})
    known: dict[Any, Any] = {
        CodeInValueSet(value_set, "http://example.org/s", "a"): untold("it is not here"),
        Canonical("StructureDefinition", bound["url"]): bound,
    }
    resource = {**PATIENT, "maritalStatus": coding("a")}
    found = judged(profiles, resource, {}, [bound["url"]], known=known)
    [said] = [one.diagnostics for one in found.issues if value_set in one.diagnostics]
    assert said.count("told here") == 1
    assert said.endswith("it is not here.")


def test_unknown_extensions(profiles: ProfileValidator) -> None:
    """They are what the policy says; unknown modifier extensions are errors always."""
    resource = {**PATIENT, "extension": [{"url": "http://example.org/x", "valueCode": "y"}]}
    for policy, expected in (("ignore", []), ("warning", ["warning"]), ("error", ["error"])):
        options = ProfileOptions(unknown_extensions=policy)  # type: ignore[arg-type]
        found = judged(profiles, resource, {}, options=options)
        assert [one.severity for one in found.issues] == expected


def test_targets_are_asked_and_held_to_their_profile(profiles: ProfileValidator) -> None:
    """With ``targets``, what a reference leads to conforms to the profile that is demanded."""
    city = profile("with-gender", "Patient", {"path": "gender", "min": 1})
    demanded = profile(
        "of-city",
        "Observation",
        {"path": "subject", "type": [{"code": "Reference", "targetProfile": [city["url"]]}]},
    )
    known = {one["url"]: one for one in (city, demanded)}
    resource = observation(subject={"reference": "Patient/1"})
    options = ProfileOptions(targets=True)
    for target, count in (({**PATIENT, "gender": "male"}, 0), ({**PATIENT, "active": True}, 1)):
        answers: dict[Any, Any] = {Target("Patient/1"): target}
        found = judged(profiles, resource, known, [demanded["url"]], options, answers)
        assert len([one for one in found.issues if one.severity == "error"]) == count


def test_what_changes_is_compiled_again(profiles: ProfileValidator) -> None:
    """A profile that was replaced is followed at once, and so is one it is built on."""
    for base_min, count in ((1, 1), (0, 0)):
        base = profile("changing-base", "Patient", {"path": "gender", "min": base_min})
        above = profile("changing", "Patient", base=base["url"])
        known = {one["url"]: one for one in (base, above)}
        found = judged(profiles, {**PATIENT, "active": True}, known, [above["url"]])
        assert len([one for one in found.issues if one.severity == "error"]) == count


# -------------------------------------------------------------------------------------- hostile


def hostile() -> dict[str, dict[str, Json]]:
    deep = ".".join(["extension"] * 300)
    return {
        "built upon itself": {
            "circle": profile("circle", "Patient", base=URL + "other"),
            "other": profile("other", "Patient", base=URL + "circle"),
        },
        "thousands of slices": {
            "circle": profile(
                "circle",
                "Patient",
                {"path": "contact", "slicing": by("value", "gender")},
                *({"path": "contact", "sliceName": f"s{n}"} for n in range(5000)),
            )
        },
        "a path without end": {"circle": profile("circle", "Patient", {"path": deep, "min": 1})},
        "profiles of types in a circle": {
            "circle": profile(
                "circle", "Patient", {"path": "contained", "type": [
                    {"code": "Resource", "profile": [URL + "circle"]}]}),
        },
        "no list of elements": {
            "circle": {**profile("circle", "Patient"), "differential": {"element": [{"path": 3}]}}
        },
        "types that are none": {
            "circle": {
                **profile("circle", "Patient"),
                "snapshot": {"element": [{"path": "Patient", "type": "x", "min": "y"}]},
            }
        },
    }  # fmt: skip


def test_an_invariant_without_end(profiles: ProfileValidator) -> None:
    """What one profile's invariants may take altogether is bounded, and the bound is said."""
    heavy = {
        "key": "heavy-1",
        "severity": "error",
        "human": "x",
        "expression": "%resource.name.given.where($this = %context).count() > 0",
    }
    demanded = profile("heavy", "Patient", {"path": "name.given", "constraint": [heavy]})
    resource = {**PATIENT, "name": [{"given": ["a"] * 3000}]}
    found = judged(profiles, resource, {demanded["url"]: demanded}, [demanded["url"]])
    assert any("steps, so the rest" in one.diagnostics for one in found.issues)


@pytest.mark.parametrize("name", hostile())
def test_hostile_profiles(name: str, profiles: ProfileValidator) -> None:
    """They are bounded, and nothing but issues comes of them."""
    known = {URL + key: one for key, one in hostile()[name].items()}
    resource = {**PATIENT, "contained": [{**PATIENT, "id": "a"}], "active": True}
    found = judged(profiles, resource, known, [URL + "circle"])
    said = {
        "built upon itself": "built upon itself",
        "thousands of slices": "more than 20,000 elements",
        "no list of elements": "an element without a path",
    }
    assert said.get(name, "") in " ".join(one.diagnostics for one in found.issues)


_INNER: dict[str, Any] = {"resourceType": "Organization", "id": "a", "name": "A"}
_MANAGED = {**PATIENT, "managingOrganization": {"reference": "#a"}}
_LABEL = {"system": "http://example.org/labels", "code": "a"}
_CONDITION = {"resourceType": "Condition", "subject": {"reference": "Patient/a"}}
INHERITED = {
    "dom-3": {**PATIENT, "contained": [_INNER]},
    "dom-4": {**_MANAGED, "contained": [{**_INNER, "meta": {"versionId": "1"}}]},
    "dom-5": {**_MANAGED, "contained": [{**_INNER, "meta": {"security": [_LABEL]}}]},
    "qty-3": {**_CONDITION, "onsetAge": {"value": 1, "code": "a"}},
}


@pytest.mark.parametrize("key", INHERITED)
def test_invariants_of_what_a_type_specializes(key: str, profiles: ProfileValidator) -> None:
    """Those of DomainResource hold for a Patient, those of Quantity for an Age."""
    found = profiles.judge(INHERITED[key], options=ProfileOptions(codes=False))
    assert any(f"({key}, R4)" in one.diagnostics for one in found.issues)
