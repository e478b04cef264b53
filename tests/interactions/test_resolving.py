"""https://hl7.org/fhir/R4/http.html#trules, conditional references"""

import asyncio
from typing import Any

import pytest

from fhir_server.messages import Request, Resource
from tests.conftest import Fhir
from tests.interactions.asking import (
    bundle,
    entry,
    issues_of,
    json_of,
    patient,
    places,
    put,
    read,
    tags,
    versions,
)

WANTED = "Patient?identifier=http://a.org|1"


def known(id: str, value: str) -> Resource:
    """Return a Patient with an identifier."""
    return patient(id, identifier=[{"system": "http://a.org", "value": value}])


def observation(reference: str, **members: Any) -> Resource:
    """Return an Observation about ``reference``."""
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"text": "x"},
        "subject": {"reference": reference},
        **members,
    }


# What is there -> how many are found.
MATCHES = {
    "one": ([known("a", "1"), known("b", "2")], 1),
    "none": ([known("b", "2")], 0),
    "several": ([known("a", "1"), known("b", "1")], 2),
    "many": ([known(f"p{n}", "1") for n in range(5)], 5),
}


@pytest.mark.parametrize(("there", "found"), MATCHES.values(), ids=MATCHES)
async def test_exactly_one_must_match(fhir: Fhir, there: list[Resource], found: int) -> None:
    """One match replaces the reference; none and several refuse the transaction and name it."""
    await fhir(bundle(*(entry("PUT", f"Patient/{one['id']}", one) for one in there)))

    response = await fhir(
        bundle(
            entry("PUT", "Patient/other", patient("other")),
            entry("POST", "Observation", observation(WANTED)),
        )
    )

    if found == 1:
        assert response.status == 200
        assert (await read(fhir, places(response)[1]))["subject"] == {"reference": "Patient/a"}
    else:
        assert response.status == 412
        assert issues_of(response)[0][1].startswith("Bundle.entry[1]")
        assert WANTED in json_of(response)["issue"][0]["diagnostics"]
        assert (await fhir(Request("read", "Patient", "other"))).status == 404
        assert "entry" not in json_of(await fhir(Request("history-type", "Observation")))


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_what_the_same_bundle_creates_is_found(fhir: Fhir, method: str) -> None:
    """Conditional references are resolved last, so they find what the bundle has just written."""
    url = "Patient" if method == "POST" else "Patient/a"
    response = await fhir(
        bundle(
            entry("POST", "Observation", observation(WANTED)),
            entry(method, url, known("a", "1")),
        )
    )
    mine, other = places(response)

    assert (await read(fhir, mine))["subject"]["reference"] == other
    assert tags(await versions(fhir, mine)) == [1]


async def test_what_the_same_bundle_deletes_is_not_found(fhir: Fhir) -> None:
    """A resource that is deleted before is no match."""
    await fhir(put(known("a", "1")))
    response = await fhir(
        bundle(entry("POST", "Observation", observation(WANTED)), entry("DELETE", "Patient/a"))
    )

    assert response.status == 412
    assert (await fhir(Request("read", "Patient", "a"))).status == 200


async def test_what_the_same_bundle_changes_counts_as_changed(fhir: Fhir) -> None:
    """The match is judged on the state after the writes: the identifier moved to another."""
    await fhir(put(known("a", "1")))
    response = await fhir(
        bundle(
            entry("POST", "Observation", observation(WANTED)),
            entry("PUT", "Patient/a", known("a", "2")),
            entry("PUT", "Patient/b", known("b", "1")),
        )
    )

    assert (await read(fhir, places(response)[0]))["subject"]["reference"] == "Patient/b"


async def test_the_resolved_reference_is_what_is_found_served_and_answered(fhir: Fhir) -> None:
    """Search keys, compartments, history and the answer have the place, not the question."""
    await fhir(put(known("a", "1")))
    request = bundle(
        entry("PUT", "Observation/o", {**observation(WANTED), "id": "o"}),
        prefer={"return": "representation"},
    )
    [only] = json_of(await fhir(request))["entry"]
    found = json_of(
        await fhir(Request("search-type", "Observation", parameters=(("patient", "a"),)))
    )
    [version] = await versions(fhir, "Observation/o")

    assert only["resource"]["subject"]["reference"] == "Patient/a"
    assert [one["resource"]["id"] for one in found["entry"]] == ["o"]
    assert version["resource"] == only["resource"] == await read(fhir, "Observation/o")


async def test_the_same_transaction_again_makes_no_version(fhir: Fhir) -> None:
    """With the reference resolved nothing has changed, so no version is made (section 16.3)."""
    await fhir(put(known("a", "1")))
    request = bundle(entry("PUT", "Observation/o", {**observation(WANTED), "id": "o"}))
    await fhir(request)
    await fhir(request)

    assert tags(await versions(fhir, "Observation/o")) == [1]


async def test_no_version_changes_once_it_is_there(fhir: Fhir) -> None:
    """What was stored with the question in it outside of a transaction stays as that version."""
    await fhir(put(known("a", "1")))
    resource = {**observation(WANTED), "id": "o"}
    first = await fhir(put(resource))
    if first.status >= 400:
        return  # to refuse it outside of a transaction is right as well
    await fhir(bundle(entry("PUT", "Observation/o", resource)))
    version = await fhir(Request("vread", "Observation", "o", version="1"))

    assert version.body == first.body


async def test_a_revived_resource_is_created(fhir: Fhir) -> None:
    """A PUT with a conditional reference over a deletion answers 201, as one without does."""
    await fhir(put(known("a", "1")))
    await fhir(put({**observation("Patient/a"), "id": "o"}))
    await fhir(Request("delete", "Observation", "o"))
    response = await fhir(bundle(entry("PUT", "Observation/o", {**observation(WANTED), "id": "o"})))
    [only] = json_of(response)["entry"]

    assert only["response"]["status"].startswith("201")
    assert only["response"]["etag"] == 'W/"3"'


REFUSED = {
    "an unknown type": "Patent?identifier=1",
    "an unknown parameter": "Patient?shoe=43",
    "a parameter about the result": "Patient?identifier=http://a.org|1&_count=1",
    "an order": "Patient?identifier=http://a.org|1&_sort=name",
    "no value": "Patient?identifier=",
}


@pytest.mark.parametrize("reference", REFUSED.values(), ids=REFUSED)
async def test_a_question_that_makes_no_sense_is_refused(fhir: Fhir, reference: str) -> None:
    """ "Only filtering parameters are allowed"; the entry is named."""
    await fhir(put(known("a", "1")))
    response = await fhir(bundle(entry("POST", "Observation", observation(reference))))

    assert 400 <= response.status < 500
    assert issues_of(response)[0][1].startswith("Bundle.entry[0]")


async def test_a_match_of_a_wrong_type_is_refused(fhir: Fhir) -> None:
    """What the reference points at once it is resolved must be allowed there."""
    await fhir(put({"resourceType": "Medication", "id": "m", "status": "active"}))
    response = await fhir(
        bundle(entry("POST", "Observation", observation("Medication?status=active")))
    )

    assert 400 <= response.status < 500


async def test_nested_and_repeated_questions(fhir: Fhir) -> None:
    """References in lists, extensions and contained resources are resolved, the same ones alike."""
    await fhir(put(known("a", "1")))
    resource = observation(
        WANTED,
        focus=[{"reference": WANTED}, {"reference": "Patient?_id=a"}],
        extension=[{"url": "http://a.org/x", "valueReference": {"reference": WANTED}}],
    )
    response = await fhir(bundle(entry("POST", "Observation", resource)))
    stored = await read(fhir, places(response)[0])

    assert [one["reference"] for one in stored["focus"]] == ["Patient/a", "Patient/a"]
    assert stored["extension"][0]["valueReference"]["reference"] == "Patient/a"


async def test_questions_under_contention(fhir: Fhir) -> None:
    """16 transactions at once that refer to one patient by identifier all find it."""
    await fhir(put(known("a", "1")))
    answers = await asyncio.gather(
        *(fhir(bundle(entry("POST", "Observation", observation(WANTED)))) for _ in range(16))
    )
    stored = [await read(fhir, places(answer)[0]) for answer in answers]

    assert {one["subject"]["reference"] for one in stored} == {"Patient/a"}
