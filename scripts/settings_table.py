"""Print the README's table of settings, made from ``fhir_server/settings.py``.

    python scripts/settings_table.py

The table belongs between ``<!-- settings -->`` and ``<!-- /settings -->`` in README.md; a test
compares the two.
"""

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import PurePath
from typing import Any

from pydantic.fields import FieldInfo

from fhir_server.settings import Settings


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield name, default and meaning of each setting, in the order of the class."""
    prefix = Settings.model_config.get("env_prefix", "")
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        shown = alias if isinstance(alias, str) else prefix + name
        yield shown.upper(), default(field), cell(field.description or "")


def default(field: FieldInfo) -> str:
    """Return the default of ``field`` as one writes it in the environment; ``–`` for none."""
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "computed"
    text = written(field.default)
    return f"`{cell(text)}`" if text else "–"


def written(value: Any) -> str:
    """Return ``value`` in the form that the environment has it in: plain text, or JSON."""
    match value:
        case None:
            return ""
        case Enum():
            return written(value.value)
        case bool() | list() | tuple() | dict():
            return json.dumps(value)
        case set() | frozenset():
            return json.dumps(sorted(value))
        case PurePath():
            return value.as_posix()
        case _:
            return str(value)


def cell(text: str) -> str:
    """Return ``text`` as a cell of a Markdown table: on one line, its bars escaped."""
    return " ".join(text.split()).replace("|", "\\|")


def table() -> str:
    """Return the whole table as Markdown."""
    head = "| setting | default | meaning |\n| --- | --- | --- |\n"
    return head + "".join(
        f"| `{name}` | {default} | {meaning} |\n" for name, default, meaning in rows()
    )


if __name__ == "__main__":
    print(table(), end="")
