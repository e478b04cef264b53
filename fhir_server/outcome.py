"""Errors: what can be wrong with a request, as OperationOutcome issues, and the status of each.

https://hl7.org/fhir/R4/operationoutcome.html
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

# Issue codes (https://hl7.org/fhir/R4/valueset-issue-type.html) and the HTTP status that
# each one means here. The specification fixes neither side of this table completely;
# rows it does fix carry the section.
STATUS_OF_ISSUE = {
    "structure": 400,
    "value": 400,
    "invalid": 400,
    "required": 400,
    "not-supported": 400,
    "code-invalid": 422,
    "invariant": 422,
    "extension": 422,
    "login": 401,
    "forbidden": 403,
    "too-costly": 403,
    "not-found": 404,  # http.html#read
    "deleted": 410,  # http.html#read
    "conflict": 409,
    "duplicate": 409,
    "multiple-matches": 412,  # http.html#cond-update
    "processing": 422,  # http.html#create
    "business-rule": 422,
    "too-long": 413,
    "throttled": 429,
    "transient": 503,
    "timeout": 503,
    "exception": 500,
}


DETAILS = "urn:fhir-server:CodeSystem:issue-details"
"""The system of the codes in ``OperationOutcome.issue.details``."""


@dataclass(frozen=True, slots=True)
class Issue:
    """One issue of an OperationOutcome.

    ``diagnostics`` is one sentence for a person; ``expression`` the FHIRPath of the place, such as
    ``Patient.name[0].family``, or ``""``. It never carries patient data beyond the refused value.
    ``detail`` is a code of :data:`DETAILS` that programs tell one refusal from another by.
    """

    code: str
    diagnostics: str
    expression: str = ""
    severity: str = "error"
    detail: str = ""


class FhirError(Exception):
    """A refusal: one or more issues, and the HTTP status that says so.

    ``status`` is that of the first issue's code unless it is given. ``headers`` go on the answer,
    such as ``Allow`` and ``Retry-After``. ``place`` is, where several changes were asked for at
    once, the one that is refused.
    """

    def __init__(
        self, *issues: Issue, status: int | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__("; ".join(issue.diagnostics for issue in issues))
        self.issues = issues
        self.status = status or STATUS_OF_ISSUE[issues[0].code]
        self.headers = headers
        self.place: int | None = None


def operation_outcome(issues: Iterable[Issue]) -> dict[str, Any]:
    """Return the OperationOutcome resource that carries ``issues`` in their order."""
    return {"resourceType": "OperationOutcome", "issue": [_rendered(issue) for issue in issues]}


def _rendered(issue: Issue) -> dict[str, Any]:
    rendered: dict[str, Any] = {
        "severity": issue.severity,
        "code": issue.code,
        "diagnostics": issue.diagnostics,
    }
    if issue.detail:
        rendered["details"] = {"coding": [{"system": DETAILS, "code": issue.detail}]}
    if issue.expression:
        rendered["expression"] = [issue.expression]
    return rendered


def nearest(word: str, known: Iterable[str], *, most: int = 3) -> str:
    """Return `` Did you mean a, b?`` for the ``known`` words most like ``word``, or ``""``.

    It begins with a space, so that it can be put behind any sentence.
    """
    found = get_close_matches(word[:100], list(known), n=most, cutoff=0.7)
    return f" Did you mean {', '.join(found)}?" if found else ""


def shown(value: object, *, most: int = 80) -> str:
    """Return ``value`` for a message: quoted, on one line, at most ``most`` characters of it."""
    text = ascii(value) if not isinstance(value, str) or not value.isprintable() else f"'{value}'"
    return text if len(text) <= most else f"{text[:most]}…"


def invalid_value(what: str, value: object, expected: str, expression: str = "") -> FhirError:
    return FhirError(Issue("value", f"{what} is {shown(value)}; expected {expected}.", expression))


def unknown_type(type: str, known: Sequence[str]) -> FhirError:
    return FhirError(
        Issue(
            "not-supported", f"{shown(type)} is not a resource type of R4.{nearest(type, known)}"
        ),
        status=404,  # http.html#create: resource type not supported
    )


def not_found(type: str, id: str) -> FhirError:
    return FhirError(Issue("not-found", f"{type}/{id} does not exist."))


def version_not_found(type: str, id: str, version: str) -> FhirError:
    return FhirError(Issue("not-found", f"{type}/{id} has no version {shown(version)}."))


def deleted(type: str, id: str, version: int) -> FhirError:
    return FhirError(
        Issue(
            "deleted",
            f"{type}/{id} was deleted in version {version}. Earlier versions are at "
            f"{type}/{id}/_history.",
        )
    )


def version_conflict(type: str, id: str, *, wanted: str, current: int) -> FhirError:
    state = f"is at version {current}" if current else "does not exist"
    return FhirError(
        Issue(
            "conflict",
            f"{type}/{id} {state}, so version {shown(wanted, most=40)} cannot be replaced. Read it "
            "again and repeat the change on what is there now.",
        ),
        status=412,  # https://hl7.org/fhir/R4/http.html#concurrency
    )


def method_not_allowed(method: str, path: str) -> FhirError:
    text = f"{shown(method)} is not possible on {shown('/' + path)}."
    return FhirError(Issue("not-supported", text), status=405)


def too_large(what: str, limit: int, unit: str = "bytes") -> FhirError:
    return FhirError(Issue("too-long", f"{what} is over the limit of {limit:,} {unit}."))


def unsupported_modifier(code: str, modifier: str, supported: Sequence[str]) -> FhirError:
    known = ", ".join(f":{name}" for name in supported) or "none"
    return FhirError(
        Issue(
            "not-supported",
            f"Search parameter {code} has no modifier {shown(':' + modifier)} here; "
            f"it has {known}.",
        )
    )
