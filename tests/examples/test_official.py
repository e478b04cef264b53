"""https://hl7.org/fhir/R4/downloads.html

Every valid example of the specification is stored and comes back as it was sent: the same JSON,
numbers as text, apart from ``id`` and ``meta``, which are the server's.
"""

import asyncio
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from fhir_server.messages import Request
from fhir_server.r4.json import decode, encode
from fhir_server.settings import Settings
from tests.conftest import Fhir
from tests.interactions.asking import bundle, entry, statuses
from tests.validation.test_examples import PACKAGE, REFUSED, name_of, package

AT_ONCE = 16
STAMP_BYTES = 80  # what the server adds: version and time
LARGE = ("dataelements", "resources", "types", "valueset-expansions", "valuesets")


def comparable(text: bytes) -> Any:
    """Return the resource ``text`` with each number as its digits, without what the server sets."""
    resource = json.loads(text, parse_float=_Number, parse_int=_Number)
    meta = {
        name: value
        for name, value in resource.pop("meta", {}).items()
        if name not in ("versionId", "lastUpdated")
    }
    resource.pop("id", None)
    return resource, meta


class _Number(str):
    """The digits of a number, which are no text."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Number) and str(self) == str(other)

    __hash__ = str.__hash__


async def kept(fhir: Fhir, texts: Iterable[bytes]) -> tuple[set[str], set[str]]:
    """Put and get each of ``texts``; return those refused and those that came back other."""
    refused: set[str] = set()
    changed: set[str] = set()
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(text: bytes) -> None:
        resource = decode(text)
        type, id = resource["resourceType"], resource["id"]
        async with turn:
            written = await fhir(Request("update", type, id, body=resource))
            if written.status >= 400:
                refused.add(name_of(resource))
                assert written.status < 500
                return
            read = await fhir(Request("read", type, id))
        if written.status != 201 or read.body != written.body:
            changed.add(name_of(resource))
        if comparable(read.body) != comparable(text):
            changed.add(name_of(resource))

    await asyncio.gather(*map(one, texts))
    return refused, changed


def examples(shared: Path) -> list[bytes]:
    """Return the 702 instance examples as they are written."""
    return gzip.decompress((shared / "examples/examples-702.ndjson.gz").read_bytes()).splitlines()


async def test_every_valid_example_comes_back_as_it_was_sent(fhir: Fhir, shared: Path) -> None:
    """Of 702 examples those of the table are refused; each other one is the same after a PUT."""
    texts = examples(shared)
    refused, changed = await kept(fhir, texts)

    assert len(texts) == 702
    assert refused == set(REFUSED) & {name_of(decode(text)) for text in texts}
    assert changed == set()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not PACKAGE, reason="FHIR_TEST_R4_PACKAGE names no package.")
async def test_the_whole_package_comes_back_as_it_was_sent(fhir: Fhir, settings: Settings) -> None:
    """Of the complete package, some 5,300 resources, those of the table are refused, no other."""
    resources = {name_of(one): encode(one) for one in package()}
    limit = settings.resource_bytes_max - STAMP_BYTES
    refused, changed = await kept(fhir, resources.values())
    # A document of MongoDB has 16 MiB, and holds a resource twice: the setting says so.
    large = {name for name, text in resources.items() if len(text) > limit}

    assert len(resources) > 5000
    assert refused == set(REFUSED) & set(resources) | large
    assert large <= {f"Bundle/{name}" for name in LARGE}
    assert changed == set()


async def test_a_transaction_keeps_them_as_well(fhir: Fhir, shared: Path) -> None:
    """In transactions of 100, too, what is written is what was sent, and again makes no version."""
    resources = [decode(text) for text in examples(shared)]
    valid = [
        one
        for one in resources
        if name_of(one) not in REFUSED
        and one["resourceType"] in ("Patient", "Observation", "Bundle")
    ]
    for _ in range(2):
        for start in range(0, len(valid), 100):
            entries = [entry("PUT", name_of(one), one) for one in valid[start : start + 100]]
            response = await fhir(bundle(*entries))
            assert set(statuses(response)) <= {"200", "201"}, response.body[:500]
    for one in valid:
        read = await fhir(Request("read", one["resourceType"], one["id"]))
        assert comparable(read.body) == comparable(encode(one)), name_of(one)
        assert read.version == 1


def test_the_comparison_sees_a_digit() -> None:
    """The control: 1.0 is not 1.00, 1 is not "1", and another order of members is the same."""
    assert comparable(b'{"a":1.0,"id":"x"}') != comparable(b'{"a":1.00,"id":"x"}')
    assert comparable(b'{"a":1}') != comparable(b'{"a":"1"}')
    assert comparable(b'{"a":1,"b":2}') == comparable(b'{"b":2,"a":1,"id":"y"}')
