"""https://hl7.org/fhir/R4/http.html#read"""

from email.utils import parsedate_to_datetime

import httpx
import pytest

from tests.http.conftest import BASE, Exact, diagnostics_of, outcome_of

PATIENT = {"resourceType": "Patient", "id": "p", "active": True, "birthDate": "1970-02"}
OTHER = {**PATIENT, "active": False}


async def written(http: httpx.AsyncClient, *versions: dict[str, object]) -> httpx.Response:
    """Write ``versions`` of Patient/p one after the other; return the last answer."""
    answers = [await http.put("Patient/p", json=one) for one in versions]
    assert [one.status_code for one in answers] == [201] + [200] * (len(answers) - 1)
    return answers[-1]


# ---------------------------------------------------------------------------------------- read


async def test_a_read_returns_the_resource_with_its_id(http: httpx.AsyncClient) -> None:
    """The returned resource SHALL have an id element with a value that is the [id]."""
    await written(http, PATIENT)
    read = await http.get("Patient/p")

    assert read.status_code == 200
    meta = read.json().pop("meta")
    assert read.json() == {**PATIENT, "meta": meta}
    assert read.headers["content-type"] == "application/fhir+json;charset=utf-8"


async def test_a_read_has_etag_and_last_modified(http: httpx.AsyncClient) -> None:
    """The ETag is weak and is meta.versionId; Last-Modified is meta.lastUpdated in seconds."""
    await written(http, PATIENT, OTHER)
    read = await http.get("Patient/p")
    meta = read.json()["meta"]
    modified = parsedate_to_datetime(read.headers["last-modified"])

    assert read.headers["etag"] == f'W/"{meta["versionId"]}"' == 'W/"2"'
    assert read.headers["last-modified"].endswith(" GMT")
    assert meta["lastUpdated"].startswith(f"{modified:%Y-%m-%dT%H:%M:%S}")


async def test_unknown_and_deleted_are_told_apart(http: httpx.AsyncClient) -> None:
    """A GET for a deleted resource returns a 410, whereas for an unknown resource 404."""
    await written(http, PATIENT)
    await http.delete("Patient/p")
    gone, unknown = await http.get("Patient/p"), await http.get("Patient/nobody")

    assert (gone.status_code, unknown.status_code) == (410, 404)
    assert outcome_of(gone)["issue"][0]["code"] == "deleted"
    assert outcome_of(unknown)["issue"][0]["code"] == "not-found"
    assert "Patient/nobody" in diagnostics_of(unknown)


async def test_ids_and_types_are_case_sensitive(http: httpx.AsyncClient) -> None:
    """All URLs (and ids that form part of the URL) are case sensitive."""
    await written(http, PATIENT)

    assert (await http.get("Patient/P")).status_code == 404
    assert (await http.get("patient/p")).status_code == 404


async def test_all_forms_of_an_id_can_be_read(http: httpx.AsyncClient) -> None:
    """https://hl7.org/fhir/R4/datatypes.html#id: letters, digits, hyphens, dots, 1 to 64."""
    ids = ["a", "0", "-", "A.b-C.9", "x" * 64, "1.2.840.10008", "_history"[1:], "metadata"]
    for id in ids:
        answer = await http.put(f"Patient/{id}", json={**PATIENT, "id": id})
        assert answer.status_code == 201, (id, answer.text)

    assert [(await http.get(f"Patient/{id}")).json()["id"] for id in ids] == ids


# --------------------------------------------------------------------------------------- vread


async def test_a_vread_returns_that_version(http: httpx.AsyncClient) -> None:
    """...and a meta.versionId element with a value of [vid]; ETag and Last-Modified with it."""
    await written(http, PATIENT, OTHER)
    first, second = [await http.get(f"Patient/p/_history/{vid}") for vid in (1, 2)]

    assert [one.json()["meta"]["versionId"] for one in (first, second)] == ["1", "2"]
    assert [one.json()["id"] for one in (first, second)] == ["p", "p"]
    assert [one.json()["active"] for one in (first, second)] == [True, False]
    assert [one.headers["etag"] for one in (first, second)] == ['W/"1"', 'W/"2"']
    assert all("last-modified" in one.headers for one in (first, second))


async def test_a_version_stays_as_it_was(http: httpx.AsyncClient) -> None:
    """A version reads the same before and after it is replaced, and after a deletion."""
    await written(http, PATIENT)
    before = await http.get("Patient/p/_history/1")
    await http.put("Patient/p", json=OTHER)
    await http.delete("Patient/p")
    after = await http.get("Patient/p/_history/1")

    assert after.status_code == 200
    assert (after.content, after.headers["etag"]) == (before.content, before.headers["etag"])
    assert after.headers["last-modified"] == before.headers["last-modified"]


async def test_a_version_that_is_a_deletion_is_gone(http: httpx.AsyncClient) -> None:
    """If the version referred to is one where the resource was deleted, return a 410."""
    await written(http, PATIENT)
    await http.delete("Patient/p")
    await http.put("Patient/p", json=OTHER)

    assert [(await http.get(f"Patient/p/_history/{vid}")).status_code for vid in (1, 2, 3)] == [
        200,
        410,
        200,
    ]


# "01" reads version 1.
@pytest.mark.parametrize("vid", ["3", "0", "-1", "01", "1.0", "x", "9" * 19, "9" * 64])
async def test_a_version_that_never_was_is_not_found(http: httpx.AsyncClient, vid: str) -> None:
    """A version id is opaque: only what was handed out names a version."""
    await written(http, PATIENT, OTHER)
    answer = await http.get(f"Patient/p/_history/{vid}")

    assert answer.status_code == 404, answer.text
    assert vid[:20] in diagnostics_of(answer)


async def test_a_vread_of_an_unknown_resource_is_not_found(http: httpx.AsyncClient) -> None:
    """There is no version of what never was."""
    assert (await http.get("Patient/nobody/_history/1")).status_code == 404


# ---------------------------------------------------------------------------- conditional read

NOT_MODIFIED = {
    "weak": {"If-None-Match": 'W/"2"'},
    "strong": {"If-None-Match": '"2"'},
    "list": {"If-None-Match": 'W/"7", W/"2"'},
    "any": {"If-None-Match": "*"},
    "same time": {"If-Modified-Since": "="},
    "future": {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},
    "tag decides": {"If-None-Match": 'W/"2"', "If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
}
MODIFIED = {
    "older version": {"If-None-Match": 'W/"1"'},
    "past": {"If-Modified-Since": "Sat, 01 Jan 2000 00:00:00 GMT"},
    "tag decides": {"If-None-Match": 'W/"1"', "If-Modified-Since": "="},
    "no date": {"If-Modified-Since": "yesterday"},
    "impossible date": {"If-Modified-Since": "Sat, 99 Foo 2000 00:00:00 GMT"},
    "huge offset": {"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 +99999999999999"},
    "empty date": {"If-Modified-Since": ""},
    # RFC 9110, 13.1.3: an invalid date makes the header void, of whatever form.
    "impossible instant": {"If-Modified-Since": "2024-99-99"},
    "four digits": {"If-Modified-Since": "9999 is no date"},
    # RFC 9110, 8.8.3: a tag that somebody else made is a tag; it matches nothing.
    "tag of another": {"If-None-Match": '"a/b_c:d"'},
    "empty tag": {"If-None-Match": '""'},
}


@pytest.mark.parametrize("headers", NOT_MODIFIED.values(), ids=NOT_MODIFIED)
async def test_what_the_client_has_is_not_sent_again(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """304 without a body, and with the ETag that a 200 would have (RFC 9110, 15.4.5)."""
    last = await written(http, PATIENT, OTHER)
    sent = {name: last.headers["last-modified"] if v == "=" else v for name, v in headers.items()}
    answer = await http.get("Patient/p", headers=sent)

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == 'W/"2"'
    assert "content-type" not in answer.headers


@pytest.mark.parametrize("headers", MODIFIED.values(), ids=MODIFIED)
async def test_what_the_client_does_not_have_is_sent(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    """200 and the resource; If-None-Match decides where both are sent (RFC 9110, 13.1.3)."""
    last = await written(http, PATIENT, OTHER)
    sent = {name: last.headers["last-modified"] if v == "=" else v for name, v in headers.items()}
    answer = await http.get("Patient/p", headers=sent)

    assert answer.status_code == 200, answer.text
    assert answer.json()["active"] is False


async def test_a_condition_does_not_hide_a_deletion(http: httpx.AsyncClient) -> None:
    """A deleted resource is gone, whatever the client has of it."""
    await written(http, PATIENT)
    await http.delete("Patient/p")
    for tag in ('W/"1"', 'W/"2"', "*"):
        answer = await http.get("Patient/p", headers={"If-None-Match": tag})
        assert answer.status_code == 410, tag


# ---------------------------------------------------------------------------------------- HEAD

GETS = {
    "Patient/p": 200,
    "Patient/p?_summary=true": 200,
    "Patient/p/_history/1": 200,
    "Patient/p/_history": 200,
    "Patient/_history": 200,
    "_history": 200,
    "metadata": 200,
    "Patient?_id=p": 200,
    "Patient/nobody": 404,
    "Patient/p/_history/9": 404,
    "Patient/gone": 410,
    "Unknown/p": 404,
    "Patient?nonsense=1": 400,
    "Patient/p?_format=xml": 200,
    "Patient/p?_format=ttl": 406,
}


@pytest.mark.parametrize(("path", "status"), GETS.items(), ids=GETS)
async def test_head_is_get_without_the_body(
    http: httpx.AsyncClient, exact: Exact, path: str, status: int
) -> None:
    """Anywhere that a GET can be used, HEAD is also allowed: same response, but no body."""
    await written(http, PATIENT)
    await http.put("Patient/gone", json={**PATIENT, "id": "gone"})
    await http.delete("Patient/gone")
    get = await http.get(path, headers={"Accept-Encoding": "identity"})
    head = await exact("HEAD", path)

    assert (get.status_code, head.status_code) == (status, status)
    assert head.content == b""
    varying = ("x-request-id", "date")
    assert {n: v for n, v in head.headers.items() if n not in varying} == {
        n: v for n, v in get.headers.items() if n not in varying
    }


async def test_an_absolute_location_can_be_read(http: httpx.AsyncClient) -> None:
    """The Location of a write is the URL of that version."""
    location = (await written(http, PATIENT)).headers["location"]

    assert location == f"{BASE}/Patient/p/_history/1"
    assert (await http.get(location)).json()["meta"]["versionId"] == "1"
