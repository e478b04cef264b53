"""What single types ask beyond elements and invariants, bundles, texts and codes: one table."""

from collections.abc import Mapping
from typing import Any

import pytest

from fhir_server.validation.coded import is_snomed
from fhir_server.validation.profiles import ProfileValidator
from fhir_server.validation.running import ProfileOptions
from tests.validation.asking import judged

Json = dict[str, Any]
STRICT = ProfileOptions(markup="error", examples="error", displays="error")
V2 = "http://terminology.hl7.org/CodeSystem/v2-0203"

QUESTIONS: Json = {
    "resourceType": "Questionnaire",
    "url": "http://example.org/Questionnaire/q",
    "status": "active",
    "item": [
        {"linkId": "1", "type": "boolean", "required": True},
        {"linkId": "2", "type": "group", "item": [{"linkId": "2.1", "type": "integer"}]},
        {
            "linkId": "3",
            "type": "choice",
            "answerOption": [{"valueCoding": {"system": "u:v", "code": "abc"}}],
        },
    ],
}


def response(*items: Json) -> Json:
    return {
        "resourceType": "QuestionnaireResponse",
        "questionnaire": QUESTIONS["url"],
        "status": "completed",
        "item": [{"linkId": "1", "answer": [{"valueBoolean": True}]}, *items],
    }


def questionnaire(*items: Json) -> Json:
    return {"resourceType": "Questionnaire", "status": "draft", "item": list(items)}


def bundle(type: str, *entries: Json, **more: Any) -> Json:
    return {"resourceType": "Bundle", "type": type, "entry": list(entries), **more}


def entry(url: str, **resource: Any) -> Json:
    return {"fullUrl": url, "resource": resource}


def composition(**more: Any) -> Json:
    return {
        "resourceType": "Composition",
        "id": "c",
        "status": "final",
        "type": {"text": "x"},
        "date": "2024",
        "author": [{"reference": "Practitioner/p"}],
        "title": "x",
        **more,
    }


def document(*entries: Json) -> Json:
    return bundle(
        "document",
        {"fullUrl": "http://a.org/Composition/c", "resource": composition()},
        *entries,
        identifier={"system": "u:v", "value": "1"},
        timestamp="2024-01-01T00:00:00Z",
    )


AUTHOR = entry("http://a.org/Practitioner/p", resourceType="Practitioner", id="p", active=True)
COLLECTED = entry("http://a.org/Patient/1", resourceType="Patient", id="1", active=True)
CODES: Json = {"resourceType": "CodeSystem", "status": "draft", "content": "complete"}
SET: Json = {"resourceType": "ValueSet", "status": "draft"}
PATIENT: Json = {"resourceType": "Patient"}


def narrative(inner: str) -> Json:
    div = f'<div xmlns="http://www.w3.org/1999/xhtml">{inner}</div>'
    return {**PATIENT, "text": {"status": "generated", "div": div}}


# Name: (what is right, what is wrong, where).
FAULTS: Mapping[str, tuple[Json, Json, str]] = {
    "enableWhen inside": (
        questionnaire({"linkId": "a", "type": "boolean"}, {"linkId": "b", "type": "group",
            "enableWhen": [{"question": "a", "operator": "=", "answerBoolean": True}]}),
        questionnaire({"linkId": "b", "type": "group", "item": [{"linkId": "a", "type": "boolean"}],
            "enableWhen": [{"question": "a", "operator": "=", "answerBoolean": True}]}),
        "Questionnaire.item[0]",
    ),
    "nested questions": (
        questionnaire({"linkId": "a", "type": "group", "item": [
            {"linkId": "b", "type": "boolean"}]}),
        questionnaire({"linkId": "a", "type": "group", "item": [
            {"linkId": "b", "type": "display", "required": True}]}),
        "Questionnaire.item[0].item[0]",
    ),
    "unknown item": (
        response({"linkId": "2", "item": [{"linkId": "2.1", "answer": [{"valueInteger": 1}]}]}),
        response({"linkId": "2.1", "answer": [{"valueInteger": 1}]}),
        "QuestionnaireResponse.item[1]",
    ),
    "type of an answer": (
        response(),
        response({"linkId": "2", "item": [{"linkId": "2.1", "answer": [{"valueString": "1"}]}]}),
        "QuestionnaireResponse.item[1].item[0].answer[0].value",
    ),
    "no option": (
        response({"linkId": "3", "answer": [{"valueCoding": {"system": "u:v", "code": "abc"}}]}),
        response({"linkId": "3", "answer": [{"valueCoding": {"system": "u:v", "code": "abd"}}]}),
        "QuestionnaireResponse.item[1].answer[0].value",
    ),
    "no answer": (
        response(), {**response(), "item": [{"linkId": "1"}]}, "QuestionnaireResponse.item[0]",
    ),
    "count of concepts": (
        {**CODES, "count": 1, "concept": [{"code": "a"}]},
        {**CODES, "count": 2, "concept": [{"code": "a"}]}, "CodeSystem.count",
    ),
    "supplement": (
        {**CODES, "content": "supplement", "supplements": "u:v"}, {**CODES, "supplements": "u:v"},
        "CodeSystem.content",
    ),
    "relative canonical": (
        {**SET, "url": "http://a.org/v"}, {**SET, "url": "ValueSet/v"}, "ValueSet.url",
    ),
    "relative system": (
        {**SET, "compose": {"include": [{"system": "u:v"}]}},
        {**SET, "compose": {"include": [{"system": "#c"}]}}, "ValueSet.compose.include[0].system",
    ),
    "expression constraint": (
        {**SET, "compose": {"include": [{"system": "http://snomed.info/sct", "filter": [
            {"property": "constraint", "op": "=", "value": "<< 404684003 AND (^ 816080008)"}]}]}},
        {**SET, "compose": {"include": [{"system": "http://snomed.info/sct", "filter": [
            {"property": "constraint", "op": "=", "value": "404684003 << 404684003"}]}]}},
        "ValueSet.compose.include[0].filter[0]",
    ),
    "type of a search parameter": (
        PATIENT | {"active": True},
        {"resourceType": "CapabilityStatement", "status": "draft", "date": "2024",
         "kind": "capability",
         "fhirVersion": "4.0.1", "format": ["json"], "software": {"name": "x"}, "rest": [
             {"mode": "server", "resource": [{"type": "Patient", "searchParam": [
                 {"name": "gender", "type": "date",
                  "definition": "http://hl7.org/fhir/SearchParameter/individual-gender"}]}]}]},
        "CapabilityStatement.rest[0].resource[0].searchParam[0].type",
    ),
    "differential that fits no base": (
        PATIENT | {"active": True},
        {"resourceType": "StructureDefinition", "url": "http://a.org/s", "name": "X",
         "status": "draft",
         "kind": "resource", "abstract": False, "type": "Patient", "derivation": "constraint",
         "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Patient",
         "differential": {"element": [{"id": "Patient.nam", "path": "Patient.nam"}]}},
        "StructureDefinition",
    ),
    "same fullUrl": (
        bundle("collection", COLLECTED), bundle("collection", COLLECTED, COLLECTED),
        "Bundle.entry[1].fullUrl",
    ),
    "fullUrl of another id": (
        bundle("collection", COLLECTED),
        bundle("collection", entry("http://a.org/Patient/2", **COLLECTED["resource"])),
        "Bundle.entry[0].fullUrl",
    ),
    "relative fullUrl": (
        bundle("collection", COLLECTED),
        bundle("collection", entry("Patient/1", **COLLECTED["resource"])),
        "Bundle.entry[0].fullUrl",
    ),
    "document without its author": (
        document(AUTHOR), document(), "Bundle.entry[0].resource.author[0]",
    ),
    "document with what belongs nowhere": (
        document(AUTHOR), document(AUTHOR, COLLECTED), "Bundle.entry[2]",
    ),
    "document without a composition": (
        document(AUTHOR),
        bundle("document", COLLECTED, identifier={"system": "u:v", "value": "1"},
               timestamp="2024-01-01T00:00:00Z"),
        "Bundle.entry[0]",
    ),
    "narrative of nothing": (narrative("<p>x</p>"), narrative("<p> </p>"), "Patient.text.div"),
    "link to nowhere": (
        narrative('<a href="http://a.org">x</a>'), narrative('<a href="urn:uuid:1">x</a>'),
        "Patient.text.div",
    ),
    "markup": (
        {**PATIENT, "name": [{"text": "a < b > c"}]}, {**PATIENT, "name": [{"text": "<b>a</b>"}]},
        "Patient.name[0].text",
    ),
    "address of an example": (
        {**PATIENT, "photo": [{"url": "http://a.org/x"}]},
        {**PATIENT, "photo": [{"url": "http://www.example.org/x"}]}, "Patient.photo[0].url",
    ),
    "code of a system": (
        {**PATIENT, "identifier": [
            {"type": {"coding": [{"system": V2, "code": "MR"}]}, "value": "1"}]},
        {**PATIENT, "identifier": [
            {"type": {"coding": [{"system": V2, "code": "MRRR"}]}, "value": "1"}]},
        "Patient.identifier[0].type.coding[0].code",
    ),
    "display of a code": (
        {**PATIENT, "communication": [{"language": {"coding": [
            {"system": V2, "code": "MR", "display": "medical  RECORD number"}]}}]},
        {**PATIENT, "communication": [{"language": {"coding": [
            {"system": V2, "code": "MR", "display": "Passport"}]}}]},
        "Patient.communication[0].language.coding[0].display",
    ),
    "identifier with a local system": (
        {**PATIENT, "identifier": [{"system": "u:v", "value": "1"}]},
        {**PATIENT, "identifier": [{"system": "v", "value": "1"}]}, "Patient.identifier[0].system",
    ),
    "identifier that is no URI": (
        {**PATIENT, "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:oid:1.2.3"}]},
        {**PATIENT, "identifier": [{"system": "urn:ietf:rfc:3986", "value": "1.2.3"}]},
        "Patient.identifier[0].value",
    ),
    "UUID": (
        {**PATIENT, "implicitRules": "urn:uuid:0189a6b6-3c0f-7c58-8e2f-0a8e2f0a8e2f"},
        {**PATIENT, "implicitRules": "urn:uuid:0189A6B6"}, "Patient.implicitRules",
    ),
    "OID": (
        {**PATIENT, "implicitRules": "urn:oid:1.2.3"},
        {**PATIENT, "implicitRules": "urn:oid:1..3"}, "Patient.implicitRules",
    ),
    "size of an attachment": (
        {**PATIENT, "photo": [{"data": "AAAA", "contentType": "image/png", "size": 3}]},
        {**PATIENT, "photo": [{"data": "AAA=", "contentType": "image/png", "size": 3}]},
        "Patient.photo[0].size",
    ),
    "vital sign": (
        {"resourceType": "Observation", "status": "final", "code": {"text": "temperature"}},
        {"resourceType": "Observation", "status": "final", "code": {"coding": [
            {"system": "http://loinc.org", "code": "8310-5"}]}},
        "Observation",
    ),
    "card": (
        {"cards": [{"summary": "a", "indicator": "info", "source": {"label": "b"}}]},
        {"cards": [{"summary": "a", "indicator": "infos", "source": {"label": "b"}}]},
        "CDSHooksResponse.cards[0].indicator",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_faults(name: str, profiles: ProfileValidator) -> None:
    """What is right has no error there, what is wrong has one."""
    right, wrong, where = FAULTS[name]
    known = {QUESTIONS["url"]: QUESTIONS}
    for resource, expected in ((right, False), (wrong, True)):
        found = judged(profiles, resource, known, options=STRICT)
        errors = {
            one.expression: one.diagnostics for one in found.issues if one.severity == "error"
        }
        assert (where in errors) is expected, errors


@pytest.mark.parametrize("code", ["404684003", "276885007", "840535000", "900000000000207008"])
def test_check_digits(code: str) -> None:
    """A SNOMED CT identifier ends with its check digit."""
    assert is_snomed(code)
    assert not is_snomed(code[:-1] + str((int(code[-1]) + 1) % 10))
