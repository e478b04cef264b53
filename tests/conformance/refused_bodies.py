"""Bodies that a server must refuse: each with the status and a word that the refusal must have.

https://hl7.org/fhir/R4/json.html and https://hl7.org/fhir/R4/validation.html
"""

import gzip
import json
from collections.abc import Callable
from typing import Any

Row = tuple[str | bytes, tuple[int, ...], str]
"""A body, the statuses that are right, and a word of the diagnostics or the expression."""

OBSERVATION: dict[str, Any] = {
    "resourceType": "Observation",
    "id": "o",
    "status": "final",
    "code": {"text": "x"},
}
PATIENT: dict[str, Any] = {"resourceType": "Patient", "id": "p"}
BAD = (400,)
INVALID = (400, 422)


def patient(**members: Any) -> str:
    """Return a Patient with ``members`` as JSON; lone surrogates stay escapes."""
    return json.dumps({**PATIENT, **members})


def observation(**members: Any) -> str:
    """Return a valid Observation with ``members`` instead of what is there."""
    return json.dumps({**OBSERVATION, **members})


def nested(levels: int, build: Callable[[Any], Any]) -> str:
    """Return a Patient with ``build`` applied ``levels`` times around a text."""
    value: Any = "x"
    for _ in range(levels):
        value = build(value)
    return patient(extension=value)


def decimal(text: str) -> str:
    """Return an Observation whose value is the number ``text``."""
    return observation(valueQuantity={"value": "#"}).replace('"#"', text)


# What is not JSON, or not a JSON object (json.html): PUT Patient/p.
JSON: dict[str, Row] = {
    "nothing": ("", BAD, "empty"),
    "white space": ("  \n", BAD, "empty"),
    "cut off": ('{"resourceType":"Patient"', BAD, "JSON"),
    "trailing comma": ('{"resourceType":"Patient",}', BAD, "line 1"),
    "single quotes": ("{'resourceType':'Patient'}", BAD, "line 1"),
    "comment": ('{"resourceType":"Patient"/* x */}', BAD, "line 1"),
    "two objects": ('{"resourceType":"Patient"}{}', BAD, "JSON"),
    "text behind": ('{"resourceType":"Patient","id":"p"} x', BAD, "JSON"),
    "bare word": ("Patient", BAD, "JSON"),
    "XML": ('<Patient xmlns="http://hl7.org/fhir"/>', BAD, "JSON"),
    "array": ("[]", BAD, "object"),
    "array of resources": ('[{"resourceType":"Patient"}]', BAD, "object"),
    "string": ('"Patient"', BAD, "object"),
    "number": ("1", BAD, "object"),
    "null": ("null", BAD, "object"),
    "true": ("true", BAD, "object"),
    "NaN": (decimal("NaN"), BAD, "JSON"),
    "Infinity": (decimal("-Infinity"), BAD, "JSON"),
    "leading zero": (decimal("01"), BAD, "JSON"),
    "plus sign": (decimal("+1"), BAD, "JSON"),
    "no digit behind the point": (decimal("1."), BAD, "JSON"),
    "hexadecimal": (decimal("0x1F"), BAD, "JSON"),
    "raw control character": ('{"resourceType":"Patient","id":"p","language":"a\nb"}', BAD, "JSON"),
    "bad escape": (r'{"resourceType":"Patient","id":"p","language":"\x41"}', BAD, "JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + patient().encode(), BAD, "byte order mark"),
    "not UTF-8": (b'{"resourceType":"Patient","id":"p","language":"\xff"}', BAD, "UTF-8"),
    "overlong UTF-8": (b'{"resourceType":"Patient","id":"p","language":"\xc0\xaf"}', BAD, "UTF-8"),
    "surrogate in UTF-8": (b'{"resourceType":"Patient","language":"\xed\xa0\x80"}', BAD, "UTF-8"),
    "UTF-16": (patient().encode("utf-16"), BAD, "JSON"),
    "duplicate member": ('{"resourceType":"Patient","id":"p","id":"p"}', BAD, "'id'"),
    "duplicate member, hidden": (
        r'{"resourceType":"Patient","id":"p","\u0069d":"q","language":"en"}',
        BAD,
        "'id'",
    ),
    "duplicate member, inside": (
        patient(name=[{"text": "a"}]).replace('"a"', '"a","text":"b"'),
        BAD,
        "'text'",
    ),
    "deep arrays": ("[" * 5000 + "]" * 5000, BAD, ""),
    "deep arrays, not closed": ("[" * 100_000, BAD, ""),
    "deep objects": ('{"a":' * 5000 + "1" + "}" * 5000, BAD, "levels"),
    "deep extensions": (
        nested(60, lambda value: [{"url": "urn:x", "extension": value}]),
        BAD,
        "levels",
    ),
    "broken gzip": (gzip.compress(patient().encode())[:-9], BAD, "gzip"),
}

# What is JSON, but no number that can be kept (datatypes.html#decimal): PUT Observation/o.
NUMBERS: dict[str, Row] = {
    "35 digits": (decimal("1." + "1" * 34), INVALID, "34 digits"),
    "40 digits": (decimal("1" * 40 + ".5"), INVALID, "digits"),
    "huge exponent": (decimal("1e99999"), INVALID, "exponent"),
    "tiny exponent": (decimal("1e-99999"), INVALID, "exponent"),
    "exponent of 20 digits": (decimal("1e" + "9" * 20), INVALID, ""),
    "integer of 20 digits": (decimal("9" * 20), INVALID, "64 bits"),
    "integer of 5,000 digits": (decimal("9" * 5000), INVALID, ""),
    "integer over 32 bits": (observation(valueInteger=2**31), INVALID, "valueInteger"),
    "integer with a fraction": (
        observation(valueInteger="#").replace('"#"', "1.5"),
        INVALID,
        "valueInteger",
    ),
    "negative positiveInt": (
        patient(telecom=[{"value": "1", "rank": -1}]),
        INVALID,
        "telecom[0].rank",
    ),
    "zero positiveInt": (patient(telecom=[{"value": "1", "rank": 0}]), INVALID, "rank"),
}

# What is JSON, but no valid resource: PUT Patient/p or Observation/o.
RESOURCES: dict[str, Row] = {
    "no resourceType": ('{"id":"p"}', BAD, "resourceType"),
    "another resourceType": ('{"resourceType":"Person","id":"p"}', BAD, "'Patient'"),
    "resourceType of no type": ('{"resourceType":7,"id":"p"}', BAD, "resourceType"),
    "resourceType null": ('{"resourceType":null,"id":"p"}', BAD, "resourceType"),
    "another id": (patient(id="q"), BAD, "id"),
    "id with a slash": (patient(id="p/q"), BAD, "id"),
    "unknown element": (patient(nonsense=1), INVALID, "nonsense"),
    "misspelt element": (patient(gendr="male"), INVALID, "gender"),
    "unknown element, inside": (patient(name=[{"famly": "x"}]), INVALID, "Patient.name[0]"),
    "_id": (patient(_id="x"), INVALID, "_id"),
    "operator": (patient(**{"$set": {"active": True}}), INVALID, "$set"),
    "operator inside": (patient(name=[{"$where": "1"}]), INVALID, "$where"),
    "operator for a value": (patient(active={"$ne": False}), INVALID, "active"),
    "dotted name": (patient(**{"name.family": "x"}), INVALID, "name.family"),
    "empty name": (patient(**{"": "x"}), INVALID, ""),
    "NUL in a name": (patient(**{"a\0b": "x"}), INVALID, ""),
    "__proto__": (patient(__proto__={"active": True}), INVALID, "__proto__"),
    "fhir_comments": (patient(fhir_comments=["x"]), INVALID, "fhir_comments"),
    "null": (patient(active=None), INVALID, "active"),
    "empty object": (patient(name=[{}]), INVALID, "name[0]"),
    "empty array": (patient(name=[]), INVALID, "name"),
    "empty string": (patient(language=""), INVALID, "language"),
    "object for an array": (patient(name={"text": "x"}), INVALID, "name"),
    "array for an object": (patient(maritalStatus=[{"text": "x"}]), INVALID, "maritalStatus"),
    "string for a boolean": (patient(active="true"), INVALID, "active"),
    "number for a string": (patient(name=[{"text": 1}]), INVALID, "text"),
    "null in an array": (patient(name=[None]), INVALID, "name"),
    "bad code": (patient(gender="mail"), INVALID, "gender"),
    "bad date": (patient(birthDate="2024-02-30"), INVALID, "birthDate"),
    "date with time": (patient(birthDate="2024-02-03T10:00:00Z"), INVALID, "birthDate"),
    "NUL in a string": (patient(name=[{"text": "a\0b"}]), INVALID, "text"),
    "lone surrogate": (patient(name=[{"text": "\ud800"}]), INVALID, ""),
    "reversed surrogates": (patient(name=[{"text": "\udc00\ud800"}]), INVALID, ""),
    "two choices": (patient(deceasedBoolean=True, deceasedDateTime="2024"), INVALID, "deceased"),
    "sibling longer than the array": (
        patient(name=[{"given": ["a"], "_given": [None, None]}]), INVALID, "given",
    ),
    "reference to a wrong type": (
        patient(generalPractitioner=[{"reference": "Patient/1"}]), INVALID, "generalPractitioner",
    ),
    "extension without url": (patient(extension=[{"valueString": "x"}]), INVALID, "url"),
    "script in the narrative": (
        patient(text={
            "status": "generated",
            "div": '<div xmlns="http://www.w3.org/1999/xhtml"><script>1</script></div>',
        }), INVALID, "script",
    ),
    "base64 that is none": (patient(photo=[{"data": "####"}]), INVALID, "data"),
    "contained without id": (
        patient(contained=[{"resourceType": "Patient"}]), INVALID, "contained",
    ),
    "meta is a string": (patient(meta="x"), INVALID, "meta"),
    "missing element": (
        '{"resourceType":"Observation","id":"o","status":"final"}', INVALID, "code",
    ),
}  # fmt: skip
