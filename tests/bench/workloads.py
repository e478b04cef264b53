"""What is asked of a server, as ``design/performance.md`` lists it: values are drawn by rule.

The data is that of ``generate.py``. A workload makes the requests of a connection; those that
change something have a connection's own resources, so that a run can be repeated.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any
from urllib.parse import quote

from tests.bench.generate import (
    KINDS,
    LOINC,
    OBSERVATIONS,
    RARE_CODE,
    id_of,
    patient_record,
)

Make = Callable[[int, int, str], bytes]
"""``(number, turn, tag)`` -> the request that the connection of that number sends in its turn, when
the ETag of the answer before was ``tag``."""
Request = tuple[str, str, Mapping[str, str], bytes]
"""Method, path below the base, further headers, and body."""
Sends = Callable[[int, int, str, int], Request]
"""``(own, turn, tag, patients)`` -> what a connection sends: ``own`` is the number of the result
that only it changes."""
Path = Callable[[Random, int], str]
"""A source of chance, and how many patients there are -> what is asked, below the base."""
Check = Callable[[dict[str, Any]], bool]

_DRAWN = 4000
_MRN = "https://fhir.example.org/mrn"
_TEN = ",".join(f"{LOINC}|{one.code}" for one in KINDS[:10])
_JSON = "application/fhir+json"
_ENTRIES = 250
_SAFE = "/?&=:|,_$*"


def _observation() -> dict[str, Any]:
    """Return an Observation as the data has them."""
    found = next(one for one in patient_record(1) if one["resourceType"] == "Observation")
    return {name: value for name, value in found.items() if name not in ("id", "meta")}


def _encoded(resource: dict[str, Any]) -> bytes:
    return json.dumps(resource, default=float).encode()


def _head(method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {said}" for name, said in headers.items())]
    if body:
        lines += [f"Content-Type: {_JSON}", f"Content-Length: {len(body)}"]
    return "\r\n".join((*lines, "", "")).encode() + body


@dataclass(frozen=True)
class Workload:
    """``path`` is drawn for a GET; else ``sends`` makes request line, further headers and body of
    each turn. ``check`` says whether the first answer means what it should. ``size`` is how many
    resources one request is about."""

    path: Path | None = None
    sends: Sends | None = None
    check: Check = lambda _: True
    accepted: tuple[int, ...] = (200,)
    size: int = 1

    def requests(
        self, patients: int, base: str, headers: Mapping[str, str], chance: Random
    ) -> Make:
        """Return what the connections send to the base ``base``, drawn by ``chance``."""
        common = {"Host": "localhost", "Accept": _JSON, **headers}
        if self.path is None:
            return partial(self._sent, base, common, patients)
        drawn = [
            _head(
                "GET",
                f"{base}/{quote(self.path(chance, patients), safe=_SAFE)}",
                common,
                b"",
            )
            for _ in range(_DRAWN)
        ]
        turns = iter(range(10**12))
        return lambda _number, _turn, _tag: drawn[next(turns) % _DRAWN]

    def _sent(
        self,
        base: str,
        common: Mapping[str, str],
        patients: int,
        number: int,
        turn: int,
        tag: str,
    ) -> bytes:
        assert self.sends is not None
        own = number * 61 % (patients * OBSERVATIONS)  # no two connections of a run have the same
        method, path, more, body = self.sends(own, turn, tag, patients)
        return _head(method, f"{base}{path}", {**common, **more}, body)


def _patient(chance: Random, patients: int) -> str:
    return id_of("pat", chance.randrange(patients))


def _result(chance: Random, patients: int) -> str:
    return id_of("obs", chance.randrange(patients * OBSERVATIONS))


def _mrn(chance: Random, patients: int) -> str:
    return f"{_MRN}|MRN-{chance.randrange(patients):07}"


def _code(chance: Random, _: int) -> str:
    return f"{LOINC}|{chance.choice(KINDS).code}"


_ONE = _encoded(_observation())


def _create(_own: int, _turn: int, _tag: str, _patients: int) -> Request:
    return "POST", "/Observation", {}, _ONE


# What differs is put into the text: a driver that encodes JSON is what would be measured.
_CHANGED = _encoded({**_observation(), "id": "@ID@", "issued": "2026-01-01T00:00:@TIME@Z"})


def _update(own: int, turn: int, tag: str, _patients: int) -> Request:
    id = id_of("obs", own)
    time = f"{turn % 60:02}.{turn % 1000:03}"
    body = _CHANGED.replace(b"@ID@", id.encode()).replace(b"@TIME@", time.encode())
    return "PUT", f"/Observation/{id}", {"If-Match": tag} if tag else {}, body


def _transaction_body() -> bytes:
    entry = {"resource": _observation(), "request": {"method": "POST", "url": "Observation"}}
    return _encoded({"resourceType": "Bundle", "type": "transaction", "entry": [entry] * _ENTRIES})


_TRANSACTION = _transaction_body()


def _transaction(_own: int, _turn: int, _tag: str, _patients: int) -> Request:
    return "POST", "", {}, _TRANSACTION


def _batch(own: int, turn: int, _tag: str, patients: int) -> Request:
    chance = Random(own * 50 + turn % 50)
    entry = [
        {"request": {"method": "GET", "url": f"Observation/{_result(chance, patients)}"}}
        for _ in range(50)
    ]
    return "POST", "", {}, _encoded({"resourceType": "Bundle", "type": "batch", "entry": entry})


def _mixed(own: int, turn: int, tag: str, patients: int) -> Request:
    """What a clinic's day is made of: eight reads or searches, a create and a change in ten."""
    chance = Random(own * 1_000_003 + turn)
    drawn = chance.randrange(10)
    if drawn == 0:
        return _create(own, turn, tag, patients)
    if drawn == 1:
        return _update(own, turn, "", patients)
    path = WORKLOADS[chance.choice(_ASKED)].path
    assert path is not None
    return "GET", f"/{quote(path(chance, patients), safe=_SAFE)}", {}, b""


def _rows(least: int, *types: str) -> Check:
    """Return the check for a page with ``least`` entries, of all of ``types``."""

    def check(bundle: dict[str, Any]) -> bool:
        found = [one["resource"]["resourceType"] for one in bundle.get("entry", ())]
        return len(found) >= least and set(types) <= set(found)

    return check


def _newest_first(bundle: dict[str, Any]) -> bool:
    times = [one["resource"]["effectiveDateTime"] for one in bundle["entry"]]
    return len(times) > 10 and times == sorted(times, reverse=True)


def _is(type: str) -> Check:
    return lambda resource: resource["resourceType"] == type


WORKLOADS: Mapping[str, Workload] = {
    "metadata": Workload(lambda chance, patients: "metadata", check=_is("CapabilityStatement")),
    "read": Workload(
        lambda chance, patients: f"Observation/{_result(chance, patients)}",
        check=_is("Observation"),
    ),
    "vread": Workload(
        lambda chance, patients: f"Observation/{_result(chance, patients)}/_history/1",
        check=_is("Observation"),
    ),
    "create": Workload(sends=_create, accepted=(201,), check=_is("Observation")),
    "update, If-Match": Workload(sends=_update, accepted=(200, 201), check=_is("Observation")),
    "identifier": Workload(
        lambda chance, patients: f"Patient?identifier={_mrn(chance, patients)}",
        check=_rows(1, "Patient"),
    ),
    "code, 20 rows": Workload(
        lambda chance, patients: f"Observation?code={_code(chance, patients)}&_count=20",
        check=_rows(20, "Observation"),
    ),
    "patient + 10 codes + date, sorted, 50 rows": Workload(
        lambda chance, patients: (
            f"Observation?patient={_patient(chance, patients)}&code={_TEN}"
            "&date=ge2020-06-01&_sort=-date&_count=50"
        ),
        check=_newest_first,
    ),
    "patient, 50 rows": Workload(
        lambda chance, patients: f"Observation?patient={_patient(chance, patients)}&_count=50",
        check=_rows(50, "Observation"),
    ),
    "_include of patient and encounter": Workload(
        lambda chance, patients: (
            f"Observation?patient={_patient(chance, patients)}&_count=50"
            "&_include=Observation:patient&_include=Observation:encounter"
        ),
        check=_rows(52, "Observation", "Patient", "Encounter"),
    ),
    "_revinclude of two": Workload(
        lambda chance, patients: (
            f"Patient?identifier={_mrn(chance, patients)}"
            "&_revinclude=Encounter:patient&_revinclude=Condition:patient"
        ),
        check=_rows(8, "Patient", "Encounter", "Condition"),
    ),
    "chained identifier": Workload(
        lambda chance, patients: (
            f"Observation?patient.identifier={_mrn(chance, patients)}&code={LOINC}|8867-4&_count=20"
        ),
        check=_rows(1, "Observation"),
    ),
    "_has, rare code": Workload(
        lambda chance, patients: (
            f"Patient?_has:Observation:patient:code={LOINC}|{RARE_CODE}&_count=20"
        ),
        check=_rows(1, "Patient"),
    ),
    "$everything": Workload(
        lambda chance, patients: f"Patient/{_patient(chance, patients)}/$everything",
        check=_rows(100, "Patient", "Observation", "Encounter", "Condition"),
    ),
    "batch of 50 reads": Workload(sends=_batch, check=_rows(50, "Observation"), size=50),
    "mixed": Workload(sends=_mixed, accepted=(200, 201)),
    "transaction of 250": Workload(sends=_transaction, size=_ENTRIES, check=_is("Bundle")),
}
"""The rows of the table, by what they are called there."""

_ASKED = [name for name, one in WORKLOADS.items() if one.path is not None and name != "metadata"]
