# https://hl7.org/fhir/R4/references.html#literal
"""References and what they point at."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4.references import Target, canonical, target, without_base

BASE = "https://here.example/fhir"

TARGETS = {
    "Patient/1": Target("Patient/1", "Patient", "1"),
    "Patient/1/_history/2": Target("Patient/1", "Patient", "1", "2"),
    f"{BASE}/Patient/1": Target("Patient/1", "Patient", "1"),
    f"{BASE}/Patient/1/_history/2": Target("Patient/1", "Patient", "1", "2"),
    f"{BASE}2/Patient/1": Target(f"{BASE}2/Patient/1", "Patient"),
    "http://other/r4/Patient/1": Target("http://other/r4/Patient/1", "Patient"),
    "http://other/r4/Patient/1/_history/2": Target(
        "http://other/r4/Patient/1", "Patient", version="2"
    ),
    "http://other/some/page?x=1": Target("http://other/some/page?x=1"),
    "urn:uuid:187e0c12-8dd2-67e2-99b2-bf273c878281": Target(
        "urn:uuid:187e0c12-8dd2-67e2-99b2-bf273c878281"
    ),
    "#contained": Target("#contained"),
    "Patient?identifier=1": Target("Patient?identifier=1"),
    "patient/1": Target("patient/1"),
    "Patient/1/_history/": Target("Patient/1/_history/"),
    "Patient/a_b": Target("Patient/a_b"),
    f"Patient/{'a' * 65}": Target(f"Patient/{'a' * 65}"),
    "": Target(""),
}


@pytest.mark.parametrize(("text", "expected"), TARGETS.items(), ids=map(repr, TARGETS))
def test_targets(text: str, expected: Target) -> None:
    """Version and own base are cut off; what has no type keeps its text."""
    assert target(text, (BASE,)) == expected


def test_canonical() -> None:
    """The business version of a canonical stands behind the bar."""
    assert canonical("http://x|1.0") == ("http://x", "1.0")
    assert canonical("http://x") == ("http://x", "")


def test_the_base_is_cut_at_a_slash_only() -> None:
    """Another server whose address begins like ours is another server."""
    assert without_base(f"{BASE}/Patient/1", (BASE,)) == "Patient/1"
    assert without_base(f"{BASE}s/Patient/1", (BASE,)) == f"{BASE}s/Patient/1"


@given(st.text(max_size=80))
def test_any_text_has_a_key(text: str) -> None:
    """A key is the key of itself, whatever the text."""
    found = target(text, (BASE,))

    assert target(found.key, (BASE,)).key == found.key
