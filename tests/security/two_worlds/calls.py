"""Requests that a patient might make who wants to know of another: the same for the same seed.

Each maker is for one row of the table in section 3.2 of design/security.md. Where it names
something it takes what is A's, what is B's, what both share and what nobody has.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote

from tests.security.two_worlds.resources import name, probes
from tests.security.two_worlds.worlds import GONE, OWN, Call

_JSON = {"content-type": "application/fhir+json"}
_WHOSE = ("a", "a", "b", "b", "nobody")
_CODES = ("Observation", "Condition", "Encounter", "Procedure", "AllergyIntolerance")


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes requests about ``types``, by chance."""

    random: Random
    types: Sequence[str]

    def type(self) -> str:
        return self.random.choice([*_CODES, "Patient", *self.types])

    def whose(self) -> str:
        return self.random.choice(_WHOSE)

    def id(self, type: str) -> str:
        if type == "Condition" and self.random.random() < 0.2:
            return GONE.format(self.whose())
        return self.random.choice([name(type, self.whose()), name(type, self.whose()), "shared"])

    def value(self) -> str:
        return self.random.choice([*probes("a"), *probes("b"), *probes("b"), "shared", "zzz"])

    def asker(self) -> str:
        return self.random.choice(["broad", "broad", "patient", "by-keys"])

    def call(self, row: str, method: str, path: str, query: str = "", body: Any = None) -> Call:
        text = b"" if body is None else json.dumps(body).encode()
        headers = dict(_JSON) if text else {}
        return Call(row, method, path, query, headers, text, self.asker())


def by_id(make: Maker) -> Call:
    """read"""
    type = make.type()
    query = make.random.choice(["", "", "_summary=true", "_elements=id"])
    return make.call("by id", "GET", f"{type}/{make.id(type)}", query)


def versions(make: Maker) -> Call:
    """vread, history of an instance, of a type, of all"""
    type, random = make.type(), make.random
    id, count = make.id(type), random.choice([1, 2, 3, 50])
    kind = random.randrange(4)
    if kind == 0:
        version = random.choice([1, 1, 2, 3, 9])
        return make.call("versions", "GET", f"{type}/{id}/_history/{version}")
    query = f"_count={count}" + random.choice(["", "&_since=2020-01-01", "&_at=2024"])
    path = (f"{type}/{id}/_history", f"{type}/_history", "_history")[kind - 1]
    return make.call("versions", "GET", path, query)


def search(make: Maker) -> Call:
    """search: a plain one, of one type and of several"""
    random, value = make.random, quote(make.value())
    type = make.type()
    parts = [random.choice(_FILTERS.get(type, _ANY)).format(value=value)]
    parts.append(random.choice(["", "_total=accurate", "_total=estimate", "_summary=count"]))
    parts.append(random.choice(["", "_count=1", "_count=0", "_sort=-_lastUpdated", "_sort=_id"]))
    kind = random.randrange(6)
    query = "&".join(one for one in parts if one)
    if kind == 0:
        types = ",".join(sorted({type, make.type()}))
        return make.call("search", "GET", "", f"_type={types}&" + "&".join(parts[1:]))
    if kind == 1:
        place = f"Patient/{make.whose()}"
        return make.call("search", "GET", f"{place}/{random.choice(_CODES)}", "&".join(parts[1:]))
    return make.call("search", "GET", type, query)


_ANY = ("", "_id=shared", "_lastUpdated=gt2020", "_tag=shared", "_security=R", "_text=Shared")
_FILTERS: Mapping[str, Sequence[str]] = {
    "Observation": (
        *("code={value}", "code:text=Shared", "patient=Patient/a", "patient=Patient/b", ""),
        *("subject=Patient/b", "identifier={value}", "date=1977", "_id={value}", "status=shared"),
        *("_filter=code eq {value}", "value-quantity=5", "code:missing=true", "code:not={value}"),
        *("_contained=true&code=x", "_contained=both&status=shared"),
    ),
    "Patient": (
        *("name=Shared", "given={value}", "address-city={value}", "phone={value}", "", "_id=b"),
        *("identifier={value}", "_contained=true&family={value}", "family:missing=false"),
        *("_contained=true&_containedType=contained&family={value}", "name:contains={value}"),
    ),
    "Condition": ("code={value}", "patient=Patient/b", "", "subject:Patient=b", "_content={value}"),
}


def linked(make: Maker) -> Call:
    """chains, _has, _list, _filter with a chain, hierarchies"""
    value = quote(make.value())
    type, query = make.random.choice(_LINKED)
    more = make.random.choice(["", "&_total=accurate", "&_summary=count"])
    return make.call("linked", "GET", type, query.format(value=value) + more)


_LINKED = (
    ("Observation", "subject:Patient.name={value}"),
    ("Observation", "patient.address-city={value}"),
    ("Observation", "encounter.subject:Patient.given={value}"),
    ("Encounter", "_has:Observation:encounter:code={value}"),
    ("Practitioner", "_has:Observation:performer:code={value}"),
    ("Practitioner", "_has:Encounter:practitioner:identifier={value}"),
    ("Organization", "_has:Patient:organization:address-city={value}"),
    ("Organization", "_has:Patient:organization:_has:Observation:patient:code={value}"),
    ("Patient", "_has:Observation:patient:code={value}"),
    ("Patient", "general-practitioner.name=Shared"),
    ("Location", "_has:Encounter:location:identifier={value}"),
    ("Observation", "_list=list-b"),
    ("Observation", "_list=list-a"),
    ("Observation", "_filter=subject.given eq {value}"),
    ("Practitioner", "_has:Person:practitioner:phone={value}"),
    ("Location", "partof:below=Location/shared"),
    ("Location", "_id=shared&_has:Encounter:location:subject=Patient/b"),
)


def included(make: Maker) -> Call:
    """_include and _revinclude"""
    type, query = make.random.choice(_INCLUDED)
    return make.call("included", "GET", type, query + make.random.choice(["", "&_count=1"]))


_INCLUDED = (
    ("Practitioner", "_revinclude=Observation:performer"),
    ("Practitioner", "_revinclude=Encounter:practitioner"),
    ("Organization", "_revinclude=Patient:organization&_revinclude:iterate=Observation:patient"),
    ("Organization", "_revinclude=*"),
    ("Observation", "_include=*"),
    ("Observation", "_include=Observation:encounter&_include:iterate=Encounter:subject"),
    ("Observation", "_include=Observation:performer&_revinclude:iterate=Observation:performer"),
    ("Location", "_revinclude=Encounter:location"),
    ("Patient", "_revinclude=Provenance:target&_revinclude=List:subject"),
)


def observation(**more: Any) -> dict[str, Any]:
    """Return a valid Observation about A, or about whom ``more`` says."""
    body: dict[str, Any] = {"resourceType": "Observation", "status": "final"}
    body["code"] = {"coding": [{"system": "urn:codes", "code": "only-a"}]}
    return {**body, "subject": {"reference": "Patient/a"}, **more}


def conditional(make: Maker) -> Call:
    """conditional create, update, patch and delete, and conditional references"""
    value = make.random.choice(["mrn-b", "claimed", "zzz", "mrn-b"])
    kind = make.random.randrange(5)
    own = [{"system": "urn:mrn", "value": f"{value}-{make.random.randrange(9)}"}]
    body = observation(identifier=own)
    query = f"identifier={value}"
    if kind == 0:
        one = make.call("conditional", "POST", "Observation", "", body)
        return _with(one, "if-none-exist", query)
    if kind == 1:
        if make.random.random() < 0.5:
            body["id"] = make.random.choice(["observation-b", "absent"])
        return make.call("conditional", "PUT", "Observation", query, body)
    if kind == 2:
        patch = [{"op": "replace", "path": "/status", "value": "amended"}]
        one = make.call("conditional", "PATCH", "Observation", query, patch)
        return _with(one, "content-type", "application/json-patch+json")
    if kind == 3:
        return make.call("conditional", "DELETE", "Observation", query)
    body["performer"] = [{"reference": f"Observation?{query}"}]
    body["derivedFrom"] = [{"reference": f"Observation?{query}"}]
    return make.call(
        "conditional", "POST", "", "", bundle("transaction", [("POST", "Observation", body)])
    )


def references(make: Maker) -> Call:
    """references in a body: to what is A's, B's, shared, absent"""
    id = make.random.choice(["observation-a", "observation-b", "absent"])
    body = observation(derivedFrom=[{"reference": f"Observation/{id}"}])
    if make.random.random() < 0.3:
        return make.call("references", "POST", "Observation/$validate", "", body)
    return make.call("references", "POST", "Observation", "", body)


def writes(make: Maker) -> Call:
    """update, patch and delete of what is A's, B's and nobody's; what would become B's"""
    id = make.random.choice(["observation-b", "observation-b", "absent", "observation-a-9"])
    whom = make.random.choice(["a", "b"])
    body = observation(id=id, subject={"reference": f"Patient/{whom}"})
    kind = make.random.randrange(5)
    if kind == 0:
        return make.call("writes", "PUT", f"Observation/{id}", "", body)
    if kind == 1:
        patch = [{"op": "replace", "path": "/status", "value": "amended"}]
        one = make.call("writes", "PATCH", f"Observation/{id}", "", patch)
        return _with(one, "content-type", "application/json-patch+json")
    if kind == 2:
        return make.call("writes", "DELETE", f"Observation/{id}")
    if kind == 3:
        one = make.call("writes", "PUT", f"Observation/{id}", "", body)
        return _with(one, "if-match", make.random.choice(['W/"1"', 'W/"2"', "*"]))
    body.pop("id")
    return make.call("writes", "POST", "Observation", "", body)


def ids(make: Maker) -> Call:
    """update-as-create"""
    type = make.random.choice(["Observation", "Patient"])
    id = make.random.choice([name(type, "b"), "absent", f"absent-{make.random.randrange(99)}"])
    body = observation() if type == "Observation" else {"resourceType": "Patient"}
    return make.call("ids", "PUT", f"{type}/{id}", "", {**body, "id": id})


def claims(make: Maker) -> Call:
    """conditional creates by criteria that B has claimed"""
    body = {**json.loads(OWN), "subject": {"reference": "Patient/a"}}
    one = make.call("claims", "POST", "Observation", "", body)
    return _with(one, "if-none-exist", "identifier=claimed")


def keys(make: Maker) -> Call:
    """Idempotency-Key, also one that B has used"""
    key = make.random.choice(["the-same-key", f"key-{make.random.randrange(5)}"])
    one = make.call("keys", "POST", "Observation", "", observation())
    return _with(one, "idempotency-key", f'"{key}"')


def bundles(make: Maker) -> Call:
    """batch and transaction"""
    entries: list[tuple[str, str, Any]] = []
    for _ in range(make.random.randrange(1, 4)):
        one = make.random.choice([by_id, search, versions, linked])(make)
        entries.append(("GET", f"{one.path}?{one.query}".rstrip("?"), None))
    if make.random.random() < 0.5:
        entries.append(("POST", "Observation", observation()))
    if make.random.random() < 0.3:
        entries.append(("DELETE", "Observation/observation-b", None))
    kind = make.random.choice(["batch", "batch", "transaction"])
    return make.call("bundles", "POST", "", "", bundle(kind, entries))


def operations(make: Maker) -> Call:
    """operations that read, and explanations"""
    path = make.random.choice(
        [
            *(
                "$meta",
                "Observation/$meta",
                "Location/$meta",
                f"Observation/{make.id('Observation')}/$meta",
            ),
            *("Patient/b/$everything", "Patient/$export", "$expunge"),
        ]
    )
    if make.random.random() < 0.4:
        return make.call("operations", "GET", "Observation", "_explain=true&code=shared")
    return make.call("operations", "GET", path)


CLAIMED = {"if-none-exist": "identifier=claimed"}
"""Criteria of which B has left a claim, and which match nothing that A sees."""


ROWS: Mapping[str, tuple[Callable[[Maker], Call], int]] = {
    "by id": (by_id, 20),
    "versions": (versions, 16),
    "search": (search, 30),
    "linked": (linked, 20),
    "included": (included, 12),
    "conditional": (conditional, 10),
    "references": (references, 6),
    "writes": (writes, 10),
    "ids": (ids, 4),
    "claims": (claims, 2),
    "keys": (keys, 4),
    "bundles": (bundles, 10),
    "operations": (operations, 6),
}
"""Row -> its maker, and how often it is taken."""


def calls(seed: int, number: int, types: Sequence[str], rows: Sequence[str] = ()) -> Iterator[Call]:
    """Yield ``number`` requests, of ``rows`` alone if there are any."""
    random = Random(seed)
    make = Maker(random, types)
    chosen = [one for row, one in ROWS.items() if not rows or row in rows]
    weights = [weight for _, weight in chosen]
    for _ in range(number):
        [(maker, _)] = random.choices(chosen, weights)
        yield maker(make)


def sent(
    method: str, url: str, body: Any, headers: Mapping[str, str] = _JSON, asker: str = "broad"
) -> Call:
    """Return the request that sends ``body`` as JSON."""
    path, _, query = url.partition("?")
    text = b"" if body is None else json.dumps(body).encode()
    said = {**_JSON, **headers} if text else headers
    return Call("", method, path, query, said, text, asker)


def _with(call: Call, name: str, value: str) -> Call:
    return Call(
        *(call.row, call.method, call.path, call.query),
        {**call.headers, name: value},
        call.body,
        call.asker,
    )


def bundle(type: str, entries: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
    """Return a Bundle whose entries are ``(method, url, resource)``."""
    return {
        "resourceType": "Bundle",
        "type": type,
        "entry": [
            {"request": {"method": method, "url": url}, **({"resource": body} if body else {})}
            for method, url, body in entries
        ],
    }
