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

TABLES = (
    "interactions",
    "cross-reactivity",
    "duplicate-therapy",
    "non-interruptive",
    "dose-limits",
)


class KnowledgeError(ValueError):
    """The knowledge cannot be used; the text names the file, the row and the reason."""


def read_tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the JSON tables of the package in ``folder``, by name.

    Numbers are ints and :class:`~decimal.Decimal`. Raises :class:`KnowledgeError` for a table that
    its schema does not allow.
    """
    found = {}
    for name in TABLES:
        path = folder / f"{name}.json"
        table = _json(path)
        schema = _json(folder / "schemas" / f"{name}.schema.json")
        validator = jsonschema_rs.Draft202012Validator(
            schema, validate_formats=True, pattern_options=jsonschema_rs.RegexOptions()
        )
        if not validator.is_valid(table):
            raise KnowledgeError(f"{path.name}: {_first(validator, table)}")
        found[name] = json.loads(path.read_text("utf-8"), parse_float=Decimal)
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
        classes[name] = {
            concept["code"]: concept["display"]
            for include in _json(path)["compose"]["include"]
            for concept in include["concept"]
        }
    return classes


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file with a header, or nothing where there is no such file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_reasons(folder: Path, kinds: tuple[str, ...]) -> dict[str, tuple[dict[str, str], ...]]:
    """Return kind of finding -> the reasons offered for overriding it, as codings."""
    found = {}
    for kind in kinds:
        include = _json(folder / f"ValueSet-alert-override-reason-{kind}.json")["compose"][
            "include"
        ]
        found[kind] = tuple(
            {"system": one["system"], "code": concept["code"], "display": concept["display"]}
            for one in include
            for concept in one["concept"]
        )
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise KnowledgeError(f"{path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise KnowledgeError(f"{path.name} is no JSON: {error}") from error


def exact(number: Any) -> Fraction:
    """Return ``number`` of a table or a resource exactly."""
    return Fraction(number)
