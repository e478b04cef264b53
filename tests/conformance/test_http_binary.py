"""https://hl7.org/fhir/R4/binary.html#rest: a Binary by its own content type, in and out.

One test for each sentence, and for each way in which a stored file could harm who opens it.
"""

import gzip
import hashlib
import random
from base64 import b64decode, b64encode
from itertools import product
from typing import Any

import httpx
import pytest

from fhir_server.app import Server
from fhir_server.interactions.binary import DATA_BYTES_MAX
from fhir_server.messages import Content
from fhir_server.settings import Settings
from fhir_server.store import contents
from tests.http.conftest import Exact, diagnostics_of

FHIR_JSON = {"Accept": "application/fhir+json"}
PDF = {"Content-Type": "application/pdf"}
CHUNK = contents._CHUNK_BYTES
LARGE = DATA_BYTES_MAX + 1
SUBSETTED = "SUBSETTED"


def noise(size: int) -> bytes:
    """Return ``size`` bytes, always the same."""
    return random.Random(size).randbytes(size)


async def uploads(server: Server) -> list[int]:
    """Return how many uploads, files and chunks are kept."""
    names = (contents.UPLOADS, contents.FILES, contents.CHUNKS)
    return [await server.database[name].count_documents({}) for name in names]


# ------------------------------------------------------------------------------------ in and out

TYPES = {
    "a document": ("application/pdf", b"%PDF-1.7\n\x00\xff\r\n"),
    "text with its encoding": ("text/plain; charset=iso-8859-1", b"\xe9t\xe9\n"),
    "a quoted parameter": ('multipart/mixed; boundary="a b;c"', b"--a b;c--"),
    "CDA": ("application/hl7-sda+xml", b"<ClinicalDocument xmlns='urn:hl7-org:v3'/>"),
    "XML that is not FHIR": ("application/xml", b"<?xml version='1.0'?><a>&amp;</a>"),
    "XML with a document type": ("text/xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"),
    "JSON that is not FHIR": ("application/json", b'{"a": 1, "a": 2}'),
    "JSON that is none": ("application/json", b'{"a'),
    "JSON in UTF-16": ("application/json; charset=utf-16", '{"a":1}'.encode("utf-16")),
    "a list": ("application/json", b"[1]"),
    "another resource": ("application/fhir+json", b'{"resourceType":"Patient",  "id":"p"}'),
    "another in XML": ("application/fhir+xml", b'<Patient xmlns="http://hl7.org/fhir"> </Patient>'),
    "a form": ("application/x-www-form-urlencoded", b"a=b&c=%zz"),
    "every byte": ("application/octet-stream", bytes(range(256)) * 3),
    "nothing": ("application/dicom", b""),
    "an unknown one": ("chemical/x-pdb", b"x"),
}


@pytest.mark.parametrize(("type", "data"), TYPES.values(), ids=TYPES)
async def test_the_data_is_accepted_as_is(http: httpx.AsyncClient, type: str, data: bytes) -> None:
    """Whatever the type: the content is what was sent, byte for byte, and so is its type."""
    headers = {"Content-Type": type, "X-Security-Context": "Patient/p"}
    made = await http.post("Binary", content=data, headers=headers)
    place = made.headers["location"].partition("/_history")[0]
    read = await http.get(place)
    resource = (await http.get(place, headers=FHIR_JSON)).json()

    assert made.status_code == 201, made.text
    assert made.json()["resourceType"] == "Binary"
    assert (read.status_code, read.content) == (200, data)
    assert read.headers["content-type"] == type
    assert read.headers["etag"] == 'W/"1"'
    assert "last-modified" in read.headers
    assert read.headers["x-security-context"] == "Patient/p"
    assert resource["contentType"] == type
    assert resource["securityContext"] == {"reference": "Patient/p"}
    assert b64decode(resource.get("data", "")) == data
    assert "data" in resource or not data


SIZES = (
    *(1, 2, 3, DATA_BYTES_MAX - 1, DATA_BYTES_MAX, LARGE, CHUNK * 2 - 1, CHUNK * 2, CHUNK * 2 + 1),
    *(CHUNK * 8 - 1, CHUNK * 8, CHUNK * 8 + 1, CHUNK * 17 + 5),
)


@pytest.mark.parametrize("size", SIZES)
async def test_every_size_comes_back(http: httpx.AsyncClient, size: int, server: Server) -> None:
    """On both sides of every threshold: raw, as JSON, as XML, and a byte range over its middle."""
    data = noise(size)
    made = await http.put("Binary/b", content=data, headers=PDF)
    read = await http.get("Binary/b")
    json = await http.get("Binary/b", headers=FHIR_JSON)
    pretty = await http.get("Binary/b?_format=json&_pretty=true")
    xml = await http.get("Binary/b?_format=xml")
    half = await http.get("Binary/b", headers={"Range": f"bytes={size // 2}-"})

    assert made.status_code == 201, made.text
    assert hashlib.sha256(read.content).digest() == hashlib.sha256(data).digest()
    for one in (json, pretty):
        assert b64decode(one.json()["data"]) == data
        assert SUBSETTED not in str(one.json()["meta"])
        if "content-encoding" not in one.headers:
            assert int(one.headers["content-length"]) == len(one.content)
    shown = b'<data value="' + b64encode(data) + b'"/>'
    assert shown in xml.content
    assert xml.content.endswith(b"</Binary>")
    assert (half.status_code, half.content) == (206, data[size // 2 :])
    assert (await uploads(server))[:2] == ([1, 1] if size > DATA_BYTES_MAX else [0, 0])


ACCEPTS = {
    "": False,
    "*/*": False,
    "application/pdf": False,
    "image/*": False,
    "application/json": False,
    "application/xml": False,
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": False,
    "application/fhir+json;q=0, */*": False,
    "application/fhir+json": True,
    "application/fhir+json; fhirVersion=4.0": True,
    "application/json+fhir": True,
    "application/fhir+xml": True,
    "*/*, application/fhir+xml;q=0.1": True,
}


async def test_only_an_explicit_fhir_type_asks_for_the_resource(
    exact: Exact, http: httpx.AsyncClient
) -> None:
    """A read that does not explicitly name a FHIR content type gets the content."""
    await http.put("Binary/b", content=b"%PDF", headers=PDF)
    for accept, is_resource in ACCEPTS.items():
        for path in ("Binary/b", "Binary/b/_history/1"):
            answer = await exact("GET", path, {"accept": accept})
            assert answer.status_code == 200, answer.text
            assert (answer.content != b"%PDF") == is_resource, accept
            assert ("fhir" in answer.headers["content-type"]) == is_resource, accept


@pytest.mark.parametrize("query", ["_format=json", "_summary=true", "_elements=contentType"])
async def test_a_parameter_asks_for_the_resource(http: httpx.AsyncClient, query: str) -> None:
    """``_format`` overrides Accept, and a part of the resource is the resource."""
    for data in (b"%PDF", noise(LARGE)):
        await http.put("Binary/b", content=data, headers=PDF)
        answer = await http.get(f"Binary/b?{query}", headers={"Accept": "application/pdf"})
        assert answer.json()["contentType"] == "application/pdf"
        assert ("data" in answer.json()) == (query == "_format=json")


async def test_a_binary_resource_is_the_special_case(http: httpx.AsyncClient) -> None:
    """What is a Binary resource is not the content of another one, in JSON and XML."""
    json = {"resourceType": "Binary", "id": "b", "contentType": "text/plain", "data": "aGk="}
    xml = (
        '<Binary xmlns="http://hl7.org/fhir"><id value="b"/><contentType value="text/plain"/>'
        '<data value="aG8="/></Binary>'
    )
    for type in ("application/fhir+json", "application/json"):
        answer = await http.put("Binary/b", json=json, headers={"Content-Type": type})
        assert answer.status_code in (200, 201), answer.text
        assert (await http.get("Binary/b")).content == b"hi"
    for type in ("application/fhir+xml", "application/xml", "text/xml"):
        answer = await http.put("Binary/b", content=xml, headers={"Content-Type": type})
        assert answer.status_code == 200, answer.text
        assert (await http.get("Binary/b")).content == b"ho"


REFUSED: dict[str, tuple[dict[str, str], bytes, int]] = {
    "no media type": ({"Content-Type": "pdf"}, b"x", 415),
    "a range": ({"Content-Type": "image/*"}, b"x", 415),
    "not ASCII": ({"Content-Type": "text/é"}, b"x", 415),
    "endless": ({"Content-Type": "text/plain; a=" + "b" * 500}, b"x", 415),
    "broken JSON said to be FHIR": ({"Content-Type": "application/fhir+json"}, b'{"a', 400),
    "a Binary of an unknown element": (
        {"Content-Type": "application/fhir+json"},
        b'{"resourceType":"Binary","id":"b","contentType":"a/b","date":1}',
        400,
    ),
    "a context that is none": ({**PDF, "X-Security-Context": "a b"}, b"x", 400),
    "a context of no type": ({**PDF, "X-Security-Context": "Patent/1"}, b"x", 400),
    "an encoding": ({**PDF, "Content-Encoding": "br"}, b"x", 415),
    "gzip that is none": ({**PDF, "Content-Encoding": "gzip"}, b"x" * 20, 400),
    "half of a gzip": ({**PDF, "Content-Encoding": "gzip"}, gzip.compress(b"x" * 9)[:-4], 400),
    "no gzip at all": ({**PDF, "Content-Encoding": "gzip"}, b"", 400),
}


@pytest.mark.parametrize(("headers", "body", "status"), REFUSED.values(), ids=REFUSED)
async def test_what_cannot_be_stored_is_refused(
    exact: Exact, http: httpx.AsyncClient, headers: dict[str, str], body: bytes, status: int
) -> None:
    """A 4xx with an OperationOutcome, and nothing is there."""
    answer = await exact("PUT", "Binary/b", headers, body)

    assert answer.status_code == status, answer.text
    assert diagnostics_of(answer)
    assert (await http.get("Binary/b")).status_code == 404


@pytest.mark.parametrize("size", [10, LARGE, CHUNK * 9])
async def test_a_compressed_body_is_unpacked(http: httpx.AsyncClient, size: int) -> None:
    """Content-Encoding is about the way, not about the content; also in several members."""
    data = noise(size) + b"\0" * 1_000_000
    packed = gzip.compress(data[:size]) + gzip.compress(data[size:])
    await http.put("Binary/b", content=packed, headers={**PDF, "Content-Encoding": "gzip"})

    assert (await http.get("Binary/b")).content == data


# --------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("size", [40, LARGE])
async def test_a_known_version_is_not_sent_again(http: httpx.AsyncClient, size: int) -> None:
    """304 by ETag and by time; HEAD has the length and no body."""
    made = await http.put("Binary/b", content=noise(size), headers=PDF)
    for headers in (
        {"If-None-Match": made.headers["etag"]},
        {"If-Modified-Since": made.headers["last-modified"]},
    ):
        answer = await http.get("Binary/b", headers=headers)
        assert (answer.status_code, answer.content) == (304, b"")
    head = await http.head("Binary/b")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(size)
    assert head.headers["content-type"] == "application/pdf"


RANGES: dict[str, tuple[int, int] | None] = {
    "bytes=0-0": (0, 1),
    "bytes=2-5": (2, 6),
    "bytes=-3": (-3, 0),
    "bytes=-999999999": (0, 0),
    "bytes=5-999999999": (5, 0),
    "bytes=1-2,4-5": None,
    "bytes=-": None,
    "bytes=9-2": None,
    "lines=1-2": None,
    "bytes=x": None,
}


@pytest.mark.parametrize("size", [100, CHUNK * 9 + 7])
async def test_a_range_is_a_part(http: httpx.AsyncClient, size: int) -> None:
    """RFC 9110, 14: one range is 206; what is no range of ours is all."""
    data = noise(size)
    await http.put("Binary/b", content=data, headers=PDF)
    for range, part in RANGES.items():
        answer = await http.get("Binary/b", headers={"Range": range})
        if part is None:
            assert (answer.status_code, answer.content) == (200, data), range
            continue
        wanted = data[part[0] : part[1] or None]
        first = data.index(wanted) if len(wanted) > 1 else part[0]
        said = f"bytes {first}-{first + len(wanted) - 1}/{size}"
        assert (answer.status_code, answer.content) == (206, wanted), range
        assert answer.headers["content-range"] == said


@pytest.mark.parametrize("size", [0, 100, LARGE])
async def test_a_range_behind_the_end_is_416(http: httpx.AsyncClient, size: int) -> None:
    """RFC 9110, 15.5.17: with the size; If-Range with a weak tag is answered with all."""
    await http.put("Binary/b", content=noise(size), headers=PDF)
    answer = await http.get("Binary/b", headers={"Range": f"bytes={size}-"})
    all = await http.get("Binary/b", headers={"Range": "bytes=0-1", "If-Range": 'W/"1"'})

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{size}"
    assert diagnostics_of(answer)
    assert (all.status_code, len(all.content)) == (200, size)


async def test_an_error_is_an_operation_outcome(http: httpx.AsyncClient) -> None:
    """Whatever Accept says, since it speaks of the content."""
    for path, status in (("Binary/x", 404), ("Binary/x/_history/1", 404), ("Binary/-!", 404)):
        answer = await http.get(path, headers={"Accept": "image/png"})
        assert answer.status_code in (status, 406, 400)
        assert diagnostics_of(answer)
    search = await http.get("Binary", headers={"Accept": "image/png"})
    assert search.status_code == 406


# ---------------------------------------------------------------------------------------- attacks

ACTIVE = (
    "text/html",
    "TEXT/HTML; charset=utf-8",
    "image/svg+xml",
    "application/xhtml+xml",
    "text/xml",
    "application/javascript",
    "text/javascript",
    "application/x-shockwave-flash",
    "multipart/related; boundary=a",
    "text/cache-manifest",
    "application/octet-stream",
)


async def test_stored_content_does_not_run_here(http: httpx.AsyncClient) -> None:
    """What a browser might run is saved and not shown; nothing may run, nothing is guessed."""
    page = b"<script>fetch('/fhir/Patient')</script>"
    for number, type in enumerate(ACTIVE, 1):
        await http.put("Binary/b", content=page, headers={"Content-Type": type})
        path = f"Binary/b/_history/{number}" if number % 2 else "Binary/b"
        answer = await http.get(path, headers={"Accept": "text/html,*/*"})
        assert answer.content == page
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.headers["content-security-policy"].startswith("sandbox")
        assert "allow-" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("type", ["application/pdf", "image/png", "text/plain; charset=utf-8"])
async def test_what_is_inert_is_shown(http: httpx.AsyncClient, type: str) -> None:
    """A picture may be shown in a page; the rest of the headers is the same."""
    await http.put("Binary/b", content=b"x", headers={"Content-Type": type})
    answer = await http.get("Binary/b")

    assert "content-disposition" not in answer.headers
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["x-content-type-options"] == "nosniff"


WRITTEN_TYPES = (
    "text/html\nX-Injected: 1",
    "text/html\r\nX-Injected: 1",
    "image/png\ntext/html",
    "text/html;\na=<script>",
    'text/plain; a="漢"',
    "text/hätml",
    "nonsense",
    "image/png, text/html",
)


async def test_a_content_type_that_is_none_is_not_sent(http: httpx.AsyncClient) -> None:
    """contentType is a code, which may hold a line break; a header may not. Nor may a reference."""
    stored = 0
    for type, reference in product(WRITTEN_TYPES, ("Patient/p", "Patient/p\r\nX-Injected: 1")):
        resource = {"resourceType": "Binary", "id": "b", "contentType": type, "data": "aGk="}
        made = await http.put(
            "Binary/b", json={**resource, "securityContext": {"reference": reference}}
        )
        if made.status_code == 400:
            continue  # refused on the way in
        stored += 1
        answer = await http.get("Binary/b")
        assert (answer.status_code, answer.content) == (200, b"hi")
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == "attachment"
        assert "x-injected" not in answer.headers

    assert stored


# --------------------------------------------------------------------------------------- versions


@pytest.mark.parametrize("sizes", [(10, LARGE), (LARGE, 10), (LARGE, LARGE + 1)])
async def test_versions_keep_their_content(http: httpx.AsyncClient, sizes: tuple[int, int]) -> None:
    """An update, a deletion and one more: each version has its own bytes."""
    one, two = map(noise, sizes)
    await http.put("Binary/b", content=one, headers=PDF)
    await http.put("Binary/b", content=two, headers={"Content-Type": "image/png"})
    await http.delete("Binary/b")
    gone = await http.get("Binary/b")
    await http.put("Binary/b", content=one, headers=PDF)

    assert gone.status_code == 410
    for version, data, type in ((1, one, "application/pdf"), (2, two, "image/png"), (4, one, "")):
        read = await http.get(f"Binary/b/_history/{version}")
        assert read.content == data
        assert type in read.headers["content-type"]
        whole = await http.get(f"Binary/b/_history/{version}", headers=FHIR_JSON)
        assert b64decode(whole.json()["data"]) == data


async def test_if_match_guards_an_update(http: httpx.AsyncClient, server: Server) -> None:
    """412 for another version, and what was sent for nothing is not kept."""
    await http.put("Binary/b", content=noise(LARGE), headers=PDF)
    before = await uploads(server)
    refused = await http.put(
        "Binary/b", content=noise(LARGE + 1), headers={**PDF, "If-Match": 'W/"7"'}
    )
    after = await uploads(server)
    taken = await http.put("Binary/b", content=b"new", headers={**PDF, "If-Match": 'W/"1"'})

    assert (refused.status_code, taken.status_code) == (412, 200)
    assert after == before
    assert (await http.get("Binary/b")).content == b"new"


async def test_the_same_again_is_no_new_version(http: httpx.AsyncClient) -> None:
    """Same type and bytes, however large: the version stays. Others are a new one."""
    for size in (10, LARGE):
        path = f"Binary/b{size}"
        for _ in range(2):
            made = await http.put(path, content=noise(size), headers=PDF)
            assert made.headers["etag"] == 'W/"1"'
        other = bytearray(noise(size))
        other[-1] ^= 1
        made = await http.put(path, content=bytes(other), headers=PDF)
        assert made.headers["etag"] == 'W/"2"'


async def test_a_large_one_in_a_bundle_is_without_its_data(http: httpx.AsyncClient) -> None:
    """Searches, histories, batches and the answer to the write: tagged SUBSETTED, without data."""
    made = await http.put("Binary/b", content=noise(LARGE), headers=PDF)
    batch = {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [{"request": {"method": "GET", "url": "Binary/b"}}],
    }
    found: list[Any] = [made.json()]
    for bundle in (
        await http.get("Binary?_id=b"),
        await http.get("Binary/_history"),
        await http.post("", json=batch),
    ):
        found += [entry["resource"] for entry in bundle.json()["entry"]]

    assert len(found) == 4
    for resource in found:
        assert "data" not in resource
        assert resource["contentType"] == "application/pdf"
        assert [tag["code"] for tag in resource["meta"]["tag"]] == [SUBSETTED]


async def test_what_came_without_its_data_does_not_replace_it(http: httpx.AsyncClient) -> None:
    """422 for the part; a patch changes the rest and keeps the data, or brings other data."""
    data = noise(LARGE)
    part = (await http.put("Binary/b", content=data, headers=PDF)).json()
    lossy = await http.put("Binary/b", json={**part, "contentType": "image/png"})
    merge = {"Content-Type": "application/merge-patch+json"}
    patched = await http.patch("Binary/b", json={"contentType": "image/png"}, headers=merge)
    read = await http.get("Binary/b")
    small = await http.patch("Binary/b", json={"data": "aGk="}, headers=merge)
    whole = (await http.get("Binary/b", headers=FHIR_JSON)).json()

    assert lossy.status_code == 422
    assert "patch" in diagnostics_of(lossy)
    assert patched.status_code == 200, patched.text
    assert (read.content, read.headers["content-type"]) == (data, "image/png")
    assert small.status_code == 200, small.text
    assert whole["data"] == "aGk="
    assert SUBSETTED not in str(whole)
    assert (await http.get("Binary/b/_history/2")).content == data


async def test_a_whole_large_one_can_be_sent_as_a_resource(http: httpx.AsyncClient) -> None:
    """What is read with its data can be written back."""
    await http.put("Binary/b", content=noise(LARGE), headers=PDF)
    whole = (await http.get("Binary/b", headers=FHIR_JSON)).json()
    answer = await http.put("Binary/b", json={**whole, "contentType": "image/png"})

    assert answer.status_code == 200, answer.text
    assert (await http.get("Binary/b")).content == noise(LARGE)


@pytest.mark.parametrize("size", [10, LARGE])
async def test_a_conditional_update_and_create(http: httpx.AsyncClient, size: int) -> None:
    """By criteria as by id."""
    made = await http.put("Binary?_id=b", content=noise(size), headers=PDF)
    await http.put("Binary/b", content=b"old", headers=PDF)
    again = await http.put("Binary?_id=b", content=noise(size), headers=PDF)
    none = await http.post("Binary", content=noise(size), headers={**PDF, "If-None-Exist": "_id=b"})

    assert made.status_code in (201, 400), made.text
    assert (again.status_code, none.status_code) == (200, 200), again.text
    assert (await http.get("Binary/b")).content == noise(size)


# ----------------------------------------------------------------------------------------- limits


class TestLimit:
    """A limit of 2 MB on what may be sent natively, and of 1 MB on other bodies."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        """The settings of the test's server."""
        limits = {"binary_bytes_max": 2_000_000, "body_bytes_max": 1_000_000}
        return settings.model_copy(update=limits)

    @pytest.mark.parametrize("declared", [True, False])
    async def test_beyond_the_limit_is_413_with_the_number(
        self, http: httpx.AsyncClient, server: Server, declared: bool
    ) -> None:
        """Whether the length is declared or not; nothing of it is kept."""

        async def stream() -> Any:
            for _ in range(21):
                yield b"x" * 100_000

        body = b"x" * 2_000_001 if declared else stream()
        answer = await http.put("Binary/b", content=body, headers=PDF)

        assert answer.status_code == 413
        assert "2,000,000" in diagnostics_of(answer)
        assert await uploads(server) == [0, 0, 0]
        assert (await http.get("Binary/b")).status_code == 404

    async def test_the_limit_itself_is_taken(self, http: httpx.AsyncClient) -> None:
        """Up to the last byte; the limits of other bodies and of resources do not count."""
        answer = await http.put("Binary/b", content=b"x" * 2_000_000, headers=PDF)

        assert answer.status_code == 201, answer.text
        assert len((await http.get("Binary/b")).content) == 2_000_000

    async def test_a_bomb_ends_at_the_limit(self, http: httpx.AsyncClient, server: Server) -> None:
        """What is unpacked counts."""
        bomb = gzip.compress(b"\0" * 50_000_000)
        headers = {**PDF, "Content-Encoding": "gzip"}
        answer = await http.put("Binary/b", content=bomb, headers=headers)

        assert answer.status_code == 413
        assert await uploads(server) == [0, 0, 0]


async def test_a_missing_chunk_is_no_short_answer(http: httpx.AsyncClient, server: Server) -> None:
    """A content that lost a part is an error of the connection, not a shorter content."""
    await http.put("Binary/b", content=noise(CHUNK * 20), headers=PDF)
    await server.database[contents.CHUNKS].delete_one({"n": 17})
    document = await server.database["Binary"].find_one({"_id": "b"})
    assert document is not None
    kept = document["content"]
    content = Content(kept["id"], kept["size"], kept["sha256"])
    read = bytearray()

    async def through() -> None:
        async for piece in server.context.contents.pieces(content, 0, content.size):
            read.extend(piece)

    with pytest.raises(RuntimeError, match="lacks bytes"):
        await through()

    assert len(read) == CHUNK * 17


async def test_a_raw_body_takes_no_idempotency_key(http: httpx.AsyncClient) -> None:
    """Two bodies under one key could not be told apart before the second is read: it is refused."""
    headers = {**PDF, "Idempotency-Key": "letter-1"}
    answer = await http.post("Binary", content=b"one", headers=headers)

    assert answer.status_code == 400
    assert "Idempotency-Key" in diagnostics_of(answer)
