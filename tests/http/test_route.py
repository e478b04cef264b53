"""https://hl7.org/fhir/R4/http.html#summary"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.messages import Request
from fhir_server.outcome import FhirError
from fhir_server.route import route

# http.html#summary: the table of interactions.
INTERACTIONS = {
    "GET Patient/1": Request("read", "Patient", "1"),
    "GET Patient/1/_history/2": Request("vread", "Patient", "1", "2"),
    "PUT Patient/1": Request("update", "Patient", "1"),
    "PATCH Patient/1": Request("patch", "Patient", "1"),
    "DELETE Patient/1": Request("delete", "Patient", "1"),
    "POST Patient": Request("create", "Patient"),
    "GET Patient": Request("search-type", "Patient"),
    "POST Patient/_search": Request("search-type", "Patient"),
    "GET ": Request("search-system"),
    "GET metadata": Request("capabilities"),
    "POST ": Request("transaction"),
    "GET Patient/1/_history": Request("history-instance", "Patient", "1"),
    "GET Patient/_history": Request("history-type", "Patient"),
    "GET _history": Request("history-system"),
    "PUT Patient": Request("conditional-update", "Patient"),
    "DELETE Patient": Request("conditional-delete", "Patient"),
    "GET $versions": Request("$versions", reading=True),
    "POST Patient/$match": Request("$match", "Patient"),
    "GET Patient/1/$everything": Request("$everything", "Patient", "1", reading=True),
    "GET Patient/1/Observation": Request("search-compartment", "Patient", "1", "Observation"),
    "GET Patient/1/*": Request("search-compartment", "Patient", "1", "*"),
}
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "", "get"])
SEGMENTS = st.one_of(
    st.sampled_from(["Patient", "_history", "_search", "metadata", "1", "", ".", "..", "$x", "*"]),
    st.text(max_size=6),
)


@pytest.mark.parametrize(("asked", "request_"), INTERACTIONS.items(), ids=INTERACTIONS)
def test_a_method_and_a_path_name_an_interaction(asked: str, request_: Request) -> None:
    """Every row of the summary, with and without slashes around the path."""
    method, _, path = asked.partition(" ")

    assert route(method, path) == route(method, f"/{path}/") == request_


@given(METHODS, st.lists(SEGMENTS, max_size=6))
def test_any_path_is_an_interaction_or_a_refusal(method: str, segments: list[str]) -> None:
    """404 for what is nowhere, 405 for what has other methods; nothing else."""
    status, found = 200, Request("refused")
    try:
        found = route(method, "/".join(segments))
    except FhirError as error:
        status = error.status

    assert status in (200, 404, 405)
    assert found.interaction
    assert len(found.id) <= 64
    assert "/" not in found.type + found.id + found.version
