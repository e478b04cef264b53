"""What the tests of profiles share: packages as answers, and judging until nothing is asked."""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from fhir_server.r4.json import decode
from fhir_server.r4.questions import Canonical, Coded, Question
from fhir_server.validation.profiles import Judgement, ProfileValidator
from fhir_server.validation.running import ProfileOptions

Resource = dict[str, Any]
ROUNDS_MAX = 30


@cache
def package(path: Path) -> tuple[Mapping[str, Resource], Mapping[str, Resource]]:
    """Return the StructureDefinitions of a package by url, and its examples by file name."""
    return (
        {one["url"]: one for name, one in _members(path) if _is_structure(name)},
        {Path(name).name: one for name, one in _members(path) if "/example/" in name},
    )


def _members(path: Path) -> Iterator[tuple[str, Resource]]:
    if path.is_dir():
        for one in sorted(path.glob("*.json")):
            yield f"package/{one.name}", decode(one.read_bytes())
        return
    with tarfile.open(path) as tar:
        for member in tar:
            is_wanted = _is_structure(member.name) or "/example/" in member.name
            if is_wanted and member.name.endswith(".json"):
                file = tar.extractfile(member)
                assert file is not None
                found = decode(file.read())
                if "resourceType" in found:
                    yield member.name, found


def _is_structure(name: str) -> bool:
    return name.startswith("package/StructureDefinition-")


def answer(question: Question, structures: Mapping[str, Resource]) -> Any:
    """Return what a shell with these profiles and nothing else would answer."""
    if isinstance(question, Canonical):
        # Whatever conformance resource it is.
        return structures.get(question.url.partition("|")[0])
    return None if not hasattr(question, "code") else Coded(None)


def judged(
    validator: ProfileValidator,
    resource: Any,
    structures: Mapping[str, Resource],
    profiles: Sequence[str] = (),
    options: ProfileOptions | None = None,
    known: dict[Question, Any] | None = None,
) -> Judgement:
    """Judge, answer what is asked, and judge again until nothing is asked."""
    known = {} if known is None else known
    for _ in range(ROUNDS_MAX):
        found = validator.judge(resource, profiles, known, options=options or ProfileOptions())
        if not found.asked:
            return found
        for question in found.asked:
            known[question] = answer(question, structures)
    raise AssertionError("It goes on asking.")
