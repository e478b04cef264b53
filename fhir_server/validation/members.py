"""Members of JSON that may have any shape: what is absent, or something else, is nothing."""

from collections.abc import Iterator
from typing import Any


def list_of(value: Any, name: str) -> list[Any]:
    """Return the list that the object ``value`` has as ``name``."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def objects_of(value: Any, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects in that list, with their places in it."""
    for index, one in enumerate(list_of(value, name)):
        if isinstance(one, dict):
            yield index, one
