"""US Core 6.1.0: its examples are valid as the guide says, and one fault each is found."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fhir_server.validation.profiles import ProfileValidator
from tests.validation.asking import judged, package
from tests.validation.conftest import DATA

PACKAGE = DATA / "us-core" / "us_core_610.tgz"
BASE = "http://hl7.org/fhir/us/core/StructureDefinition/"
MUTATIONS_MIN = 200
# Its fullUrls name other ids than its resources have, which http://hl7.org/fhir/R4/bundle.html
# does not allow; the guide was published with these two.
WRONG = ("Bundle-docref-example-2.json", "Bundle-66c8856b-ba11-4876-8aa8-467aad8c11a2.json")

pytestmark = pytest.mark.skipif(not PACKAGE.exists(), reason="needs ../shared/data/us-core")
Json = dict[str, Any]
Mutation = tuple[Json, str]
Mutator = Callable[[Json, Json], Iterator[Mutation]]


def errors(profiles: ProfileValidator, resource: Json) -> list[tuple[str, str]]:
    structures, _ = package(PACKAGE)
    found = judged(profiles, resource, structures)
    return [(one.expression, one.diagnostics) for one in found.issues if one.severity == "error"]


def test_examples(profiles: ProfileValidator) -> None:
    """Every example of the guide is valid, but for the two that are known not to be."""
    _, examples = package(PACKAGE)
    known = {one for one in examples if examples[one]["resourceType"] != "ImplementationGuide"}
    refused = {name for name in sorted(known) if errors(profiles, examples[name])}
    assert len(known) > 150
    assert refused == set(WRONG)


# ------------------------------------------------------------------------------------- mutations


def places(value: Any, path: str) -> Iterator[tuple[str, Any, Any, Any]]:
    """Yield path, holder, key and value of everything below an element; no narrative."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key in ("text", "resourceType", "contained") or key.startswith("_"):
                continue
            yield f"{path}.{key}", value, key, one
            yield from places(one, f"{path}.{key}")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            if not isinstance(one, str):
                yield from places(one, f"{path}[{index}]")


def by_path(resource: Json, wanted: Callable[[str, Any], bool]) -> list[str]:
    return [p for p, _, _, v in places(resource, resource["resourceType"]) if wanted(p, v)]


def changed(resource: Json, path: str, change: Callable[[Any, Any], None]) -> Json:
    """Return a copy in which ``change(holder, key)`` was done at ``path``."""
    mutant = copy.deepcopy(resource)
    for found, holder, key, _ in places(mutant, mutant["resourceType"]):
        if found == path:
            change(holder, key)
            return mutant
    raise AssertionError(path)


CHOICES = (
    *("value", "onset", "bounds", "effective", "performed", "medication", "deceased"),
    *("multipleBirth", "occurrence", "abatement", "due", "serviced", "allowed"),
)


def plain(path: str) -> str:
    """Return the FHIRPath of a JSON path: ``value`` for ``valueQuantity``."""

    def step(name: str) -> str:
        found = (one for one in CHOICES if name.startswith(one) and name[len(one) :][:1].isupper())
        return next(found, name)

    return ".".join(map(step, path.split(".")))


def misspelt(resource: Json, profile: Json) -> Iterator[Mutation]:
    """A member has a letter too many."""
    for path in by_path(resource, lambda p, v: p.count(".") <= 2 and "xtension" not in p)[:6]:

        def change(holder: Any, key: Any) -> None:
            holder[f"{key}x"] = holder.pop(key)

        parent, _, name = path.rpartition(".")
        yield changed(resource, path, change), f"{plain(parent)}.{name}x"


def missing(resource: Json, profile: Json) -> Iterator[Mutation]:
    """What the profile requires of the resource is not there."""
    for element in profile["snapshot"]["element"]:
        steps = element["path"].split(".")
        is_required = element["min"] > 0 and len(steps) == 2 and "sliceName" not in element
        name = next((one for one in resource if one == steps[-1]), "")
        if is_required and name:
            mutant = {key: one for key, one in resource.items() if key != name}
            yield mutant, resource["resourceType"]


def empty(resource: Json, profile: Json) -> Iterator[Mutation]:
    """A text is empty."""
    for path in by_path(resource, lambda p, v: isinstance(v, str))[2:8:2]:

        def change(holder: Any, key: Any) -> None:
            holder[key] = ""

        yield changed(resource, path, change), plain(path)


def unknown_code(resource: Json, profile: Json) -> Iterator[Mutation]:
    """A code is not in the value set that is required."""
    bound = {
        one["path"]
        for one in profile["snapshot"]["element"]
        if one.get("binding", {}).get("strength") == "required"
        and [type["code"] for type in one.get("type", ())] == ["code"]
        and "hl7.org/fhir/ValueSet" in one["binding"].get("valueSet", "")
    }
    for path in by_path(resource, lambda p, v: isinstance(v, str) and p in bound)[:2]:

        def change(holder: Any, key: Any) -> None:
            holder[key] = "no-such-code"

        yield changed(resource, path, change), path


def wrong_target(resource: Json, profile: Json) -> Iterator[Mutation]:
    """A reference leads to a resource of another type."""
    held = {
        one["path"]
        for one in profile["snapshot"]["element"]
        if any(type.get("targetProfile") for type in one.get("type", ()))
        and not any(
            url.endswith("/Resource") for t in one["type"] for url in t.get("targetProfile", ())
        )
    }

    def is_held(path: str, value: Any) -> bool:
        above = path.removesuffix(".reference")
        return path.endswith(".reference") and without_indexes(above) in held

    for path in by_path(resource, is_held)[:3]:

        def change(holder: Any, key: Any) -> None:
            holder[key] = "SubstanceProtein/1"

        yield changed(resource, path, change), plain(path)


def without_indexes(path: str) -> str:
    return "".join(part.partition("]")[2] if "]" in part else part for part in path.split("["))


def unknown_modifier(resource: Json, profile: Json) -> Iterator[Mutation]:
    """A modifier extension is there that nobody knows."""
    url = "http://example.org/modifier"
    mutant = {**resource, "modifierExtension": [{"url": url, "valueBoolean": True}]}
    yield mutant, f"{resource['resourceType']}.modifierExtension[0]"


def relative_system(resource: Json, profile: Json) -> Iterator[Mutation]:
    """The system of a coding is no absolute URI."""
    for path in by_path(resource, lambda p, v: p.endswith("].system") and ".coding[" in p)[:2]:

        def change(holder: Any, key: Any) -> None:
            holder[key] = "local-codes"

        yield changed(resource, path, change), plain(path)


def backward(resource: Json, profile: Json) -> Iterator[Mutation]:
    """A period ends before it starts."""
    for path in by_path(resource, lambda p, v: isinstance(v, dict) and "start" in v)[:1]:

        def change(holder: Any, key: Any) -> None:
            holder[key] = {"start": "2024-02-02", "end": "2023-02-02"}

        yield changed(resource, path, change), plain(path)


MUTATORS: tuple[Mutator, ...] = (
    *(misspelt, missing, empty, unknown_code),
    *(wrong_target, unknown_modifier, relative_system, backward),
)


def mutations() -> Iterator[tuple[str, Json, str]]:
    structures, examples = package(PACKAGE)
    for name in sorted(examples):
        resource = examples[name]
        named = resource.get("meta", {}).get("profile", ())
        profile = structures.get(named[0]) if named else None
        if name in WRONG or profile is None or resource["resourceType"] == "Bundle":
            continue
        for mutator in MUTATORS:
            for mutant, expected in mutator(resource, profile):
                yield f"{name} {mutator.__name__}", mutant, expected


def test_one_fault_each_is_found_where_it_is(profiles: ProfileValidator) -> None:
    """Each of more than 200 mutants has an error at the right expression."""
    counts: dict[str, int] = {}
    overlooked = []
    for number, (name, mutant, expected) in enumerate(mutations()):
        kind = name.partition(" ")[2]
        if number % 6 and counts.get(kind, 0) > 25:
            continue
        counts[kind] = counts.get(kind, 0) + 1
        found = errors(profiles, mutant)
        at = [place for place, _ in found]
        if not any(one == expected or f"{one}.reference" == expected for one in at):
            overlooked.append((name, expected, found[:3]))
    assert overlooked == []
    assert sum(counts.values()) >= MUTATIONS_MIN
    assert set(counts) == {one.__name__ for one in MUTATORS}
