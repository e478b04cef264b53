"""Profiles on write: https://hl7.org/fhir/R4/validation.html, the settings FHIR_VALIDATION and
FHIR_PROFILES."""

import asyncio
import re
import time
from base64 import b64encode
from dataclasses import replace
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.load import load
from fhir_server.messages import Request, Response
from fhir_server.r4.json import decode, encode
from fhir_server.settings import Settings
from tests.conftest import Fhir
from tests.interactions.asking import bundle, entry, patient, put
from tests.test_packages import URL, profile

OBSERVATION = {
    "resourceType": "Observation",
    "id": "o",
    "status": "final",
    "code": {"text": "Weight"},
    "meta": {"profile": [URL + "o"]},
}
GOOD = patient("x", name=[{"family": "Rahman"}])
BAD = patient("x", active=True)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Patients are held to a profile and refused; of an Observation it is said."""
    more = {"validation": "Patient=refuse,Observation=warn", "profiles": f"Patient={URL}p"}
    return Settings.model_validate(settings.model_dump() | more)


@pytest.fixture(autouse=True)
async def profiles(fhir: Fhir) -> None:
    """A profile on Patient that demands a name, one on Observation that demands a subject."""
    subject = [{"id": "Observation.subject", "path": "Observation.subject", "min": 1}]
    observation: dict[str, Any] = {
        "type": "Observation",
        "baseDefinition": "http://hl7.org/fhir/StructureDefinition/Observation",
        "differential": {"element": subject},
    }
    for one in (profile("p"), profile("o", **observation)):
        assert (await fhir(put(one))).status == 201


def refused(response: Response) -> str:
    """The sentences of a refusal with all issues."""
    assert response.status == 422, response.body
    return " ".join(one["diagnostics"] for one in decode(response.body)["issue"])


async def test_update_and_create(fhir: Fhir) -> None:
    """What breaks a profile that its type is held to is refused, and nothing is written."""
    assert "name is missing" in refused(await fhir(put(BAD)))
    assert "name is missing" in refused(await fhir(Request("create", "Patient", body=BAD)))
    assert (await fhir(Request("read", "Patient", "x"))).status == 404
    assert (await fhir(put(GOOD))).status == 201
    assert (await fhir(Request("create", "Patient", body=GOOD))).status == 201


async def test_the_profile_that_a_resource_names(fhir: Fhir) -> None:
    """meta.profile counts as well; one that nobody knows here refuses nothing."""
    element = [{"id": "Patient.gender", "path": "Patient.gender", "min": 1}]
    await fhir(put(profile("g", differential={"element": element})))
    named = {**GOOD, "meta": {"profile": [URL + "g"]}}
    unknown = {**GOOD, "meta": {"profile": ["http://nowhere.example.org/p"]}}

    assert "gender is missing" in refused(await fhir(put(named)))
    assert (await fhir(put(unknown))).status == 201


PATCHES = {
    "patch": Request("patch", "Patient", "x"),
    "conditional patch": Request(
        "conditional-patch", "Patient", parameters=(("family", "Rahman"),)
    ),
}


@pytest.mark.parametrize("request_", PATCHES.values(), ids=PATCHES)
async def test_a_patch_is_judged_by_what_it_makes(fhir: Fhir, request_: Request) -> None:
    """A patch that takes away what the profile demands is refused, inside the attempt to write."""
    await fhir(put(GOOD))
    document = encode([{"op": "remove", "path": "/name"}])
    body = {
        "resourceType": "Binary",
        "contentType": "application/json-patch+json",
        "data": b64encode(document).decode(),
    }
    fields = {name: getattr(request_, name) for name in ("interaction", "type", "id", "parameters")}
    assert "name is missing" in refused(await fhir(Request(**fields, body=body)))
    assert decode((await fhir(Request("read", "Patient", "x"))).body)["name"]


async def test_adding_a_profile_by_meta_add(fhir: Fhir) -> None:
    """A profile that a resource does not keep cannot be claimed for it afterwards."""
    element = [{"id": "Patient.gender", "path": "Patient.gender", "min": 1}]
    await fhir(put(profile("g", differential={"element": element})))
    await fhir(put(GOOD))
    body = {
        "resourceType": "Parameters",
        "parameter": [{"name": "meta", "valueMeta": {"profile": [URL + "g"]}}],
    }

    assert "gender is missing" in refused(
        await fhir(Request("$meta-add", "Patient", "x", body=body))
    )


CONDITIONAL = {
    "create": Request("create", "Patient", body=BAD, if_none_exist="identifier=http://a|1"),
    "update": Request("conditional-update", "Patient", body=BAD, parameters=(("name", "none"),)),
}


@pytest.mark.parametrize("request_", CONDITIONAL.values(), ids=CONDITIONAL)
async def test_conditional_writes(fhir: Fhir, request_: Request) -> None:
    """What is written by criteria is judged like anything else."""
    assert "name is missing" in refused(await fhir(request_))


async def test_a_transaction_names_the_entries(fhir: Fhir) -> None:
    """Each entry that breaks a profile is named with its place, and nothing is written."""
    entries = [
        entry("POST", "Patient", {**GOOD, "id": "a"}),
        entry("POST", "Patient", BAD),
        entry("PUT", "Patient/x", BAD),
    ]
    response = await fhir(bundle(*entries))

    refused(response)
    expressions = [one["expression"][0] for one in decode(response.body)["issue"]]
    assert expressions == ["Bundle.entry[1]", "Bundle.entry[2]"]
    found = await fhir(Request("search-type", "Patient"))
    assert decode(found.body)["total"] == 0
    assert (await fhir(bundle(entries[0]))).status == 200


async def test_a_batch_refuses_entry_by_entry(fhir: Fhir) -> None:
    """In a batch the others are written."""
    entries = [entry("PUT", "Patient/x", BAD), entry("PUT", "Patient/y", {**GOOD, "id": "y"})]
    response = await fhir(bundle(*entries, type="batch"))
    answers = [one["response"]["status"][:3] for one in decode(response.body)["entry"]]

    assert answers == ["422", "201"]


async def test_a_patch_in_a_transaction(fhir: Fhir) -> None:
    """What a bundle's patch comes to is judged as well, whatever else is in the bundle."""
    await fhir(put(GOOD))
    operation = [
        {"name": "type", "valueCode": "delete"},
        {"name": "path", "valueString": "Patient.name"},
    ]
    patch = {
        "resourceType": "Parameters",
        "parameter": [{"name": "operation", "part": operation}],
    }
    read = entry("GET", "Patient/x")
    response = await fhir(bundle(entry("PATCH", "Patient/x", patch), read))

    assert "name is missing" in refused(response)


async def test_a_warning_is_said_of_what_was_written(fhir: Fhir) -> None:
    """Where the setting warns, the write is made, and the answer says what is not right."""
    told = await fhir(put(OBSERVATION, prefer={"return": "OperationOutcome"}))
    issues = decode(told.body)["issue"]

    assert told.status == 201
    assert [one["severity"] for one in issues] == ["information", "warning"]
    assert "subject is missing" in issues[1]["diagnostics"]
    plain = await fhir(put({**OBSERVATION, "id": "p"}))
    assert plain.status == 201
    assert dict(plain.headers)["Warning"].startswith('199 - "1 issues')
    good = {**OBSERVATION, "id": "q", "subject": {"reference": "Patient/x"}}
    assert (await fhir(put(good))).headers == ()


@pytest.mark.parametrize("type", ["transaction", "batch"])
async def test_a_warning_in_a_bundle(fhir: Fhir, type: str) -> None:
    """response.outcome of an entry says it, whether or not the resource comes along."""
    response = await fhir(bundle(entry("POST", "Observation", OBSERVATION), type=type))
    [answer] = decode(response.body)["entry"]

    assert answer["response"]["status"] == "201 Created"
    assert "subject is missing" in str(answer["response"]["outcome"])


async def test_a_type_that_is_not_named_is_not_judged(fhir: Fhir) -> None:
    """Other types are judged by their structure only, as always."""
    encounter = {
        "resourceType": "Encounter",
        "id": "e",
        "status": "planned",
        "class": {"code": "AMB"},
        "meta": {"profile": [URL + "p"]},
    }

    assert (await fhir(put(encounter))).status == 201


async def test_concurrent_writes_are_each_judged(fhir: Fhir) -> None:
    """Writes that are committed together are refused and made one by one."""
    requests = [put({**(BAD if n % 2 else GOOD), "id": f"c{n}"}) for n in range(20)]
    answers = await asyncio.gather(*map(fhir, requests))

    assert [one.status for one in answers] == [201, 422] * 10


async def test_load_is_judged(server: Server, tmp_path: Any) -> None:
    """What is loaded from files passes the same door."""
    file = tmp_path / "patients.ndjson"
    file.write_bytes(encode(GOOD) + b"\n" + encode({**BAD, "id": "y"}))
    report = await load([file], server.perform, bytes_max=1_000_000, xml=server.xml)

    assert report.written == 1
    [(_, sentence)] = report.errors
    assert "name is missing" in sentence


async def test_a_demanded_profile_that_is_not_here_refuses(fhir: Fhir) -> None:
    """Without the profile nobody can say that a resource keeps it."""
    await fhir(Request("delete", "StructureDefinition", "p"))

    assert "not known here" in refused(await fhir(put(GOOD)))


async def test_what_another_process_changes_is_heard_of(
    server: Server, fhir: Fhir, mongodb_uri: str
) -> None:
    """A profile that another process changes holds here within a second."""
    assert (await fhir(put(GOOD))).status == 201
    element = [{"id": "Patient.gender", "path": "Patient.gender", "min": 1}]
    async with opened(server.context.settings, mongodb_uri) as other:
        body = profile("p", differential={"element": element})
        await other.perform(put(body))
    server.context.store.conformance._looked_at -= 2.0

    assert "gender is missing" in refused(await fhir(put({**GOOD, "id": "y"})))


WRONG = {
    "a mode that is none": {"validation": "Patient=refused"},
    "no mode": {"validation": "Patient"},
    "a type twice": {"validation": "Patient=warn,Patient=off"},
    "no profile": {"profiles": "Patient="},
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
def test_settings_that_cannot_be(given: dict[str, str]) -> None:
    """A setting that would promise what nothing keeps stops the start."""
    with pytest.raises(ValueError, match=next(iter(given))):
        Settings.model_validate(given)


async def test_a_type_that_is_none_stops_the_start(settings: Settings, mongodb_uri: str) -> None:
    """A type that R4 does not have is named."""
    wrong = settings.model_copy(update={"validation": {"Patiant": "warn"}})
    with pytest.raises(ValueError, match=r"FHIR_VALIDATION lists 'Patiant'.*Patient"):
        async with opened(wrong, mongodb_uri):
            pass


def test_the_forms_of_the_settings() -> None:
    """By type with commas, or as JSON; a Binary is never judged."""
    given = {"validation": "Patient=refuse, *=warn", "profiles": "Patient=http://a http://b"}
    settings = Settings.model_validate(given)

    assert [settings.mode_of(one) for one in ("Patient", "Observation", "Binary")] == [
        *("refuse", "warn", "off")
    ]
    assert settings.profiles == {"Patient": ("http://a", "http://b")}
    as_json = Settings.model_validate({"validation": '{"Patient": "warn"}'})
    assert (as_json.mode_of("Patient"), as_json.mode_of("Group")) == ("warn", "off")


PERIOD = {"start": "2026-02-01", "end": "2026-01-01"}
BROKEN = {
    "pat-1": patient("i", contact=[{"period": {"start": "2026-01-01"}}]),
    "per-1": {**patient("i"), "name": [{"family": "A", "period": PERIOD}]},
    "obs-6": {
        "resourceType": "Observation",
        "id": "i",
        "status": "final",
        "code": {"text": "x"},
        "valueString": "x",
        "dataAbsentReason": {"text": "unknown"},
    },
    "att-1": patient("i", photo=[{"data": "AA=="}]),
}


@pytest.mark.parametrize(("key", "resource"), BROKEN.items(), ids=BROKEN)
async def test_invariants_of_r4_itself(server: Server, key: str, resource: dict[str, Any]) -> None:
    """Where the setting says so, what breaks an invariant of R4 is refused, whatever its type."""
    off = server.context.settings.model_copy(update={"validation": {}, "invariants": False})
    on = off.model_copy(update={"invariants": True})

    async def written(settings: Settings) -> Response:
        context = replace(server.context, settings=settings)
        return await answer(server.registry, put(resource), context)

    assert key in refused(await written(on))
    assert (await written(off)).status == 201


def costly(count: int) -> dict[str, Any]:
    """A profile on Patient with ``count`` invariants that go through the whole resource."""
    everything = "%resource.descendants().where($this ~ %resource.id)"
    constraints = [
        {
            "key": f"x-{number}",
            "severity": "error",
            "human": "Never broken",
            "expression": f"{everything}.count() != {number}",
        }
        for number in range(2, count + 2)
    ]
    element = [{"id": "Patient", "path": "Patient", "constraint": constraints}]
    return profile("costly", differential={"element": element})


LONG = {**GOOD, "name": [{"family": "Rahman", "given": ["Abdur"] * 40}] * 20}
"""Some thousand values, and small enough to be judged at once."""


async def test_a_write_by_a_costly_profile_is_bounded(fhir: Fhir) -> None:
    """Any client may store a profile: a write by it is refused, and the sentence has the number."""
    await fhir(put(costly(200)))
    named = {**LONG, "meta": {"profile": [URL + "costly"]}}

    said = refused(await fhir(put(named)))

    [most] = re.findall(r"takes more than ([0-9,]+) steps", said)
    assert int(most.replace(",", "")) <= 150_000


async def test_a_costly_judgement_does_not_hold_up_others(fhir: Fhir) -> None:
    """$validate may take as long as it takes; meanwhile the server answers."""
    await fhir(put(costly(40)))
    call = Request("$validate", "Patient", body=LONG, parameters=(("profile", URL + "costly"),))
    gaps: list[float] = []

    async def ticks() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            gaps.append(time.perf_counter() - before)

    ticking = asyncio.create_task(ticks())
    began = time.perf_counter()
    response = await fhir(call)
    took = time.perf_counter() - began
    ticking.cancel()

    assert response.status == 200
    assert max(gaps) < took / 3, (max(gaps), took)
