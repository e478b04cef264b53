"""ED and RP to Attachment.

HL7 v2.5.1, 2.A.24 and 2.A.61; design/hl7v2.md, section 11. Data are decoded strictly and encoded
anew; a pointer is never followed, and nothing is executed, rendered or unpacked.
"""

import base64
import binascii
import hashlib
import re
from typing import Any

from adapters.hl7v2.message import Value, plain
from adapters.hl7v2.scene import Scene

Json = dict[str, Any]

_TOKEN = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,100}")
_BLANKS = re.compile(r"\s+")
# ED.3 as it is seen in the field -> media type; HL7 table 0291.
_SUBTYPES = {
    "PDF": "application/pdf", "RTF": "application/rtf", "HTML": "text/html",
    "XML": "application/xml", "TXT": "text/plain", "TEXT": "text/plain", "PLAIN": "text/plain",
    "JPEG": "image/jpeg", "JPG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif",
    "TIFF": "image/tiff", "TIF": "image/tiff", "BMP": "image/bmp", "DICOM": "application/dicom",
    "X-HL7-CDA-LEVEL-ONE": "application/xml", "MSWORD": "application/msword",
    "OCTET-STREAM": "application/octet-stream", "BASIC": "audio/basic",
}  # fmt: skip
_TYPES = {"AP": "application", "AU": "audio", "IM": "image", "TEXT": "text", "TX": "text"}
_DEFAULTS = {"text": "text/plain", "image": "image/*", "": "application/octet-stream"}


def content_type(kind: str, subtype: str) -> str:
    """Return the media type that ED.2 and ED.3 name.

    >>> content_type("application", "pdf"), content_type("", "PDF"), content_type("TEXT", "")
    ('application/pdf', 'application/pdf', 'text/plain')
    """
    for said in (subtype, kind):
        if "/" in said and all(_TOKEN.fullmatch(part) for part in said.split("/", 1)):
            return said.lower()
    if known := _SUBTYPES.get(subtype.upper()) or _SUBTYPES.get(kind.upper()):
        return known
    main = _TYPES.get(kind.upper(), kind.lower())
    if _TOKEN.fullmatch(subtype) and main in ("application", "audio", "image", "text", "video"):
        return f"{main}/{subtype.lower()}"
    return _DEFAULTS.get(main, "application/octet-stream")


def encapsulated(value: Value, scene: Scene) -> tuple[str, bytes] | None:
    """Return media type and bytes of ED; None and an issue if they cannot be decoded."""
    media = content_type(value[2], value[3])
    raw = value.parts[4] if len(value.parts) > 4 else ""
    encoding = value[4].upper()
    if encoding == "A" or (not encoding and media.startswith("text/")):
        return media, plain(raw, value.delimiters).encode()
    data = _BLANKS.sub("", plain(raw, value.delimiters)) if raw else ""
    if not data:
        return None
    try:
        if encoding == "HEX":
            return media, bytes.fromhex(data)
        return media, base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        scene.note("attachment-invalid", "The data are not in the encoding that ED.4 names.")
        return None


def attachment(media: str, data: bytes, title: str = "") -> Json:
    """Return an Attachment with the data in it."""
    made: Json = {"contentType": media, "size": len(data)}
    if data:
        digest = hashlib.sha1(data, usedforsecurity=False).digest()
        made["data"] = base64.b64encode(data).decode()
        made["hash"] = base64.b64encode(digest).decode()
    if title:
        made["title"] = title
    return made


def pointed(value: Value, scene: Scene) -> Json | None:
    """Return RP as an Attachment with a url."""
    pointer = value.whole(1)
    if not re.search(r"[/:.\\]", pointer) or re.search(r"\s", pointer):
        scene.note("attachment-invalid", "The pointer is no url.")
        return None
    made: Json = {"url": pointer}
    if value[3] or value[4]:
        made["contentType"] = content_type(value[3], value[4])
    return made
