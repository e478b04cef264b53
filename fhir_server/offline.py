"""Files -> issues, without a server and without a database: ``fhir-server validate``.

Definitions are those on disk and those of the packages that are named; codes are looked up in what
these have whole. What a reference leads to outside of its own file is not looked for.

====================================  ============================================================
``*.json``, ``*.xml``                 a resource, a Bundle is one as well
``*.ndjson``                          one resource a line
``….gz``                              any of them, compressed
====================================  ============================================================
"""

import gzip
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from fhir_server.messages import Resource
from fhir_server.outcome import FhirError, Issue, too_large
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.expansion import Expander, Shelved, Unexpandable
from fhir_server.r4.json import decode, encode
from fhir_server.r4.packages import Package, read_package
from fhir_server.r4.positions import Position, positions
from fhir_server.r4.published import Published, rank_of
from fhir_server.r4.questions import Canonical, Coded, CodeInSystem, CodeInValueSet, Question
from fhir_server.r4.selections import Every, holds, untold
from fhir_server.r4.xml import Xml
from fhir_server.terminology import judging
from fhir_server.terminology.grammars import grammar_system
from fhir_server.validation.profiles import Judgement, ProfileValidator

FILE_BYTES_MAX = 268_435_456
"""Bytes of one file, unpacked."""
_ROUNDS_MAX = 16
_APART_BYTES = 2_000_000  # less is judged before another process has begun
_SHOWN = 20
_ERRORS = ("error", "fatal")


@dataclass(frozen=True, slots=True)
class Finding:
    """The issues of one resource: in ``file``, in which ``line`` of NDJSON (0 elsewhere).

    ``places`` are line and column by expression. ``name`` is ``Type/id`` as far as it has them.
    """

    file: str
    line: int
    name: str
    issues: tuple[Issue, ...]
    places: Mapping[str, Position]

    @property
    def is_valid(self) -> bool:
        """Whether there is no error."""
        return not any(one.severity in _ERRORS for one in self.issues)


class Judge:
    """Judges resources by what is on disk and in ``packages``, held to ``profiles`` as well."""

    def __init__(
        self,
        definitions: Definitions,
        published: Published,
        validator: ProfileValidator,
        packages: Sequence[Package],
        profiles: tuple[str, ...],
    ) -> None:
        self._definitions = definitions
        self._published = published
        self._validator = validator
        self._profiles = profiles
        self._packaged: dict[tuple[str, str], list[Resource]] = {}
        for package in packages:
            for one in package.resources:
                place = one["resourceType"], str(one.get("url", ""))
                self._packaged.setdefault(place, []).append(one)
        self._expander = Expander(self._find)
        self._known: dict[Question, Any] = {}

    def issues(self, resource: Any) -> tuple[Issue, ...]:
        """Return what is wrong with ``resource``, or with its entries by the profiles that are for
        them."""
        if not isinstance(resource, dict) or resource.get("resourceType") != "Bundle":
            return self._issues(resource, self._profiles)
        whole = [one for one in self._profiles if self._type_of(one) in ("Bundle", "")]
        parts = [one for one in self._profiles if one not in whole]
        found = [*self._issues(resource, whole)]
        entries = resource.get("entry") if parts else ()
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            inside = entry.get("resource") if isinstance(entry, dict) else None
            type = inside.get("resourceType") if isinstance(inside, dict) else None
            wanted = [one for one in parts if self._type_of(one) == type]
            for issue in self._issues(inside, wanted) if wanted else ():
                rest = issue.expression.partition(".")[2]
                place = f"Bundle.entry[{number}].resource" + (f".{rest}" if rest else "")
                moved = replace(issue, expression=place)
                if moved not in found:  # what it is without these profiles was said before
                    found.append(moved)
        return tuple(found)

    def _issues(self, resource: Any, profiles: Sequence[str]) -> tuple[Issue, ...]:
        judgement = Judgement(())
        for _ in range(_ROUNDS_MAX):
            judgement = self._validator.judge(resource, profiles, self._known)
            open = [one for one in judgement.asked if one not in self._known]
            if not open:
                return tuple(judgement.issues)
            self._known |= {one: self._answer(one) for one in open}
        text = f"Its profiles lead through more than {_ROUNDS_MAX} levels of definitions."
        return (*judgement.issues, Issue("too-costly", text))

    def _type_of(self, profile: str) -> str:
        found = self._find("StructureDefinition", profile)
        return str(found.get("type", "")) if found else ""

    def _answer(self, question: Question) -> Any:
        if isinstance(question, Canonical):
            return self._find(question.type, question.url)
        if isinstance(question, CodeInSystem):
            return self._in_system(question)
        return self._in_value_set(question) if isinstance(question, CodeInValueSet) else None

    def _find(self, type: str, name: str) -> Mapping[str, Any] | None:
        url, _, version = name.partition("|")
        known = self._definitions
        if type == "CodeSystem" and (grammar := grammar_system(url, known.units, known.displays)):
            return grammar
        if (found := self._definitions.artifact(type, name)) and type in ("ValueSet", "CodeSystem"):
            return found
        if (published := self._published.find(type, name)) is not None:
            return published
        of_url = self._packaged.get((type, url), ())
        return max(
            (one for one in of_url if version in ("", one.get("version"))),
            key=lambda one: rank_of(str(one.get("status")), str(one.get("version", "")), ""),
            default=None,
        )

    def _in_system(self, question: CodeInSystem) -> Coded:
        asked = judging.Asked(question.system, question.system, question.code, question.display)
        concept = self._concept(question.system, question.code)
        if concept is None:
            return judging.untold(f"of the code system {question.system} not all is here")
        return judging.judged(asked, concept) if concept else judging.absent(asked)

    def _in_value_set(self, question: CodeInValueSet) -> Coded:
        where = question.value_set
        asked = judging.Asked(where, question.system, question.code, question.display)
        try:
            selection = self._expander.selection(where)
        except Unexpandable as error:
            return judging.untold(str(error))
        near: set[str] = set()
        for system, codes in selection.items():
            if question.system not in ("", system):
                continue
            if reason := untold(codes):
                return judging.untold(reason)
            concept = self._concept(system, question.code)
            if concept is None and codes == Every():
                return judging.untold(f"of the code system {system} not all is here")
            if (concept or codes != Every()) and holds(codes, concept or {"code": question.code}):
                return judging.judged(asked, concept or {"code": question.code})
            near |= codes if isinstance(codes, frozenset) else set()
        return judging.absent(asked, near)

    def _concept(self, system: str, code: str) -> Mapping[str, Any] | None:
        """Return the concept, an empty one where the whole system is known not to have it."""
        found = self._find("CodeSystem", system)
        if isinstance(found, Shelved) and found.grammar is not None:
            return {"code": code} if found.grammar(code) else {}  # what it is called, nobody says
        try:
            return self._expander.hierarchy(system).concepts.get(code, {})
        except Unexpandable:
            return None


Make = Callable[[tuple[Path, ...], tuple[str, ...]], tuple[Judge, Xml]]
"""Packages and profiles -> what judges, and what reads XML. It is called once in each process."""


def findings(
    files: Sequence[Path],
    make: Make,
    packages: Iterable[Path] = (),
    profiles: Iterable[str] = (),
    jobs: int = 1,
) -> Iterator[Finding]:
    """Yield what is found in ``files``, in their order, with ``jobs`` processes at a time."""
    setting = tuple(packages), tuple(profiles)
    large = sum(file.stat().st_size for file in files) > _APART_BYTES
    if jobs < 2 or len(files) < 2 or not large:
        made = make(*setting)
        for file in files:
            yield from _of_file(file, *made)
        return
    # Fresh processes: a copy of this one would have its threads' locks and not its threads.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(
        jobs, mp_context=spawn, initializer=_begin, initargs=(make, *setting)
    ) as pool:
        for found in pool.map(_of_file_here, files):
            yield from found


def by_rule(found: Iterable[Finding]) -> Counter[tuple[str, str, str]]:
    """Return how often which kind of issue stands where: severity, code, expression without
    indexes."""
    return Counter(
        (one.severity, one.code, _without_indexes(one.expression))
        for finding in found
        for one in finding.issues
    )


def lines_of(finding: Finding) -> Iterator[str]:
    """Yield a line for each issue: ``file:line:column: severity: expression: sentence``."""
    for one in finding.issues:
        place = finding.places.get(one.expression, (finding.line, 0))
        where = "".join(f":{number}" for number in place if number)
        expression = f" {one.expression}:" if one.expression else ""
        yield f"{finding.file}{where}: {one.severity}:{expression} {one.diagnostics}"


def as_json(found: Iterable[Finding]) -> str:
    """Return a JSON array with an object for each resource and its issues in it."""
    rows = [
        {
            "file": finding.file,
            **({"line": finding.line} if finding.line else {}),
            "resource": finding.name,
            "valid": finding.is_valid,
            "issues": [
                {
                    "severity": one.severity,
                    "code": one.code,
                    "expression": one.expression,
                    "diagnostics": one.diagnostics,
                    **_at(finding.places.get(one.expression)),
                }
                for one in finding.issues
            ],
        }
        for finding in found
    ]
    return encode(rows).decode()


def summary(found: Sequence[Finding], seconds: float) -> Iterator[str]:
    """Yield what all of it came to: by file and by rule, the most frequent first."""
    wrong = [one for one in found if not one.is_valid]
    by_file = Counter(one.file for one in wrong)
    for file, count in by_file.most_common(_SHOWN):
        yield f"{count:>7} with errors in {file}"
    for (severity, code, expression), count in by_rule(found).most_common(_SHOWN):
        yield f"{count:>7} {severity} {code} {expression}"
    files = len({one.file for one in found})
    yield (
        f"{files} files, {len(found)} resources in {seconds:.1f} s; {len(wrong)} with errors in "
        f"{len(by_file)} files."
    )


def _at(place: Position | None) -> dict[str, int]:
    return {"line": place[0], "column": place[1]} if place else {}


def packages_of(paths: Iterable[Path]) -> list[Package]:
    """Return the packages at ``paths``. Raises what ``read_package`` does."""
    return [read_package(path) for path in paths]


def _without_indexes(expression: str) -> str:
    parts = expression.split("[")
    return parts[0] + "".join(part.partition("]")[2] for part in parts[1:])


_here: list[tuple[Judge, Xml]] = []  # in a process of the pool: what it judges by


def _begin(make: Make, packages: tuple[Path, ...], profiles: tuple[str, ...]) -> None:
    _here.append(make(packages, profiles))


def _of_file_here(file: Path) -> list[Finding]:
    return _of_file(file, *_here[0])


def _of_file(file: Path, judge: Judge, xml: Xml) -> list[Finding]:
    name = str(file)
    plain = name.removesuffix(".gz")
    try:
        text = _text(file)
    except (OSError, EOFError, zlib.error, FhirError) as error:
        return [_unreadable(name, 0, error)]
    if plain.endswith(".ndjson"):
        lines = enumerate(text.split(b"\n"), 1)
        return [
            _of_text(name, number, line, decode, judge) for number, line in lines if line.strip()
        ]
    return [_of_text(name, 0, text, xml.decode if plain.endswith(".xml") else decode, judge)]


def _of_text(
    name: str, line: int, text: bytes, read: Callable[[bytes], Resource], judge: Judge
) -> Finding:
    try:
        resource = read(text)
    except FhirError as error:
        return _unreadable(name, line, error)
    issues = judge.issues(resource)
    expressions = {one.expression for one in issues}
    places = positions(text, expressions, is_xml=read is not decode)
    if line:
        places = {expression: (line, column) for expression, (_, column) in places.items()}
    known = (resource.get("resourceType", ""), resource.get("id", ""))
    return Finding(name, line, "/".join(str(one) for one in known if one), issues, places)


def _unreadable(name: str, line: int, error: Exception) -> Finding:
    issues = error.issues if isinstance(error, FhirError) else (Issue("structure", str(error)),)
    return Finding(name, line, "", tuple(replace(one, severity="fatal") for one in issues), {})


def _text(file: Path) -> bytes:
    """Return what ``file`` holds, and no more than it may."""
    with file.open("rb") as packed:
        source = gzip.GzipFile(fileobj=packed) if file.name.endswith(".gz") else packed
        text = source.read(FILE_BYTES_MAX + 1)
    if len(text) > FILE_BYTES_MAX:
        raise too_large("The file", FILE_BYTES_MAX)
    return text
