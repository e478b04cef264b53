"""Snapshots made from differentials, against those that were published."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fhir_server.r4.structures import Structures
from fhir_server.validation.snapshot import Trees
from tests.validation.asking import package
from tests.validation.conftest import DATA, ROOT

Json = dict[str, Any]
_VALUES = ("fixed", "pattern", "minValue", "maxValue", "maxLength")
# Package, elements that must agree of a thousand, and why the others do not.
PACKAGES: Mapping[str, tuple[Path, int, str]] = {
    "US Core 6.1.0": (
        DATA / "us-core" / "us_core_610.tgz",
        995,
        "a slice begins as what the profile says of all values; the publisher's as the base does",
    ),
    "IPS 2.0.0": (
        DATA / "ips" / "hl7.fhir.uv.ips-2.0.0.tgz",
        998,
        "as above",
    ),
    "BD-Core": (DATA / "bd-core", 1000, ""),
}
# Built on profiles of other packages.
_ELSEWHERE = ("us-core-questionnaireresponse",)


def core_keys(structures: Structures) -> set[str]:
    """Return the keys of the constraints that the types of R4 have."""
    found = (structures.get(url) or {} for url in structures.urls)
    return {
        constraint["key"]
        for one in found
        for element in one.get("snapshot", {}).get("element", ())
        for constraint in element.get("constraint", ())
    }


def plain(url: str) -> str:
    return url.removesuffix("|4.0.1")


def demands(element: Json, known: set[str]) -> Json:
    """Return what an element demands, to be compared; constraints of the types aside."""
    facts = {name: one for name, one in element.items() if name.startswith(_VALUES)}
    facts |= {name: element.get(name) for name in ("min", "max")}
    facts["type"] = sorted(
        (
            one.get("code"),
            sorted(map(plain, one.get("profile", ()))),
            sorted(map(plain, one.get("targetProfile", ()))),
        )
        for one in element.get("type", ())
    )
    binding = element.get("binding")
    if binding and "valueSet" in binding:
        facts["binding"] = (binding["strength"], plain(binding["valueSet"]))
    slicing = element.get("slicing")
    if slicing:
        by = [(one["type"], one["path"]) for one in slicing.get("discriminator", ())]
        facts["slicing"] = (by, slicing.get("ordered", False), slicing["rules"])
    facts["constraint"] = sorted({one["key"] for one in element.get("constraint", ())} - known)
    return facts


@pytest.mark.parametrize("name", PACKAGES)
def test_made_snapshots_are_the_published_ones(name: str) -> None:
    """They have the same elements, which demand the same."""
    path, least, _ = PACKAGES[name]
    if not path.exists():
        pytest.skip("needs ../shared/data")
    structures = Structures(ROOT)
    published, _ = package(path)
    known = core_keys(structures)
    counts: Counter[bool] = Counter()

    def find(url: str) -> Any:
        return published.get(plain(url)) or structures.get(plain(url))

    for structure in published.values():
        if structure.get("derivation") != "constraint" or structure["id"] in _ELSEWHERE:
            continue
        made = {id: one.element for id, _, one in Trees(find).generated(structure).walk()}
        wanted = {one["id"]: one for one in structure["snapshot"]["element"]}
        for id in made.keys() | wanted.keys():
            is_same = id in made and id in wanted
            counts[is_same and demands(made[id], known) == demands(wanted[id], known)] += 1
    assert counts.total() > 900
    assert counts[True] * 1000 >= least * counts.total()


def test_every_profile_of_r4_has_one() -> None:
    """The packages' own profiles come without snapshots; each can be made."""
    structures = Structures(ROOT)
    trees = Trees(structures.get)
    profiles = [url for url in structures.urls if "differential" in (structures.get(url) or {})]
    assert len(profiles) > 400
    for url in profiles:
        assert trees.tree(url) is not None
