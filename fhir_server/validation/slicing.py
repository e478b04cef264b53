"""Slices: which values of an element belong to which slice, and what is demanded of each.

https://hl7.org/fhir/R4/profiling.html#slicing
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fhir_server.validation.running import Item, Run

Matches = Callable[[Run, Item], bool | None]
"""Whether a value belongs to a slice; ``None`` while it cannot be told."""
DEFAULT = "@default"


@dataclass(slots=True)
class Slice:
    """One slice: ``rule`` holds for its values; ``inner`` divides them further (re-slicing)."""

    name: str
    matches: Matches | None
    min: int = 0
    max: int | None = None
    rule: Any = None
    inner: "Slicing | None" = None
    expected: str = ""


@dataclass(slots=True)
class Slicing:
    """How the values of ``name`` are divided. ``rules`` is open, openAtEnd or closed."""

    name: str
    where: str
    rules: str = "open"
    is_ordered: bool = False
    slices: Sequence[Slice] = field(default_factory=tuple)

    @property
    def needs_some(self) -> bool:
        """Whether something may be missing where there is no value at all."""
        return any(one.min for one in self.slices)

    def apply(self, run: Run, parent: Item, items: Sequence[Item]) -> None:
        """Judge ``items``, the values of the element below ``parent``."""
        named = [one for one in self.slices if one.name != DEFAULT]
        groups: dict[str, list[Item]] = {one.name: [] for one in named}
        rest: list[Item] = []
        is_sure = True
        last, left_at = -1, None
        for item in items:
            if run.spent(item, len(named)):
                return
            place = None
            for number, one in enumerate(named):
                verdict = one.matches(run, item) if one.matches is not None else None
                if verdict is None:
                    is_sure = False
                elif verdict:
                    place = number
                    break
            if place is None:
                rest.append(item)
                left_at = left_at or item
                continue
            groups[named[place].name].append(item)
            self._order(run, item, place, last, left_at)
            last = max(last, place)
        for one in named:
            self._slice(run, parent, one, groups[one.name], is_sure)
        self._rest(run, rest, is_sure)

    def _order(self, run: Run, item: Item, place: int, last: int, left_at: Item | None) -> None:
        if self.is_ordered and place < last:
            text = f"{self.name} is not in order; {self.where} has it as {self._names()}."
            run.add("structure", text, item)
        if self.rules == "openAtEnd" and left_at is not None:
            text = (
                f"A value of {self.name} outside of the slices stands before this one of a slice; "
                f"{self.where} allows others at the end only."
            )
            run.add("structure", text, left_at)

    def _slice(self, run: Run, parent: Item, one: Slice, items: list[Item], is_sure: bool) -> None:
        count = len(items)
        if count < one.min and is_sure:
            found = "missing" if not count else f"here {count} times"
            wanted = f" ({one.expected})" if one.expected else ""
            text = (
                f"{self.name} with the slice {one.name}{wanted} is {found}; {self.where} requires "
                f"at least {one.min}."
            )
            run.add("required", text, parent)
        if one.max is not None and count > one.max:
            extra = items[one.max]
            text = (
                f"{self.name} with the slice {one.name} is here {count} times; {self.where} "
                f"allows at most {one.max}."
            )
            run.add("structure", text, extra)
        for item in items:
            if one.rule is not None:
                one.rule.apply(run, item)
        if one.inner is not None and (items or one.inner.needs_some):
            one.inner.apply(run, parent, items)

    def _rest(self, run: Run, rest: list[Item], is_sure: bool) -> None:
        if not is_sure:
            return
        default = next((one for one in self.slices if one.name == DEFAULT), None)
        for item in rest:
            if default is not None:
                if default.rule is not None:
                    default.rule.apply(run, item)
            elif self.rules == "closed":
                text = (
                    f"{self.name} is in none of the slices {self._names()}; {self.where} allows "
                    "no others."
                )
                run.add("structure", text, item)

    def _names(self) -> str:
        return ", ".join([one.name for one in self.slices if one.name != DEFAULT][:12])
