"""https://www.rfc-editor.org/rfc/rfc9110#section-8.4"""

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.http.body import Disconnected, read_body
from fhir_server.outcome import FhirError

GZIP = {b"content-encoding": b"gzip"}
LIMIT = 1000


def read(
    chunks: Sequence[bytes], headers: Mapping[bytes, bytes], *, complete: bool = True
) -> bytes:
    """Return the body that comes in ``chunks``."""
    rest = [*chunks]

    async def receive() -> dict[str, Any]:
        if not rest and not complete:
            return {"type": "http.disconnect"}
        chunk = rest.pop(0) if rest else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(rest) or not complete}

    return asyncio.run(read_body(receive, headers, LIMIT))


def cut(body: bytes, places: set[int]) -> list[bytes]:
    """Return ``body`` cut at ``places``."""
    at = sorted({0, *(place % (len(body) + 1) for place in places), len(body)})
    return [body[a:b] for a, b in pairwise(at)] or [b""]


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.sets(st.integers(0, 2000)))
def test_any_cut_of_the_stream_gives_the_same_body(parts: list[bytes], places: set[int]) -> None:
    """However the network cuts it, plain or in several gzip members."""
    body = b"".join(parts)
    packed = b"".join(map(gzip.compress, parts))

    assert read(cut(body, places), {}) == body
    assert read(cut(packed, places), GZIP) == body


@given(st.binary(max_size=300))
def test_any_bytes_are_a_body_or_a_refusal(body: bytes) -> None:
    """What is said to be gzip is read, or refused with 400 or 413."""
    status = 200
    try:
        read([body], GZIP)
    except FhirError as error:
        status = error.status

    assert status in (200, 400, 413)


@given(st.integers(0, 60), st.binary(min_size=1, max_size=300))
def test_gzip_that_is_cut_off_is_refused(missing: int, body: bytes) -> None:
    """A body whose end did not come is not a shorter body."""
    packed = gzip.compress(body)
    with pytest.raises(FhirError):
        read([packed[: -1 - missing % (len(packed) - 1)]], GZIP)


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT, LIMIT + 1])
@pytest.mark.parametrize("packed", [False, True])
def test_the_limit_is_exact(size: int, packed: bool) -> None:
    """As many bytes as the limit are taken, one more is 413; packed, what is inside counts."""
    body = b"x" * size
    sent = gzip.compress(body) if packed else body
    if size <= LIMIT:
        assert read([sent], GZIP if packed else {}) == body
    else:
        with pytest.raises(FhirError) as refusal:
            read([sent], GZIP if packed else {})
        assert refusal.value.status == 413


def test_a_client_that_went_away_has_no_body() -> None:
    """Half a body is not a body."""
    with pytest.raises(Disconnected):
        read([b"half"], {}, complete=False)
