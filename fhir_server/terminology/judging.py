"""What is said of one code: whether it is there, may be used, and has the display that was given.

https://hl7.org/fhir/R4/codesystem-operation-validate-code.html
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from fhir_server.outcome import shown
from fhir_server.r4.questions import Coded

Concept = Mapping[str, Any]

INLINE = "urn:fhir-server:inline"
"""The name of a definition without a url that came with the request."""
OPEN = "open"
"""What a concept has whose displays nobody lists: it may be called anything."""
_NEAREST_AMONG_MAX = 5000
_DISPLAYS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of a code in the value set or system ``where``. ``abstract`` says that a code
    for grouping only will do; ``language`` is the one that a display is wanted in."""

    where: str
    system: str
    code: str
    display: str = ""
    abstract: bool = False
    language: str = ""


def judged(asked: Asked, concept: Concept, displays: Iterable[str] = ()) -> Coded:
    """Return what is said of ``concept``, which is where it should be.

    ``displays`` are further right ones, such as a value set gives.
    """
    extra = tuple(displays)
    right = extra[0] if extra else display_in(concept, asked.language)
    if not asked.abstract and is_abstract(concept):
        text = f"{shown(asked.code)} of {shown(asked.system)} is abstract: it only groups others."
        return Coded(False, text, right)
    if asked.display and (extra or not concept.get(OPEN)):
        known = [*extra, *all_displays(concept)]
        if known and plain(asked.display) not in map(plain, known):
            few = ", ".join(map(shown, dict.fromkeys(known[:_DISPLAYS_SHOWN])))
            text = f"{shown(asked.display)} is no display of {shown(asked.code)}, which is {few}."
            return Coded(False, text, right)
    if is_inactive(concept):
        return Coded(
            True, f"{shown(asked.code)} is inactive: it is not to be used any more.", right
        )
    return Coded(True, "", right)


def absent(asked: Asked, codes: Collection[str] = ()) -> Coded:
    """Return that the code is not where it was looked for; ``codes`` are those that are."""
    found = nearest_code(asked.code, codes)
    hint = f" Did you mean {found}?" if found and found != asked.code else ""
    of = f" of {shown(asked.system, most=200)}" if asked.system not in ("", asked.where) else ""
    where = "what came along" if asked.where == INLINE else shown(asked.where, most=200)
    text = f"{shown(asked.code)}{of} is not in {where}.{hint}"
    return Coded(False, text, "", found)


def untold(reason: str) -> Coded:
    """Return that nobody here can tell, because of ``reason``."""
    return Coded(None, f"It cannot be told here: {reason}.")


def nearest_code(code: str, codes: Collection[str]) -> str:
    """Return the one of ``codes`` that is most like ``code``, or ``""``."""
    if len(codes) > _NEAREST_AMONG_MAX:
        return ""
    folded = {one.casefold(): one for one in sorted(codes)}
    found = get_close_matches(code[:100].casefold(), folded, n=1, cutoff=0.7)
    return folded[found[0]] if found else ""


def plain(display: str) -> str:
    """Return ``display`` as it is compared: case and white space say nothing."""
    return " ".join(display.casefold().split())


def all_displays(concept: Concept) -> Iterator[str]:
    """Yield the display and what else the concept is called, in any language."""
    if "display" in concept:
        yield concept["display"]
    for one in concept.get("designation", ()):
        yield one["value"]


def display_in(concept: Concept, language: str) -> str:
    """Return the display of ``concept`` in ``language``, or else its own.

    https://hl7.org/fhir/R4/codesystem.html#CodeSystem.concept.designation
    """
    if language:
        for wanted in (language.casefold(), language.casefold().partition("-")[0]):
            for one in concept.get("designation", ()):
                if str(one.get("language", "")).casefold() == wanted:
                    return str(one["value"])
    return str(concept.get("display", ""))


def is_abstract(concept: Concept) -> bool:
    """Whether the concept only groups others: https://hl7.org/fhir/R4/codesystem.html#defined-props."""
    return any(
        one.get("code") == "notSelectable" and one.get("valueBoolean") is True
        for one in concept.get("property", ())
    )


def is_inactive(concept: Concept) -> bool:
    """Whether the concept says that it is not to be used any more."""
    return bool(concept.get("inactive")) or any(
        (one.get("code") == "inactive" and one.get("valueBoolean") is True)
        or (one.get("code") == "status" and one.get("valueCode") in ("retired", "inactive"))
        for one in concept.get("property", ())
    )
