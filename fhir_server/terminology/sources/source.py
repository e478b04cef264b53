"""What is loaded, whoever published it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Resource = dict[str, Any]
Concept = dict[str, Any]
Row = Mapping[str, str]

FAULTS_MAX = 20
"""The faults that are told of one source."""


class Unreadable(ValueError):
    """A source that is not what it should be; the text is a sentence that says where."""


@dataclass(frozen=True, slots=True)
class Source:
    """A code system: ``head`` is its CodeSystem without concepts, with url and version.

    ``concepts`` may be gone through once, in the same order whenever the same files are read. It
    raises :class:`Unreadable`.
    """

    head: Resource
    concepts: Iterable[Concept]

    @property
    def system(self) -> str:
        """The canonical url."""
        return str(self.head["url"])

    @property
    def version(self) -> str:
        """The version of the code system, or ``""``."""
        return str(self.head.get("version", ""))


def head(url: str, version: str, name: str, title: str, **more: Any) -> Resource:
    """Return a CodeSystem that has all its concepts elsewhere.

    https://hl7.org/fhir/R4/codesystem.html#CodeSystem.content
    """
    found = {"resourceType": "CodeSystem", "url": url, "version": version, "name": name}
    found |= {"title": title, "status": "active", "content": "complete", **more}
    return {name: value for name, value in found.items() if value not in ("", [], None)}


def rows(lines: Iterable[Sequence[str]], file: str, needed: Sequence[str]) -> Iterator[Row]:
    """Yield each line below the header as column -> value, without empty ones; its number as ``#``.

    Raises :class:`Unreadable` where a column of ``needed`` is missing or a line has not as many.
    """
    numbered = enumerate(lines, 1)
    _, header = next(numbered, (0, ()))
    names = [name.strip().removeprefix("\ufeff") for name in header]
    if missing := [name for name in needed if name not in names]:
        raise Unreadable(f"{file} has no column {', '.join(missing)}.")
    if twice := next((a for a, b in pairwise(sorted(names)) if a == b), ""):
        raise Unreadable(f"{file} has the column {twice} twice.")
    for number, line in numbered:
        if not any(line):
            continue
        if len(line) != len(names):
            raise Unreadable(
                f"{file}, line {number}: {len(line)} columns; the header has {len(names)}."
            )
        values = {
            name: text for name, one in zip(names, line, strict=True) if (text := one.strip())
        }
        yield {"#": str(number), **values}


def property_of(code: str, **value: Any) -> dict[str, Any]:
    """Return a property of a concept, such as ``property_of("parent", valueCode="A")``."""
    return {"code": code, **value}


def checked(concepts: Iterable[Concept], what: str) -> Iterator[Concept]:
    """Yield ``concepts``, and raise :class:`Unreadable` at the end if they do not fit together.

    A code that is there twice, and a parent that is not there, would be found by nobody or by the
    wrong ones.
    """
    codes: set[str] = set()
    parents: set[str] = set()
    twice: list[str] = []
    for one in concepts:
        code = one["code"]
        if code in codes:
            twice.append(code)
            continue
        codes.add(code)
        for property in one.get("property", ()):
            if property["code"] == "parent":
                parents.add(property["valueCode"])
        yield one
    if twice:
        raise Unreadable(f"{what} has codes twice: {_few(twice)}.")
    if missing := sorted(parents - codes):
        raise Unreadable(f"{what} names parents that it does not have: {_few(missing)}.")
    if not codes:
        raise Unreadable(f"{what} has no concept.")


def _few(codes: Sequence[str]) -> str:
    more = f" and {len(codes) - FAULTS_MAX:,} more" if len(codes) > FAULTS_MAX else ""
    return ", ".join(codes[:FAULTS_MAX]) + more
