"""Which interaction a method and a path name: the table of http.html, for HTTP and for bundles.

https://hl7.org/fhir/R4/http.html
"""

from collections.abc import Container
from string import ascii_letters, digits
from urllib.parse import parse_qsl, unquote

import re2 as re

from fhir_server.messages import Parameters, Request
from fhir_server.outcome import FhirError, Issue, invalid_value, method_not_allowed, shown

_ID_CHARACTERS_MAX = 64
# What is left of an id by this cannot be in one. Every request asks; a pattern took 4 µs.
_NOT_IN_IDS = str.maketrans("", "", f"{ascii_letters}{digits}-.")
_TYPE_CHARACTERS_MAX = 64
_OPERATION = re.compile(r"\$[a-z][a-z0-9\-]{0,63}")

# Shape of the path -> method -> interaction. T is a type, I an id, V a version.
_TABLE = {
    "": {"GET": "search-system", "POST": "transaction"},
    "metadata": {"GET": "capabilities"},
    "_history": {"GET": "history-system"},
    "_search": {"POST": "search-system"},
    "T": {
        "GET": "search-type",
        "POST": "create",
        "PUT": "conditional-update",
        "PATCH": "conditional-patch",
        "DELETE": "conditional-delete",
    },
    "T/_search": {"POST": "search-type"},
    "T/_history": {"GET": "history-type"},
    "T/I": {"GET": "read", "PUT": "update", "PATCH": "patch", "DELETE": "delete"},
    "T/I/_history": {"GET": "history-instance"},
    "T/I/_history/V": {"GET": "vread"},
}
CANCEL = "$export-cancel"
# A method of an operation's place that is an operation of its own: DELETE of the status of an
# export cancels it (https://hl7.org/fhir/uv/bulkdata/STU2/export.html#bulk-data-delete-request).
_DELETING = {"$export-status": CANCEL}
_PARAMETERS_MAX = 1000  # how many are allowed is for each interaction to say
_COMPARTMENT_DEPTH = 3  # Patient/1/Observation and Patient/1/*


# About the form of the answer; http takes them out, and in a bundle they mean nothing.
FORM_PARAMETERS = ("_format", "_pretty")


def decoded(path: str) -> str:
    """Return ``path`` percent-decoded. An escaped slash would be part of a name, and none has one
    (RFC 3986, 2.2); what filters paths in front of us would not see it either.
    """
    if "%2f" in path.lower():
        text = f"{shown(path)} has an escaped slash, which no name here has; send it as /."
        raise FhirError(Issue("not-found", text))
    return unquote(path)


def query_parameters(text: str) -> Parameters:
    """Return names and values of a query string or form. Raises ``value`` for what is not UTF-8."""
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_PARAMETERS_MAX
        )
    except UnicodeDecodeError as error:
        raise invalid_value("The query", text, "percent-encoded UTF-8") from error
    except ValueError as error:
        raise invalid_value("The query", text, f"at most {_PARAMETERS_MAX} parameters") from error
    return tuple(pairs)


def route(method: str, path: str) -> Request:
    """Return the request that ``method`` and ``path`` (below the base URL) name, without a body.

    ``path`` is percent-decoded, without a query; ``HEAD`` is to be asked as ``GET``. Types are
    not looked up here: whether a type exists is for the front door to say.

    Raises ``not-found`` for a path that names nothing, ``not-supported`` with status 405 for a
    method that the path does not have, and ``value`` for an id that cannot be one.
    """
    segments = path.strip("/").split("/") if path.strip("/") else []
    if segments and segments[-1].startswith("$"):
        return _operation(method, path, segments)
    if len(segments) == _COMPARTMENT_DEPTH and _in_compartment(segments):
        _require(method, path, ("GET",))
        return Request("search-compartment", segments[0], _id(segments[1]), segments[2])
    shape = _shape(segments)
    methods = _TABLE.get(shape)
    if methods is None:
        raise _nowhere(path)
    _require(method, path, tuple(methods))
    interaction = methods[method]
    if not shape.startswith("T"):
        return Request(interaction)
    id = _id(segments[1]) if shape.startswith("T/I") else ""
    return Request(interaction, segments[0], id, segments[3] if shape.endswith("V") else "")


def allowed(path: str, served: Container[str]) -> tuple[str, ...]:
    """Return the methods that ``path`` has, of the interactions that are ``served``."""
    segments = path.strip("/").split("/") if path.strip("/") else []
    if segments and segments[-1].startswith("$"):
        return ("GET", "POST", "DELETE") if segments[-1] in _DELETING else ("GET", "POST")
    table = _TABLE.get(_shape(segments), {})
    if not table and len(segments) == _COMPARTMENT_DEPTH and _in_compartment(segments):
        table = {"GET": "search-compartment"}
    methods = tuple(method for method, interaction in table.items() if interaction in served)
    return (*methods, "HEAD") if "GET" in methods else methods


def _shape(segments: list[str]) -> str:
    """Return the key of :data:`_TABLE` that ``segments`` have the form of."""
    if not segments or not _is_type(segments[0]):
        return "/".join(segments)
    match segments[1:]:
        case []:
            return "T"
        case ["_search" | "_history" as word]:
            return f"T/{word}"
        case [_]:
            return "T/I"
        case [_, "_history"]:
            return "T/I/_history"
        case [_, "_history", _]:
            return "T/I/_history/V"
    return "?"


def _is_type(text: str) -> bool:
    """Whether ``text`` has the form of a type name. Every request asks; a pattern took 5 µs."""
    return (
        text.isascii()
        and text.isalpha()
        and text[0].isupper()
        and len(text) <= _TYPE_CHARACTERS_MAX
    )


def _in_compartment(segments: list[str]) -> bool:
    type, _, member = segments
    return _is_type(type) and (member == "*" or _is_type(member))


def _operation(method: str, path: str, segments: list[str]) -> Request:
    *place, name = segments
    deep = len(place) > 2 and _shape(place) != "T/I/_history/V"
    if not _OPERATION.fullmatch(name) or deep or not all(place):
        raise _nowhere(path)
    if method == "DELETE" and name in _DELETING:
        method, name = "POST", _DELETING[name]
    _require(method, path, ("GET", "POST"))
    type, id, _, version = [*place, "", "", "", ""][:4]
    return Request(name, type, _id(id) if id else "", version, reading=method == "GET")


def _id(id: str) -> str:
    if not 0 < len(id) <= _ID_CHARACTERS_MAX or id.translate(_NOT_IN_IDS):
        raise FhirError(
            Issue(
                "value",
                f"{shown(id)} is no id; an id has 1 to 64 letters, digits, hyphens and dots.",
            ),
            status=404,  # http.html#read: what cannot be an id cannot be found
        )
    return id


def _require(method: str, path: str, allowed: tuple[str, ...]) -> None:
    if method not in allowed:
        raise method_not_allowed(method, path.strip("/"))


def _nowhere(path: str) -> FhirError:
    return FhirError(Issue("not-found", f"{shown(path)} names nothing here; see [base]/metadata."))
