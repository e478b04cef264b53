"""Which format the client sends and which it accepts. Pure.

https://hl7.org/fhir/R4/http.html#mime-type
"""

from collections.abc import Mapping

from fhir_server.http.remembered import remembered
from fhir_server.outcome import FhirError, Issue, shown
from fhir_server.patch.formats import FHIRPATH_PATCH, FORMATS

FHIR_JSON = "application/fhir+json"
FHIR_XML = "application/fhir+xml"

# What asks for a format in Accept, Content-Type and _format, and as what it is answered; some
# clients still send the names of DSTU2.
_NAMES = {
    **dict.fromkeys(("application/fhir+json", "application/json+fhir", "json"), FHIR_JSON),
    **dict.fromkeys(("*/*", "application/*"), FHIR_JSON),
    **dict.fromkeys(("application/json", "text/json"), "application/json"),
    **dict.fromkeys(("application/fhir+xml", "application/xml+fhir", "xml"), FHIR_XML),
    **{name: name for name in ("application/xml", "text/xml")},
}
_FHIR_OWN = frozenset(name for name in _NAMES if "fhir" in name)
_OFFERED = (FHIR_JSON, "application/json", FHIR_XML)
_VERSIONS = ("", "4.0", "4.0.1")  # values of the parameter fhirVersion; absent is ours
_REMEDY = (
    "This server speaks JSON and XML: send Accept: application/fhir+json or application/fhir+xml, "
    "or _format=json or _format=xml."
)
FORM = "application/x-www-form-urlencoded"


@remembered
def accepted(accept: str, format: str | None) -> str:
    """Return the Content-Type of the answer. ``format`` is ``_format``, which overrides Accept.

    Raises status 406 when the client accepts nothing that we have.
    """
    if format is not None:
        wanted, _, version = _range(format)
        wanted = wanted.replace(" ", "+")  # a plus sign in a query means a space
        if wanted not in _NAMES or version not in _VERSIONS:
            raise _not_acceptable(f"_format={format}")
        return _charset(_NAMES[wanted])
    if accept in ("", "*/*", FHIR_JSON):
        return _charset(FHIR_JSON)
    ranges = sorted((_range(part) for part in accept.split(",")), key=lambda one: -one[1])
    excluded = {name for name, quality, _ in ranges if quality == 0}
    for name, quality, version in ranges:
        if quality > 0 and name in _NAMES and version in _VERSIONS:
            for type in _OFFERED if "*" in name else (_NAMES[name],):
                if type not in excluded:
                    return _charset(type)
    raise _not_acceptable(accept)


def names_fhir(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether Accept names FHIR's own JSON or XML, by whatever version of its name."""
    text = headers.get(b"accept", b"").decode("latin-1")
    return "fhir" in text.lower() and any(
        name in _FHIR_OWN and quality > 0 for name, quality, _ in map(_range, text.split(","))
    )


def may_be_fhir(headers: Mapping[bytes, bytes]) -> bool | None:
    """Return whether the body is said to be FHIR; ``None`` where it is JSON or XML of any kind.

    What says nothing is taken for FHIR, and refused as such where it is read.
    """
    name, _ = _content_type(headers)
    if name and (name not in _NAMES or "*" in name):
        return False
    return True if not name or name in _FHIR_OWN else None


def is_xml(content_type: str) -> bool:
    """Return whether a Content-Type that :func:`accepted` has returned is one of XML."""
    return "xml" in content_type


@remembered
def accepts_gzip(encodings: str) -> bool:
    """Return whether an Accept-Encoding allows gzip. https://www.rfc-editor.org/rfc/rfc9110#12.5.3"""
    return any(
        name in ("gzip", "x-gzip") and quality > 0
        for name, quality, _ in map(_range, encodings.split(","))
    )


def _range(text: str) -> tuple[str, float, str]:
    """Return media type, quality and fhirVersion of one part of an Accept header."""
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    values = dict(part.partition("=")[::2] for part in parameters)
    try:
        quality = float(values.get("q", "1"))
    except ValueError:
        quality = 0.0
    return name, quality, values.get("fhirversion", "").strip('"')


def _charset(name: str) -> str:
    return f"{name};charset=utf-8"


def _not_acceptable(wish: str) -> FhirError:
    return FhirError(
        Issue("not-supported", f"{shown(wish)} cannot be served. {_REMEDY}"), status=406
    )


def sends_xml(headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the body is said to be XML.

    Raises status 415 unless it is said to be JSON or XML of R4 in UTF-8. One that says nothing is
    not guessed: http.html#summary has Content-Type as required wherever there is a body.
    """
    name, parameters = _content_type(headers)
    if name not in _NAMES or "*" in name:
        said = shown(name) if name else "of no Content-Type"
        raise FhirError(
            Issue(
                "not-supported",
                f"The body is {said}; send Content-Type: application/fhir+json or "
                "application/fhir+xml.",
            ),
            status=415,
        )
    _check_parameters(parameters)
    return is_xml(_NAMES[name])


def patch_format(headers: Mapping[bytes, bytes]) -> str:
    """Return which of the :data:`fhir_server.patch.formats.FORMATS` the body is said to be.

    Raises status 415 with Accept-Patch (RFC 5789, 2.2) for another one, and for none: what a patch
    means cannot be told from its text.
    """
    name, parameters = _content_type(headers)
    _check_parameters(parameters)
    if name in FORMATS:
        return name
    if name in _NAMES and "*" not in name:
        return FHIRPATH_PATCH
    said = shown(name) if name else "of no Content-Type"
    raise FhirError(
        Issue("not-supported", f"The body is {said}; a patch is {', '.join(FORMATS)}."),
        status=415,
        headers=(("Accept-Patch", ", ".join(FORMATS)),),
    )


def _content_type(headers: Mapping[bytes, bytes]) -> tuple[str, list[str]]:
    text = headers.get(b"content-type", b"").decode("latin-1")
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    return name, parameters


def _check_parameters(parameters: list[str]) -> None:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise FhirError(
                Issue("not-supported", f"The body is in {shown(value)}; FHIR is sent in UTF-8."),
                status=415,
            )
        if key == "fhirversion" and value.strip('"') not in _VERSIONS:
            raise FhirError(
                Issue(
                    "not-supported",
                    f"The body is of FHIR {shown(value)}; this is R4: send "
                    "application/fhir+json; fhirVersion=4.0.",
                ),
                status=415,
            )
