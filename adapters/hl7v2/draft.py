"""The changes of one message while they are made.

design/hl7v2.md, sections 9 and 12.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters.hl7v2.changes import HANDLE, Change, Instruction, Key, Merging, Mode, Stamp
from adapters.hl7v2.codetables import Image
from adapters.hl7v2.groups import Groups
from adapters.hl7v2.message import Message, Segment
from adapters.hl7v2.rows import Filled
from adapters.hl7v2.scene import Scene
from adapters.hl7v2.vocabulary import LOCAL_SYSTEM

Json = dict[str, Any]


@dataclass(slots=True)
class Patient:
    """The patient of a group: the handles of what later segments refer to."""

    handle: str
    encounter: str = ""
    coverages: int = 0


@dataclass(slots=True)
class Draft:
    """What has been drafted so far: changes in order, instructions, and counters for keys."""

    scene: Scene
    groups: Groups
    changes: list[Change] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    partitions: dict[str, None] = field(default_factory=dict)
    # (number of the order, OBX-3.1, OBX-4) -> the handle of the result
    results: dict[tuple[str, str, str], str] = field(default_factory=dict)
    _seen: Counter[tuple[Any, ...]] = field(default_factory=Counter)

    @property
    def message(self) -> Message:
        """The message that is drafted."""
        return self.scene.message

    def next_handle(self) -> str:
        """Return the handle that the next change gets."""
        return f"{HANDLE}{len(self.changes)}"

    def add(
        self,
        type: str,
        key: Key,
        mode: Mode,
        filled: Filled,
        segment: Segment,
        **more: Any,
    ) -> str:
        """Add a change and return its handle. ``more`` are further members of :class:`Change`."""
        handle = self.next_handle()
        stamp: Stamp = more.pop("stamp", self.scene.stamp)
        self.changes.append(
            Change(
                type,
                handle,
                key,
                mode,
                {place: value for place, value in filled.set.items() if value is not None},
                stamp,
                segment.where,
                frozenset(filled.remove),
                **more,
            )
        )
        return handle

    def nth(self, *key: Any) -> tuple[str, ...]:
        """Return () for the first use of ``key`` in the message, then ("1",), ("2",) …"""
        count = self._seen[key]
        self._seen[key] += 1
        return (str(count),) if count else ()


def reference(handle: str) -> Json:
    """Return a Reference to the resource of a change."""
    return {"reference": handle}


def system_value(identifier: Mapping[str, Any]) -> tuple[str, str]:
    """Return an Identifier as it is looked for."""
    return (str(identifier.get("system", "")), str(identifier["value"]))


def concept_key(concept: Mapping[str, Any] | None) -> str:
    """Return what tells one CodeableConcept from another: its first coding, else its text.

    What a map of the sender's has put before it does not count: that may come and go.
    """
    for coding in (concept or {}).get("coding", ()):
        if not isinstance(coding, Image):
            return f"{coding.get('system', '')}|{coding['code']}"
    return str((concept or {}).get("text", ""))


def unsigned(key: str) -> str:
    """Return a :func:`concept_key` without the sender that a local system names.

    Beside a number, which has a scope of its own, it is enough; and a profile that a sender gets
    later, under whatever name, does not make its results anew.
    """
    if not key.startswith(LOCAL_SYSTEM):
        return key
    system, _, code = key.partition("|")
    return f"{LOCAL_SYSTEM}{system.rpartition(':')[2]}|{code}"


def concept_keys(concept: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return each coding of a CodeableConcept as ``system|code``, else its text."""
    codings = (concept or {}).get("coding", ())
    found = tuple(f"{coding.get('system', '')}|{coding['code']}" for coding in codings)
    text = str((concept or {}).get("text", ""))
    return found or ((text,) if text else ())


Finish = Merging
