"""https://hl7.org/fhir/R4/json.html"""

import json
from decimal import Decimal
from typing import Any

import pytest

from fhir_server.outcome import FhirError
from fhir_server.r4.json import decode, encode
from tests.badinput.conftest import JSON, Cases, Watch

# Valid JSON that is refused all the same: a member that stands twice.
DUPLICATES = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}


def read(text: bytes) -> str:
    """Return how the codec takes ``text``: ``read``, or the code of the refusal."""
    try:
        decode(text)
    except FhirError as error:
        return error.issues[0].code if error.status == 400 else f"status {error.status}"
    return "read"


def test_what_is_no_json_is_refused_by_the_codec(cases: Cases) -> None:
    """Every n_ case is ``structure``; it is an error of form, not of a value."""
    wrong = {
        name: found
        for name, text in cases("json/parsing.jsonl")
        if name.startswith("n_") and (found := read(text)) != "structure"
    }

    assert wrong == {}


def test_what_is_json_is_read_by_the_codec(cases: Cases) -> None:
    """Every y_ case is read as a value of a member, except duplicate members."""
    wrong = {
        name: found
        for name, text in cases("json/parsing.jsonl")
        if name.startswith("y_")
        and (found := read(b'{"a":' + text + b"}"))
        != ("structure" if name in DUPLICATES or f"{name}.json" in DUPLICATES else "read")
    }

    assert wrong == {}


def test_what_is_undecided_is_decided_once(cases: Cases) -> None:
    """Every i_ case is read or refused, and the same the second time."""
    for name, text in cases("json/parsing.jsonl"):
        wrapped = b'{"a":' + text + b"}"
        assert read(wrapped) == read(wrapped), name


def test_no_value_changes_in_silence(cases: Cases) -> None:
    """What is read is written with the same members and the same digits, or refused."""
    changed = {}
    for name, text in cases("json/transform.jsonl", "json/parsing.jsonl"):
        wrapped = b'{"a":' + text.strip() + b"}"
        if read(wrapped) == "read" and b"\\u" not in wrapped:
            again = encode(decode(wrapped))
            if literals(again) != literals(wrapped):
                changed[name] = again[:100]

    assert changed == {}


def literals(text: bytes) -> Any:
    """Return the JSON ``text`` with numbers as they are written, as another reader sees it."""
    return json.loads(text, parse_float=lambda one: Decimal(one).as_tuple(), parse_int=str)


# Where a body goes.
PLACES = {"create": "Patient", "update": "Patient/p", "batch": "", "search": "Patient/_search"}


@pytest.mark.parametrize("place", PLACES)
async def test_no_malformed_body_is_accepted(watch: Watch, cases: Cases, place: str) -> None:
    """400 for what is no JSON, a 4xx for all the rest: none of them is a resource."""
    method = "PUT" if place == "update" else "POST"
    for name, text in cases("json/parsing.jsonl", "json/transform.jsonl", "json/attacks.b64"):
        answer = await watch(name, method, PLACES[place], JSON, text)
        wanted = (400,) if name.startswith("n_") and place != "search" else range(400, 500)
        if text or place != "search":
            watch.check(name, answer.status_code in wanted, f"status {answer.status_code}")

    assert watch.faults == {}


async def test_no_body_of_a_fuzzer_is_accepted(watch: Watch, cases: Cases) -> None:
    """The corpus of a JSON fuzzer: a 4xx each, and never 5xx."""
    for name, text in cases("json/go_fuzz.jsonl"):
        answer = await watch(name, "PUT", "Patient/p", JSON, text)
        watch.check(name, 400 <= answer.status_code < 500, f"status {answer.status_code}")

    assert watch.faults == {}


async def test_values_inside_an_element(watch: Watch, cases: Cases) -> None:
    """JSON of every kind as the value of a string, a decimal and an extension: 2xx or 4xx."""
    for name, text in cases("json/parsing.jsonl", "json/transform.jsonl"):
        for body in (
            b'{"resourceType":"Basic","id":"j","code":{"text":' + text + b"}}",
            b'{"resourceType":"Basic","id":"j","code":{"text":"x"},"extension":[{"url":"urn:x",'
            b'"valueDecimal":' + text + b"}]}",
        ):
            await watch(name, "PUT", "Basic/j", JSON, body)

    assert watch.faults == {}
