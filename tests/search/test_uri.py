# https://hl7.org/fhir/R4/search.html#uri
"""Uri parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.outcome import FhirError
from fhir_server.search.escape import escape
from fhir_server.search.parameters import ParameterTable
from fhir_server.search.uri import compile_uri
from tests.search.matching import found_by

URL = "http://acme.org/fhir/ValueSet/123"
CASES = [
    ("url", URL, URL, True),
    ("url", URL, f"{URL}4", False),
    ("url", URL, URL.upper(), False),
    ("url:below", "http://acme.org/fhir/", URL, True),
    ("url:below", URL, URL, True),
    ("url:below", f"{URL}/4", URL, False),
    ("url:below", "http://acme.org.", URL, False),
    ("url:above", f"{URL}/_history/5", URL, True),
    ("url:above", URL, URL, True),
    ("url:above", URL, f"{URL}/4", False),
    ("url", "urn:oid:1.2.3.4.5", "urn:oid:1.2.3.4.5", True),
]


@pytest.mark.parametrize(("name", "value", "url", "expected"), CASES)
def test_matching(table: ParameterTable, name: str, value: str, url: str, expected: bool) -> None:
    """The whole uri, or with a modifier its beginning, is compared character by character."""
    assert found_by(table, {"resourceType": "ValueSet", "url": url}, (name, value)) is expected


def test_the_version_behind_a_bar(table: ParameterTable) -> None:
    """``url|version`` of a definition asks for its business version, in either place."""
    value_set = {"resourceType": "ValueSet", "url": URL, "version": "2.0"}
    patient = {"resourceType": "Patient", "meta": {"profile": [f"{URL}|2.0"]}}

    assert found_by(table, value_set, ("url", f"{URL}|2.0"))
    assert not found_by(table, value_set, ("url", f"{URL}|2"))
    for value in (URL, f"{URL}|2.0"):
        assert found_by(table, patient, ("_profile", escape(value)))
    assert not found_by(table, patient, ("_profile", escape(f"{URL}|2")))


@pytest.mark.parametrize(
    ("value", "modifier"),
    [("", ""), ("urn:oid:1.2", "below"), ("urn:oid:1.2", "above"), ("http://x/" * 50, "below")],
)
def test_what_cannot_be_asked_is_refused(value: str, modifier: str) -> None:
    """Empty uris, the beginnings of urns and overlong beginnings are refused with value."""
    with pytest.raises(FhirError) as caught:
        compile_uri("keys.url", value, modifier)

    assert caught.value.issues[0].code == "value"


@given(
    url=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60).map(
        lambda text: f"http://{text}"
    ),
    cut=st.integers(1, 60),
)
def test_a_uri_finds_what_was_indexed_from_it(table: ParameterTable, url: str, cut: int) -> None:
    """A url is found by itself, from below and from above; by another one it is not."""
    endpoint = {"resourceType": "Subscription", "channel": {"endpoint": url}}

    assert found_by(table, endpoint, ("url:below", escape(url[:cut])))
    assert found_by(table, endpoint, ("url:above", escape(f"{url}/{cut}")))
    assert not found_by(table, endpoint, ("url", escape(f"{url}x")))
    assert found_by(table, endpoint, ("url", escape(url)))
