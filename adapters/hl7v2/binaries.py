"""Large attachments: out of the resources of a message, into a Binary each.

design/hl7v2.md, section 11, ED. The Binary's id is made of the patient and the content: what stands
in a result and in its report is one, and a repeated message finds it again.
"""

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from adapters.hl7v2.changes import Json, id_of

INLINE_BYTES_MAX = 32_768
_CHARACTERS_MAX = INLINE_BYTES_MAX // 3 * 4 + 4


def apart(resource: Json, subjects: Sequence[str]) -> tuple[Json, list[Json]]:
    """Return ``resource`` with each large attachment as a url, and the Binaries it leads to.

    ``subjects`` are references to the patients of the message; the first may see them.
    """
    made: dict[str, Json] = {}
    changed = _without(resource, subjects[0] if subjects else "", made)
    return changed, list(made.values())


def _without(value: Any, subject: str, made: dict[str, Json]) -> Any:
    if isinstance(value, list):
        return [_without(one, subject, made) for one in value]
    if not isinstance(value, dict):
        return value
    data = value.get("data")
    if isinstance(data, str) and len(data) > _CHARACTERS_MAX and "contentType" in value:
        binary = _binary(value, data, subject)
        made[binary["id"]] = binary
        rest = {name: one for name, one in value.items() if name != "data"}
        return {**rest, "url": f"Binary/{binary['id']}"}
    return {name: _without(one, subject, made) for name, one in value.items()}


def _binary(attachment: Json, data: str, subject: str) -> Json:
    digest = hashlib.sha256(base64.b64decode(data)).hexdigest()
    context = {"securityContext": {"reference": subject}} if subject else {}
    return {
        "resourceType": "Binary",
        "id": id_of("Binary", subject, (digest,)),
        "contentType": attachment["contentType"],
        **context,
        "data": data,
    }
