"""Requests that a server must refuse: method, target, headers, body, statuses, and a word.

https://hl7.org/fhir/R4/http.html
"""

import gzip
import json
from typing import Any

Row = tuple[str, str, dict[str, str], bytes, tuple[int, ...], str]

JSON = {"content-type": "application/fhir+json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
GZIP = {**JSON, "content-encoding": "gzip"}
PATIENT = b'{"resourceType":"Patient","id":"p"}'
BAD = (400,)


def bundle(*entries: Any, type: Any = "batch", **members: Any) -> bytes:
    """Return a Bundle as JSON."""
    return json.dumps(
        {"resourceType": "Bundle", "type": type, "entry": list(entries), **members}
    ).encode()


def asked(method: Any, url: Any, **members: Any) -> dict[str, Any]:
    """Return an entry with a request."""
    return {"request": {"method": method, "url": url}, **members}


def get(target: str, status: int, word: str, **headers: str) -> Row:
    """Return the row of a GET."""
    return "GET", target, headers, b"", (status,), word


def post(body: bytes, word: str, *statuses: int) -> Row:
    """Return the row of a bundle."""
    return "POST", "", JSON, body, statuses or BAD, word


PLACES: dict[str, Row] = {
    "unknown type": get("Patiens/p", 404, "Patient"),
    "type in small letters": get("patient/p", 404, "patient"),
    "abstract type": get("DomainResource/p", 404, "DomainResource"),
    "unknown resource": get("Patient/nobody", 404, "Patient/nobody"),
    "unknown version": get("Patient/p/_history/99", 404, "99"),
    "version that is no number": get("Patient/p/_history/x", 404, "x"),
    "history of nothing": get("Patient/nobody/_history", 404, "Patient/nobody"),
    "id too long": get(f"Patient/{'x' * 65}", 404, "64"),
    "id with an underscore": get("Patient/a_b", 404, "a_b"),
    "id with NUL": get("Patient/a%00b", 404, "64"),
    "id with CR LF": get("Patient/a%0d%0aX-Injected:1", 404, "64"),
    "id not in UTF-8": get("Patient/%ff%fe", 404, "64"),
    "id of an operator": get("Patient/{$ne:1}", 404, "64"),
    "path traversal": get("Patient/../../etc/passwd", 404, "names nothing"),
    "path traversal, escaped": get("Patient/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, ""),
    "path traversal, twice escaped": get("Patient/%252e%252e%252f", 404, "64"),
    "escaped slash": get("Patient%2Fp", 404, "escaped slash"),
    "backslashes": get("Patient/..%5c..%5cwindows", 404, "64"),
    "empty segment": get("Patient//p", 404, "names nothing"),
    "too many segments": get("Patient/p/_history/1/2", 404, "names nothing"),
    "unknown operation": get("Patient/$nonsense", 404, "$nonsense"),
    "operation in capitals": get("Patient/$Validate", 404, "names nothing"),
    "unknown word": get("_nonsense", 404, "metadata"),
    "compartment": ("POST", "Patient/p/Observation", JSON, b"{}", (404, 405), ""),
    "delete of metadata": ("DELETE", "metadata", {}, b"", (405,), "GET"),
    "post to an instance": ("POST", "Patient/p", JSON, PATIENT, (405,), "PUT"),
    "put of history": ("PUT", "Patient/p/_history/1", JSON, PATIENT, (405,), "GET"),
    "get of _search": get("Patient/_search", 405, "POST"),
    "invented method": ("FOO", "Patient/p", {}, b"", (405,), "GET"),
    "TRACE": ("TRACE", "Patient/p", {}, b"", (405,), "GET"),
    "url too long": get("Patient?name=" + "x" * 20_000, 414, "_search"),
}

HEADERS: dict[str, Row] = {
    "Turtle wanted": get(
        "Patient/p", 406, "application/fhir+json", accept="application/fhir+turtle"
    ),
    "nothing wanted": get("Patient/p", 406, "application/fhir+json", accept="*/*;q=0"),
    "another release wanted": get(
        "Patient/p", 406, "fhir+json", accept="application/fhir+json;fhirVersion=3.0"
    ),
    "_format=ttl": get("Patient/p?_format=ttl", 406, "_format=json"),
    "Turtle sent": (
        "PUT", "Patient/p", {"content-type": "text/turtle"}, b"<x/>", (415,), "fhir+json",
    ),
    "XML said, JSON sent": (
        "PUT", "Patient/p", {"content-type": "application/fhir+xml"}, PATIENT, BAD, "not XML",
    ),
    "XML of nothing": (
        "PUT", "Patient/p", {"content-type": "text/xml"}, b"<x/>", BAD, "http://hl7.org/fhir",
    ),
    "form sent": ("POST", "Patient", FORM, b"a=b", (415,), "application/fhir+json"),
    "Latin-1 sent": (
        "PUT", "Patient/p", {"content-type": "application/json;charset=latin1"}, PATIENT, (415,),
        "UTF-8",
    ),
    "JSON to _search": ("POST", "Patient/_search", JSON, b"{}", (415,), "urlencoded"),
    "unknown encoding": (
        "PUT", "Patient/p", {**JSON, "content-encoding": "br"}, PATIENT, (415,), "gzip",
    ),
    "two encodings": (
        "PUT", "Patient/p", {**JSON, "content-encoding": "gzip, gzip"}, PATIENT, (415,), "gzip",
    ),
    "gzip that is none": ("PUT", "Patient/p", GZIP, PATIENT, BAD, "gzip"),
    "gzip cut off": ("PUT", "Patient/p", GZIP, gzip.compress(PATIENT)[:-5], BAD, "gzip"),
    "gzip with bytes behind": (
        "PUT", "Patient/p", GZIP, gzip.compress(PATIENT) + b"more", BAD, "gzip",
    ),
    "gzip of nothing": ("PUT", "Patient/p", GZIP, b"", BAD, "gzip"),
    "gzip bomb": (
        "PUT", "Patient/p", GZIP, gzip.compress(b" " * 50_000_000), (413,), "bytes",
    ),
    "gzip of many members": (
        "PUT", "Patient/p", GZIP, gzip.compress(b"") * 5_000, (413,), "members",
    ),
    "body too large": ("PUT", "Patient/p", JSON, b" " * 2_000_001, (413,), "bytes"),
    "malformed If-Match": (
        "PUT", "Patient/p", {**JSON, "if-match": 'W/"1'}, PATIENT, BAD, "If-Match",
    ),
    "stale If-Match": (
        "PUT", "Patient/p", {**JSON, "if-match": 'W/"9"'}, PATIENT, (412,), "Read it again",
    ),
    "If-None-Match: *": (
        "PUT", "Patient/p", {**JSON, "if-none-match": "*"}, PATIENT, (412,), "If-None-Match",
    ),
    "malformed If-None-Match": get("Patient/p", 400, "If-None-Match", **{"if-none-match": '"'}),
}  # fmt: skip

PARAMETERS: dict[str, Row] = {
    "unknown parameter": get("Patient?nonsense=1", 400, "nonsense"),
    "misspelt parameter": get("Patient?gendr=male", 400, "gender"),
    "operator in a name": get("Patient?name[$ne]=x", 400, "name[$ne]"),
    "operator for a name": get("Patient?$where=1", 400, "$where"),
    "unknown modifier": get("Patient?gender:nonsense=male", 400, ":nonsense"),
    "bad :missing": get("Patient?gender:missing=perhaps", 400, "true or false"),
    "bad date": get("Patient?birthdate=2024-99", 400, "birthdate"),
    "bad prefix": get("Patient?birthdate=xx2024", 400, "birthdate"),
    "bad number": get("RiskAssessment?probability=x", 400, "probability"),
    "bad quantity": get("Observation?value-quantity=x", 400, "value-quantity"),
    "empty alternative": get("Patient?name=a,,b", 400, "name"),
    "bad _count": get("Patient?_count=-1", 400, "_count"),
    "huge _count": get("Patient?_count=99999999999999999999", 400, "_count"),
    "_count twice": get("Patient?_count=1&_count=2", 400, "_count"),
    "unknown _sort": get("Patient?_sort=nonsense", 400, "nonsense"),
    "bad _total": get("Patient?_total=perhaps", 400, "_total"),
    "bad _summary": get("Patient?_summary=perhaps", 400, "_summary"),
    "bad _elements": get("Patient?_elements={$ne}", 400, "_elements"),
    "bad _pretty": get("Patient/p?_pretty=perhaps", 400, "_pretty"),
    "bad cursor": get("Patient?_cursor=AAAA", 400, "first page"),
    "bad cursor of a history": get("_history?_cursor=AAAA", 400, "first page"),
    "cursor that is no base64": get("Patient?_cursor=%2A%2A", 400, "first page"),
    "bad _since": get("_history?_since=yesterday", 400, "_since"),
    "bad _at": get("_history?_at=2024-13", 400, "_at"),
    "bad _count of a history": get("_history?_count=x", 400, "_count"),
    "query not in UTF-8": get("Patient?name=%ff", 400, "UTF-8"),
    "raw bytes in a query": get("Patient?name=\xff", 400, "UTF-8"),
    "form not in UTF-8": ("POST", "Patient/_search", FORM, b"name=\xff", BAD, "UTF-8"),
    "parameter on a read": get("Patient/p?name=x", 400, "name"),
    # Fault 17: written, as if nothing had been asked.
    "parameter on an update": ("PUT", "Patient/p?nonsense=1", JSON, PATIENT, BAD, "nonsense"),
    "parameter on a create": ("POST", "Patient?identifier=1", JSON, PATIENT, BAD, "identifier"),
    "parameter on a delete": ("DELETE", "Patient/none?_cascade=delete", {}, b"", BAD, "_cascade"),
    "parameter on metadata": get("metadata?nonsense=1", 400, "nonsense"),
    "bad mode": get("metadata?mode=nonsense", 400, "mode"),
    "too many parameters": get("Patient?" + "name=x&" * 100, 400, "parameters"),
    "too many values": get("Patient?gender=" + ",".join(map(str, range(600))), 400, "alternatives"),
}

BUNDLES: dict[str, Row] = {
    "not a Bundle": post(PATIENT, "Bundle"),
    "without a body": post(b"", "empty"),
    "without a type": post(b'{"resourceType":"Bundle"}', "Bundle.type"),
    "of another type": post(bundle(type="searchset"), "batch or transaction"),
    "type of no type": post(bundle(type=7), "Bundle.type"),
    "entry of no type": post(b'{"resourceType":"Bundle","type":"batch","entry":{}}', "entry"),
    "entry that is null": post(bundle(None), "entry"),
    "entry that is empty": post(bundle({}), "entry[0]"),
    "request of no type": post(bundle({"request": 1}), "entry[0].request"),
    "request without method": post(bundle({"request": {"url": "Patient/p"}}), "method"),
    "request without url": post(bundle({"request": {"method": "GET"}}), "url"),
    "unknown method": post(bundle(asked("FOO", "Patient/p")), "method", 400, 422),
    "url of no type": post(bundle(asked("GET", 1)), "url"),
    "unknown member": post(bundle({**asked("GET", "Patient/p"), "nonsense": 1}), "nonsense"),
    "transaction: no request": post(bundle({"resource": {"resourceType": "Patient"}},
                                           type="transaction"), "entry[0]"),
    "transaction: unknown type": post(bundle(asked("GET", "Patiens/1"), type="transaction"),
                                      "Patient", 404),
    "transaction: no resource": post(bundle(asked("POST", "Patient"), type="transaction"),
                                     "entry[0]"),
    "transaction: wrong resource": post(
        bundle(asked("POST", "Patient", resource={"resourceType": "Person"}), type="transaction"),
        "entry[0]",
    ),
    "transaction: two of one": post(
        bundle(*[asked("DELETE", "Patient/p")] * 2, type="transaction"), "Patient/p"
    ),
    "transaction: two fullUrls": post(
        bundle(*[asked("POST", "Patient", fullUrl="urn:uuid:8c7e2a2e-0000-4000-8000-000000000001",
                       resource={"resourceType": "Patient"})] * 2, type="transaction"),
        "fullUrl",
    ),
    "transaction: a bundle inside": post(
        bundle(asked("POST", "/", resource={"resourceType": "Bundle"}), type="transaction"),
        "entry[0]",
    ),
    "transaction: another server": post(
        bundle(asked("GET", "http://elsewhere.example/fhir/Patient/p"), type="transaction"),
        "elsewhere",
    ),
    "transaction: unknown reference": post(
        bundle(asked("POST", "Basic", resource={
            "resourceType": "Basic", "code": {"text": "x"},
            "subject": {"reference": "Patient?identifier=nobody"},
        }), type="transaction"), "identifier=nobody", 412,
    ),
    "transaction: stale": post(
        bundle({"request": {"method": "DELETE", "url": "Patient/p", "ifMatch": 'W/"9"'}},
               type="transaction"), "version", 412,
    ),
}  # fmt: skip
