"""Compiled rules: what is checked of a value, and of which of its children.

A rule has only what may find something. One made from a profile has nothing that its base type
demands already.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fhir_server.validation.running import Check, Item, Run, Scope, inner_scope
from fhir_server.validation.slicing import Slicing


@dataclass(slots=True)
class Child:
    """An element below another, as far as something is checked of it.

    ``keys`` maps the JSON members that it may appear as to their types. ``min`` and ``max`` are
    what goes beyond the base, 0 and ``None`` for nothing. ``is_open`` says that the rules of the
    value's type are applied as well.
    """

    name: str
    keys: Mapping[str, str]
    where: str
    is_list: bool = False
    min: int = 0
    max: int | None = None
    rule: "Rule | None" = None
    slicing: Slicing | None = None
    is_open: bool = False
    is_resource: bool = False

    def apply(self, run: Run, parent: Item, key: str, value: dict[str, Any]) -> None:
        """Judge what stands in ``value`` under ``key``, beside its sibling ``_key``."""
        items = items_of(self, parent, key, value)
        if run.spent(parent, len(items)):
            return
        count = len(items)
        if count < self.min:
            _too_few(self, run, parent, count)
        if self.max is not None and count > self.max:
            _too_many(self, run, parent, items)
        rule = self.rule
        if rule is not None:
            for item in items:
                rule.apply(run, item)
        if self.slicing is not None:
            self.slicing.apply(run, parent, items)
        if self.is_open:
            for item in items:
                if self.is_resource:
                    run.rules.resource(run, item)
                elif item.object is not None and (inner := run.rules.type_rule(item.type)):
                    inner.apply(run, item)

    def absent(self, run: Run, parent: Item) -> None:
        """Judge that nothing is there."""
        if self.min:
            _too_few(self, run, parent, 0)
        elif self.slicing is not None:
            self.slicing.apply(run, parent, [])


@dataclass(slots=True)
class Rule:
    """What is checked of one value: ``checks`` of itself, ``members`` by the JSON member's name.

    ``needed`` are the children of which something is checked when they are absent.
    """

    checks: tuple[Check, ...] = ()
    members: Mapping[str, Child] = field(default_factory=dict)
    needed: tuple[Child, ...] = ()

    def apply(self, run: Run, item: Item) -> None:
        """Judge ``item``."""
        for check in self.checks:
            check(run, item)
        members = self.members
        if not members:
            return
        value = item.object
        if value is None:
            value = {}
        for key in value:
            if key[:1] == "_":
                if key[1:] in value:
                    continue  # judged with the value itself
                key = key[1:]
            child = members.get(key)
            if child is not None:
                child.apply(run, item, key, value)
        for child in self.needed:
            if not any(key in value or f"_{key}" in value for key in child.keys):
                child.absent(run, item)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is checked."""
        return not self.checks and not self.members


def items_of(child: Child, parent: Item, key: str, value: dict[str, Any]) -> list[Item]:
    """Return the values of ``child`` as items; what has not the form of an element is left out."""
    type, scope = child.keys[key], parent.scope
    found, sibling = value.get(key), value.get(f"_{key}")
    if isinstance(found, list) or isinstance(sibling, list):
        values = found if isinstance(found, list) else []
        siblings = sibling if isinstance(sibling, list) else []
        return [
            _item(
                values[index] if index < len(values) else None,
                siblings[index] if index < len(siblings) else None,
                child, type, scope, parent, index,
            )
            for index in range(max(len(values), len(siblings)))
        ]  # fmt: skip
    return [_item(found, sibling, child, type, scope, parent, None)]


def _item(
    value: Any, sibling: Any, child: Child, type: str, scope: Scope, parent: Item, index: int | None
) -> Item:
    if type == "Resource" and isinstance(value, dict):
        type, scope = str(value.get("resourceType", type)), inner_scope(value, parent, child.name)
    return Item(value, type, scope, parent, child.name, index, sibling)


def _too_few(child: Child, run: Run, parent: Item, count: int) -> None:
    found = f"{child.name} is missing" if not count else f"{child.name} is here {count} times"
    run.add("required", f"{found}; {child.where} requires at least {child.min}.", parent)


def _too_many(child: Child, run: Run, parent: Item, items: list[Item]) -> None:
    if child.max == 0:
        text = f"{child.name} is here; {child.where} does not allow it. Leave it out."
        run.add("structure", text, items[0])
    else:
        times = f"{child.name} is here {len(items)} times"
        run.add("structure", f"{times}; {child.where} allows at most {child.max}.", parent)
