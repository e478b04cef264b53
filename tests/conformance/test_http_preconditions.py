"""https://hl7.org/fhir/R4/http.html#concurrency, #cread, and https://www.rfc-editor.org/rfc/rfc9110#section-13

Every precondition on every interaction that takes one, alone, in a batch and in a transaction. What
is expected is computed from the RFC, and from the version that is there, by a few lines of its own.
"""

import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.http.conftest import outcome_of

# Precondition -> versions that it lists (RFC 9110, 8.8.3 and 13.1); the resource is at version 2.
TAGS: dict[str, tuple[str, ...]] = {
    'W/"2"': ("2",),
    '"2"': ("2",),
    "2": ("2",),
    'W/"1"': ("1",),
    '"1"': ("1",),
    'W/"9", W/"2"': ("9", "2"),
    '"1" , "2","3"': ("1", "2", "3"),
    'W/"1", W/"3"': ("1", "3"),
    "*": ("*",),
    '"*"': (),  # a tag like any other, and nobody's
    'W/"02"': (),
    'W/"other/tag"': (),
    '""': (),
}
PAST, FUTURE = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
IF_MATCH = [{"If-Match": tag} for tag in TAGS]
IF_NONE_MATCH = [{"If-None-Match": tag} for tag in TAGS]
DATES = [{"If-Modified-Since": date} for date in (PAST, FUTURE, "nonsense")]
BOTH = [
    {"If-None-Match": 'W/"2"', "If-Modified-Since": PAST},  # the tag decides: 13.2.2
    {"If-None-Match": 'W/"1"', "If-Modified-Since": FUTURE},
    {"If-Match": 'W/"2"', "If-None-Match": 'W/"2"'},
    {"If-Match": 'W/"1"', "If-None-Match": 'W/"1"'},
]
ALL = [{}, *IF_MATCH, *IF_NONE_MATCH, *DATES, *BOTH]
# One reader reads tags wherever they stand: in bundles some of each kind. No instant is no date.
SOME = [{}, *IF_MATCH[::4], *IF_NONE_MATCH[::4], *DATES[:2], *BOTH]
# In a bundle the headers are members of the entry's request.
MEMBERS = {
    "If-Match": "ifMatch",
    "If-None-Match": "ifNoneMatch",
    "If-Modified-Since": "ifModifiedSince",
}
INSTANTS = {PAST: "2000-01-01T00:00:00Z", FUTURE: "2100-01-01T00:00:00Z"}


@dataclass(frozen=True)
class Row:
    """An interaction on the patient ``{id}``: its request, and its status without preconditions.

    ``reads`` says that a version that is known is 304; ``there`` is the version that is there.
    """

    method: str
    path: str
    status: int
    reads: bool = False
    there: int = 2


ROWS = {
    "read": Row("GET", "Patient/{id}", 200, reads=True),
    "vread of the current version": Row("GET", "Patient/{id}/_history/2", 200, reads=True),
    "vread of an older version": Row("GET", "Patient/{id}/_history/1", 200, reads=True, there=1),
    "update": Row("PUT", "Patient/{id}", 200),
    "update as create": Row("PUT", "Patient/{id}", 201, there=0),
    "conditional update": Row("PUT", "Patient?identifier={id}", 200),
    "patch": Row("PATCH", "Patient/{id}", 200),
    "conditional patch": Row("PATCH", "Patient?identifier={id}", 200),
    "delete": Row("DELETE", "Patient/{id}", 204),
    "conditional delete": Row("DELETE", "Patient?identifier={id}", 204),
}


def expected(row: Row, headers: dict[str, str]) -> int:
    """Return the status by RFC 9110, 13.2.2: If-Match first, then If-None-Match, else the date."""
    current = {str(row.there), "*"} if row.there else set()
    if "If-Match" in headers and not current & set(TAGS[headers["If-Match"]]):
        return 412
    if "If-None-Match" in headers:
        if current & set(TAGS[headers["If-None-Match"]]):
            return 304 if row.reads else 412
    elif row.reads and headers.get("If-Modified-Since") == FUTURE:
        return 304
    return row.status


def patient(id: str, text: str) -> dict[str, Any]:
    """Return a patient that the criteria find."""
    return {
        "resourceType": "Patient",
        "id": id,
        "identifier": [{"value": id}],
        "name": [{"text": text}],
    }


async def prepared(http: httpx.AsyncClient, id: str, versions: int) -> None:
    """Write ``versions`` versions of the patient ``id``; of none, nothing."""
    for number in range(versions):
        answer = await http.put(f"Patient/{id}", json=patient(id, str(number)))
        assert answer.status_code in (200, 201)


PATCH = [{"op": "replace", "path": "/name/0/text", "value": "new"}]


def body_of(row: Row, id: str, *, in_bundle: bool) -> Any:
    """Return what the request of ``row`` sends."""
    if row.method == "PUT":
        return patient(id, "new")
    if row.method == "PATCH" and in_bundle:
        data = "W3sib3AiOiJyZXBsYWNlIiwicGF0aCI6Ii9uYW1lLzAvdGV4dCIsInZhbHVlIjoibmV3In1d"
        type = "application/json-patch+json"
        return {"resourceType": "Binary", "contentType": type, "data": data}
    return PATCH if row.method == "PATCH" else None


async def alone(http: httpx.AsyncClient, row: Row, id: str, headers: dict[str, str]) -> int:
    """Return the status of the request by HTTP."""
    body = body_of(row, id, in_bundle=False)
    type = "application/json-patch+json" if row.method == "PATCH" else "application/fhir+json"
    sent = {**headers, **({"Content-Type": type} if body is not None else {})}
    content = json.dumps(body) if body is not None else None
    path = row.path.format(id=id)
    answer = await http.request(row.method, path, headers=sent, content=content)
    if answer.status_code == 412:
        assert outcome_of(answer)["issue"][0]["code"] == "conflict"
    if answer.status_code == 304:
        assert answer.content == b""
    return answer.status_code


async def bundled(
    http: httpx.AsyncClient, row: Row, id: str, headers: dict[str, str], type: str
) -> int:
    """Return the status of the request as the entry of a bundle."""
    request = {"method": row.method, "url": row.path.format(id=id)}
    for name, value in headers.items():
        request[MEMBERS[name]] = INSTANTS.get(value, value)
    body = body_of(row, id, in_bundle=True)
    entry: dict[str, Any] = {"request": request}
    if body is not None:
        entry["resource"] = body
    answer = await http.post("", json={"resourceType": "Bundle", "type": type, "entry": [entry]})
    if answer.status_code != 200:
        assert type == "transaction"
        return answer.status_code
    return int(answer.json()["entry"][0]["response"]["status"][:3])


@pytest.mark.parametrize("channel", ["alone", "batch", "transaction"])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_http_concurrency_3_1_0_5_preconditions(
    http: httpx.AsyncClient, row: Row, channel: str
) -> None:
    """SHALL: the version that is named decides; what is refused leaves the version that was."""
    wrong = []
    for number, headers in enumerate(ALL if channel == "alone" else SOME):
        id = f"p{number}"
        await prepared(http, id, 2 if row.there else 0)
        if channel == "alone":
            status = await alone(http, row, id, headers)
        else:
            status = await bundled(http, row, id, headers, channel)
        if status != expected(row, headers):
            wrong.append((headers, status, expected(row, headers)))
        if expected(row, headers) == 412:
            after = await http.get(f"Patient/{id}")
            assert after.headers.get("etag") == ('W/"2"' if row.there else None)
    assert wrong == []


# What matches -> status of a create with If-None-Exist (http.html#ccreate).
CREATES = {0: 201, 1: 200, 2: 412}


@pytest.mark.parametrize("channel", ["alone", "batch", "transaction"])
@pytest.mark.parametrize("form", ["identifier=x", "?identifier=x", "Patient?identifier=x"])
async def test_http_ccreate_3_1_0_8_1_if_none_exist(
    http: httpx.AsyncClient, channel: str, form: str
) -> None:
    """Nothing matches: created; one does: 200 and nothing is written; several do: 412."""
    for there, status in CREATES.items():
        if there:
            resource = {**patient(f"x{there}", "a"), "identifier": [{"value": "x"}]}
            await http.put(f"Patient/x{there}", json=resource)
        body = {**patient("y", "b"), "identifier": [{"value": "x" if there else "z"}]}
        before = (await http.get("Patient?_summary=count")).json()["total"]
        criteria = form.replace("=x", "=z") if not there else form
        if channel == "alone":
            answer = await http.post("Patient", json=body, headers={"If-None-Exist": criteria})
            found = answer.status_code
        else:
            request = {"method": "POST", "url": "Patient", "ifNoneExist": criteria}
            entry = {"resource": body, "request": request}
            bundle = {"resourceType": "Bundle", "type": channel, "entry": [entry]}
            answer = await http.post("", json=bundle)
            found = answer.status_code
            if found == 200:
                found = int(answer.json()["entry"][0]["response"]["status"][:3])
        assert found == status, answer.text
        after = (await http.get("Patient?_summary=count")).json()["total"]
        assert after - before == (status == 201)


async def test_http_cread_3_1_0_1_the_statement_is_not_sent_again(http: httpx.AsyncClient) -> None:
    """What has an ETag is read conditionally, the CapabilityStatement too."""
    tag = (await http.get("metadata")).headers["etag"]
    sent = {tag: 304, tag.removeprefix("W/"): 304, f'"x", {tag}': 304, "*": 304, 'W/"x"': 200}
    for value, status in sent.items():
        answer = await http.get("metadata", headers={"If-None-Match": value})
        assert answer.status_code == status, value
