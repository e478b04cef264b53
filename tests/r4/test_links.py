"""https://hl7.org/fhir/R4/http.html#trules"""

from typing import Any

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.links import Links, Replacements

MARK = Replacements(lambda one: f"r:{one}", lambda one: f"u:{one}", lambda one: f"n:{one}")


def replaced(definitions: Definitions, resource: dict[str, Any]) -> dict[str, Any]:
    """The resource with each link marked by its kind."""
    return Links(definitions).replaced(resource, MARK)


def test_links_are_told_by_their_type(definitions: Definitions) -> None:
    """References, uris and narratives are links; canonicals, strings and ids are none."""
    resource = {
        "resourceType": "QuestionnaireResponse",
        "id": "q",
        "text": {"status": "generated", "div": "d"},
        "identifier": {"system": "s", "value": "v"},
        "questionnaire": "c",
        "subject": {"reference": "p", "display": "x"},
        "item": [{"linkId": "1", "item": [{"answer": [{"valueReference": {"reference": "o"}}]}]}],
    }

    result = replaced(definitions, resource)

    assert result["text"]["div"] == "n:d"
    assert result["identifier"] == {"system": "u:s", "value": "v"}
    assert result["questionnaire"] == "c"
    assert result["subject"] == {"reference": "r:p", "display": "x"}
    assert result["item"][0]["item"][0]["answer"][0]["valueReference"]["reference"] == "r:o"
    assert result["id"] == "q"


def test_extensions_and_contained_resources_are_looked_into(definitions: Definitions) -> None:
    """Also the extensions of a primitive, and resources inside by their own type."""
    extension = [{"url": "http://x", "valueReference": {"reference": "o"}}]
    resource = {
        "resourceType": "Patient",
        "extension": extension,
        "birthDate": "1990",
        "_birthDate": {"extension": extension},
        "contained": [{"resourceType": "Provenance", "policy": ["a", "b"]}],
        "photo": [{"url": "f"}],
    }

    result = replaced(definitions, resource)

    assert result["extension"][0]["valueReference"] == {"reference": "r:o"}
    assert result["_birthDate"]["extension"][0]["valueReference"] == {"reference": "r:o"}
    assert result["contained"][0]["policy"] == ["u:a", "u:b"]
    assert result["photo"] == [{"url": "u:f"}]


def test_what_is_unknown_stays(definitions: Definitions) -> None:
    """Unknown types and members, and values of a wrong kind, are for the validator to refuse."""
    for resource in (
        {"resourceType": "Nothing", "reference": "x"},
        {"reference": "x"},
        {
            "resourceType": "Patient",
            "reference": "x",
            "name": "y",
            "link": [[1], None, {"other": 3}],
        },
    ):
        assert replaced(definitions, resource) == resource


def test_what_has_no_link_to_replace_is_not_copied(definitions: Definitions) -> None:
    """It is the same object, beside a reference that is replaced and in a list of them."""
    kept = {"coding": [{"system": "s", "code": "c"}]}
    resource = {
        "resourceType": "Observation",
        "code": kept,
        "performer": [{"reference": "a"}, {"reference": "b"}],
    }
    places = {"a": "Patient/1"}
    by = Replacements(lambda one: places.get(one, one), lambda one: one, lambda one: one)

    result = Links(definitions).replaced(resource, by)

    assert result["performer"] == [{"reference": "Patient/1"}, {"reference": "b"}]
    assert result["code"] is kept
    assert resource["performer"] == [{"reference": "a"}, {"reference": "b"}]
    assert Links(definitions).replaced(result, by) is result
