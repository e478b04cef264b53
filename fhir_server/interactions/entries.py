"""The entries of a batch or transaction, as requests. Pure.

https://hl7.org/fhir/R4/http.html#transaction
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fhir_server.messages import Parameters, Request, Resource
from fhir_server.outcome import FhirError, Issue, invalid_value, shown
from fhir_server.r4.headers import entity_tags, http_date_or_instant
from fhir_server.r4.questions import Unanswered
from fhir_server.route import FORM_PARAMETERS, decoded, query_parameters, route

# The order of processing; what stands together has the same rank.
RANKS = {"DELETE": 0, "POST": 1, "PUT": 2, "PATCH": 2, "GET": 3, "HEAD": 3}
# The root of an expression that is about the entry itself, not about the resource in it.
OF_ENTRY = "entry"
WRITING = ("create", "update", "delete", "patch")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its place in the bundle, its fullUrl, and the request that it is.

    ``conditional`` are the conditional references in its resource, once it is rewritten.
    """

    index: int
    method: str
    full_url: str
    request: Request
    conditional: frozenset[str] = frozenset()

    @property
    def path(self) -> str:
        """Where the entry is, as FHIRPath."""
        return f"Bundle.entry[{self.index}]"


def entries_of(bundle: Resource, request: Request) -> list[Entry]:
    """Return the entries of ``bundle`` as requests, in their order.

    ``bundle`` is valid in form. Preferences and base URL are those of ``request``.

    Raises what :func:`fhir_server.route.route` does, with the entry named.
    """
    return [entry_of(index, entry, request) for index, entry in enumerate(bundle.get("entry", []))]


def entry_of(index: int, entry: Resource, request: Request) -> Entry:
    """Return ``entry``, which stands at ``index``, as a request; see :func:`entries_of`."""
    try:
        return _entry(index, entry, request)
    except FhirError as error:
        raise in_entry(index, error) from error


def in_entry(index: int, error: FhirError) -> FhirError:
    """Return ``error`` with each issue located in entry ``index``."""
    if isinstance(error, Unanswered):
        return error
    return FhirError(
        *(replace(issue, expression=_inside(index, issue.expression)) for issue in error.issues),
        status=error.status,
        headers=error.headers,
    )


def in_patch(error: FhirError) -> FhirError:
    """Return the refusal of a patch for a bundle: what is wrong with its result is in no entry.

    The place in the result is said in words; that of an operation is in the entry's Parameters.
    """
    if isinstance(error, Unanswered):
        return error
    return FhirError(
        *(
            issue
            if issue.expression.partition(".")[0] in ("", "Parameters", "Binary")
            else replace(
                issue,
                diagnostics=f"{issue.expression}, once patched: {issue.diagnostics}",
                expression="",
            )
            for issue in error.issues
        ),
        status=error.status,
        headers=error.headers,
    )


def _inside(index: int, expression: str) -> str:
    if expression.startswith("Bundle.entry["):
        return expression
    root, _, rest = expression.partition(".")
    inside = "" if root == OF_ENTRY else "resource."
    return f"Bundle.entry[{index}]" + (f".{inside}{rest}" if rest else "")


def _entry(index: int, entry: Resource, request: Request) -> Entry:
    asked = entry.get("request")
    if asked is None:
        raise FhirError(
            Issue("required", "The entry has no request: its method and url are needed.")
        )
    if not isinstance(entry.get("resource", {}), dict):
        raise FhirError(
            Issue("structure", "The entry's resource is no JSON object.", f"{OF_ENTRY}.resource")
        )
    method = asked["method"]
    path, _, query = asked["url"].partition("?")
    routed = route("GET" if method == "HEAD" else method, _below_base(path, request.base_url))
    if routed.interaction in ("transaction", "batch", "capabilities"):
        raise FhirError(Issue("not-supported", f"{method} {path} is not possible in a bundle."))
    return Entry(
        index,
        method,
        entry.get("fullUrl", ""),
        Request(
            *(routed.interaction, routed.type, routed.id, routed.version),
            body=entry.get("resource"),
            parameters=_parameters(query),
            if_match=entity_tags(asked.get("ifMatch"), "ifMatch"),
            if_none_match=entity_tags(asked.get("ifNoneMatch"), "ifNoneMatch"),
            if_modified_since=http_date_or_instant(asked.get("ifModifiedSince")),
            if_none_exist=asked.get("ifNoneExist"),
            prefer=request.prefer,
            base_url=request.base_url,
            reading=routed.reading,
            entry=index,
        ),
    )


def _parameters(query: str) -> Parameters:
    if not query:
        return ()
    return tuple(one for one in query_parameters(query) if one[0] not in FORM_PARAMETERS)


def _below_base(path: str, base_url: str) -> str:
    """Return ``path`` relative to ``[base]``; an absolute URL must be one of ours."""
    if path.startswith(f"{base_url}/"):
        path = path.removeprefix(base_url)
    elif "://" in path:
        raise invalid_value("request.url", path, f"a URL relative to {base_url}")
    return decoded(path)


def check_unique(entries: Sequence[Entry]) -> None:
    """Refuse two entries that write the same resource.

    https://hl7.org/fhir/R4/http.html#trules: "if any resource identities overlap in steps 1-3,
    then the transaction SHALL fail".
    """
    seen: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry.request.interaction in WRITING and entry.request.id:
            identity = (entry.request.type, entry.request.id)
            if identity in seen:
                raise FhirError(
                    Issue(
                        "duplicate",
                        f"Entries {seen[identity]} and {entry.index} both write "
                        f"{'/'.join(identity)}; a transaction may write a resource once.",
                        entry.path,
                    ),
                    status=400,
                )
            seen[identity] = entry.index


def check_full_urls(entries: Sequence[Entry]) -> None:
    """Refuse two writing entries of one fullUrl: nobody could tell which a reference means."""
    seen: dict[str, int] = {}
    for entry in entries:
        if entry.full_url and entry.request.interaction in WRITING:
            if entry.full_url in seen:
                raise FhirError(
                    Issue(
                        "duplicate",
                        f"Entries {seen[entry.full_url]} and {entry.index} have the same fullUrl "
                        f"{shown(entry.full_url)}.",
                        f"{entry.path}.fullUrl",
                    ),
                    status=400,
                )
            seen[entry.full_url] = entry.index


def identities(entries: Sequence[Entry]) -> dict[str, str]:
    """Return fullUrl -> ``Type/id`` of everything that the entries create, update or patch."""
    return {
        entry.full_url: f"{entry.request.type}/{entry.request.id}"
        for entry in entries
        if entry.full_url and entry.request.interaction in ("create", "update", "patch")
    }
