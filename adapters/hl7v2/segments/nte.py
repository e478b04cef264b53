"""NTE to Annotation.

HL7 v2.5.1, 2.15.10; design/hl7v2.md, sections 12 and 13: an NTE belongs to the segment before it.
"""

from collections.abc import Iterable
from typing import Any

from adapters.hl7v2.datatypes import date_time
from adapters.hl7v2.message import Segment
from adapters.hl7v2.references import xcn
from adapters.hl7v2.scene import Scene

Json = dict[str, Any]


def note_text(nte: Segment) -> str:
    """Return NTE-3: its repetitions are lines; "" if it says nothing."""
    lines = "\n".join(value.text for value in nte.values(3)).strip("\r\n")
    return lines if lines.strip() else ""


def annotations(ntes: Iterable[Segment], scene: Scene) -> list[Json]:
    """Return an Annotation for each NTE that says something: text, who entered it, and when."""
    found = []
    for nte in ntes:
        text = note_text(nte)
        if not text:
            continue
        made: Json = {"text": text}
        author, when = nte.value(5), nte.value(6)
        scene.at(nte, 5)
        if author and (named := xcn(author, scene)):
            made["authorReference"] = named
        scene.at(nte, 6)
        if when and (time := date_time(when, scene)):
            made["time"] = time
        found.append(made)
    return found
