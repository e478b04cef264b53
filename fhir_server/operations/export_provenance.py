"""To which patients a Provenance belongs: those of its targets.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#query-parameters: an export of patients has "all
available Provenance resources whose Provenance.target is a resource in the Patient compartment". R4
itself puts one into a compartment only where its target is the Patient.
"""

import asyncio
from collections.abc import Mapping, Sequence

from fhir_server.context import Context
from fhir_server.operations.export_parameters import PATIENT
from fhir_server.r4.json import decode_stored
from fhir_server.r4.references import target
from fhir_server.store.exported import compartments

PROVENANCE = "Provenance"
_LOOKED_UP_TOGETHER = 1000


async def patients_of(found: Mapping[str, bytes], context: Context) -> dict[str, set[str]]:
    """Return id -> ids of patients for the Provenances ``found``, id -> JSON. A target that the
    store of ``context`` does not show says nothing."""
    targets: dict[str, set[tuple[str, str]]] = {}
    for id, json in found.items():
        targets[id] = _targets(json, context.parameters.base_urls)
        await asyncio.sleep(0)
    wanted: dict[str, set[str]] = {}
    for type, id in (one for some in targets.values() for one in some if one[0] != PATIENT):
        wanted.setdefault(type, set()).add(id)
    known = {type: await _patients(type, sorted(ids), context) for type, ids in wanted.items()}
    return {
        id: {
            patient
            for type, of in some
            for patient in ({of} if type == PATIENT else known[type].get(of, ()))
        }
        for id, some in targets.items()
    }


def _targets(json: bytes, base_urls: Sequence[str]) -> set[tuple[str, str]]:
    listed = decode_stored(json).get("target", ())
    found = (target(one.get("reference", ""), base_urls) for one in listed)
    return {(one.type, one.id) for one in found if one.type and one.id}


async def _patients(type: str, ids: Sequence[str], context: Context) -> Mapping[str, set[str]]:
    found: dict[str, set[str]] = {}
    if type not in context.definitions.resource_types:
        return found
    seconds = context.settings.request_timeout_s
    for start in range(0, len(ids), _LOOKED_UP_TOGETHER):
        some = ids[start : start + _LOOKED_UP_TOGETHER]
        places = await compartments(context.store.database, type, some, seconds)
        found |= {id: set(patients_in(of)) for id, of in places.items()}
    return found


def patients_in(places: Sequence[str]) -> list[str]:
    """Return the ids of the patients in whose compartments ``places`` are."""
    prefix = f"{PATIENT}/"
    return [one.removeprefix(prefix) for one in places if one.startswith(prefix)]
