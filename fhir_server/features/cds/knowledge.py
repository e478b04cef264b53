"""The knowledge: drug classes, rules expanded to pairs of ingredients, relations, groups, limits.

Loaded once, checked whole, never changed. ``terminology/cds-knowledge/SOURCE.md`` says where it
comes from; no pharmacist has reviewed it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from fhir_server.features.cds.drug import KINDS, SYSTEMIC
from fhir_server.features.cds.names import Names, Product, named
from fhir_server.features.cds.schema import KnowledgeError, exact, read_reasons
from fhir_server.features.cds.site_packages import Tables, read_all

PACKAGE = "cds-knowledge"
LEVELS = ("theoretical", "related", "shared-structure", "class", "same-substance")
"""How near an ordered drug is to an allergen, from the farthest."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a rule: its ingredients, and the routes by which they count."""

    members: frozenset[str]
    routes: frozenset[str] | None

    def fits(self, route: str) -> bool:
        """Whether a drug by ``route`` is meant; without routes, those that reach the body are."""
        if self.routes is None:
            return route in SYSTEMIC
        if "any" in self.routes:
            return True
        return route in self.routes or ("systemic" in self.routes and route in SYSTEMIC)


@dataclass(frozen=True, slots=True)
class Rule:
    """An interaction. ``width`` is how many pairs it covers: the narrower is the better told."""

    id: str
    version: int
    severity: str
    a: Side
    b: Side
    c: Side | None
    mechanism: str
    effect: str
    management: str
    evidence: tuple[str, ...]
    modifiers: tuple[tuple[Mapping[str, Any], str], ...]
    reviewed: bool
    width: int


@dataclass(frozen=True, slots=True)
class Relation:
    """An allergy to one of ``allergen`` speaks against one of ``drug``, at ``level``."""

    id: str
    allergen: frozenset[str]
    drug: frozenset[str]
    level: str
    only_reactions: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """A class of which a patient needs at most ``max``."""

    id: str
    members: frozenset[str]
    max: int
    severity: str
    text: str


@dataclass(frozen=True, slots=True)
class Cap:
    """A pair of classes that never interrupts, whatever a rule says, but for ``except_rules``."""

    a: frozenset[str]
    b: frozenset[str]
    severity: str
    except_rules: frozenset[str]


# Its repr would be megabytes, and asyncio asks for that of whatever a task holds.
@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Knowledge:
    """Everything that the checks know. ``pairs`` is keyed by two codes, the smaller text first;
    each rule says whether its side ``a`` is the first of them. ``relations`` are keyed by the code
    of the drug that they speak against. ``maps`` are a site's codes, by system and code, ``links``
    its pages by rule, of packages and of the policy."""

    version: str
    displays: Mapping[str, str]
    classes: Mapping[str, frozenset[str]]
    pairs: Mapping[tuple[str, str], tuple[tuple[Rule, bool], ...]]
    rules: Mapping[str, Rule]
    caps: tuple[Cap, ...]
    relations: Mapping[str, tuple[Relation, ...]]
    same: frozenset[frozenset[str]]
    class_names: Mapping[str, str]
    severe_reactions: tuple[str, ...]
    side_effects: tuple[str, ...]
    no_allergy: frozenset[str]
    no_allergy_codes: frozenset[tuple[str, str]]
    no_drug: frozenset[str]
    groups: tuple[Group, ...]
    limits: Mapping[str, tuple[Mapping[str, Any], ...]]
    opioid_moderate: Fraction
    opioid_serious: Fraction
    reasons: Mapping[str, tuple[Mapping[str, str], ...]]
    names: Names = field(repr=False)
    maps: Mapping[tuple[str, str], Product] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What is shown as the source of a finding."""
        return f"Drug safety, draft {self.version}, not reviewed by a pharmacist"

    def covers(self, ingredient: str) -> bool:
        """Whether any table names ``ingredient``."""
        return ingredient in self.displays

    def display(self, ingredient: str) -> str:
        """Return the name of an ingredient."""
        return self.displays.get(ingredient) or self.names.displays.get(ingredient, ingredient)


@lru_cache(maxsize=4)
def load_knowledge(terminology: Path, lookup: Path | None = None) -> Knowledge:
    """Return the knowledge in the packages below ``terminology``, which is read once.

    ``lookup`` is a folder with a site's RxNorm tables: products, salts and brand names -> their
    ingredients. Raises :class:`KnowledgeError` that names the file, the row and the reason.
    """
    return read_knowledge(terminology, lookup)


def read_knowledge(terminology: Path, lookup: Path | None = None) -> Knowledge:
    """Like :func:`load_knowledge`, from the files as they are now."""
    tables = read_all(terminology, PACKAGE)
    _check(tables)
    classes = {name: frozenset(codes) for name, codes in tables.classes.items()}
    rows = tables.rows
    rules = {id: _rule(row, classes) for id, row in rows["interactions"].items()}
    cross = tables.more["cross-reactivity"]
    limits: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows["dose-limits"].values():
        limits[row["ingredient"]["code"]].append(_exactly(row))
    opioids = _exactly(tables.more["dose-limits"]["morphine_equivalent_per_day"])
    listed = [{"code": code, "display": name} for code, name in tables.displays.items()]
    return Knowledge(
        version=" and ".join(tables.versions),
        displays=tables.displays,
        classes=classes,
        pairs=_pairs(rules.values()),
        rules=rules,
        caps=tuple(_cap(row, classes) for row in rows["non-interruptive"].values()),
        relations=_by_drug(_relations(rows["cross-reactivity"].values()), classes),
        same=frozenset(frozenset(one["code"] for one in pair) for pair in cross["same_substance"]),
        class_names={text: name for name, texts in cross["class_names"].items() for text in texts},
        severe_reactions=tuple(cross["severe_reactions"]),
        side_effects=tuple(cross["intolerance_reactions"]),
        no_allergy=frozenset(cross["no_known_allergy"]["text"]),
        no_allergy_codes=frozenset(
            (one["system"], one["code"]) for one in cross["no_known_allergy"]["codes"]
        ),
        no_drug=frozenset(cross["not_a_drug"]),
        groups=tuple(
            Group(row["id"], classes[row["class"]], row["max"], row["severity"], row["text"])
            for row in rows["duplicate-therapy"].values()
        ),
        limits={code: tuple(found) for code, found in limits.items()},
        opioid_moderate=opioids["moderate_from"],
        opioid_serious=opioids["serious_from"],
        reasons=read_reasons(terminology / PACKAGE, KINDS),
        names=named(listed, tables.names, lookup),
        maps={code: Product(dict.fromkeys(found)) for code, found in tables.maps.items()},
        links=tables.links,
    )


def _rule(row: Mapping[str, Any], classes: Mapping[str, frozenset[str]]) -> Rule:
    a, b = _side(row["a"], classes), _side(row["b"], classes)
    return Rule(
        row["id"],
        row["version"],
        row["severity"],
        a,
        b,
        _side(row["c"], classes) if "c" in row else None,
        row["mechanism"],
        row["effect"],
        row["management"],
        tuple(
            " ".join(
                str(one[part]) for part in ("source", "item", "section", "year") if part in one
            )
            for one in row["evidence"]
        ),
        tuple((_exactly(one["when"]), one["severity"]) for one in row.get("modifiers", ())),
        "review" in row,
        len(a.members) * len(b.members),
    )


def _side(row: Mapping[str, Any], classes: Mapping[str, frozenset[str]]) -> Side:
    if "class" in row:
        found = classes[row["class"]] - {one["code"] for one in row.get("except", ())}
    else:
        found = frozenset(one["code"] for one in row["ingredients"])
    return Side(found, frozenset(row["routes"]) if "routes" in row else None)


def _cap(row: Mapping[str, Any], classes: Mapping[str, frozenset[str]]) -> Cap:
    return Cap(
        _side(row["a"], classes).members,
        _side(row["b"], classes).members,
        row["cap"],
        frozenset(row.get("except_rules", ())),
    )


def _relations(rows: Iterable[Mapping[str, Any]]) -> Iterator[Relation]:
    for row in rows:
        sides = [(frozenset(row["allergen"]), frozenset(row["drug"]))]
        if row.get("symmetric"):
            sides.append((sides[0][1], sides[0][0]))
        for allergen, drug in sides:
            yield Relation(
                row["id"],
                allergen,
                drug,
                row["level"],
                tuple(row.get("only_reactions", ())),
                row["text"],
            )


def _by_drug(
    relations: Iterable[Relation], classes: Mapping[str, frozenset[str]]
) -> dict[str, tuple[Relation, ...]]:
    found: dict[str, list[Relation]] = defaultdict(list)
    for relation in relations:
        for code in frozenset().union(*(classes[name] for name in relation.drug)):
            found[code].append(relation)
    return {code: tuple(rows) for code, rows in found.items()}


def _pairs(rules: Iterable[Rule]) -> dict[tuple[str, str], tuple[tuple[Rule, bool], ...]]:
    found: dict[tuple[str, str], list[tuple[Rule, bool]]] = defaultdict(list)
    for rule in rules:
        for a, b in product(rule.a.members, rule.b.members):
            if a != b:
                found[(a, b) if a < b else (b, a)].append((rule, a < b))
    return {pair: tuple(rows) for pair, rows in found.items()}


def _exactly(row: Any) -> Any:
    if isinstance(row, dict):
        return {name: _exactly(value) for name, value in row.items()}
    if isinstance(row, list):
        return [_exactly(value) for value in row]
    if isinstance(row, int | Decimal) and not isinstance(row, bool):
        return exact(row)
    return row


def _check(tables: Tables) -> None:
    """Refuse what a schema cannot see: classes, codes and rules that are not there."""
    displays = tables.displays
    for table, rows in tables.rows.items():
        for row in rows.values():
            where = f"{tables.files[table, row['id']]}, {row['id']}"
            for name in _named_classes(row):
                if name not in tables.classes:
                    raise KnowledgeError(f"{where}: there is no class {name}")
            for code, display in _codings(row):
                if displays.get(code) != display:
                    raise KnowledgeError(f"{where}: {code} {display} is not in ingredients.csv")
    seen: dict[tuple[str, str, str], str] = {}
    for id, row in tables.rows["dose-limits"].items():
        other = seen.setdefault((row["ingredient"]["code"], row["route"], row["form"]), id)
        if other != id:
            where = f"{tables.files['dose-limits', id]}, {id}"
            raise KnowledgeError(f"{where}: {other} is about the same; say that it replaces it")
    _check_names(tables)


def _check_names(tables: Tables) -> None:
    displays = tables.displays
    cross = tables.more["cross-reactivity"]
    for name in cross["class_names"]:
        if name not in tables.classes:
            raise KnowledgeError(f"cross-reactivity.json, class_names: there is no class {name}")
    codings = [(f"class {name}", one) for name, of in tables.classes.items() for one in of.items()]
    codings += [
        ("cross-reactivity.json, same_substance", (one["code"], one["display"]))
        for pair in cross["same_substance"]
        for one in pair
    ]
    for where, (code, display) in codings:
        if displays.get(code) != display:
            raise KnowledgeError(f"{where}: {code} {display} is not in ingredients.csv")


def _named_classes(row: Mapping[str, Any]) -> Iterator[str]:
    if "class" in row:
        yield row["class"]
    for side in ("a", "b", "c"):
        if "class" in row.get(side, ()):
            yield row[side]["class"]
    for side in ("allergen", "drug"):
        yield from row.get(side, ())
    for modifier in row.get("modifiers", ()):
        if "with_class" in modifier["when"]:
            yield modifier["when"]["with_class"]


def _codings(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "ingredient" in row:
        yield row["ingredient"]["code"], row["ingredient"]["display"]
    for side in ("a", "b", "c"):
        for part in ("ingredients", "except"):
            for one in row.get(side, {}).get(part, ()):
                yield one["code"], one["display"]
