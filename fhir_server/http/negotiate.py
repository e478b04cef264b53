"""Which format the client sends and which it accepts. Pure.

https://hl7.org/fhir/R4/http.html#mime-type
"""

from collections.abc import Mapping

from fhir_server.outcome import FhirError, Issue, shown

FHIR_JSON = "application/fhir+json"

# What asks for JSON in Accept, Content-Type and _format; some clients still send the DSTU2 name.
_JSON = frozenset(
    {
        *("application/fhir+json", "application/json", "application/json+fhir", "text/json"),
        *("json", "*/*", "application/*"),
    }
)
_PLAIN_JSON = {"application/json": "application/json", "text/json": "application/json"}
_XML_REMEDY = "This server speaks JSON: send Accept: application/fhir+json, or _format=json."
FORM = "application/x-www-form-urlencoded"


def accepted(accept: str, format: str | None) -> str:
    """Return the Content-Type of the answer. ``format`` is ``_format``, which overrides Accept.

    Raises status 406 when the client accepts nothing that we have.
    """
    if format is not None:
        # A plus sign in a query means a space.
        wanted = format.replace(" ", "+").partition(";")[0].strip().lower()
        if wanted not in _JSON:
            raise _not_acceptable(f"_format={format}")
        return _charset(_PLAIN_JSON.get(wanted, FHIR_JSON))
    if accept in ("", "*/*", FHIR_JSON):
        return _charset(FHIR_JSON)
    ranges = sorted((_range(part) for part in accept.split(",")), key=lambda one: -one[1])
    for name, quality, version in ranges:
        if quality > 0 and name in _JSON and version in ("", "4.0"):
            return _charset(_PLAIN_JSON.get(name, FHIR_JSON))
    raise _not_acceptable(accept)


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
        Issue("not-supported", f"{shown(wish)} cannot be served. {_XML_REMEDY}"), status=406
    )


def check_content_type(headers: Mapping[bytes, bytes]) -> None:
    """Raise status 415 unless the body is said to be JSON in UTF-8."""
    text = headers.get(b"content-type", b"").decode("latin-1")
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    if name and (name not in _JSON or "*" in name):
        raise FhirError(
            Issue(
                "not-supported",
                f"The body is {shown(name)}; send Content-Type: application/fhir+json.",
            ),
            status=415,
        )
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "charset" and value.strip('"') not in ("utf-8", "utf8", "us-ascii"):
            raise FhirError(
                Issue("not-supported", f"The body is in {shown(value)}; FHIR is sent in UTF-8."),
                status=415,
            )
