"""Codes and their concepts -> the ``expansion`` of a value set.

https://hl7.org/fhir/R4/valueset.html#expansion
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_server.r4.codes import Hierarchy
from fhir_server.terminology.judging import display_in, is_abstract, is_inactive

Concept = Mapping[str, Any]
Entry = dict[str, Any]

DEPTH_MAX = 40
"""Levels of nesting in an expansion; a deeper hierarchy is given flat."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client wants to see of each code.

    ``filter`` are folded words; each must begin a word of a display. ``designations`` says whether
    they are given, and ``only`` which: languages, and uses as ``system|code``.
    """

    language: str = ""
    filter: tuple[str, ...] = ()
    active_only: bool = False
    for_ui: bool = False
    designations: bool = False
    only: tuple[str, ...] = ()

    def takes(self, concept: Concept, fold: Callable[[str], str]) -> bool:
        """Whether ``concept`` is wanted; ``fold`` is what the words of the filter went through."""
        if self.active_only and is_inactive(concept):
            return False
        if self.for_ui and is_abstract(concept):
            return False
        if not self.filter:
            return True
        texts = [concept.get("display", ""), *(d["value"] for d in concept.get("designation", ()))]
        words = [word for text in texts for word in fold(text).split()]
        return all(any(word.startswith(one) for word in words) for one in self.filter)


def entry(system: str, concept: Concept, wish: Wish, version: str = "") -> Entry:
    """Return the entry of ``concept`` in an expansion. ``version`` is given where it matters."""
    found: Entry = {"system": system} if system else {}
    if is_abstract(concept):
        found["abstract"] = True
    if is_inactive(concept):
        found["inactive"] = True
    if version:
        found["version"] = version
    found["code"] = concept["code"]
    if display := display_in(concept, wish.language):
        found["display"] = display
    if wish.designations and (designations := [*_designations(concept, wish.only)]):
        found["designation"] = designations
    return found


def _designations(concept: Concept, only: Sequence[str]) -> Iterable[Entry]:
    for one in concept.get("designation", ()):
        use = one.get("use", {})
        names = (one.get("language"), f"{use.get('system', '')}|{use.get('code', '')}")
        if not only or any(name in only for name in names):
            yield {name: one[name] for name in ("language", "use", "value") if name in one}


def overlaid(concept: Concept, listed: Concept | None) -> Concept:
    """Return ``concept`` as a value set wants it shown that lists it with words of its own."""
    if not listed or not listed.keys() & {"display", "designation"}:
        return concept
    extra = [*concept.get("designation", ()), *listed.get("designation", ())]
    own = {"display": listed["display"]} if "display" in listed else {}
    return {**concept, **own, **({"designation": extra} if extra else {})}


def ordered(codes: Iterable[str], hierarchy: Hierarchy | None, listed: Sequence[str]) -> list[str]:
    """Return ``codes`` as the value set lists them, then as the code system does."""
    left = set(codes)
    found = []
    for code in (*listed, *(hierarchy.concepts if hierarchy is not None else ())):
        if code in left:
            left.discard(code)
            found.append(code)
    return found + sorted(left)


def nested(entries: Sequence[Entry], hierarchy: Hierarchy) -> list[Entry]:
    """Return ``entries`` of one system inside each other, each below the first of its parents.

    A hierarchy that is deeper than :data:`DEPTH_MAX`, or goes in a circle, stays flat.
    """
    by_code = {one["code"]: one for one in entries}
    above: dict[str, str] = {}
    for code in by_code:
        parents = sorted(one for one in hierarchy.parents(code) if one in by_code and one != code)
        if parents:
            above[code] = parents[0]
    for code in by_code:
        depth, at = 0, code
        while at in above:
            at, depth = above[at], depth + 1
            if depth > DEPTH_MAX:
                return list(entries)
    roots: list[Entry] = []
    copies = {code: dict(one) for code, one in by_code.items()}
    for code, one in copies.items():
        (copies[above[code]].setdefault("contains", []) if code in above else roots).append(one)
    return roots
