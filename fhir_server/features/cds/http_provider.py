"""Another knowledge base over HTTP: what it is asked, how its answer is read.

design/cds.md, section 9. A question holds no identifier: drugs are called by numbers that mean
something only within it.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fhir_server.features.cds.chart import Question
from fhir_server.features.cds.drug import KINDS, RANK, Drug, Finding, NotChecked, Screening
from fhir_server.features.cds.elements import parts, text, texts
from fhir_server.features.cds.provider import ProviderFailed
from fhir_server.features.cds.schema import KnowledgeError

KEPT_S = 3600.0
_KEPT_MAX = 10_000
_FINDINGS_MAX = 500
_TEXT_MAX = 2_000
_REASON = "unknown-drug"
_MEMBERS = frozenset(("label", "url", "kinds", "severities"))


class Poster(Protocol):
    """Sends JSON to one knowledge base and returns its JSON."""

    async def post(self, path: str, body: Mapping[str, Any], timeout_s: float) -> Any:
        """Return the answer; raises an exception whose text says why there is none."""


@dataclass(slots=True)
class HttpProvider:
    """A knowledge base at a URL of the settings. ``severities`` are its words -> ours; one that is
    not known is serious."""

    label: str
    kinds: tuple[str, ...]
    severities: Mapping[str, str]
    poster: Poster
    failures: tuple[type[Exception], ...]
    timeout_s: float
    clock: Callable[[], float] = time.monotonic
    _kept: OrderedDict[str, tuple[float, Any]] = field(default_factory=OrderedDict)

    async def screen(self, question: Question, kinds: Sequence[str], timeout_s: float) -> Screening:
        """Ask it, within ``timeout_s``. Raises :class:`ProviderFailed`."""
        names = {drug.id: f"d{n}" for n, drug in enumerate((*question.ordered, *question.current))}
        names |= {one.id: f"a{n}" for n, one in enumerate(question.allergies)}
        body = asked(question, kinds, names)
        key = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        when, answer = self._kept.get(key, (float("-inf"), None))
        if self.clock() - when >= KEPT_S:
            try:
                answer = await self.poster.post("screen", body, min(timeout_s, self.timeout_s))
            except self.failures as error:
                raise ProviderFailed(str(error)) from error
        found = self._read(answer, {name: id for id, name in names.items()}, question)
        self._kept[key] = self.clock(), answer
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)
        return found

    def _read(self, answer: Any, ids: Mapping[str, str], question: Question) -> Screening:
        """Return an answer as findings. Raises :class:`ProviderFailed` for another shape."""
        if not isinstance(answer, dict) or not isinstance(answer.get("findings"), list):
            raise ProviderFailed("its answer is not as agreed")
        drafts = {drug.id for drug in question.ordered}
        findings = []
        for one in answer["findings"][:_FINDINGS_MAX]:
            finding = self._finding(one, ids)
            if not set(finding.orders) <= drafts:
                raise ProviderFailed("its answer is about another order")
            findings.append(finding)
        missing = tuple(
            NotChecked(text(one, "subject")[:200], _REASON, text(one, "reason")[:200])
            for one in parts(answer, "notChecked")
        )
        return Screening(tuple(findings), missing)

    def _finding(self, one: Any, ids: Mapping[str, str]) -> Finding:
        kind = text(one, "kind")
        named = [texts(one, "orders"), texts(one, "others")]
        is_known = all(name in ids for names in named for name in names)
        if kind not in KINDS or not named[0] or not is_known or not text(one, "title"):
            raise ProviderFailed("a finding of its answer is not as agreed")
        return Finding(
            kind=kind,
            severity=self.severities.get(text(one, "severity"), "serious"),
            orders=tuple(ids[name] for name in named[0]),
            others=tuple(ids[name] for name in named[1]),
            rule=text(one, "id")[:100] or self.label,
            code={"interaction": "DRG", "allergy": "RALG", "duplicate": "DUPTHPCLS"}.get(
                kind, "DOSEH"
            ),
            source=self.label,
            reviewed=True,
            title=text(one, "title")[:_TEXT_MAX],
            effect=text(one, "effect")[:_TEXT_MAX],
            mechanism=text(one, "mechanism")[:_TEXT_MAX],
            management=text(one, "management")[:_TEXT_MAX],
        )


def asked(question: Question, kinds: Sequence[str], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the question as JSON, without any identifier of a person or a resource."""
    who = question.patient
    return {
        "kinds": list(kinds),
        "patient": _given(
            ageDays=who.age_days,
            sex=who.sex,
            weightKg=_float(who.weight_kg),
            heightCm=_float(who.height_cm),
            clearance=_float(who.clearance if who.clearance is not None else who.egfr),
        ),
        "orders": [_drug(one, names) for one in question.ordered],
        "current": [_drug(one, names) for one in question.current],
        "allergies": [
            _given(
                id=names[one.id],
                ingredients=sorted(one.ingredients),
                classes=sorted(one.classes),
                severe=one.is_high,
                intolerance=one.is_intolerance,
            )
            for one in question.allergies
        ],
    }


def _drug(drug: Drug, names: Mapping[str, str]) -> dict[str, Any]:
    daily = {code: _float(one.daily) for code, one in drug.intakes.items()}
    return _given(
        id=names[drug.id],
        ingredients=sorted(drug.ingredients),
        route=drug.route,
        release=drug.release,
        dailyMg={code: one for code, one in sorted(daily.items()) if one is not None},
    )


def _given(**members: Any) -> dict[str, Any]:
    return {name: one for name, one in members.items() if one not in (None, "", [], {})}


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


@dataclass(frozen=True, slots=True)
class Named:
    """A knowledge base as a site's file names it."""

    label: str
    url: str
    kinds: tuple[str, ...]
    severities: Mapping[str, str]


def load_providers(path: Path | None) -> tuple[Named, ...]:
    """Return the knowledge bases of a JSON file, ``{"providers": [...]}``, in their order.

    Raises :class:`KnowledgeError` that names the entry and what is wrong.
    """
    if path is None:
        return ()
    try:
        return tuple(_named(row) for row in json.loads(path.read_text("utf-8"))["providers"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise KnowledgeError(f"FHIR_CDS_PROVIDERS, {path.name}: {error}") from error


def _named(row: Mapping[str, Any]) -> Named:
    parts_ = urlsplit(row["url"])
    is_local = parts_.hostname in ("127.0.0.1", "localhost", "::1")
    if parts_.scheme != "https" and not (parts_.scheme == "http" and is_local):
        raise ValueError(f"{row['label']} is not reached by https")
    if strange := set(row) - _MEMBERS:
        raise ValueError(f"{row['label']} has {', '.join(sorted(strange))}, which is not known")
    kinds = tuple(row.get("kinds", KINDS))
    severities = row.get("severities", {one: one for one in RANK})
    if not set(kinds) <= set(KINDS) or not set(severities.values()) <= set(RANK):
        raise ValueError(f"{row['label']} has a kind or a severity that is not known")
    return Named(row["label"], row["url"].rstrip("/"), kinds, severities)
