"""Packages become stored resources, side by side, whole or not at all: docs/decisions/0006."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server import packages
from fhir_server.app import Server, opened
from fhir_server.interactions.defining import definition
from fhir_server.messages import Request, Response
from fhir_server.outcome import FhirError
from fhir_server.packages import in_order
from fhir_server.r4.json import decode, encode
from fhir_server.r4.packages import Package
from fhir_server.settings import Settings
from fhir_server.store.packages import SOURCE
from fhir_server.store.resources import ResourceStore
from tests.conftest import ROOT

URL = "http://example.org/guide/StructureDefinition/"
BASE = "http://hl7.org/fhir/StructureDefinition/Patient"


def profile(name: str, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    """A profile on Patient."""
    return {
        "resourceType": "StructureDefinition",
        "id": name,
        "url": URL + name,
        "version": version,
        "name": "Profile",
        "status": "active",
        "kind": "resource",
        "abstract": False,
        "type": "Patient",
        "baseDefinition": BASE,
        "derivation": "constraint",
        "differential": {"element": [{"id": "Patient.name", "path": "Patient.name", "min": 1}]},
        **more,
    }


def parameter(code: str, version: str = "1.0.0") -> dict[str, Any]:
    """A search parameter on Patient."""
    return {
        "resourceType": "SearchParameter",
        "id": code,
        "url": f"http://example.org/guide/SearchParameter/{code}",
        "version": version,
        "name": "Parameter",
        "status": "active",
        "description": "Of a guide.",
        "code": code,
        "base": ["Patient"],
        "type": "token",
        "expression": "Patient.maritalStatus",
    }


def guide(*resources: dict[str, Any], version: str = "1.0.0", **needs: str) -> Package:
    """A package with ``resources``."""
    needed = {name.replace("_", "."): wanted for name, wanted in needs.items()}
    return Package("a.guide", version, needed, tuple(resources))


async def stored(server: Server, place: str) -> dict[str, Any]:
    type, _, id = place.partition("/")
    return decode((await server.perform(Request("read", type, id))).body)


async def found(server: Server, canonical: str) -> Any:
    return await definition("StructureDefinition", canonical, server.context)


async def test_a_package_becomes_stored_resources(server: Server) -> None:
    """Its resources are searched and read as any other, and found by their canonical."""
    added = await server.installer.add(guide(profile("p"), parameter("marriage")))
    search = Request("search-type", "StructureDefinition", parameters=(("url", URL + "p"),))

    assert (added.resources, added.written, list(added.left_out)) == (2, 2, [])
    assert decode((await server.perform(search)).body)["total"] == 1
    assert (await stored(server, "StructureDefinition/p"))["meta"]["source"] == (
        f"{SOURCE}a.guide#1.0.0"
    )
    assert (await found(server, URL + "p"))["id"] == "p"
    assert (await found(server, URL + "p|1.0.0"))["id"] == "p"
    assert await found(server, URL + "p|2.0.0") is None
    [record] = await server.packages.all()
    assert (record.key, record.state, len(record.resources)) == ("a.guide#1.0.0", "complete", 2)


async def test_adding_again_writes_nothing(server: Server) -> None:
    """A package that is here is here; one of the same name with other content is refused."""
    await server.installer.add(guide(profile("p")))
    again = await server.installer.add(guide(profile("p")))

    assert (again.resources, again.written) == (1, 0)
    with pytest.raises(FhirError, match=r"a.guide#1.0.0 is here with other content"):
        await server.installer.add(guide(profile("p", title="Another")))
    assert (await stored(server, "StructureDefinition/p"))["meta"]["versionId"] == "1"


async def test_versions_stand_side_by_side(server: Server) -> None:
    """Two versions of a guide have the same ids; both are stored, each found by canonical."""
    await server.installer.add(guide(profile("p"), parameter("marriage")))
    added = await server.installer.add(
        guide(profile("p", "1.1.0"), parameter("marriage", "1.1.0"), version="1.1.0")
    )
    newest, first = await found(server, URL + "p"), await found(server, URL + "p|1.0.0")

    assert (newest["version"], first["version"], first["id"]) == ("1.1.0", "1.0.0", "p")
    assert newest["id"].startswith("p-")
    assert [one.partition("|")[0] for one in added.left_out] == [parameter("marriage")["url"]]
    assert await server.installer.remove("a.guide#1.0.0") == 2
    assert await found(server, URL + "p|1.0.0") is None
    again = await server.installer.add(guide(profile("p"), version="1.0.0"))
    assert again.written == 1


async def test_what_was_changed_here_is_neither_overwritten_nor_removed(server: Server) -> None:
    """A resource that a site made its own stays as the site has it."""
    mine = profile("p", "0.1.0")
    await server.perform(Request("update", "StructureDefinition", "p", body=mine))
    await server.installer.add(guide(profile("p"), profile("q")))
    changed = {
        **await stored(server, "StructureDefinition/q"),
        "meta": {"versionId": "1"},
        "title": "Ours",
    }
    await server.perform(Request("update", "StructureDefinition", "q", body=changed))

    assert (await stored(server, "StructureDefinition/p"))["version"] == "0.1.0"
    assert (await found(server, URL + "p|1.0.0"))["id"] != "p"
    assert await server.installer.remove("a.guide#1.0.0") == 1
    assert (await stored(server, "StructureDefinition/q"))["title"] == "Ours"
    assert await server.packages.all() == []


async def test_missing_dependencies_are_named(server: Server) -> None:
    """A package is refused with the list of what it needs, unless it may go without."""
    needing = guide(profile("p"), b_guide="2.0.x", hl7_fhir_r4_core="4.0.1")
    with pytest.raises(FhirError, match=r"not here: b\.guide#2\.0\.x\. Add them"):
        await server.installer.add(needing)
    assert await server.packages.all() == []

    await server.installer.add(Package("b.guide", "2.0.3", {}, (profile("b"),)))
    await server.installer.add(needing)
    with pytest.raises(FhirError, match=r"needed by a\.guide#1\.0\.0"):
        await server.installer.remove("b.guide#2.0.3")
    other = Package("c.guide", "1", {"d.guide": "1"}, (profile("c"),))
    assert (await server.installer.add(other, without_dependencies=True)).written == 1
    with pytest.raises(FhirError, match=r"here are: a\.guide"):
        await server.installer.remove("none#1")


def test_packages_are_added_after_what_they_need() -> None:
    """Whatever the order on the command line, and also where two need each other."""

    def named(name: str, *needs: str) -> Package:
        return Package(name, "1", dict.fromkeys(needs, "1"), ())

    given = [named("a", "b"), named("b", "c"), named("c"), named("x", "y"), named("y", "x")]
    names = [one.name for one in in_order(given)]

    assert names[:3] == ["c", "b", "a"]
    assert sorted(names) == ["a", "b", "c", "x", "y"]


async def test_an_invalid_profile_refuses_the_package(server: Server) -> None:
    """Without one of its profiles a package would judge by half of its rules."""
    with pytest.raises(FhirError, match=r"not valid R4.*status"):
        await server.installer.add(guide(profile("p"), profile("q", status="wrong")))
    assert await server.packages.all() == []


async def test_a_killed_add_goes_on(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a package is not used; the command given again completes it, under the same ids."""
    monkeypatch.setattr(packages, "_GROUP_ENTRIES", 1)
    whole = guide(profile("p"), profile("q"))
    written: list[Request] = []

    async def killed(request: Request) -> Response:
        if request.interaction == "transaction":
            written.append(request)
            if len(written) > 1:
                raise asyncio.CancelledError
        return await server.perform(request)

    with pytest.raises(asyncio.CancelledError):
        await replace(server.installer, perform=killed).add(whole)
    [record] = await server.packages.all()

    assert record.state == "adding"
    assert (await stored(server, "StructureDefinition/p"))["id"] == "p"
    assert await found(server, URL + "p") is None
    needing = Package("c", "1", {"a.guide": "1.0.0"}, ())
    with pytest.raises(FhirError, match=r"not here: a\.guide#1\.0\.0"):
        await server.installer.add(needing)
    assert (await server.installer.add(whole)).written == 1
    assert [(await found(server, URL + name))["id"] for name in "pq"] == ["p", "q"]


async def test_another_process_hears_of_a_change(
    server: Server, mongodb_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one process writes, another finds at its next look; until then it asks nothing."""
    async with opened(server.context.settings, mongodb_uri) as other:
        assert await found(other, URL + "p") is None
        await server.installer.add(guide(profile("p")))
        assert (await found(server, URL + "p"))["version"] == "1.0.0"
        other.context.store.conformance._looked_at -= 2.0
        assert (await found(other, URL + "p"))["version"] == "1.0.0"

        asked: list[str] = []
        monkeypatch.setattr(ResourceStore, "search", _noted(ResourceStore.search, asked))
        first = await found(other, URL + "p")
        assert await found(other, URL + "p") is first
        assert asked == []


def _noted(search: Any, asked: list[str]) -> Any:
    async def noted(self: ResourceStore, plan: Any) -> Any:
        asked.append("")
        return await search(self, plan)

    return noted


async def test_r4_itself_is_found_by_canonical(server: Server) -> None:
    """What the server comes with is not changed by what is stored under the same canonical."""
    patient = await found(server, BASE)

    assert (patient["id"], patient["kind"]) == ("Patient", "resource")
    assert await found(server, f"{BASE}|4.0.1") is patient
    assert await found(server, f"{BASE}|3.0.2") is None
    value_set = "http://hl7.org/fhir/ValueSet/administrative-gender"
    assert await definition("ValueSet", value_set, server.context) is not None
    assert await definition("Nonsense", BASE, server.context) is None
    ours = profile("p", "4.0.1", url=BASE)
    await server.perform(Request("update", "StructureDefinition", "p", body=ours))
    assert await found(server, BASE) is patient


async def test_the_capability_statement_lists_profiles_and_guides(server: Server) -> None:
    """What a package brings is listed as soon as it is there, and not before it is whole."""
    implementation = {
        "resourceType": "ImplementationGuide",
        "id": "g",
        "url": "http://example.org/guide/ImplementationGuide/g",
        "name": "Guide",
        "status": "active",
        "packageId": "a.guide",
        "fhirVersion": ["4.0.1"],
    }

    async def listed() -> tuple[list[str], list[str]]:
        statement = decode((await server.perform(Request("capabilities"))).body)
        [rest] = statement["rest"]
        [patient] = [one for one in rest["resource"] if one["type"] == "Patient"]
        return patient.get("supportedProfile", []), statement.get("implementationGuide", [])

    before = await listed()
    await server.installer.add(guide(profile("p"), implementation))
    profiles, guides = await listed()

    assert URL + "p" not in before[0]
    assert set(profiles) - set(before[0]) == {URL + "p"}
    assert set(guides) - set(before[1]) == {implementation["url"]}
    await server.installer.remove("a.guide#1.0.0")
    assert await listed() == before


async def test_a_guide_unpacked_among_the_artifacts(
    settings: Settings, mongodb_uri: str, tmp_path: Path
) -> None:
    """A published package lies in profiles/ as it was unpacked: it judges, and is not stored."""
    for name in ("profiles", "terminology"):
        shutil.copytree(ROOT / name, tmp_path / name)
    folder = tmp_path / "profiles" / "a.guide" / "package"
    folder.mkdir(parents=True)
    (folder / "package.json").write_bytes(encode({"name": "a.guide", "version": "1.0.0"}))
    repeated = parameter("name") | {"expression": "Patient.name.family"}  # R4 has one of that code
    for one in (profile("p"), parameter("marriage"), repeated):
        (folder / f"{one['resourceType']}-{one['id']}.json").write_bytes(encode(one))
    (folder / "Library-broken.json").write_bytes(b"no JSON")
    artifacts = settings.model_copy(update={"artifacts": tmp_path})
    body = {"resourceType": "Patient", "active": True, "meta": {"profile": [URL + "p"]}}
    async with opened(artifacts, mongodb_uri) as server:
        outcome = await server.perform(Request("$validate", "Patient", body=body))
        statement = decode((await server.perform(Request("capabilities"))).body)
        served = server.context.parameters.of("Patient")

    assert "name is missing" in str(outcome.body)
    assert URL + "p" in str(statement)
    assert served["marriage"].url == parameter("marriage")["url"]
    assert served["name"].url.startswith("http://hl7.org/fhir/SearchParameter/")
    assert server.context.published.packages()["a.guide"] == ["1.0.0"]
