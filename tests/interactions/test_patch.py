"""https://hl7.org/fhir/R4/http.html#patch"""

import asyncio
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.dispatch import answer
from fhir_server.messages import Request, Resource
from fhir_server.patch.formats import JSON_PATCH, MERGE_PATCH, as_binary
from tests.conftest import Fhir
from tests.interactions.asking import (
    bundle,
    entry,
    issues_of,
    json_of,
    patient,
    put,
    read,
    statuses,
    tags,
    versions,
)
from tests.interactions.patches import fhirpath_patch, json_patch, merge_patch, patch, xml_patch

NARRATIVE = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">A</div>'}


FEMALE = {
    "JSON Patch": json_patch({"op": "add", "path": "/gender", "value": "female"}),
    "merge patch": merge_patch(gender="female"),
    "FHIRPath Patch": fhirpath_patch(
        "add", "Patient", name="gender", value=("valueCode", "female")
    ),
    "XML Patch": xml_patch('<add sel="Patient"><gender value="female"/></add>'),
}


@pytest.mark.parametrize("body", FEMALE.values(), ids=FEMALE)
async def test_a_patch_makes_the_next_version(fhir: Fhir, body: Resource) -> None:
    """Every kind answers like an update: 200, the new version, its place; the rest stays."""
    await fhir(put(patient(active=True)))

    response = await fhir(patch(body))

    assert (response.status, response.version) == (200, 2)
    assert response.location == "Patient/p/_history/2"
    now = await read(fhir, "Patient/p")
    assert now == json_of(response)
    assert (now["gender"], now["active"]) == ("female", True)
    history = await versions(fhir, "Patient/p")
    assert [one["request"]["method"] for one in history] == ["PATCH", "PUT"]
    assert "gender" not in history[1]["resource"]


async def test_what_is_patched_is_found(fhir: Fhir) -> None:
    """The keys of the search are those of the new version."""
    await fhir(put(patient(gender="male")))
    await fhir(patch(json_patch({"op": "replace", "path": "/gender", "value": "female"})))

    for code, count in (("female", 1), ("male", 0)):
        found = await fhir(Request("search-type", "Patient", parameters=(("gender", code),)))
        assert len(json_of(found).get("entry", [])) == count


NOTHING = {
    "no operation": json_patch(),
    "a test": json_patch({"op": "test", "path": "/gender", "value": "female"}),
    "there and back": json_patch(
        {"op": "move", "from": "/gender", "path": "/x"},
        {"op": "move", "from": "/x", "path": "/gender"},
    ),
    "the same value": json_patch({"op": "replace", "path": "/gender", "value": "female"}),
    "the same value in XML": xml_patch('<replace sel="Patient/gender/@value">female</replace>'),
    "a comment in XML": xml_patch('<add sel="Patient"><!-- x --></add>'),
    "an empty merge": merge_patch(),
    "a merge of what is there": merge_patch(gender="female"),
    "no parameter": {"resourceType": "Parameters"},
    "a deletion of nothing": fhirpath_patch("delete", "Patient.photo"),
}


@pytest.mark.parametrize("body", NOTHING.values(), ids=NOTHING)
async def test_a_patch_that_changes_nothing_makes_no_version(fhir: Fhir, body: Resource) -> None:
    """The answer is 200 with the version that is there, its narrative too."""
    first = await fhir(put(patient(text=NARRATIVE, gender="female")))

    again = await fhir(patch(body))

    assert (again.status, again.version, again.body) == (200, 1, first.body)
    assert tags(await versions(fhir, "Patient/p")) == [1]


async def test_what_is_not_there_cannot_be_patched(fhir: Fhir) -> None:
    """404 for what never was and 410 for what is deleted, whatever the preconditions."""
    for headers in ({}, {"if_match": frozenset({"1"})}, {"if_none_match": frozenset({"*"})}):
        assert (await fhir(patch(merge_patch(), "p", **headers))).status == 404
    await fhir(put(patient()))
    await fhir(Request("delete", "Patient", "p"))
    for headers in ({}, {"if_match": frozenset({"2"})}):
        assert (await fhir(patch(merge_patch(), "p", **headers))).status == 410


PRECONDITIONS = {
    "If-Match of the current one": ({"if_match": frozenset({"2"})}, 200),
    "If-Match of an earlier one": ({"if_match": frozenset({"1"})}, 412),
    "If-Match *": ({"if_match": frozenset({"*"})}, 200),
    "If-None-Match *": ({"if_none_match": frozenset({"*"})}, 412),
    "If-None-Match of the current one": ({"if_none_match": frozenset({"2"})}, 412),
    "If-None-Match of an earlier one": ({"if_none_match": frozenset({"1"})}, 200),
}


@pytest.mark.parametrize(("headers", "status"), PRECONDITIONS.values(), ids=PRECONDITIONS)
async def test_preconditions(fhir: Fhir, headers: dict[str, Any], status: int) -> None:
    """http.html#patch: "servers SHALL support conditional PATCH", as for update."""
    await fhir(put(patient()))
    await fhir(put(patient(active=True)))

    response = await fhir(patch(FEMALE["merge patch"], **headers))

    assert response.status == status
    assert len(await versions(fhir, "Patient/p")) == (3 if status == 200 else 2)


# Why -> the body, the status, the code and expression of the issue.
REFUSED: dict[str, tuple[Resource | None, int, tuple[str, str]]] = {
    "no body": (None, 400, ("value", "")),
    "a resource": (patient(), 400, ("value", "")),
    "a test that fails": (
        json_patch({"op": "test", "path": "/gender", "value": "male"}),
        422,
        ("processing", ""),
    ),
    "a JSON Patch that is an object": (as_binary(JSON_PATCH, b"{}"), 400, ("structure", "")),
    "a JSON Patch that is no JSON": (as_binary(JSON_PATCH, b"[{"), 400, ("structure", "")),
    "a JSON Patch of nothing": (as_binary(JSON_PATCH, b""), 400, ("structure", "")),
    "a merge patch that is a list": (as_binary(MERGE_PATCH, b"[]"), 400, ("structure", "")),
    "a Binary of another type": (
        as_binary("application/xml-patch", b"<diff/>"),
        415,
        ("not-supported", "Binary.contentType"),
    ),
    "an XML Patch of nothing": (xml_patch(""), 400, ("structure", "")),
    "an XML Patch that does not fit": (
        xml_patch('<remove sel="Patient/name"/>'),
        422,
        ("processing", ""),
    ),
    "an XML Patch to another order": (
        xml_patch('<add sel="Patient"><active value="true"/></add>'),
        422,
        ("structure", "Patient"),
    ),
    "an XML Patch of the id": (
        xml_patch('<replace sel="Patient/id/@value">q</replace>'),
        422,
        ("business-rule", "Patient.id"),
    ),
    "an XML Patch to a code that is none": (
        xml_patch('<replace sel="Patient/gender/@value">mail</replace>'),
        422,
        ("code-invalid", "Patient.gender"),
    ),
    "a Binary of no type": (
        {"resourceType": "Binary"},
        415,
        ("not-supported", "Binary.contentType"),
    ),
    "a Binary that is no base64": (
        {"resourceType": "Binary", "contentType": JSON_PATCH, "data": "§"},
        400,
        ("value", "Binary.data"),
    ),
    "another id": (merge_patch(id="q"), 422, ("business-rule", "Patient.id")),
    "no id": (merge_patch(id=None), 422, ("business-rule", "Patient.id")),
    "another type": (merge_patch(resourceType="Basic"), 422, ("business-rule", "resourceType")),
    "no type": (
        json_patch({"op": "remove", "path": "/resourceType"}),
        422,
        ("business-rule", "resourceType"),
    ),
    "another id, by FHIRPath": (
        fhirpath_patch("replace", "Patient.id", value=("valueId", "q")),
        422,
        ("business-rule", "Patient.id"),
    ),
    "no object": (json_patch({"op": "add", "path": "", "value": 1}), 422, ("processing", "")),
    "a list": (json_patch({"op": "add", "path": "", "value": []}), 422, ("processing", "")),
    "an unknown element": (merge_patch(gendre="male"), 422, ("structure", "Patient.gendre")),
    "an unknown code": (merge_patch(gender="mail"), 422, ("code-invalid", "Patient.gender")),
    "a value of another type": (merge_patch(active="yes"), 422, ("structure", "Patient.active")),
    "a meta that is none": (merge_patch(meta="x"), 422, ("structure", "Patient.meta")),
    "null in the resource": (
        json_patch({"op": "add", "path": "/gender", "value": None}),
        422,
        ("structure", "Patient.gender"),
    ),
    "an invalid Parameters": (
        {"resourceType": "Parameters", "parameter": [{"name": "operation", "prt": []}]},
        400,
        ("structure", "Parameters.parameter[0].prt"),
    ),
    "an operation that does not fit": (
        fhirpath_patch("replace", "Patient.birthDate", value=("valueDate", "2024-01-01")),
        422,
        ("processing", "Parameters.parameter[0]"),
    ),
}


@pytest.mark.parametrize(("body", "status", "issue"), REFUSED.values(), ids=REFUSED)
async def test_a_refused_patch_changes_nothing(
    fhir: Fhir, body: Resource | None, status: int, issue: tuple[str, str]
) -> None:
    """The status says whose fault it is, the issue where; no version is made."""
    await fhir(put(patient(gender="female")))

    response = await fhir(patch(body))

    assert response.status == status, response.body
    assert issues_of(response) == [issue]
    assert tags(await versions(fhir, "Patient/p")) == [1]


async def test_an_id_that_is_removed_is_no_value(fhir: Fhir) -> None:
    """The sentence says what the patch does, in no programming language."""
    await fhir(put(patient()))

    response = await fhir(patch(merge_patch(id=None)))

    assert b"The patch removes id; it stays 'p'." in response.body


async def test_a_failing_test_is_named(fhir: Fhir) -> None:
    """422 with the operation, and never the value that is there."""
    await fhir(put(patient(birthDate="1974-12-25")))
    steps = [{"op": "test", "path": "/birthDate", "value": "1974-12-26"}]
    response = await fhir(
        patch(json_patch({"op": "add", "path": "/active", "value": True}, *steps))
    )
    text = json_of(response)["issue"][0]["diagnostics"]

    assert response.status == 422
    assert "Operation [1] of the patch (test '/birthDate')" in text
    assert "1974-12-25" not in text


async def test_a_list_that_is_emptied_goes(fhir: Fhir) -> None:
    """FHIR has no empty arrays and objects; a removal that leaves one is a removal of it."""
    await fhir(put(patient(name=[{"family": "R"}], contact=[{"name": {"text": "x"}}])))
    await fhir(
        patch(
            json_patch(
                {"op": "remove", "path": "/name/0"},
                {"op": "remove", "path": "/contact/0/name/text"},
            )
        )
    )

    assert {"name", "contact"}.isdisjoint(await read(fhir, "Patient/p"))


async def test_the_answer_is_as_the_client_prefers(fhir: Fhir) -> None:
    """http.html#patch: the Prefer header applies as for update."""
    await fhir(put(patient()))
    minimal = await fhir(patch(merge_patch(active=True), prefer={"return": "minimal"}))
    said = await fhir(patch(merge_patch(active=False), prefer={"return": "OperationOutcome"}))

    assert (minimal.status, minimal.body, minimal.version) == (200, b"", 2)
    assert "was changed; its version is 3" in json_of(said)["issue"][0]["diagnostics"]


# Narrative before, patch, narrative after; None is none, "422" a refusal.
NARRATIVES: dict[str, tuple[str, Resource, str | None]] = {
    "generated goes with what it tells": ("generated", {"gender": "male"}, None),
    "extensions goes with what it tells": ("extensions", {"gender": "male"}, None),
    "additional cannot be judged": ("additional", {"gender": "male"}, "422"),
    "empty stays": ("empty", {"gender": "male"}, "empty"),
    "a tag is not told about": ("additional", {"meta": {"tag": [{"code": "a"}]}}, "additional"),
    "what the patch itself says stays": (
        "additional",
        {"gender": "male", "text": {"status": "generated"}},
        "generated",
    ),
    "what the patch deletes goes": ("additional", {"gender": "male", "text": None}, None),
}


@pytest.mark.parametrize(("status", "members", "after"), NARRATIVES.values(), ids=NARRATIVES)
async def test_the_narrative_stays_safe(
    fhir: Fhir, status: str, members: Resource, after: str | None
) -> None:
    """http.html#patch: the server SHALL ensure that its narrative is not clinically unsafe."""
    await fhir(put(patient(text={**NARRATIVE, "status": status})))

    response = await fhir(patch(merge_patch(**members)))

    if after == "422":
        assert (response.status, issues_of(response)) == (422, [("business-rule", "Patient.text")])
    else:
        assert json_of(response).get("text", {}).get("status") == after


def adds(n: int, kind: int) -> Resource:
    """Return a patch of one of three kinds that adds identifier ``n``."""
    value = {"value": str(n)}
    if kind == 1:
        return json_patch({"op": "add", "path": "/identifier/-", "value": value})
    if kind == 2:
        new = f'<identifier><value value="{n}"/></identifier>'
        return xml_patch(f'<add sel="Patient/identifier[last()]" pos="after">{new}</add>')
    return fhirpath_patch("add", "Patient", name="identifier", value=("valueIdentifier", value))


async def test_of_concurrent_patches_none_is_lost(fhir: Fhir) -> None:
    """32 patches that each add an identifier: all 32 are there, each in a version of its own."""
    await fhir(put(patient(identifier=[{"value": "first"}])))

    answers = await asyncio.gather(*(fhir(patch(adds(n, n % 3))) for n in range(32)))

    assert [one.status for one in answers] == [200] * 32
    assert sorted(one.version for one in answers) == list(range(2, 34))
    now = await read(fhir, "Patient/p")
    assert {one["value"] for one in now["identifier"]} == {"first", *map(str, range(32))}
    assert len(now["identifier"]) == 33


async def test_of_patches_at_two_servers_none_is_lost(
    fhir: Fhir, server: Server, mongodb_uri: str
) -> None:
    """Servers beside each other on one database: their patches of one resource all count."""
    await fhir(put(patient(identifier=[{"value": "first"}])))

    async with opened(server.context.settings, mongodb_uri) as other:
        answers = await asyncio.gather(
            *(
                answer(one.registry, patch(adds(n, n % 2)), one.context)
                for n in range(24)
                for one in [server if n % 4 < 2 else other]
            )
        )

    assert [one.status for one in answers] == [200] * 24
    now = await read(fhir, "Patient/p")
    assert {one["value"] for one in now["identifier"]} == {"first", *map(str, range(24))}


async def test_patches_and_updates_together(fhir: Fhir) -> None:
    """Patches beside blind updates and bundles: each succeeds, and the versions tell one story."""
    await fhir(put(patient(identifier=[{"value": "first"}])))

    async def one(n: int) -> Any:
        if n % 4 == 0:
            return await fhir(put(patient(identifier=[{"value": f"u{n}"}])))
        if n % 4 == 1:
            return await fhir(bundle(entry("PATCH", "Patient/p", adds(n, 0))))
        return await fhir(patch(adds(n, 1)))

    answers = await asyncio.gather(*(one(n) for n in range(24)))

    assert {one.status for one in answers} == {200}
    history = [one["resource"]["identifier"] for one in await versions(fhir, "Patient/p")]
    assert len(history) == 25
    for after, before in pairwise(history):
        assert after[:-1] == before or (len(after) == 1 and after[0]["value"][0] == "u")


async def test_a_test_is_a_lock(fhir: Fhir) -> None:
    """Of 16 patches that each test for the same value and change it, one succeeds."""
    await fhir(put(patient(multipleBirthInteger=0)))
    path = "/multipleBirthInteger"
    bodies = [
        json_patch(
            {"op": "test", "path": path, "value": 0},
            {"op": "replace", "path": path, "value": n + 1},
        )
        for n in range(16)
    ]
    answers = await asyncio.gather(*(fhir(patch(body)) for body in bodies))

    assert sorted(one.status for one in answers) == [200] + [422] * 15


async def test_patches_that_are_refused_leave_the_others_alone(fhir: Fhir) -> None:
    """Patches that are committed together are judged each alone."""
    for n in range(12):
        await fhir(put(patient(f"p{n}", gender="male")))
    wrong = merge_patch(gender="mail")
    answers = await asyncio.gather(
        *(fhir(patch(wrong if n % 3 else FEMALE["merge patch"], f"p{n}")) for n in range(12))
    )

    assert [one.status for one in answers] == [422 if n % 3 else 200 for n in range(12)]


# ------------------------------------------------------------------------------------- bundles


@pytest.mark.parametrize("type", ["batch", "transaction"])
async def test_patches_in_a_bundle(fhir: Fhir, type: str) -> None:
    """http.html#transaction: a Binary with the JSON Patch, or a Parameters."""
    for id in "abcd":
        await fhir(put(patient(id)))
    response = await fhir(
        bundle(
            *(
                entry("PATCH", f"Patient/{id}", body)
                for id, body in zip("abcd", FEMALE.values(), strict=True)
            ),
            type=type,
        )
    )

    assert statuses(response) == ["200"] * 4
    assert [(await read(fhir, f"Patient/{id}"))["gender"] for id in "abcd"] == ["female"] * 4


async def test_a_refused_patch_refuses_the_transaction(fhir: Fhir) -> None:
    """The entry is named, and the operation in it; nothing is written."""
    await fhir(put(patient("a")))
    wrong = fhirpath_patch("replace", "Patient.gender", value=("valueCode", "male"))
    response = await fhir(
        bundle(entry("PUT", "Patient/b", patient("b")), entry("PATCH", "Patient/a", wrong))
    )

    assert response.status == 422
    assert issues_of(response) == [("processing", "Bundle.entry[1].resource.parameter[0]")]
    assert (await fhir(Request("read", "Patient", "b"))).status == 404


@pytest.mark.parametrize("type", ["batch", "transaction"])
async def test_what_a_patch_in_a_bundle_comes_to_is_validated(fhir: Fhir, type: str) -> None:
    """What is wrong is in no entry: the issue names the entry, and says the place in words."""
    await fhir(put(patient("a")))
    response = await fhir(
        bundle(entry("PATCH", "Patient/a", merge_patch(gendre="male")), type=type)
    )
    outcome = (
        json_of(response)
        if type == "transaction"
        else json_of(response)["entry"][0]["response"]["outcome"]
    )

    [issue] = outcome["issue"]
    assert issue["expression"] == ["Bundle.entry[0]"]
    assert "Patient.gendre" in issue["diagnostics"]


@pytest.mark.parametrize("version", ["1", "2"])
async def test_preconditions_in_a_bundle(fhir: Fhir, version: str) -> None:
    """ifMatch is If-Match."""
    await fhir(put(patient("a")))
    body = FEMALE["merge patch"]
    response = await fhir(bundle(entry("PATCH", "Patient/a", body, ifMatch=f'W/"{version}"')))

    assert response.status == (200 if version == "1" else 412)


REFERENCES: dict[str, Callable[[str], Resource]] = {
    "FHIRPath Patch": lambda to: fhirpath_patch(
        "add", "Patient", name="managingOrganization", value=("valueReference", {"reference": to})
    ),
    "JSON Patch": lambda to: json_patch(
        {"op": "add", "path": "/managingOrganization", "value": {"reference": to}}
    ),
    "JSON Patch of the reference itself": lambda to: json_patch(
        {"op": "add", "path": "/managingOrganization", "value": {"display": "x"}},
        {"op": "add", "path": "/managingOrganization/reference", "value": to},
    ),
    "merge patch": lambda to: merge_patch(managingOrganization={"reference": to}),
    "XML Patch": lambda to: xml_patch(
        '<add sel="Patient"><managingOrganization>'
        f'<reference value="{to}"/></managingOrganization></add>'
    ),
    "XML Patch of the reference itself": lambda to: xml_patch(
        '<add sel="Patient"><managingOrganization><display value="x"/></managingOrganization></add>'
        '<add sel="Patient/managingOrganization" pos="prepend"><reference value="x"/></add>'
        f'<replace sel="Patient/managingOrganization/reference/@value">{to}</replace>'
    ),
}


@pytest.mark.parametrize("link", ["urn:uuid:6b7c1dd6-8f20-4bd0-8d2c-0f62a5e6d9b1", "conditional"])
@pytest.mark.parametrize("body", REFERENCES.values(), ids=REFERENCES)
async def test_references_in_a_patch_are_rewritten(
    fhir: Fhir, body: Callable[[str], Resource], link: str
) -> None:
    """http.html#trules: links to other entries, and conditional references."""
    await fhir(put(patient("a")))
    to = "Organization?identifier=urn:o|1" if link == "conditional" else link
    organization = {
        "resourceType": "Organization",
        "identifier": [{"system": "urn:o", "value": "1"}],
    }
    response = await fhir(
        bundle(
            entry("POST", "Organization", organization, "urn:uuid:x" if to != link else link),
            entry("PATCH", "Patient/a", body(to)),
        )
    )

    assert statuses(response) == ["201", "200"], response.body
    reference = (await read(fhir, "Patient/a"))["managingOrganization"]["reference"]
    assert reference.startswith("Organization/")
    assert (await read(fhir, reference))["identifier"] == organization["identifier"]


async def test_a_patched_entry_can_be_referred_to(fhir: Fhir) -> None:
    """By its fullUrl, as any entry that writes."""
    await fhir(put(patient("a")))
    basic = {"resourceType": "Basic", "code": {"text": "x"}, "subject": {"reference": "urn:uuid:z"}}
    patched = entry("PATCH", "Patient/a", FEMALE["merge patch"], "urn:uuid:z")
    response = await fhir(bundle(entry("POST", "Basic", basic), patched))

    [written, _] = json_of(response)["entry"]
    place = written["response"]["location"].partition("/fhir/")[2].partition("/_history")[0]
    assert (await read(fhir, place))["subject"]["reference"] == "Patient/a"


async def test_a_transaction_of_many_patches(fhir: Fhir) -> None:
    """More than are judged in one go; one that is refused refuses them all."""
    ids = [f"p{n}" for n in range(120)]
    await fhir(bundle(*(entry("PUT", f"Patient/{id}", patient(id)) for id in ids)))
    entries = [entry("PATCH", f"Patient/{id}", FEMALE["JSON Patch"]) for id in ids]
    wrong = entry("PATCH", "Patient/p119", merge_patch(gender="mail"))

    refused = await fhir(bundle(*entries[:-1], wrong))
    assert (refused.status, issues_of(refused)) == (422, [("code-invalid", "Bundle.entry[119]")])
    assert "gender" not in await read(fhir, "Patient/p0")
    assert statuses(await fhir(bundle(*entries))) == ["200"] * 120
    assert (await read(fhir, "Patient/p119"))["gender"] == "female"


async def test_two_entries_may_not_change_one_resource(fhir: Fhir) -> None:
    """http.html#trules: overlapping identities fail."""
    await fhir(put(patient("a")))
    twice = [entry("PATCH", "Patient/a", FEMALE["merge patch"])] * 2

    assert (await fhir(bundle(*twice))).status == 400


async def test_bundles_that_rely_on_what_the_other_changes(fhir: Fhir) -> None:
    """Two bundles each test what the other changes: not both can have been right."""
    for round in range(10):
        a, b = f"a{round}", f"b{round}"
        for id in (a, b):
            await fhir(put(patient(id, active=True)))
        off = json_patch({"op": "replace", "path": "/active", "value": False})
        on = json_patch({"op": "test", "path": "/active", "value": True})
        answers = await asyncio.gather(
            fhir(bundle(entry("PATCH", f"Patient/{a}", on), entry("PATCH", f"Patient/{b}", off))),
            fhir(bundle(entry("PATCH", f"Patient/{b}", on), entry("PATCH", f"Patient/{a}", off))),
        )

        assert sorted(one.status for one in answers) == [200, 422]


async def test_limits(server: Server) -> None:
    """Too many operations, and a result that is too large, are 413; nothing is written."""
    settings = server.context.settings.model_copy(update={"patch_operations_max": 3})
    context = replace(server.context, settings=settings)

    async def ask(request: Request) -> int:
        return (await answer(server.registry, request, context)).status

    await ask(put(patient(name=[{"family": "x" * 1000}])))
    step = {"op": "test", "path": "/id", "value": "p"}
    doubling = {"op": "copy", "from": "/name", "path": "/contact"}
    many = [{"op": "copy", "from": "/name/0/family", "path": "/x"}] * 7000
    assert await ask(patch(json_patch(*[step] * 3))) == 200
    assert await ask(patch(json_patch(*[step] * 4))) == 413
    assert await ask(patch(json_patch(doubling))) == 422
    settings = settings.model_copy(update={"patch_operations_max": 10_000})
    context = replace(server.context, settings=settings)
    assert await ask(patch(json_patch(*many))) == 413


async def test_data_may_be_broken_into_lines(fhir: Fhir) -> None:
    """base64Binary may have white space in it."""
    await fhir(put(patient()))
    text = b64encode(b'[{"op":"add","path":"/active","value":true}]').decode()
    body = {"resourceType": "Binary", "contentType": f"{JSON_PATCH}; charset=utf-8"}
    response = await fhir(patch({**body, "data": f"{text[:20]}\n {text[20:]}"}))

    assert json_of(response)["active"] is True
