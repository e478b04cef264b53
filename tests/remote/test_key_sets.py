"""https://www.rfc-editor.org/rfc/rfc9111#section-5.2; design/security.md, section 2.1"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
from joserfc.jwk import ECKey, KeySet

from fhir_server.remote.documents import BYTES_MAX, Open, document, posted
from fhir_server.remote.fetching import Fetcher, Unfetched
from fhir_server.remote.key_sets import Published
from fhir_server.security.jose import read_key_set

URL = "https://app.example/jwks"
FIRST, SECOND = (ECKey.generate_key("P-384", {"kid": kid}) for kid in ("1", "2"))


class _Publisher:
    """A client that publishes keys, and a clock."""

    def __init__(self) -> None:
        self.keys = [FIRST]
        self.caching = "max-age=600"
        self.asked = 0
        self.is_there = True
        self.now = 1000.0
        self.published: Published[KeySet] = Published(read_key_set, self._fetch, lambda: self.now)

    async def _fetch(self, url: str) -> tuple[bytes, str]:
        assert url == URL
        self.asked += 1
        await asyncio.sleep(0)
        if not self.is_there:
            raise Unfetched("it is not there")
        rows = [key.as_dict(private=False) for key in self.keys]
        return json.dumps({"keys": rows}).encode(), self.caching

    async def has(self, kid: str) -> bool:
        """Whether the key ``kid`` is found."""
        try:
            await self.published.at(
                URL, "ES384", lambda keys: any(key.kid == kid for key in keys.keys)
            )
        except Unfetched:
            return False
        return True


async def test_a_key_is_kept_as_long_as_is_said() -> None:
    """Within max-age nobody is asked again; after it the key may have been taken back."""
    one = _Publisher()
    assert await one.has("1")
    one.keys, one.now = [SECOND], 1599.0
    assert await one.has("1")
    assert one.asked == 1
    one.now = 1600.0
    assert not await one.has("1")
    assert await one.has("2")
    assert one.asked == 2


async def test_an_unknown_key_has_the_set_read_once_a_minute() -> None:
    """Whoever names keys that are not there does not have us ask again and again."""
    one = _Publisher()
    assert await one.has("1")
    one.keys = [FIRST, SECOND]
    for now, found, asked in ((1059.0, False, 1), (1060.0, True, 2), (1061.0, True, 2)):
        one.now = now
        assert (await one.has("2"), one.asked) == (found, asked)
    one.now = 1119.0
    for number in range(20):
        assert not await one.has(f"x{number}")
    assert one.asked == 2


@pytest.mark.parametrize(
    ("caching", "seconds"),
    [
        *(("max-age=999999", 3600), ("", 3600), ("max-age=30", 30)),
        *(("no-store", 1), ("no-cache", 1), ("max-age=0", 1)),
    ],
)
async def test_an_hour_at_most(caching: str, seconds: float) -> None:
    """Cache-Control is obeyed up to an hour; who comes within a second comes at once."""
    one = _Publisher()
    one.caching = caching
    assert await one.has("1")
    one.now += seconds - 0.5
    assert await one.has("1")
    assert one.asked == 1
    one.now += 0.5
    assert await one.has("1")
    assert one.asked == 2


async def test_who_is_not_there_is_asked_once_a_minute() -> None:
    """Keys that are good stay so while their publisher is away, and no longer."""
    one = _Publisher()
    assert await one.has("1")
    one.is_there, one.now = False, 1100.0
    assert not await one.has("2")
    assert await one.has("1")
    one.now = 1600.0
    for _ in range(3):
        assert not await one.has("1")
    assert one.asked == 3


async def test_a_key_that_was_taken_back_is_none_as_soon_as_is_said() -> None:
    """With a short Cache-Control that is before a minute is over; keys that are not there are asked
    for no more often by that, and neither is a publisher who is away."""
    one = _Publisher()
    one.caching = "max-age=5"
    assert await one.has("1")
    one.keys, one.now = [SECOND], 1005.0
    assert not await one.has("1")
    assert not await one.has("3")
    assert one.asked == 2
    one.is_there, one.now = False, 1011.0
    for _ in range(3):
        assert not await one.has("2")
    assert one.asked == 3


async def test_many_at_once_are_one_question() -> None:
    """Who comes while the set is read waits for it."""
    one = _Publisher()
    assert all(await asyncio.gather(*(one.has("1") for _ in range(50))))
    assert one.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404),
        httpx.Response(302, headers={"location": "http://127.0.0.1/"}),
        httpx.Response(200, stream=httpx.ByteStream(b"x" * (BYTES_MAX + 1))),
        httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(b"")),
    ],
)
async def test_what_is_no_document(answer: httpx.Response) -> None:
    """Another status, a redirect too, too much of it, or packed: there is none."""
    with pytest.raises(Unfetched):
        await document(URL, _network(lambda _: answer))


def _network(answer: Callable[[httpx.Request], httpx.Response]) -> Open:
    """Return what opens a way out at whose end ``answer`` is."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Fetcher]:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            yield Fetcher(http)

    return opened


async def test_a_document_and_a_form() -> None:
    """A document comes with its Cache-Control; a form goes with id and secret."""
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        headers = {"Cache-Control": "max-age=60"}
        return httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"{}"))

    way = _network(answer)
    assert await document(URL, way) == (b"{}", "max-age=60")
    assert sent[0].method == "GET"
    assert await posted(URL, {"token": "a b"}, ("i:d", "s"), way) == b"{}"
    assert sent[1].content == b"token=a+b"
    assert sent[1].headers["authorization"] == "Basic aSUzQWQ6cw=="
    with pytest.raises(Unfetched):
        await document("https://a:b", way)
