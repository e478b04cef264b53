"""https://hl7.org/fhir/R4/search.html#escaping

Values from a client are values, and its member names are data: no operator is ever evaluated.
"""

import json
from typing import Any
from urllib.parse import quote_from_bytes

from tests.badinput.conftest import JSON, Cases, Watch

FILES = ("nosql/mongodb.b64", "nosql/operators.b64", "nosql/more.b64")
FORM = {"content-type": "application/x-www-form-urlencoded"}
OPERATORS = [
    *("$ne", "$gt", "$regex", "$where", "$expr", "$function", "$exists", "$nin", "$not", "$or"),
    *("$jsonSchema", "$text", "$comment", "$accumulator", "$lookup", "$out", "$merge", "$set"),
]
PARAMETERS = ["family", "family:contains", "family:exact", "identifier", "_id", "_tag", "gender"]


def rows(content: bytes) -> int:
    """Return how many canaries are in an answer."""
    return content.count(b"Qxzvkanary")


async def test_values_stay_values(watch: Watch, cases: Cases) -> None:
    """As the value of a parameter, by GET and by POST: no more rows than a plain word finds."""
    for name, case in cases(*FILES):
        for parameter in PARAMETERS:
            query = f"{parameter}={quote_from_bytes(case)}"
            for answer in (
                await watch(name, "GET", f"Patient?{query}"),
                await watch(name, "POST", "Patient/_search", FORM, query.encode()),
            ):
                watch.check(name, answer.status_code in (200, 400), f"status {answer.status_code}")
                watch.check(name, rows(answer.content) == 0, f"rows for {query}")

    assert watch.faults == {}


async def test_names_of_parameters_stay_names(watch: Watch, cases: Cases) -> None:
    """``name[$ne]=x`` is an unknown parameter: 400."""
    names = [(name, quote_from_bytes(case)) for name, case in cases(*FILES)]
    names += [(one, form) for one in OPERATORS for form in (one, f"family[{one}]", f"name.{one}")]
    for name, text in names:
        target = f"Patient?{text}=x" if "%3D" not in text else f"Patient?family{text}"
        answer = await watch(name, "GET", target)
        watch.check(name, answer.status_code == 400, f"status {answer.status_code} {target}")

    assert watch.faults == {}


async def test_members_stay_members(watch: Watch, cases: Cases) -> None:
    """As the name of a JSON member, in a resource, an element and a bundle: 4xx."""
    names = [(name, case.decode("utf-8", "replace")) for name, case in cases(*FILES)]
    names += [(one, one) for one in (*OPERATORS, "_id", "a.b", "__proto__", "a\0", "", "$")]
    for name, member in names:
        bodies: tuple[dict[str, Any], ...] = (
            {"resourceType": "Patient", "id": "n", member: {"$ne": 1}},
            {"resourceType": "Patient", "id": "n", "name": [{member: "x"}]},
            {"resourceType": "Patient", "id": "n", "active": {member: True}},
        )
        for body in bodies:
            answer = await watch(name, "PUT", "Patient/n", JSON, json.dumps(body).encode())
            right = answer.status_code in (400, 422)
            watch.check(name, right, f"status {answer.status_code} {body}")

    assert watch.faults == {}


async def test_urls_of_entries_stay_urls(watch: Watch, cases: Cases) -> None:
    """As the URL of a bundle entry and as a conditional reference: a refusal of that entry."""
    for name, case in cases(*FILES):
        text = case.decode("utf-8", "replace")
        for url in (f"Patient?family={text}", f"Patient/{text}", text):
            asked = {"request": {"method": "GET", "url": url}}
            bundle = {"resourceType": "Bundle", "type": "batch", "entry": [asked]}
            answer = await watch(name, "POST", "", JSON, json.dumps(bundle).encode())
            watch.check(name, rows(answer.content) == 0, f"rows for {url}")
        basic = {
            "resourceType": "Basic",
            "code": {"text": "x"},
            "subject": {"reference": f"Patient?family={text}"},
        }
        entry = {"resource": basic, "request": {"method": "POST", "url": "Basic"}}
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        answer = await watch(name, "POST", "", JSON, json.dumps(bundle).encode())
        watch.check(name, answer.status_code in (400, 412), f"reference {answer.status_code}")

    assert watch.faults == {}


async def test_if_none_exist_stays_a_search(watch: Watch, cases: Cases) -> None:
    """As If-None-Exist: refused, or a search that finds nothing; never 5xx."""
    body = b'{"resourceType":"Basic","code":{"text":"x"}}'
    for name, case in cases(*FILES):
        headers = {**JSON, "if-none-exist": f"identifier={quote_from_bytes(case)}"}
        answer = await watch(name, "POST", "Basic", headers, body)
        watch.check(name, answer.status_code in (201, 400), f"status {answer.status_code}")

    assert watch.faults == {}
