"""HL7 v2.5.1, chapter 2; design/hl7v2.md, section 4: reader, escapes, batches (H10, H11)."""

import csv
import os
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.hl7v2.charset import codec_of, decoded
from adapters.hl7v2.issues import MessageFault
from adapters.hl7v2.message import Splitter, batch, escaped, plain, read, write
from adapters.hl7v2.messages import changes_of
from adapters.hl7v2.senders import Profile

HEADER = "MSH|^~\\&|LAB|HOSP|EHR|HOSP|20240105||ADT^A01|M1|P|2.5.1"


@pytest.mark.parametrize(
    ("marks", "component", "repetition", "escape", "subcomponent"),
    [
        ("^~\\&", "^", "~", "\\", "&"),
        ("^~\\&#", "^", "~", "\\", "&"),
        ("^~\\\\&", "^", "~", "\\", "&"),
        ("^~", "^", "~", "\\", "&"),
        ("", "^", "~", "\\", "&"),
        ("*!?%", "*", "!", "?", "%"),
        ("^~^&", "^", "~", "", "&"),
        ("^~&&", "^", "~", "&", ""),
    ],
)
def test_h10_delimiters_are_those_of_the_message(
    marks: str, component: str, repetition: str, escape: str, subcomponent: str
) -> None:
    """Any characters; a repeated one is skipped, a second use switches the level off."""
    found = read(f"MSH|{marks}|LAB").delimiters
    assert (found.component, found.repetition) == (component, repetition)
    assert (found.escape, found.subcomponent) == (escape, subcomponent)


def test_h10_all_five_delimiters_changed() -> None:
    """The field separator is whatever follows MSH."""
    message = read("MSH$*!?%$LAB$HOSP\rPID$1$$1*2*3!4%5")
    assert message.header.text(3) == "LAB"
    assert [value[1] for value in message.segments[1].values(3)] == ["1", "4"]
    assert message.segments[1].values(3)[1].sub(1, 2) == "5"


@pytest.mark.parametrize(
    ("written", "means"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
        (r"one\.br\two", "one\ntwo"),
        (r"one\.sp2\two", "one\n\ntwo"),
        (r"one\.sk3\two", "one   two"),
        (r"\H\bold\N\ plain", "bold plain"),
        (r"\XC3A9\t\XC3A9\ ", "été "),
        (r"\XE9\ ", "é "),
        (r"\Zxx\ \Q\ \C1234\ ", r"\Zxx\ \Q\ \C1234\ "),
        (r"50\ 60", r"50\ 60"),
        ("\\", "\\"),
        (r"\X0\ ", r"\X0\ "),
    ],
)
def test_h10_escapes_are_undone_per_leaf(written: str, means: str) -> None:
    """Known sequences are undone; unknown ones and a lone escape character stay."""
    assert plain(written, read(HEADER).delimiters) == means


# Sequence -> what it means: all of section 4, in the delimiters of HEADER
ESCAPES = {
    "\\F\\": "|", "\\S\\": "^", "\\T\\": "&", "\\R\\": "~", "\\E\\": "\\", "\\P\\": "#",
    "\\X41\\": "A", "\\XC3A9\\": "é", "\\XE9\\": "é", "\\.br\\": "\n", "\\.sp\\": "\n",
    "\\.sp2\\": "\n\n", "\\.ce\\": "\n", "\\.in\\": " ", "\\.ti\\": " ", "\\.sk3\\": "   ",
    "\\.fi\\": " ", "\\.nf\\": " ", "\\H\\": "", "\\N\\": "", "\\C1234\\": "\\C1234\\",
    "\\M123456\\": "\\M123456\\", "\\Zab\\": "\\Zab\\", "\\q\\": "\\q\\",
}  # fmt: skip


@pytest.mark.parametrize("written", ESCAPES)
def test_h10_every_escape_at_every_level(written: str) -> None:
    """In a field, a component, a subcomponent and a repetition, as any delimiters write it."""
    for usual in (True, False):
        text = f"a{written}b"
        line = f"PID|{text}|x^{text}|x^y&{text}|x~{text}"
        header, means = HEADER, f"a{ESCAPES[written]}b"
        if not usual:
            other = str.maketrans("|^~\\&", "$*!?%")
            line, header = line.translate(other), HEADER.translate(other)
            means = means.translate(other)
        pid = read(f"{header}\r{line}").segments[1]
        third = pid.value(3)

        assert third is not None
        assert pid.text(1) == pid.text(2, 2) == third.sub(2, 2) == means
        assert pid.values(4)[1][1] == means


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=60))
def test_what_is_escaped_reads_as_it_was(text: str) -> None:
    """Writing and reading a leaf gives the leaf."""
    delimiters = read(HEADER).delimiters
    assert plain(escaped(text, delimiters), delimiters) == text


@given(st.binary(max_size=300))
def test_any_bytes_give_a_message_or_a_refusal(data: bytes) -> None:
    """Nothing but a refusal of its own comes out of the reader (H11)."""
    for prefix in (b"", b"MSH|^~\\&|", b"MSH"):
        try:
            text = decoded(prefix + data).text
            for part in batch(text).texts:
                message = read(part)
                for segment in message.segments:
                    for number in range(len(segment.fields) + 1):
                        for value in segment.values(number):
                            assert value[1] is not None
                            assert isinstance(value.readable(), str)
        except MessageFault:
            continue


def test_h11_random_messages_are_read_in_no_time() -> None:
    """Any bytes, and bytes that look like a message: an answer or a refusal, under 100 ms each.

    ``FHIR_TEST_HL7_RANDOM`` sets how many; a million is what a release is tried with.
    """
    chance = random.Random(11)
    marks = [b"|", b"^", b"~", b"\\", b"&", b"\r", b"\n", b'""', b"MSH|^~\\&|", b"\rPID|", b"\\X"]
    for _ in range(int(os.environ.get("FHIR_TEST_HL7_RANDOM", "10000"))):
        parts = chance.choices([*marks, chance.randbytes(3)], k=chance.randrange(60))
        data = chance.choice([b"", b"MSH|^~\\&|A|B", b"MSH"]) + b"".join(parts)
        began = time.process_time()
        with suppress(MessageFault):
            for part in batch(decoded(data).text).texts:
                changes_of(read(part), Profile())

        assert time.process_time() - began < 0.1, data


@given(st.text('MSHPID|^~\\&\r\nabc "1', max_size=200))
def test_reading_and_writing_gives_the_same_segments(text: str) -> None:
    """The reader is lossless."""
    message = read(HEADER + "\r" + text.replace("MSH", "ZSH"))
    again = read(write(message))
    assert [one.fields for one in again.segments] == [one.fields for one in message.segments]


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n"])
def test_segments_end_with_any_line_end(end: str) -> None:
    """CR, LF and CRLF; empty lines and blanks at the end say nothing."""
    message = read(end.join([HEADER, "", "PID|1", "PV1|1", "  "]))
    assert [segment.name for segment in message.segments] == ["MSH", "PID", "PV1"]


def test_a_line_break_inside_a_text_stays_in_the_text() -> None:
    """A line end is an end only if a segment name and a separator follow."""
    message = read(f"{HEADER}\rOBX|1|TX|||line one\nPIDgin|two\rNTE|1")
    assert [segment.name for segment in message.segments] == ["MSH", "OBX", "NTE"]
    assert message.segments[1].fields[5] == "line one\nPIDgin"


def test_null_and_blank_say_different_things() -> None:
    """A field of blanks is empty, a null says delete, a null component is no value."""
    pid = read(HEADER + '\rPID|""|  |x^""^y|""^""').segments[1]
    assert pid.is_null(1)
    assert not pid.valued(1)
    assert not pid.valued(2)
    assert not pid.is_null(2)
    value = pid.value(3)
    assert value is not None
    assert (value[1], value[2], value[3]) == ("x", "", "y")
    assert pid.value(4) is None


@pytest.mark.parametrize("text", ["", "PID|1", "MSH", "MSHA^~", "\x0b\r"])
def test_h3_what_has_no_header_is_refused(text: str) -> None:
    """Code 100: there is no message."""
    with pytest.raises(MessageFault) as refusal:
        read(text)
    assert refusal.value.error_code == 100


def test_h3_two_headers_in_one_message_are_refused() -> None:
    """One acknowledgement could not name them."""
    with pytest.raises(MessageFault) as refusal:
        read(f"{HEADER}\rPID|1\r{HEADER}")
    assert refusal.value.error_code == 100


def test_h7_a_batch_is_cut_into_its_messages() -> None:
    """Counts and trailers that are wrong are warnings, not refusals."""
    found = batch(f"FHS|^~\\&\rBHS|^~\\&|A\r{HEADER}\rPID|1\r{HEADER}\rBTS|3\r")
    assert len(found.texts) == 2
    assert found.header.startswith("BHS")
    assert len(found.warnings) == 2


@given(st.lists(st.integers(0, 200), max_size=6))
def test_any_cut_of_a_batch_gives_the_same_parts(cuts: list[int]) -> None:
    """A stream may come in pieces of any length."""
    text = f"FHS|^~\\&\r\nBHS|^~\\&|A\r\n{HEADER}\r\nPID|1\n{HEADER}\nNTE|1||a\rBTS|2\rFTS|1"
    splitter, at = Splitter(), 0
    parts: list[tuple[str, str]] = []
    for cut in [*sorted(cuts), len(text)]:
        parts += splitter.feed(text[at : max(at, cut)])
        at = max(at, cut)
    parts += splitter.end()
    whole = Splitter()
    assert parts == [*whole.feed(text), *whole.end()]


def test_h11_every_shared_message_reads_and_writes_the_same(shared: Path) -> None:
    """533 files of ten sources; three are damaged on purpose."""
    folder = shared / "hl7v2"
    with (folder / "index.csv").open(encoding="utf-8", newline="") as index:
        rows = list(csv.DictReader(index))
    for row in rows:
        parts = batch(decoded((folder / row["file"]).read_bytes()).text).texts
        assert bool(parts) == (row["readable"] == "yes"), row["file"]
        for part in parts:
            message = read(part)
            again = read(write(message))
            assert [s.fields for s in again.segments] == [s.fields for s in message.segments]


# ------------------------------------------------------------------------------------- charsets

_BENGALI = "রহিমা"


def _bytes(name: str, charset: str, codec: str) -> bytes:
    fields = ["MSH", "^~\\&", *[""] * 7, "M1", "P", "2.5", *[""] * 5, charset]
    return ("|".join(fields) + f"\rPID|1||1||{name}").encode(codec)


@pytest.mark.parametrize(
    ("name", "charset", "codec", "said", "noticed"),
    [
        (_BENGALI, "UNICODE UTF-8", "utf-8", "utf-8", ""),
        (_BENGALI, "", "utf-8", "utf-8", ""),
        (_BENGALI, "8859/1", "utf-8", "utf-8", "charset-contradicted"),
        (_BENGALI, "ASCII", "utf-8", "utf-8", "charset-contradicted"),
        (_BENGALI, "", "utf-8-sig", "utf-8", ""),
        (_BENGALI, "", "utf-16", "utf-16", ""),
        ("Müller", "8859/1", "latin-1", "iso8859-1", ""),
        ("Müller", "", "cp1252", "cp1252", "charset-guessed"),
        ("محمد", "8859/6", "iso8859-6", "iso8859-6", ""),
        ("山田", "ISO IR87", "iso2022_jp", "iso2022_jp", ""),
    ],
)
def test_h9_the_charset_of_a_message(
    name: str, charset: str, codec: str, said: str, noticed: str
) -> None:
    """Declared, marked, contradicted, guessed: the text is right, or it is refused."""
    found = decoded(_bytes(name, charset, codec))
    assert read(found.text).segments[1].text(5) == name
    assert found.codec == said
    assert [issue.code for issue in found.issues] == ([noticed] if noticed else [])


@pytest.mark.parametrize(
    ("data", "fallback"),
    [
        (_bytes("Müller", "UNICODE UTF-8", "latin-1"), "windows-1252"),
        (_bytes("Müller", "", "latin-1"), "none"),
        (_bytes("Müller", "KLINGON", "utf-8"), "windows-1252"),
        (b"MSH|^~\\&|\x81\xff\xfe", "windows-1252"),
    ],
)
def test_h9_what_does_not_fit_is_refused(data: bytes, fallback: str) -> None:
    """Code 102: a replacement character is never stored."""
    with pytest.raises(MessageFault) as refusal:
        decoded(data, fallback=fallback)
    assert refusal.value.error_code == 102


def test_names_of_charsets_in_the_field() -> None:
    """Spellings of table 0211."""
    assert codec_of("ISO-8859-1") == codec_of("8859/1") == codec_of("iso 8859/1") == "iso8859-1"
