"""What the text of the specification asks of data types, beyond elements and invariants.

https://hl7.org/fhir/R4/datatypes.html
"""

from collections.abc import Mapping

import re2

from fhir_server.outcome import shown
from fhir_server.r4.questions import Coded, CodeInSystem
from fhir_server.r4.ucum import SYSTEM as UCUM
from fhir_server.validation.coded import coding_check
from fhir_server.validation.running import Check, Item, Run
from fhir_server.validation.texts import address_check, markup_check, narrative_check

_UUID = re2.compile(r"urn:uuid:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_OID = re2.compile(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+")
_URI_VALUES = "urn:ietf:rfc:3986"


def urn_check(run: Run, item: Item) -> None:
    """A URN of a UUID or an OID is one: https://hl7.org/fhir/R4/datatypes.html#uri."""
    value = item.value
    if not isinstance(value, str) or not value.startswith("urn:"):
        return
    if value.startswith("urn:uuid:") and not _UUID.fullmatch(value.partition("#")[0]):
        text = f"{shown(value)} is no UUID: 8-4-4-4-12 hexadecimal digits in lower case."
        run.add("value", text, item)
    elif value.startswith("urn:oid:") and not _OID.fullmatch(value.partition("|")[0]):
        run.add("value", f"{shown(value)} is no OID: numbers with dots between them.", item)


def identifier_check(run: Run, item: Item) -> None:
    """The system is absolute; where it says that values are URIs, the value is one."""
    value = item.value
    if not isinstance(value, dict):
        return
    system, found = value.get("system"), value.get("value")
    if isinstance(system, str) and system and ":" not in system:
        text = f"The system of the identifier is {shown(system)}; expected an absolute URI."
        run.add("value", text, item, below="system")
    if system == _URI_VALUES and isinstance(found, str) and ":" not in found:
        text = f"The value is {shown(found)}; by its system it is an absolute URI."
        run.add("value", text, item, below="value")


def quantity_check(run: Run, item: Item) -> None:
    """A code of UCUM is one, as far as anybody here can tell."""
    value = item.value
    if not isinstance(value, dict) or value.get("system") != UCUM or not run.options.codes:
        return
    code = value.get("code")
    if not isinstance(code, str) or run.definitions.units.scale(code) is not None:
        return
    answer = run.answer(CodeInSystem(UCUM, code))
    if isinstance(answer, Coded) and answer.result is False:
        text = answer.message or f"{shown(code)} is no unit of UCUM."
        run.add("code-invalid", text, item, below="code")


def attachment_check(run: Run, item: Item) -> None:
    """The size is that of the data: https://hl7.org/fhir/R4/datatypes.html#Attachment."""
    value = item.value
    if not isinstance(value, dict):
        return
    data, size = value.get("data"), value.get("size")
    if isinstance(data, str) and isinstance(size, int):
        text = "".join(data.split())
        length = len(text) * 3 // 4 - text[-2:].count("=")
        if length != size:
            run.add(
                "value", f"The size is {size}, the data have {length} bytes.", item, below="size"
            )


OF_TYPES: Mapping[str, tuple[Check, ...]] = {
    "Coding": (coding_check,),
    "Identifier": (identifier_check,),
    "Attachment": (attachment_check,),
    "Narrative": (narrative_check,),
    **dict.fromkeys(("Quantity", "Age", "Count", "Distance", "Duration"), (quantity_check,)),
}
"""What is judged of each value of a type."""
OF_PRIMITIVES: Mapping[str, tuple[Check, ...]] = {
    "string": (markup_check,),
    "markdown": (markup_check,),
    "url": (address_check, urn_check),
    "uri": (urn_check,),
    "canonical": (urn_check,),
}
"""What is judged of each primitive of a type."""
