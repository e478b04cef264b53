"""Texts to leaves, components, repetitions and segments, with escapes.

HL7 v2.5.1, 2.7 (escape sequences) and 2.5.3 (delimiters).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adapters.hl7v2.message import NULL, Delimiters, escaped

# What no reader of v2 takes in a text; line ends are escaped and may stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
_SPLITTING = re.compile(r"[\r\n]+")


@dataclass(frozen=True, slots=True)
class Marks:
    """The delimiters that are written with; a level that is switched off is left out.

    ``base`` is what we are called, for numbers of resources that have none of their own.
    """

    delimiters: Delimiters
    base: str = ""

    @classmethod
    def of(cls, delimiters: Delimiters, base: str = "") -> "Marks":
        """Return marks for ``delimiters``."""
        return cls(delimiters, base)

    def text(self, value: object) -> str:
        """Return a leaf: what delimits is escaped, what only looks like *delete* as well."""
        text = _CONTROL.sub("", str(value))
        marks = self.delimiters
        if not marks.escape:
            for mark in (marks.field, marks.component, marks.repetition, marks.subcomponent):
                text = text.replace(mark, " ") if mark else text
            text = _SPLITTING.sub(" ", text)
            return "" if not text.replace(NULL, "").strip() else text
        written = escaped(text, marks)
        if not text.replace(NULL, "").strip():
            written = written.replace(NULL, f"{marks.escape}X2222{marks.escape}")
        return written

    def components(self, *parts: str) -> str:
        """Join components that are written already; those at the end that are empty go."""
        return _together(parts, self.delimiters.component)

    def leaves(self, *parts: object) -> str:
        """Join components of plain texts."""
        return self.components(*(self.text(part) for part in parts))

    def subs(self, *parts: object) -> str:
        """Join subcomponents of plain texts."""
        return _together([self.text(part) for part in parts], self.delimiters.subcomponent)

    def repeated(self, values: Iterable[str]) -> str:
        """Join repetitions; empty ones go."""
        kept = [value for value in values if value]
        mark = self.delimiters.repetition
        return mark.join(kept) if mark else (kept or [""])[0]


def _together(parts: Sequence[str], mark: str) -> str:
    if not mark:
        return next((part for part in parts if part), "")
    return mark.join(parts).rstrip(mark)


def joined(name: str, fields: Mapping[int, str], marks: Marks) -> str:
    """Return a segment of ``fields`` by their numbers."""
    last = max((number for number, text in fields.items() if text), default=0)
    mark = marks.delimiters.field
    return mark.join((name, *(fields.get(number, "") for number in range(1, last + 1))))
