"""A site's own knowledge beside ours: the same files in folders of their own. Pure after reading.

``terminology/cds-NAME/`` below the artifacts may hold any of the files that ``cds-knowledge`` has.
Its ids and classes begin with ``NAME-``; a row that says ``replaces`` takes the place of rows with
those ids. ``ConceptMap-*.json`` map local codes to RxNorm ingredients, and ``monographs.csv`` has
for a rule the page that its cards link to. design/cds.md, section 8.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fhir_server.features.cds.schema import (
    TABLES,
    KnowledgeError,
    checked_table,
    read_classes,
    read_json,
    read_rows,
)

RXNORM_URL = "http://www.nlm.nih.gov/research/umls/rxnorm"
PACKAGES_MAX = 50
_EQUAL = frozenset(("relatedto", "equivalent", "equal", "wider", "subsumes"))
_URL_MAX = 500

Row = dict[str, Any]


@dataclass(slots=True)
class Tables:
    """All tables, ours and a site's. ``rows`` is table -> id -> row, ``files`` the same -> file.

    ``more`` are the tables' other members. ``maps`` is system and code -> ingredients; ``links``
    rule -> page. ``versions`` names what was read.
    """

    rows: dict[str, dict[str, Row]] = field(default_factory=lambda: {name: {} for name in TABLES})
    files: dict[tuple[str, str], str] = field(default_factory=dict)
    more: dict[str, Row] = field(default_factory=dict)
    classes: dict[str, dict[str, str]] = field(default_factory=dict)
    displays: dict[str, str] = field(default_factory=dict)
    names: list[dict[str, str]] = field(default_factory=list)
    maps: dict[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    versions: list[str] = field(default_factory=list)


def read_all(terminology: Path, shipped: str) -> Tables:
    """Return the tables of the package ``shipped`` below ``terminology``, and of the site's.

    Raises :class:`KnowledgeError` that names the file, the row and the reason.
    """
    found = Tables()
    ours = terminology / shipped
    _read(found, ours, ours / "schemas", prefix="")
    others = sorted(terminology.glob("cds-*/"))
    for folder in [one for one in others[:PACKAGES_MAX] if one.name != shipped and one.is_dir()]:
        _read(found, folder, ours / "schemas", prefix=folder.name.removeprefix("cds-") + "-")
    return found


def _read(into: Tables, folder: Path, schemas: Path, prefix: str) -> None:
    package = read_json(folder / "package.json")
    version = package.get("version") if isinstance(package, dict) else None
    into.versions.append(f"{prefix.rstrip('-')} {version}".strip())
    for row in read_rows(folder / "ingredients.csv", "code", "display"):
        known = into.displays.setdefault(row["code"], row["display"])
        if known != row["display"]:
            raise _fault(folder, "ingredients.csv", row["code"], f"it is {known} already")
    for row in read_rows(folder / "names.csv", "name", "ingredients"):
        for code in row["ingredients"].split():
            if code not in into.displays:
                raise _fault(folder, "names.csv", row["name"], f"{code} is not in ingredients.csv")
        into.names.append(row)
    for name, members in read_classes(folder).items():
        if not name.startswith(prefix):
            raise _fault(folder, f"class {name}", "", f"its name has to begin with {prefix}")
        into.classes[name] = members
    for table, key in TABLES.items():
        if not prefix or (folder / f"{table}.json").is_file():
            _table(into, folder, table, checked_table(folder, table, schemas, key, prefix), prefix)
    _maps(into, folder)
    _links(into, folder)


def _table(into: Tables, folder: Path, table: str, read: Row, prefix: str) -> None:
    file = f"{folder.name}/{table}.json"
    rows = into.rows[table]
    mine: set[str] = set()
    for row in read.pop(TABLES[table]):
        id = row["id"]
        if not id.startswith(prefix):
            raise _fault(folder, f"{table}.json", id, f"its id has to begin with {prefix}")
        if id in mine or id in rows:
            raise _fault(folder, f"{table}.json", id, "the id is there twice")
        for old in row.pop("replaces", ()):
            if old not in rows or old in mine:
                raise _fault(folder, f"{table}.json", id, f"it replaces {old}, which is not there")
            del rows[old]
        mine.add(id)
        rows[id] = row
        into.files[table, id] = file
    into.more[table] = _joined(into.more[table], read) if table in into.more else read


def _joined(ours: Row, more: Row) -> Row:
    """Return the members of a table with a site's beside them: lists grow, what is one stays."""
    found = dict(ours)
    for name, value in more.items():
        if isinstance(value, list):
            found[name] = [*found.get(name, ()), *value]
        elif isinstance(value, dict):
            found[name] = _joined(found.get(name, {}), value)
        else:
            found.setdefault(name, value)
    return found


def _maps(into: Tables, folder: Path) -> None:
    """Read ``ConceptMap-*.json``. https://hl7.org/fhir/R4/conceptmap.html"""
    for path in sorted(folder.glob("ConceptMap-*.json")):
        read = read_json(path)
        try:
            for system, code, target in _mapped(read):
                if target not in into.displays:
                    said = f"{target} is not in ingredients.csv"
                    raise _fault(folder, path.name, code, said)
                known = into.maps.get((system, code), ())
                into.maps[system, code] = tuple(dict.fromkeys((*known, target)))
        except (KeyError, TypeError, AttributeError) as error:
            raise _fault(folder, path.name, "", f"it is no ConceptMap: {error}") from error


def _mapped(concept_map: Row) -> Iterator[tuple[str, str, str]]:
    for group in concept_map["group"]:
        if group.get("target") != RXNORM_URL:
            continue
        for element in group["element"]:
            for target in element.get("target", ()):
                if target["equivalence"] in _EQUAL:
                    yield group["source"], element["code"], target["code"]


def _links(into: Tables, folder: Path) -> None:
    """Read ``monographs.csv``: rule and url. Only https is linked to."""
    ids = {id for rows in into.rows.values() for id in rows}
    for row in read_rows(folder / "monographs.csv", "rule", "url"):
        rule, url = row["rule"], row["url"]
        if rule not in ids:
            raise _fault(folder, "monographs.csv", rule, "there is no such rule")
        if not is_link(url):
            raise _fault(folder, "monographs.csv", rule, "its url is no absolute https URL")
        into.links[rule] = url


def is_link(url: str) -> bool:
    """Whether a card may link to ``url``: an absolute https URL, without a name and password."""
    try:
        parts = urlsplit(url)
        is_plain = url.isascii() and url.isprintable() and not set(url) & set(' <>"{}|\\^`')
        return bool(
            is_plain
            and len(url) <= _URL_MAX
            and parts.scheme == "https"
            and parts.hostname
            and parts.username is None
            and parts.port != 0
        )
    except ValueError:
        return False


def _fault(folder: Path, file: str, row: str, why: str) -> KnowledgeError:
    where = f"{folder.name}/{file}" + (f", {row}" if row else "")
    return KnowledgeError(f"{where}: {why}")
