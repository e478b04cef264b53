"""design/cds.md, section 8: a site's own knowledge, and taking it up while the server runs."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fhir_server.app import Server, opened
from fhir_server.artifacts import artifacts_root
from fhir_server.ending import end_of
from fhir_server.features.cds import reloading
from fhir_server.features.cds.knowledge import read_knowledge
from fhir_server.features.cds.resolve import RXNORM, resolve
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.features.cds.site_packages import is_link
from fhir_server.outcome import FhirError
from fhir_server.settings import Settings
from fhir_server.store.cds import ask_to_reload
from tests.conformance.cds_hooks.conftest import full, order
from tests.conftest import Emptied
from tests.features.cds.conftest import ROOT, client_of
from tests.features.cds.test_fhir_side import ask

RULE = {
    "id": "dhaka-warfarin-metformin",
    "version": 1,
    "severity": "serious",
    "a": {"ingredients": [{"code": "11289", "display": "warfarin"}]},
    "b": {"ingredients": [{"code": "6809", "display": "metformin"}]},
    "mechanism": "Made up for a test.",
    "effect": "Nothing real",
    "management": "Ask the pharmacy",
    "evidence": [{"source": "us-label", "year": 2026}],
}
LOCAL = "https://example.org/drugs"


def site(to: Path, files: dict[str, Any] | None = None) -> Path:
    """Return a folder of artifacts with a site's package, of ``files`` by name."""
    shutil.copytree(ROOT / "terminology" / "cds-knowledge", to / "terminology" / "cds-knowledge")
    folder = to / "terminology" / "cds-dhaka"
    (folder / "drug-classes").mkdir(parents=True)
    write(to, {"package.json": {"version": "1.0.0"}, **(files or {})})
    return to


def write(to: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (to / "terminology" / "cds-dhaka" / name).write_text(text, "utf-8")


def interactions(**more: Any) -> dict[str, Any]:
    return {"interactions.json": {"rules": [{**RULE, **more}]}}


def test_a_site_adds_and_replaces(tmp_path: Path) -> None:
    """Rules, classes, names, codes of its own and pages stand beside ours; one takes a place."""
    shipped = read_knowledge(ROOT / "terminology")
    concept_map = {
        "resourceType": "ConceptMap",
        "group": [
            {
                "source": LOCAL,
                "target": sorted(RXNORM)[0],
                "element": [
                    {"code": "42", "target": [{"code": "11289", "equivalence": "equivalent"}]},
                    {"code": "43", "target": [{"code": "11289", "equivalence": "disjoint"}]},
                ],
            }
        ],
    }
    found = read_knowledge(
        site(
            tmp_path,
            {
                **interactions(replaces=["vka-nsaid"]),
                "drug-classes/ValueSet-drugclass-dhaka-mine.json": {
                    "compose": {
                        "include": [{"concept": [{"code": "99000001", "display": "foobarin"}]}]
                    }
                },
                "cross-reactivity.json": {
                    "relations": [],
                    "class_names": {"dhaka-mine": ["foobarins"]},
                    "not_a_drug": ["shutki"],
                },
                "ingredients.csv": "code,display\n99000001,foobarin\n",
                "names.csv": "name,ingredients\nfoobex,99000001\n",
                "monographs.csv": "rule,url\ndhaka-warfarin-metformin,https://example.org/m?x=1\n",
                "ConceptMap-local.json": concept_map,
            },
        )
        / "terminology"
    )
    coded = [
        order("1", "x", medicationCodeableConcept={"coding": [{"system": LOCAL, "code": c}]})
        for c in ("42", "43")
    ]

    assert found.version == f"{shipped.version} and dhaka 1.0.0"
    assert found.rules.keys() ^ shipped.rules.keys() == {RULE["id"], "vka-nsaid"}
    assert found.links == {RULE["id"]: "https://example.org/m?x=1"}
    assert resolve(order("1", "Foobex 5 mg"), {}, found).ingredients.keys() == {"99000001"}
    assert resolve(coded[0], {}, found).ingredients.keys() == {"11289"}
    assert resolve(coded[1], {}, found).unresolved
    assert {"foobarins"} == found.class_names.keys() - shipped.class_names.keys()
    assert {"shutki"} == found.no_drug - shipped.no_drug


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (interactions(id="mine"), "cds-dhaka/interactions.json, mine: .*begin with dhaka-"),
        (interactions(severity="bad"), r"cds-dhaka/interactions.json: .*dhaka-warfarin-metformin"),
        (interactions(replaces=["no-such"]), "dhaka-warfarin-metformin: it replaces no-such"),
        (interactions(a={"class": "none"}), "cds-dhaka/interactions.json, dhaka-w.*no class none"),
        ({"interactions.json": {"rules": [RULE, RULE]}}, "the id is there twice"),
        ({"interactions.json": "{"}, "cds-dhaka/interactions.json is no JSON"),
        ({"interactions.json": "[]"}, "cds-dhaka/interactions.json"),
        ({"ingredients.csv": "code,display\n11289,rat poison\n"}, "11289: it is warfarin already"),
        ({"ingredients.csv": "code,name\n1,x\n"}, "cds-dhaka/ingredients.csv, line 2: .*display"),
        ({"names.csv": "name,ingredients\nx,99999999\n"}, "99999999 is not in ingredients.csv"),
        ({"monographs.csv": "rule,url\nnone,https://a.org/\n"}, "none: there is no such rule"),
        ({"monographs.csv": "rule,url\nvka-nsaid,javascript:x\n"}, "no absolute https URL"),
        ({"ConceptMap-x.json": {"group": [{}]}, "package.json": []}, ""),
        ({"ConceptMap-x.json": {}}, "cds-dhaka/ConceptMap-x.json: it is no ConceptMap"),
        ({"drug-classes/ValueSet-drugclass-mine.json": {"compose": {"include": []}}}, "begin with"),
        ({"drug-classes/ValueSet-drugclass-dhaka-x.json": {}}, "ValueSet-drugclass-dhaka-x.json"),
        (
            {"cross-reactivity.json": {"relations": [], "class_names": {"none": ["x"]}}},
            "no class none",
        ),
    ],
)
def test_a_fault_names_file_row_and_reason(
    tmp_path: Path, files: dict[str, Any], said: str
) -> None:
    """Whatever is wrong in a site's package."""
    root = site(tmp_path, files) / "terminology"
    if not said:  # what says nothing is no fault
        assert read_knowledge(root).rules
        return
    with pytest.raises(KnowledgeError, match=said):
        read_knowledge(root)


def test_a_limit_is_not_given_twice(tmp_path: Path) -> None:
    """Two limits of one drug by one route: which one holds is said by ``replaces``."""
    shipped = json.loads(
        (ROOT / "terminology" / "cds-knowledge" / "dose-limits.json").read_text("utf-8")
    )["limits"]
    (row,) = [one for one in shipped if one["id"] == "acarbose-oral"]
    mine = {**row, "id": "dhaka-acarbose", "max_daily": 150}
    root = site(tmp_path, {"dose-limits.json": {"limits": [mine]}})
    with pytest.raises(KnowledgeError, match="acarbose-oral is about the same"):
        read_knowledge(root / "terminology")

    write(root, {"dose-limits.json": {"limits": [{**mine, "replaces": ["acarbose-oral"]}]}})
    (limit,) = read_knowledge(root / "terminology").limits["16681"]
    assert limit["max_daily"] == 150


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("https://a.org/x?y=1#z", True),
        ("http://a.org/x", False),
        ("//a.org/x", False),
        ("/x", False),
        ("https://", False),
        ("https://me:pw@a.org/", False),
        ("https://a.org/<script>", False),
        ("https://a.org/a b", False),
        ("https://a.org/\n", False),
        ("https://a.org:99999/", False),
        ("https://[a.org/", False),
        ("https://a.org/" + "x" * 500, False),
    ],
)
def test_what_a_card_may_link_to(url: str, is_one: bool) -> None:
    """An absolute https URL."""
    assert is_link(url) == is_one


@pytest.fixture
async def changing(
    mongodb_uri: str, emptied: Emptied, tmp_path: Path
) -> AsyncIterator[tuple[Server, Path]]:
    """A server with artifacts of its own."""
    root = site(tmp_path)
    real = artifacts_root()
    (root / "profiles").symlink_to(real / "profiles")
    for one in (real / "terminology").iterdir():
        if one.name != "cds-knowledge":
            (root / "terminology" / one.name).symlink_to(one)
    policy = root / "policy.json"
    policy.write_text("{}", "utf-8")
    with emptied.one() as name:
        settings = Settings.model_validate(
            {
                "mongodb_database": name,
                "artifacts": root,
                "cds_policy": policy,
                "cds_deadline_ms": 20_000,
            }
        )
        async with opened(settings, mongodb_uri) as server:
            yield server, root


async def links(server: Server) -> list[Any]:
    """Return the links of the card of metformin with warfarin."""
    async with client_of(server) as http:
        answer = await http.post(
            "/cds-services/drug-safety-sign", json=full(order("m", "metformin", "draft"))
        )
    cards = answer.json()["cards"]
    return [one.get("links") for one in cards if "with" in one["summary"]]


async def test_reload_swaps_a_whole(changing: tuple[Server, Path]) -> None:
    """What is in order is used at once; a fault is said, and what was in use still is."""
    server, root = changing
    page = {"monographs.csv": "rule,url\ndhaka-warfarin-metformin,https://example.org/m\n"}
    assert await links(server) == []

    write(root, {**interactions(), **page})
    assert await links(server) == []
    answer = await ask(server, "$reload-knowledge")
    assert answer.status == 200
    assert b"dhaka 1.0.0" in answer.body
    expected = [[{"label": "Monograph", "url": "https://example.org/m", "type": "absolute"}]]
    assert await links(server) == expected

    write(root, interactions(severity="bad"))
    refused = await ask(server, "$reload-knowledge")
    said = json.loads(refused.body)["issue"][0]["diagnostics"]
    assert refused.status == 422
    assert "cds-dhaka/interactions.json" in said
    assert RULE["id"] in said
    assert await links(server) == expected
    assert (await ask(server, "$reload-knowledge", reading=True)).status == 405


async def test_pages_of_packages_and_of_the_policy(changing: tuple[Server, Path]) -> None:
    """Cards link to both; the policy has the last word, and is taken up with the packages."""
    server, root = changing
    page = {"monographs.csv": "rule,url\ndhaka-warfarin-metformin,https://example.org/m\n"}
    write(root, {**interactions(), **page})
    for pages, url in (
        ({"vka-nsaid": "https://example.org/other"}, "https://example.org/m"),
        ({RULE["id"]: "https://example.org/policy"}, "https://example.org/policy"),
        ({RULE["id"]: "javascript:alert(1)"}, "https://example.org/policy"),
        ({}, "https://example.org/m"),
    ):
        (root / "policy.json").write_text(json.dumps({"links": pages}), "utf-8")
        answer = await ask(server, "$reload-knowledge")
        assert answer.status == (422 if "javascript" in str(pages) else 200)
        assert await links(server) == [[{"label": "Monograph", "url": url, "type": "absolute"}]]


async def test_reload_beside(
    changing: tuple[Server, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another process took up this one takes up too."""
    server, root = changing
    monkeypatch.setattr(reloading, "LOOK_S", 0.05)
    running = asyncio.create_task(server.registry.tasks["cds"].run(server.context))
    try:
        assert await links(server) == []
        await asyncio.sleep(0.2)
        write(root, interactions())
        await ask_to_reload(server.database)
        assert await until(server, 1)

        write(root, {"interactions.json": {"rules": []}})
        await ask_to_reload(server.database)
        assert await until(server, 0)
    finally:
        await end_of([running])


async def test_files_are_checked_before_a_reload(changing: tuple[Server, Path]) -> None:
    """The setting is named that a server could not go by."""
    server, root = changing
    check = server.registry.tasks["cds"].check
    await check(server.context)
    (root / "wrong.json").write_text("{}", "utf-8")
    wrong = {"cds_providers": root / "wrong.json"}
    settings = server.context.settings.model_copy(update=wrong)
    with pytest.raises(FhirError, match=r"FHIR_CDS_PROVIDERS, wrong\.json"):
        await check(replace(server.context, settings=settings))


async def until(server: Server, count: int) -> bool:
    """Whether there are so many cards before long."""
    for _ in range(100):
        if len(await links(server)) == count:
            return True
        await asyncio.sleep(0.05)
    return False
