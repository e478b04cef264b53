"""Fills any FHIR server with the data of ``generate.py``, to be measured beside this one.

``python -m tests.bench.filling BASE PATIENTS ['{"Authorization": "Bearer …"}']``: everything of a
patient is one ``transaction`` of PUTs by our ids, a clinic's organization and practitioners first.
The server must let clients choose ids. It can be run again: what is there is written once more.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from tests.bench.generate import PATIENTS_A_CLINIC, records

_AT_ONCE = 8
_TIMEOUT_S = 120.0
_MEDIA_TYPE = "application/fhir+json"


def transaction(record: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the Bundle that writes all of ``record`` by its ids.

    >>> transaction([{"resourceType": "Patient", "id": "x"}])["entry"][0]["request"]
    {'method': 'PUT', 'url': 'Patient/x'}
    """
    entry = [
        {
            "resource": resource,
            "request": {"method": "PUT", "url": f"{resource['resourceType']}/{resource['id']}"},
        }
        for resource in record
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entry}


async def fill(base: str, patients: int, headers: Mapping[str, str]) -> int:
    """Write ``patients`` and theirs to ``base``; return how many resources. Raises
    ``httpx.HTTPStatusError`` where the server refuses."""
    said = {**headers, "Content-Type": _MEDIA_TYPE}
    count = 0

    async def write(record: Sequence[Mapping[str, Any]]) -> None:
        nonlocal count
        body = json.dumps(transaction(record), default=float)
        (await client.post(base, content=body, headers=said)).raise_for_status()
        count += len(record)

    async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
        for clinic in range(0, patients, PATIENTS_A_CLINIC):
            # The first has what the others of a clinic refer to.
            first, *others = records(clinic, min(clinic + PATIENTS_A_CLINIC, patients))
            await write(first)
            for at in range(0, len(others), _AT_ONCE):
                await asyncio.gather(*map(write, others[at : at + _AT_ONCE]))
    return count


def main(base: str, patients: str, headers: str = "{}") -> None:
    """Fill, and say how much was written."""
    print(asyncio.run(fill(base, int(patients), json.loads(headers))), "resources")


if __name__ == "__main__":
    main(*sys.argv[1:])
