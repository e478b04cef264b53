"""https://www.hl7.org/documentcenter/public/wg/inm/mllp_transport_specification.PDF

design/hl7v2.md, section 4, the table of frames; checks H1 and H3.
"""

import random
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.frame import HEAD_BYTES, Frame, FrameError, Framer, framed

TEXT = st.binary(max_size=200).map(
    lambda data: bytes(b for b in data if b not in (0x0B, 0x1C)) or b"M"
)
BETWEEN = st.sampled_from([b"", b"\r", b"\n", b"\r\n \t", b"\r\r"])


def cut(stream: bytes, places: set[int]) -> list[bytes]:
    """Return ``stream`` cut at ``places``."""
    ends = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(ends)]


@given(st.lists(st.tuples(TEXT, BETWEEN), max_size=6), st.sets(st.integers(0, 2000), max_size=30))
def test_h1_messages_survive_any_cut_of_the_stream(
    sent: list[tuple[bytes, bytes]], places: set[int]
) -> None:
    """However the network cuts the stream, the same messages come out, up to the limit itself."""
    stream = b"".join(framed(message) + between for message, between in sent)
    framer = Framer(max((len(message) for message, _ in sent), default=1))

    found = [frame for piece in cut(stream, places) for frame in framer.receive(piece)]

    assert found == [Frame(message, len(message)) for message, _ in sent]
    assert framer.unfinished == 0


def test_h1_every_cut_of_one_stream_in_two() -> None:
    """Two frames, an end without CR, blanks between: the same messages wherever it is cut."""
    stream = framed(b"MSH|one") + b"\r\n \n" + b"\x0bMSH|two\x1c" + framed(b"MSH|three")
    for place in range(len(stream) + 1):
        framer = Framer()
        found = framer.receive(stream[:place]) + framer.receive(stream[place:])

        assert [frame.data for frame in found] == [b"MSH|one", b"MSH|two", b"MSH|three"]
        assert framer.faults["end-without-return"] == 1


def test_h1_every_cut_in_two_of_fifty_streams() -> None:
    """Random messages with blanks between and now and then no CR behind: the same ones, always."""
    chance = random.Random(1)
    for _ in range(50):
        sent = [
            bytes(chance.choices(b"MSH|^~\\&\r\n \xe9A", k=chance.randrange(1, 60)))
            for _ in range(chance.randrange(1, 5))
        ]
        stream = b"".join(
            b"\x0b" + one + chance.choice([b"\x1c\r", b"\x1c\r\n", b"\x1c\r \n", b"\x1c"])
            for one in sent
        )
        for place in range(len(stream) + 1):
            framer = Framer()
            found = framer.receive(stream[:place]) + framer.receive(stream[place:])
            assert [frame.data for frame in found] == sent, (stream, place)


# bytes -> what comes out of them, and the faults that are counted
CASES = {
    "junk before a frame": (b"GET / HTTP/1.1\r\n\r\n" + framed(b"A"), [("A", "")], "junk"),
    "a frame begun anew": (b"\x0bfirst\x0bA\x1c\r", [("first", "broken"), ("A", "")], "restarted"),
    "a start twice": (b"\x0b\x0bA\x1c\r", [("A", "")], "restarted"),
    "an empty frame": (b"\x0b\x1c\r", [("", "")], ""),
    "an end without a frame": (b"\x1c\r" + framed(b"A"), [("A", "")], "junk"),
    "an unfinished frame": (b"\x0bA", [], ""),
}


@pytest.mark.parametrize(("stream", "frames", "fault"), CASES.values(), ids=CASES)
def test_h3_what_is_no_clean_frame(
    stream: bytes, frames: list[tuple[str, str]], fault: str
) -> None:
    """Junk is dropped, a part is told from a whole, and both are counted."""
    framer = Framer()

    found = framer.receive(stream)

    assert [(frame.data.decode(), frame.fault) for frame in found] == frames
    assert set(framer.faults) == ({fault} if fault else set())


@pytest.mark.parametrize("step", [1, 7, 5000])
def test_h4_a_frame_above_the_limit_is_skipped_to_its_end(step: int) -> None:
    """Its beginning comes out, no more is held than that, and the next frame is whole."""
    stream = framed(b"MSH|" + b"x" * 20_000) + framed(b"A" * 10_000)
    framer = Framer(10_000)
    found, most = [], 0
    for begin in range(0, len(stream), step):
        found += framer.receive(stream[begin : begin + step])
        most = max(most, len(framer._held))

    assert [(frame.size, frame.fault) for frame in found] == [(20_004, "large"), (10_000, "")]
    assert found[0].data == (b"MSH|" + b"x" * 20_000)[:HEAD_BYTES]
    assert most <= 10_000


def test_h3_more_junk_than_allowed_ends_the_connection() -> None:
    """Of bytes outside of frames 64 KiB are dropped; a frame in between begins to count anew."""
    framer = Framer()
    for _ in range(3):
        framer.receive(b"x" * 60_000 + framed(b"A"))
    framer.receive(b"x" * 60_000)

    with pytest.raises(FrameError):
        framer.receive(b"x" * 6_000)


@given(st.binary(max_size=400), st.sets(st.integers(0, 400), max_size=8))
def test_h11_any_bytes_give_frames_or_an_end_and_the_cut_does_not_matter(
    data: bytes, places: set[int]
) -> None:
    """Whatever arrives, there is no other exception, and pieces give what the whole gives."""
    whole, pieces = Framer(64), Framer(64)
    expected = whole.receive(data)

    found = [frame for piece in cut(data, places) for frame in pieces.receive(piece)]

    assert found == expected
    assert pieces.faults["large"] == whole.faults["large"]


@pytest.mark.parametrize("one", [b"\x0b", b"\x1c", b"\x0bA", b"\x0bA\x1c"])
def test_h75_the_framer_is_linear(one: bytes) -> None:
    """Marks alone cost no more than a few hundred nanoseconds each, however many there are."""
    data = one * (1_000_000 // len(one))
    framer = Framer(junk_bytes_max=10**9)
    began = time.process_time()

    framer.receive(data)

    assert time.process_time() - began < 10
