"""Names and codes of drugs -> their ingredients. Pure once the tables are read.

Shipped: the ingredients of the knowledge and other names of them. A site adds RxNorm's products,
salts and brand names as compact tables (``FHIR_CDS_LOOKUP``).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from fhir_server.features.cds.drug import Strength
from fhir_server.features.cds.schema import read_rows

WORDS_MAX = 60
"""Words of a text that are looked at; the longest product names of RxNorm have about forty."""
_NAME_WORDS_MAX = 6
_MISSPELT_LETTERS_MIN = 8

# Counter-ions count only as part of a listed name: "penicillin V potassium" is one drug.
_COUNTER_IONS = frozenset(
    "sodium potassium calcium magnesium hydrochloride hcl sulfate sulphate phosphate acetate "
    "maleate mesylate mesilate besylate besilate tartrate citrate fumarate succinate nitrate "
    "chloride bromide hydrobromide gluconate lactate zinc iron aluminum aluminium oxide carbonate "
    "bicarbonate water oral none alcohol acid gel cream oil tablet".split()
)
# A number and what it counts: "500 mg", "0.01 MG/MG", "24 HR", "10%".
_AMOUNT = re.compile(
    r"\b\d+(?:[.,]\d+)?\s*(?:%|(?:mg|mcg|ug|µg|g|kg|ml|l|iu|unt|units?|meq|mmol|hr|actuat|puffs?)"
    r"(?:\s*/\s*(?:\d+(?:\.\d+)?\s*)?(?:mg|g|ml|l|hr|actuat|tab|tablet|dose))?(?![a-z]))"
)
_SEPARATOR = re.compile(r"[^0-9a-zµ+'\-]+")

# Words of dose forms -> the route, the first that is found. RxNorm's forms and everyday ones.
_FORM_ROUTES = (
    (("ophthalmic", "eye"), "ophthalmic"),
    (("otic", "ear"), "otic"),
    (("nasal", "nostril"), "nasal"),
    (("inhalation", "inhaler", "inhalant", "inhaled", "nebulizer", "nebuliser"), "inhaled"),
    (("vaginal",), "vaginal"),
    (("intrauterine",), "intrauterine"),
    (("rectal", "suppository", "enema"), "rectal"),
    (("transdermal",), "transdermal"),
    (("sublingual",), "sublingual"),
    (("buccal",), "buccal"),
    (("topical", "gel", "cream", "ointment", "lotion", "shampoo", "cutaneous"), "topical"),
    (("injectable", "injection", "intravenous", "infusion", "cartridge", "iv"), "parenteral"),
    (("oral", "tablet", "tab", "capsule", "cap", "syrup"), "oral"),
)
_EXTENDED = frozenset(("extended", "xl", "er", "sr", "xr", "cr", "prolonged", "sustained"))


@dataclass(frozen=True, slots=True)
class Product:
    """What a code stands for: ingredients with their strengths, and how it is given."""

    ingredients: Mapping[str, Strength | None]
    route: str = ""
    release: str = ""


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Names:
    """Codes of RxNorm -> products, names in lower case -> ingredients, and their displays.

    ``halves`` are for misspelt words.
    """

    codes: Mapping[str, Product]
    names: Mapping[tuple[str, ...], tuple[str, ...]]
    displays: Mapping[str, str]
    halves: Mapping[tuple[int, bool, str], tuple[str, ...]]

    def in_text(self, text: str) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
        """Return the ingredients that ``text`` names, what a misspelt word was read as, and those
        of its parts that name nothing where others do: ``"foo"`` of ``"aspirin + foo"``."""
        return _in_text(self, text)


# What stands between the drugs of a combination.
_JOINED = re.compile(r"[+&;/]|\band\b")
_NAME_LETTERS_MIN = 5
# Words of such texts that name no drug: forms, times, and how it is given.
_NO_NAMES = frozenset(
    (
        *_COUNTER_IONS,
        *_EXTENDED,
        *(form for forms, _ in _FORM_ROUTES for form in forms),
        *"tablets capsules solution suspension powder granules lozenge chewable disintegrating "
        "delayed release immediate coated film enteric effervescent liquid elixir drops spray foam "
        "patch implant device metered actuation prefilled syringe autoinjector ampule ampoule "
        "sachet daily twice three times every hours needed weekly night morning evening bedtime "
        "meals mouth hospital adult child children infant pediatric paediatric strength forte "
        "regular human recombinant purified preservative sugar flavor flavour units dose doses "
        "swallow dissolve apply inject package kit pack unspecified product only".split(),
    )
)


def words_of(text: str) -> list[str]:
    """Return the words of a name, in lower case, without amounts and brackets."""
    plain = _AMOUNT.sub(" ", text[:2000].lower())
    return [word for word in _SEPARATOR.split(plain) if word.strip("-+'")][:WORDS_MAX]


@lru_cache(maxsize=4096)
def route_in(text: str) -> str:
    """Return the route that the dose form in ``text`` says, or ``""``."""
    words = frozenset(words_of(text))
    for forms, route in _FORM_ROUTES:
        if not words.isdisjoint(forms):
            # A gel for the mouth is swallowed: it reaches the whole body.
            return "oral" if route == "topical" and "oral" in words else route
    return ""


@lru_cache(maxsize=4096)
def release_in(text: str) -> str:
    """Return ``extended`` where ``text`` says so."""
    return "extended" if not _EXTENDED.isdisjoint(words_of(text)) else ""


@lru_cache(maxsize=4096)
def _in_text(names: Names, text: str) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    words, parts = _words_of_parts(text)
    found: dict[str, None] = {}
    seen: set[int] = set()
    at = 0
    while at < len(words):
        for length in range(min(_NAME_WORDS_MAX, len(words) - at), 0, -1):
            part = tuple(words[at : at + length])
            if part in names.names and not (length == 1 and part[0] in _COUNTER_IONS):
                found.update(dict.fromkeys(names.names[part]))
                seen.update(parts[at : at + length])
                at += length - 1
                break
        at += 1
    if not found:
        return (*_misspelt(names, words), ())
    strange = []
    read_as = ""
    for number in sorted(set(parts) - seen):
        left = [word for word, part in zip(words, parts, strict=True) if part == number]
        near, read = _misspelt(names, left)
        found.update(dict.fromkeys(near))
        read_as = read_as or read
        if not near and (unknown := [word for word in left if _may_name(word)]):
            strange.append(" ".join(unknown))
    return tuple(found), read_as, tuple(strange)


def forget_texts() -> None:
    """Forget what texts were read as: by names that are replaced."""
    _in_text.cache_clear()


def _words_of_parts(text: str) -> tuple[list[str], list[int]]:
    """Return the words of a name, and for each the number of the part that it is in."""
    words: list[str] = []
    numbers: list[int] = []
    for number, part in enumerate(_JOINED.split(_AMOUNT.sub(" ", text[:2000].lower()))):
        found = words_of(part)
        words += found
        numbers += [number] * len(found)
    return words[:WORDS_MAX], numbers[:WORDS_MAX]


def _may_name(word: str) -> bool:
    return len(word) >= _NAME_LETTERS_MIN and word.isalpha() and word not in _NO_NAMES


def _misspelt(names: Names, words: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """Return what a word of eight letters or more means that is one edit from one name only."""
    for word in words:
        if len(word) < _MISSPELT_LETTERS_MIN:
            continue
        near = {
            names.names[(name,)]: name
            for half in _halves_near(word)
            for name in names.halves.get(half, ())
            if _one_edit(word, name)
        }
        if len(near) == 1:
            return next(iter(near.items()))
    return (), ""


_Half = tuple[int, bool, str]
"""The length of a name, and its first (``True``) or its second half."""


def _halves(names: Iterable[tuple[str, ...]]) -> dict[_Half, tuple[str, ...]]:
    """Return halves -> the long names of one word that have them: one edit leaves one half."""
    found: dict[_Half, tuple[str, ...]] = {}
    for name in (parts[0] for parts in names if len(parts) == 1):
        if len(name) >= _MISSPELT_LETTERS_MIN:
            middle = len(name) // 2
            for half in ((len(name), True, name[:middle]), (len(name), False, name[middle:])):
                found[half] = (*found.get(half, ()), name)
    return found


def _halves_near(word: str) -> Iterator[_Half]:
    for length in (len(word) - 1, len(word), len(word) + 1):
        yield length, True, word[: length // 2]
        yield length, False, word[len(word) - (length - length // 2) :]


def _one_edit(one: str, other: str) -> bool:
    """Whether one letter more, less or another makes ``one`` of ``other``."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    if len(one) == len(other):
        return one[start + 1 :] == other[start + 1 :]
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return longer[start + 1 :] == shorter[start:]


def named(
    ingredients: Iterable[dict[str, str]],
    others: Iterable[dict[str, str]],
    lookup: Path | None,
) -> Names:
    """Return the names of the shipped tables and, where given, of a site's look-up tables."""
    codes: dict[str, Product] = {}
    names: dict[tuple[str, ...], tuple[str, ...]] = {}
    displays: dict[str, str] = {}
    if lookup is not None:
        for row in read_rows(lookup / "brand-names.csv"):
            names[tuple(words_of(row["name"]))] = tuple(row["ingredients"].split())
        for row in read_rows(lookup / "ingredients.csv"):
            codes[row["code"]] = Product({row["code"]: None})
            names[tuple(words_of(row["display"]))] = (row["code"],)
            displays[row["code"]] = row["display"]
        for row in read_rows(lookup / "salts-combinations-brands.csv"):
            codes[row["code"]] = Product(dict.fromkeys(row["ingredients"].split()))
        for row in read_rows(lookup / "products.csv"):
            strengths = dict(map(_strength, row["strengths"].split(";")))
            codes[row["code"]] = Product(strengths, row["route"], row["release"])
    for row in ingredients:
        codes[row["code"]] = Product({row["code"]: None})
        names[tuple(words_of(row["display"]))] = (row["code"],)
    for row in others:
        names[tuple(words_of(row["name"]))] = tuple(row["ingredients"].split())
    names.pop((), None)
    return Names(codes, names, displays, _halves(names))


# RxNorm's units of strength -> ours: the unit, the factor, and what it is in one of.
_STRENGTHS = {
    "MG": ("mg", 1, ""),
    "MG/ML": ("mg", 1, "mL"),
    "MG/MG": ("mg", 1, "mg"),
    "MG/ACTUAT": ("mg", 1, ""),
    "MG/HR": ("mg", 1, "h"),
    "UNT": ("[iU]", 1, ""),
    "UNT/ML": ("[iU]", 1, "mL"),
    "MEQ": ("meq", 1, ""),
    "MEQ/ML": ("meq", 1, "mL"),
}


def _strength(text: str) -> tuple[str, Strength | None]:
    """``7258=500 MG`` -> ingredient code and strength; ``None`` for units that say no amount."""
    code, _, amount = text.partition("=")
    number, _, unit = amount.partition(" ")
    if unit not in _STRENGTHS:
        return code, None
    name, factor, per = _STRENGTHS[unit]
    return code, Strength(Fraction(number) * factor, per, name)
