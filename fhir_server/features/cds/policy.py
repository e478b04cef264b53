"""What of the findings is shown: severity by hook and by the site's policy. Pure.

design/cds.md, section 6. A finding that is contraindicated can be lowered by one step, never
turned off.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

from fhir_server.features.cds.drug import KINDS, RANK, SEVERITIES, Finding, lowered
from fhir_server.features.cds.schema import KnowledgeError
from fhir_server.features.cds.site_packages import is_link

ACTIONS = ("lower", "raise", "off")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a site's policy: the rule or the kind that it is about, what it does, why."""

    action: str
    reason: str
    author: str
    rule: str = ""
    kind: str = ""
    until: str = ""

    def is_about(self, finding: Finding, today: date) -> bool:
        """Whether it holds for ``finding`` today."""
        if self.until and today.isoformat() > self.until:
            return False
        return (self.rule in ("", finding.rule)) and (self.kind in ("", finding.kind))


def policy(rows: Iterable[Mapping[str, str]]) -> tuple[Entry, ...]:
    """Return the entries of a site's policy. Raises :class:`KnowledgeError` that names the row."""
    found = []
    for place, row in enumerate(rows):
        unknown = set(row) - set(Entry.__slots__)
        if unknown or row.get("action") not in ACTIONS or not (row.get("rule") or row.get("kind")):
            raise KnowledgeError(f"policy, entry {place}: an action, and a rule or a kind")
        if not row.get("reason") or not row.get("author"):
            raise KnowledgeError(f"policy, entry {place}: a reason and an author")
        if row.get("kind", "interaction") not in KINDS:
            raise KnowledgeError(f"policy, entry {place}: there is no kind {row['kind']}")
        found.append(Entry(**row))
    return tuple(found)


def monographs(rows: Any) -> Mapping[str, str]:
    """Return a site's pages about rules: rule -> https URL. Raises :class:`KnowledgeError`."""
    if not isinstance(rows, dict):
        raise KnowledgeError("policy, links: rules with a URL each")
    for rule, url in rows.items():
        if not isinstance(url, str) or not is_link(url):
            raise KnowledgeError(f"policy, links: the page of {rule} is no https URL")
    return dict(rows)


def applied(
    findings: Iterable[Finding], entries: Collection[Entry], today: date
) -> tuple[Finding, ...]:
    """Return ``findings`` as the site's policy has them."""
    return tuple(found for one in findings if (found := _applied(one, entries, today)) is not None)


def _applied(finding: Finding, entries: Collection[Entry], today: date) -> Finding | None:
    for entry in entries:
        if not entry.is_about(finding, today):
            continue
        severity = finding.severity
        if entry.action == "raise":
            severity = SEVERITIES[min(RANK[severity] + 1, len(SEVERITIES) - 1)]
        elif entry.action == "off" and severity != "contraindicated":
            return None
        else:
            severity = lowered(severity, 1)
        return replace(finding, severity=severity) if severity else None
    return finding


def shown(findings: Iterable[Finding], minimum: str) -> tuple[Finding, ...]:
    """Return the findings that are at least as severe as ``minimum``."""
    return tuple(one for one in findings if RANK[one.severity] >= RANK[minimum])


def touching(findings: Iterable[Finding], ids: Collection[str]) -> tuple[Finding, ...]:
    """Return the findings about one of the orders ``ids``."""
    return tuple(one for one in findings if not set(ids).isdisjoint(one.orders))
