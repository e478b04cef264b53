"""https://hl7.org/fhir/R4/http.html#trules

"Servers SHALL replace all matching links in the bundle, whether they are found in the resource ids,
resource references, elements of type uri, url, oid, uuid, and <a href="" & <img src="" in the
narrative. Elements of type canonical are not replaced." How a reference is resolved is in
https://hl7.org/fhir/R4/bundle.html#references.
"""

import json
from typing import Any

import pytest

from fhir_server.messages import Resource
from tests.conftest import Fhir
from tests.interactions.asking import BASE, bundle, entry, issues_of, patient, places, put, read

UUID = "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a"
OID = "urn:oid:1.2.3.4.5"
FULL = "http://example.org/fhir/Patient/23"
TARGETS = {"urn:uuid": UUID, "urn:oid": OID, "a full URL": FULL}

XHTML = "http://www.w3.org/1999/xhtml"


def pointing(value: str) -> Resource:
    """Return an Observation about ``value``."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": value},
    }


async def written(fhir: Fhir, resource: Resource, target: str, own: str = "") -> tuple[Any, str]:
    """Post ``resource`` and a Patient of fullUrl ``target``; return what is stored, and where."""
    response = await fhir(
        bundle(
            entry("POST", resource["resourceType"], resource, own),
            entry("POST", "Patient", {"resourceType": "Patient"}, target),
        )
    )
    assert response.status == 200, response.body
    mine, other = places(response)
    stored = await read(fhir, mine)
    return {name: value for name, value in stored.items() if name not in ("id", "meta")}, other


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
async def test_a_reference_to_another_entry_becomes_its_place(fhir: Fhir, target: str) -> None:
    """Whatever the fullUrl is, a reference to it becomes Type/id with the new id."""
    stored, place = await written(fhir, pointing(target), target)

    assert stored == pointing(place)


# A reference in an entry with this fullUrl, where http://example.org/fhir/Patient/23 is another:
# whether it is that one (bundle.html#references).
RELATIVE = {
    "the same root": ("http://example.org/fhir/Observation/1", "Patient/23", True),
    "another root": ("http://example.org/other/Observation/1", "Patient/23", False),
    "another host": ("http://example.com/fhir/Observation/1", "Patient/23", False),
    "another scheme": ("https://example.org/fhir/Observation/1", "Patient/23", False),
    "another id": ("http://example.org/fhir/Observation/1", "Patient/230", False),
    "another type": ("http://example.org/fhir/Observation/1", "Group/23", False),
    "a fullUrl that is no RESTful URL": (
        "urn:uuid:2f1e1b6e-1f2b-4f7e-8a40-1d1b0c0f7a11",
        "Patient/23",
        False,
    ),
    "no fullUrl": ("", "Patient/23", False),
    "the whole URL from anywhere": ("", FULL, True),
}


@pytest.mark.parametrize(("own", "reference", "found"), RELATIVE.values(), ids=RELATIVE)
async def test_a_relative_reference_is_below_its_entrys_own_root(
    fhir: Fhir, own: str, reference: str, found: bool
) -> None:
    """A relative reference means an entry of the same root, and no other."""
    stored, place = await written(fhir, pointing(reference), FULL, own)

    assert stored == pointing(place if found else reference)


def patient_with(**members: Any) -> Resource:
    """Return a Patient without an id."""
    return {"resourceType": "Patient", **members}


# Where a link may stand -> a resource with the mark {}, which is the link before and after.
REPLACED: dict[str, Resource] = {
    "a reference in an extension": patient_with(
        extension=[{"url": "http://a.org/x", "valueReference": {"reference": "{}"}}]
    ),
    "a reference in an extension of a primitive": patient_with(
        birthDate="1970-01-01",
        _birthDate={
            "extension": [{"url": "http://a.org/x", "valueReference": {"reference": "{}"}}]
        },
    ),
    "a reference in a contained resource": patient_with(
        contained=[
            {
                "resourceType": "Observation",
                "id": "c",
                "status": "final",
                "code": {"text": "x"},
                "subject": {"reference": "{}"},
            }
        ],
        extension=[{"url": "http://a.org/x", "valueReference": {"reference": "#c"}}],
    ),
    "a uri in an extension": patient_with(extension=[{"url": "http://a.org/x", "valueUri": "{}"}]),
    "a url in an extension": patient_with(extension=[{"url": "http://a.org/x", "valueUrl": "{}"}]),
    "the url of an attachment": patient_with(photo=[{"url": "{}"}]),
    "a uri by its name": {
        "resourceType": "Provenance",
        "recorded": "2024-01-01T00:00:00Z",
        "target": [{"reference": "{}"}],
        "policy": ["{}"],
        "agent": [{"who": {"reference": "{}"}}],
    },
    "uris in a list": {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "subject": {"reference": "{}"},
        "instantiatesUri": ["{}", "http://a.org/other"],
    },
    "a link in the narrative": patient_with(
        text={"status": "generated", "div": f'<div xmlns="{XHTML}"><a href="{{}}">x</a></div>'}
    ),
    "an image in the narrative": patient_with(
        text={"status": "generated", "div": f'<div xmlns="{XHTML}"><img alt="y" src="{{}}"/></div>'}
    ),
    "a link in single quotes": patient_with(
        text={"status": "generated", "div": f"<div xmlns=\"{XHTML}\"><a href='{{}}'>x</a></div>"}
    ),
}

KEPT: dict[str, Resource] = {
    "the value of an identifier": patient_with(
        identifier=[{"system": "urn:ietf:rfc:3986", "value": "{}"}]
    ),
    "a plain string": patient_with(name=[{"family": "{}"}]),
    "a string in an extension": patient_with(
        extension=[{"url": "http://a.org/x", "valueString": "{}"}]
    ),
    "the display of a reference": patient_with(generalPractitioner=[{"display": "{}"}]),
    "the text of the narrative": patient_with(
        text={"status": "generated", "div": f'<div xmlns="{XHTML}">see {{}}</div>'}
    ),
    "a title in the narrative": patient_with(
        text={"status": "generated", "div": f'<div xmlns="{XHTML}"><p title="{{}}">x</p></div>'}
    ),
    "a canonical in an extension": patient_with(
        extension=[{"url": "http://a.org/x", "valueCanonical": "{}"}]
    ),
    "a canonical by its name": {
        "resourceType": "QuestionnaireResponse",
        "status": "completed",
        "questionnaire": "{}",
    },
    "a canonical in a list": {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "subject": {"display": "x"},
        "instantiatesCanonical": ["{}"],
    },
    "something longer": patient_with(generalPractitioner=[{"reference": "{}0"}]),
}


def filled(resource: Resource, link: str) -> Any:
    """Return ``resource`` with ``link`` in the place of the mark."""
    return json.loads(json.dumps(resource).replace("{}", link))


@pytest.mark.parametrize("resource", REPLACED.values(), ids=REPLACED)
async def test_links_are_replaced(fhir: Fhir, resource: Resource) -> None:
    """References, uris, urls and links of the narrative follow the resource they mean."""
    for target in TARGETS.values():
        stored, place = await written(fhir, filled(resource, target), target)

        assert stored == filled(resource, place), target


@pytest.mark.parametrize("resource", KEPT.values(), ids=KEPT)
async def test_what_is_no_link_is_kept(fhir: Fhir, resource: Resource) -> None:
    """Strings, values of identifiers and canonicals stay what they are."""
    stored, _ = await written(fhir, filled(resource, UUID), UUID)

    assert stored == filled(resource, UUID)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("resource", ["reference", "valueUri"])
async def test_a_fragment_stays_behind_the_link(fhir: Fhir, resource: str, target: str) -> None:
    """The part before the # is replaced, the fragment is kept."""
    extension = {"url": "http://a.org/x"}

    def with_link(link: str) -> Resource:
        if resource == "valueUri":
            return patient_with(extension=[{**extension, "valueUri": f"{link}#part"}])
        return patient_with(
            extension=[{**extension, "valueReference": {"reference": f"{link}#part"}}]
        )

    stored, place = await written(fhir, with_link(target), target)

    assert stored == with_link(place)


async def test_a_reference_to_a_version_stays_one(fhir: Fhir) -> None:
    """ibid.: "Version-specific references should remain as version-specific references"."""
    stored, place = await written(fhir, pointing(f"{FULL}/_history/4"), FULL)

    assert stored["subject"]["reference"] == f"{place}/_history/1"


async def test_references_may_be_circular(fhir: Fhir) -> None:
    """Two resources that refer to each other, and one that refers to itself, are written."""
    other = "urn:uuid:0e1a1b77-42b7-4b7e-9cb9-6a2f2a7c0002"

    def linked(*urns: str) -> Resource:
        links = [{"other": {"reference": urn}, "type": "seealso"} for urn in urns]
        return {"resourceType": "Patient", "link": links}

    response = await fhir(
        bundle(
            entry("POST", "Patient", linked(other, UUID), UUID),
            entry("POST", "Patient", linked(UUID), other),
        )
    )
    first, second = places(response)

    assert (await read(fhir, first))["link"] == linked(second, first)["link"]
    assert (await read(fhir, second))["link"] == linked(first)["link"]


async def test_a_resource_that_is_updated_keeps_its_id(fhir: Fhir) -> None:
    """A fullUrl of a PUT, on whatever server, means the id that is written here."""
    stored = bundle(
        entry("PUT", "Patient/23", patient("23"), FULL),
        entry("PUT", "Observation/o", {**pointing(FULL), "id": "o"}, "http://b.org/Observation/9"),
    )
    assert (await fhir(stored)).status == 200

    assert (await read(fhir, "Observation/o"))["subject"] == {"reference": "Patient/23"}


async def test_references_out_of_the_bundle_are_untouched(fhir: Fhir) -> None:
    """What no entry has as fullUrl stays as it is, also the fullUrl of an entry that only reads."""
    await fhir(put(patient("23")))
    out = "urn:uuid:0e1a1b77-42b7-4b7e-9cb9-6a2f2a7c0003"
    response = await fhir(
        bundle(
            entry("POST", "Observation", pointing(out)),
            entry("POST", "Observation", pointing("http://elsewhere.org/Patient/5")),
            entry("GET", "Patient/23"),
        )
    )
    first, second = [
        one["response"]["location"].removeprefix(f"{BASE}/").partition("/_history")[0]
        for one in json.loads(response.body)["entry"][:2]
    ]

    assert (await read(fhir, first))["subject"]["reference"] == out
    assert (await read(fhir, second))["subject"]["reference"] == "http://elsewhere.org/Patient/5"


async def test_a_reference_to_a_wrong_type_is_seen_after_it_is_resolved(fhir: Fhir) -> None:
    """A urn says nothing of the type; the place it becomes does, and is refused with its place."""
    response = await fhir(
        bundle(
            entry("POST", "Observation", pointing(UUID)),
            entry("POST", "Medication", {"resourceType": "Medication"}, UUID),
        )
    )

    assert 400 <= response.status < 500
    assert issues_of(response)[0][1] == "Bundle.entry[0].resource.subject.reference"
