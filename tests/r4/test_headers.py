"""https://hl7.org/fhir/R4/http.html#concurrency, RFC 9110 sections 8.8.3 and 13.1"""

from datetime import UTC, datetime

import pytest

from fhir_server.outcome import FhirError
from fhir_server.r4.headers import (
    entity_tags,
    http_date_or_instant,
    idempotency_key,
    override_reason,
    preferences,
)

TAGS = {
    None: None,
    'W/"3"': {"3"},
    '"3"': {"3"},
    "3": {"3"},
    "*": {"*"},
    '"*"': {'"*"'},
    'W/"1", "2" ,W/"3"': {"1", "2", "3"},
    '"a/b_c:d"': {"a/b_c:d"},
    '""': {""},
    ', W/"1",, \t"2" , ': {"1", "2"},
}


@pytest.mark.parametrize(("text", "expected"), TAGS.items(), ids=map(str, TAGS))
def test_entity_tags(text: str | None, expected: set[str] | None) -> None:
    """Weak, strong and bare tags are version ids; one of somebody else's is kept as it is."""
    assert entity_tags(text, "If-Match") == expected


@pytest.mark.parametrize("text", ["", " ", 'W/"3', "a b", '"1" "2"', 'w/"1"', ",", "\x00"])
def test_what_is_no_entity_tag_is_refused(text: str) -> None:
    """The sentence names the header and shows a tag."""
    with pytest.raises(FhirError, match=r"If-Match .* W/"):
        entity_tags(text, "If-Match")


TIMES = {
    None: None,
    "Sun, 06 Nov 1994 08:49:37 GMT": datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC),
    "1994-11-06T08:49:37Z": datetime(1994, 11, 6, 8, 49, 37, tzinfo=UTC),
    "yesterday": None,
    "2024-99-99": None,
    "Sun, 06 Nov 1994 08:49:37 +99999999999999": None,
}


@pytest.mark.parametrize(("text", "expected"), TIMES.items(), ids=map(str, TIMES))
def test_times(text: str | None, expected: datetime | None) -> None:
    """An HTTP date or a FHIR instant; anything else makes the header void."""
    assert http_date_or_instant(text) == expected


PREFERENCES = {
    None: {},
    "return=minimal": {"return": "minimal"},
    'RETURN="representation"; wait=10, handling=lenient': {
        "return": "representation",
        "wait": "10",
        "handling": "lenient",
    },
    "respond-async": {"respond-async": ""},
    "respond-async, handling=lenient": {"respond-async": "", "handling": "lenient"},
    "=x, a b, c=": {},
}


@pytest.mark.parametrize(("text", "expected"), PREFERENCES.items(), ids=map(str, PREFERENCES))
def test_preferences(text: str | None, expected: dict[str, str]) -> None:
    """Names in any case, values quoted or not; what has no value is there by its name."""
    assert preferences(text) == expected


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (None, None),
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        (' "a b, c" ', "a b, c"),
        (r'"a\"b\\c"', 'a"b\\c'),
        ("$where:{}", "$where:{}"),
        ("k" * 255, "k" * 255),
        ('"' + r"\\" * 255 + '"', "\\" * 255),
    ],
)
def test_idempotency_keys(text: str | None, key: str | None) -> None:
    """draft-ietf-httpapi-idempotency-key-header, 2.1: with quotes, and as clients send it."""
    assert idempotency_key(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        '""',
        "k" * 256,
        '"' + "k" * 256 + '"',
        "é",
        '"\t"',
        "a b",
        "a,b",
        '"a',
        '"a";b=1',
        '"a"b"',
    ],
)
def test_what_is_no_idempotency_key(text: str) -> None:
    """Refused with 400; a header sent twice is joined by a comma."""
    with pytest.raises(FhirError) as refusal:
        idempotency_key(text)
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("text", "reason"),
    [(None, ""), (" twins ", "twins"), ("জরুরি".encode().decode("latin-1"), "জরুরি")],
)
def test_why_a_rule_is_overridden(text: str | None, reason: str) -> None:
    """X-Override-Reason: ASCII, or UTF-8 as it comes."""
    assert override_reason(text) == reason


@pytest.mark.parametrize("text", ["", " ", "x" * 501])
def test_what_is_no_reason(text: str) -> None:
    """Refused with 400: nobody overrides without saying why."""
    with pytest.raises(FhirError) as refusal:
        override_reason(text)
    assert refusal.value.status == 400
