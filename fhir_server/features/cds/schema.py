"""The tables of a knowledge package as JSON, held to their schemas. Pure after the files are read.

JSON Schema 2020-12, run by the library that validates resources (docs/decisions).
"""

import csv
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema_rs

TABLES = {
    "interactions": "rules",
    "cross-reactivity": "relations",
    "duplicate-therapy": "groups",
    "non-interruptive": "pairs",
    "dose-limits": "limits",
}
"""The tables, and what the rows of each are called."""


class KnowledgeError(ValueError):
    """The knowledge cannot be used; the text names the file, the row and the reason."""


def checked_table(folder: Path, name: str, schemas: Path, rows: str, prefix: str) -> dict[str, Any]:
    """Return the JSON table ``name`` of the package in ``folder``.

    Numbers are ints and :class:`~decimal.Decimal`. In a site's, which has a ``prefix``, only its
    ``rows`` are required, and each may name what it ``replaces``. Raises :class:`KnowledgeError`
    for a table that its schema does not allow.
    """
    path = folder / f"{name}.json"
    table = read_json(path)
    schema = read_json(schemas / f"{name}.schema.json")
    if prefix:
        schema["required"] = [rows]
        items = schema["properties"][rows]["items"]
        _row_schema(schema, items)["properties"]["replaces"] = _IDS
    validator = jsonschema_rs.Draft202012Validator(
        schema, validate_formats=True, pattern_options=jsonschema_rs.RegexOptions()
    )
    if not validator.is_valid(table):
        raise KnowledgeError(f"{folder.name}/{path.name}: {_first(validator, table)}")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"), parse_float=Decimal)
    return found


_IDS = {"type": "array", "items": {"type": "string"}, "maxItems": 100}


def _row_schema(schema: dict[str, Any], items: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = items
    for step in items.get("$ref", "").removeprefix("#/").split("/"):
        if step:
            found = schema[step] if found is items else found[step]
    return found


def _first(validator: Any, table: Any) -> str:
    error = next(iter(validator.iter_errors(table)))
    place = "/".join(str(step) for step in error.instance_path)
    row = table
    name = ""
    for step in error.instance_path:
        row = row[step]
        if isinstance(row, dict) and isinstance(row.get("id"), str):
            name = f" ({row['id']})"
    return f"{place}{name}: {error.message[:300]}"


def read_classes(folder: Path) -> dict[str, dict[str, str]]:
    """Return class -> ingredient code -> display, from the ValueSets in ``folder``."""
    classes: dict[str, dict[str, str]] = {}
    for path in sorted((folder / "drug-classes").glob("ValueSet-drugclass-*.json")):
        name = path.stem.removeprefix("ValueSet-drugclass-")
        read = read_json(path)
        try:
            classes[name] = {
                concept["code"]: concept["display"]
                for include in read["compose"]["include"]
                for concept in include["concept"]
            }
        except (KeyError, TypeError) as error:
            where = f"{folder.name}/drug-classes/{path.name}"
            raise KnowledgeError(f"{where}: it is no list of ingredients: {error}") from error
    return classes


def read_rows(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header, or nothing where there is no such file.

    Raises :class:`KnowledgeError` that names the file and the line without one of ``columns``.
    """
    if not path.is_file():
        return []
    where = f"{path.parent.name}/{path.name}"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeError, csv.Error) as error:
        raise KnowledgeError(f"{where} cannot be read: {error}") from error
    for line, row in enumerate(rows, start=2):
        for column in columns:
            if not row.get(column):
                raise KnowledgeError(f"{where}, line {line}: there is no {column}")
    return rows


def read_reasons(folder: Path, kinds: tuple[str, ...]) -> dict[str, tuple[dict[str, str], ...]]:
    """Return kind of finding -> the reasons offered for overriding it, as codings."""
    found = {}
    for kind in kinds:
        include = read_json(folder / f"ValueSet-alert-override-reason-{kind}.json")["compose"][
            "include"
        ]
        found[kind] = tuple(
            {"system": one["system"], "code": concept["code"], "display": concept["display"]}
            for one in include
            for concept in one["concept"]
        )
    return found


def read_json(path: Path) -> Any:
    """Return what is in a file. Raises :class:`KnowledgeError` that names it."""
    where = f"{path.parent.name}/{path.name}"
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise KnowledgeError(f"{where} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # also what is no UTF-8
        raise KnowledgeError(f"{where} is no JSON: {error}") from error


def exact(number: Any) -> Fraction:
    """Return ``number`` of a table or a resource exactly."""
    return Fraction(number)
