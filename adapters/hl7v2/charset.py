"""Bytes to text: which charset a message is in.

HL7 table 0211; design/hl7v2.md, section 4. Text that does not fit its declared charset is refused;
a replacement character never comes out of here.
"""

import codecs
import re
from dataclasses import dataclass

from adapters.hl7v2.issues import Issue, MessageFault

# Spelling, in capitals and without blanks, dashes and underscores -> codec.
_CODECS = {
    "ASCII": "ascii", "USASCII": "ascii", "ISOIR6": "ascii", "ANSIX3.41968": "ascii",
    **{f"8859/{n}": f"iso8859-{n}" for n in range(1, 17) if n != 12},
    **{f"8859{n}": f"iso8859-{n}" for n in range(1, 17) if n != 12},
    **{f"ISO8859{n}": f"iso8859-{n}" for n in range(1, 17) if n != 12},
    **{f"ISO8859/{n}": f"iso8859-{n}" for n in range(1, 17) if n != 12},
    **{f"WINDOWS{n}": f"cp{n}" for n in range(1250, 1259)},
    **{f"CP{n}": f"cp{n}" for n in range(1250, 1259)},
    "LATIN1": "iso8859-1", "LATIN9": "iso8859-15",
    "ISOIR14": "shift_jis", "ISOIR87": "iso2022_jp", "ISOIR159": "iso2022_jp_1",
    "SHIFTJIS": "shift_jis", "EUCJP": "euc_jp",
    "GB180302000": "gb18030", "GB18030": "gb18030", "GBK": "gbk", "GB2312": "gb2312",
    "KSX1001": "euc_kr", "EUCKR": "euc_kr", "CNS116431992": "euc_tw", "BIG5": "big5",
    "TIS620": "tis_620", "KOI8R": "koi8_r",
    "UNICODE": "utf-8", "UNICODEUTF8": "utf-8", "UTF8": "utf-8",
    "UNICODEUTF16": "utf-16", "UTF16": "utf-16", "UTF16LE": "utf-16-le", "UTF16BE": "utf-16-be",
    "UNICODEUTF32": "utf-32", "UTF32": "utf-32",
}  # fmt: skip
_ONE_BYTE = ("iso8859-", "cp125")
# The longer mark first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_HEADER_BYTES_MAX = 4096


def marked(data: bytes) -> str:
    """Return ``utf-16`` or ``utf-32`` of bytes that begin with its mark, else ``latin-1``.

    Latin-1 stands for all charsets in which the delimiters are single bytes as in ASCII.
    """
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or data[:4] == codecs.BOM_UTF32_BE:
        is_long = data[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
        return "utf-32" if is_long else "utf-16"
    return "latin-1"


@dataclass(frozen=True, slots=True)
class Decoded:
    """The text of a message, the Python codec that fits it, and what was noticed."""

    text: str
    codec: str
    issues: tuple[Issue, ...] = ()


def codec_of(name: str) -> str:
    """Return the Python codec of a charset by its name in table 0211 or in the field, else "".

    >>> codec_of("8859/1"), codec_of("UNICODE UTF-8"), codec_of("klingon")
    ('iso8859-1', 'utf-8', '')
    """
    codec = _CODECS.get(re.sub(r"[\s_-]", "", name).upper(), "")
    try:
        return codecs.lookup(codec).name if codec else ""
    except LookupError:
        return ""


def decoded(
    data: bytes,
    *,
    content_type_charset: str = "",
    sender_charset: str = "",
    strict: bool = False,
    fallback: str = "windows-1252",
) -> Decoded:
    """Return the text of ``data``, one message or a batch without its frame.

    ``strict`` takes a declared charset by its word. ``fallback`` is a charset, or ``none``.
    Raises :class:`MessageFault` 102 for text that does not fit, or a charset that is not known.
    """
    for mark, codec in _MARKS:
        if data.startswith(mark):
            text = _text(data, codec).removeprefix("\ufeff")
            return Decoded(text, codec.removesuffix("-sig"))
    declared = _declared(data)
    issues: list[Issue] = []
    if declared:
        codec = codec_of(declared)
        if not codec:
            raise MessageFault(102, "MSH-18", "The charset that MSH-18 names is not known here.")
        if codec == "ascii" and not data.isascii():
            issues.append(_contradicted("ASCII is declared, and there are other characters."))
        elif not strict and _is_utf8_in_disguise(data, codec):
            issues.append(_contradicted("A one-byte charset is declared, and the text is UTF-8."))
            codec = "utf-8"
            return Decoded(_text(data, codec), codec, tuple(issues))
        else:
            return Decoded(_text(data, codec), codec)
    for name in (content_type_charset, sender_charset):
        codec = codec_of(name)
        if codec and (codec != "ascii" or data.isascii()):
            return Decoded(_text(data, codec), codec, tuple(issues))
    return _guessed(data, fallback, issues)


def _guessed(data: bytes, fallback: str, issues: list[Issue]) -> Decoded:
    try:
        return Decoded(data.decode("utf-8"), "utf-8", tuple(issues))
    except UnicodeDecodeError:
        codec = codec_of(fallback)
        if not codec:
            raise MessageFault(
                102, "MSH-18", "No charset is declared, and the text is not UTF-8."
            ) from None
    text = _text(data, codec)
    guessed = Issue("warning", "charset-guessed", "MSH-18", "The charset had to be guessed.")
    return Decoded(text, codec, (*issues, guessed))


def _text(data: bytes, codec: str) -> str:
    try:
        return data.decode(codec)
    except UnicodeDecodeError:
        raise MessageFault(102, "MSH-18", "The text does not fit its charset.") from None


def _declared(data: bytes) -> str:
    """Return MSH-18, its first repetition, of the first message in ``data``."""
    start = data.find(b"MSH")
    if start < 0:
        return ""
    header = re.split(rb"[\r\n]", data[start : start + _HEADER_BYTES_MAX], maxsplit=1)[0]
    mark = header[3:4]
    fields = header.split(mark) if mark else []
    if len(fields) < 18:
        return ""
    repetition = header[5:6] if len(fields[1]) > 1 else b"~"
    declared = fields[17]
    for end in (repetition, fields[1][:1]):
        declared = declared.split(end)[0] if end else declared
    text = declared.decode("ascii", "replace").strip()
    return "" if text == '""' else text


def _is_utf8_in_disguise(data: bytes, codec: str) -> bool:
    if not codec.startswith(_ONE_BYTE) or data.isascii():
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _contradicted(text: str) -> Issue:
    return Issue("warning", "charset-contradicted", "MSH-18", text)
