"""design/hl7v2.md, section 6: what comes again is answered as before, and applied once."""

from typing import Any

import pytest

from adapters.hl7v2.reading import Readers
from tests.adapters.hl7v2.conftest import OpenSite, Site, oru


async def _answers(site: Site, *messages: bytes) -> list[bytes]:
    peer = await site.peer()
    found = []
    for message in messages:
        await peer.send(message)
        found.append(await peer.answer())
    return found


async def test_what_was_applied_is_not_read_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the same acknowledgement, byte for byte, and only its row is looked at."""
    read: list[Any] = []
    item = Readers.item

    def counted(self: Readers, *arguments: Any, **more: Any) -> Any:
        read.append(arguments)
        return item(self, *arguments, **more)

    monkeypatch.setattr(Readers, "item", counted)
    first, *others = await _answers(site, *[oru("R1", "P1", 2)] * 3)

    assert others == [first, first]
    assert len(read) == 1
    assert [row["copies"] for row in await site.rows()] == [2]


async def test_another_message_with_the_number(site: Site) -> None:
    """The number alone does not make it the same message."""
    [first] = await _answers(site, oru("R2", "P1", 2))
    [other] = await _answers(site, oru("R2", "P1", 3))

    assert b"MSA|AA|R2" in first
    assert b"MSA|AE|R2" in other


async def test_a_row_that_is_gone(site: Site) -> None:
    """What is remembered only says where to look: without its row the message is taken as new."""
    [first] = await _answers(site, oru("R3", "P1", 2))
    await site.server.database["inbox"].delete_many({})
    [again] = await _answers(site, oru("R3", "P1", 2))

    assert b"MSA|AA|R3" in first
    assert b"MSA|AA|R3" in again
    assert [row["state"] for row in await site.rows()] == ["done"]


async def test_a_sender_that_is_not_taken_any_more(open_site: OpenSite) -> None:
    """Who is refused at the door is refused with a message that was taken before, too."""
    site = await open_site()
    [first] = await _answers(site, oru("R4", "P1", 2))
    site.intake.readers.settings = site.intake.readers.settings.model_copy(
        update={"hl7_senders": "listed"}
    )
    [again] = await _answers(site, oru("R4", "P1", 2))

    assert b"MSA|AA|R4" in first
    assert b"MSA|AR|R4" in again
