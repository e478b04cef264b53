"""XML text before it means anything: what is refused of every document, and where its tags end.

https://hl7.org/fhir/R4/xml.html

A document type, without which there are no entities, is refused before expat sees it.
"""

from xml.parsers import expat

import re2 as re

from fhir_server.outcome import FhirError, Issue, shown

# Only here can a document type stand: behind it, `<!DOCTYPE` is a fault or no markup.
_DOCTYPE = re.compile(rb"(?s)(?:\xef\xbb\xbf)?(?:[ \t\r\n]|<\?.*?\?>|<!--.*?-->)*<!DOCTYPE")
_TAG = re.compile(rb"""<(?:[^<>"']|"[^"]*"|'[^']*')*>""")


def tag_end(text: bytes, start: int) -> int:
    """Return where the tag ends that begins at ``start``."""
    return int(_TAG.match(text, start).end())


def element_end(text: bytes, start: int, last: int) -> int:
    """Return where the element ends whose tags begin at ``start`` and ``last``."""
    end = tag_end(text, start)
    return end if text[end - 2] == ord("/") else tag_end(text, last)


def refuse_doctype(*_: object) -> None:
    """Refuse a document type declaration; expat calls it."""
    raise _doctype()


def check_bytes(text: bytes) -> None:
    """Refuse what expat would read in another encoding or with entities of its own."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise malformed(
            f"it is not UTF-8: {error.reason} at byte {error.start}; FHIR is sent in UTF-8"
        ) from error
    if b"\0" in text:
        raise malformed("it has the character U+0000")
    if b"<!DOCTYPE" in text and _DOCTYPE.match(text):
        raise _doctype()


def check_declaration(version: str, encoding: str | None, _: int) -> None:
    """Refuse another version and another encoding."""
    if version != "1.0":
        raise malformed(f"it says version {shown(version)}; FHIR is XML 1.0")
    if encoding is not None and encoding.lower() != "utf-8":
        raise malformed(f"it says encoding {shown(encoding)}; FHIR is sent in UTF-8")


def malformed(reason: str) -> FhirError:
    """Return the refusal of a body that is no XML document of ours."""
    return FhirError(Issue("structure", f"The body is not XML: {reason}."))


def _doctype() -> FhirError:
    text = "The body has a document type declaration (<!DOCTYPE), which FHIR does not allow."
    return FhirError(Issue("structure", text))


def expat_fault(error: expat.ExpatError) -> FhirError:
    """Return the refusal of what expat cannot read."""
    where = f"line {error.lineno}, column {error.offset}"
    if error.code == expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]:
        return malformed(
            f"it has an entity that XML does not know at {where}; write the character itself or "
            "its number, &#160; instead of &nbsp;"
        )
    return malformed(f"{expat.ErrorString(error.code) or 'error'} at {where}")


def without_prefix(tag: str) -> str:
    """Return namespace and name; expat adds the prefix where one is written."""
    return tag.rpartition(" ")[0] if tag.count(" ") == 2 else tag
