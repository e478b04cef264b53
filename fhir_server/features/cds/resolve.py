"""Which drug is it? Orders, statements and allergy entries -> what the checks read. Pure.

design/cds.md, section 4. What names nothing known is said to be so, never passed over.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fhir_server.features.cds.dosage import intakes
from fhir_server.features.cds.dose import equivalents
from fhir_server.features.cds.drug import SYSTEMIC, Allergy, Drug, Strength
from fhir_server.features.cds.elements import (
    codes,
    codings,
    name_of,
    number,
    part,
    parts,
    reference,
    text,
    texts,
)
from fhir_server.features.cds.knowledge import Knowledge
from fhir_server.features.cds.names import Product, release_in, route_in
from fhir_server.features.cds.units import mass, unit_of

RXNORM = frozenset(
    ("http://www.nlm.nih.gov/research/umls/rxnorm", "urn:oid:2.16.840.1.113883.6.88")
)
INGREDIENTS_MAX = 30
ALLERGENS_MAX = 30
"""Allergens of one entry that are looked up; those beyond are said not to be."""
_LISTED = re.compile(r"[,;+&/]|\band\b", re.IGNORECASE)

# https://terminology.hl7.org/CodeSystem-v3-RouteOfAdministration.html, and words that people write
_ROUTES = {
    **dict.fromkeys(("po", "oral", "by mouth", "orally", "per os", "swallow, oral"), "oral"),
    **dict.fromkeys(("sl", "sublingual"), "sublingual"),
    **dict.fromkeys(("buc", "buccal"), "buccal"),
    **dict.fromkeys(("pr", "rectal"), "rectal"),
    **dict.fromkeys(("iv", "ivp", "im", "sq", "sc", "ivpb", "intravenous"), "parenteral"),
    **dict.fromkeys(("intramuscular", "subcutaneous", "parenteral", "injection"), "parenteral"),
    **dict.fromkeys(("trnsderm", "transdermal"), "transdermal"),
    **dict.fromkeys(("ihl", "ihlinhl", "inhalation", "inhaled", "respiratory"), "inhaled"),
    **dict.fromkeys(("nasinhl", "nasal", "intranasal"), "nasal"),
    **dict.fromkeys(("top", "topical", "skin", "cutaneous", "dermal"), "topical"),
    **dict.fromkeys(("opht", "ophthalmic", "eye", "ocular"), "ophthalmic"),
    **dict.fromkeys(("ot", "otic", "ear", "auricular"), "otic"),
    **dict.fromkeys(("vag", "vaginal"), "vaginal"),
}


def resolve(
    order: Mapping[str, Any], resources: Mapping[str, Mapping[str, Any]], knowledge: Knowledge
) -> Drug:
    """Return the drug of a MedicationRequest or MedicationStatement.

    ``resources`` are Medications by ``Type/id`` that it may refer to.
    """
    medication, concept = _medication(order, resources)
    label = _label(order, medication, concept)
    if not concept and not medication:
        concept = {"text": text(part(order, "medicationReference"), "display")}
    product, why = _product(medication, concept, {**resources, **_contained(order)}, knowledge)
    conflict, read_as, unresolved = why
    said = " ".join((label, text(concept, "text"), *(name for _, _, name in codings(concept))))
    drug = Drug(
        id=name_of(order),
        display=label or name_of(order),
        ingredients=product.ingredients,
        route=_route(order) or product.route or route_in(said),
        release=product.release or release_in(said),
        unresolved=unresolved,
        conflict=conflict,
        read_as=read_as,
        replaces=_replaces(order),
        authored=text(order, "authoredOn") or text(order, "dateAsserted"),
        on_hold=text(order, "status") == "on-hold",
    )
    if not product.ingredients and not drug.unresolved:
        drug = replace(drug, unresolved=(drug.display,))
    found, uncomputed = intakes(order, drug, partial(equivalents, knowledge=knowledge))
    return replace(drug, intakes=found, uncomputed=uncomputed)


def _medication(
    order: Mapping[str, Any], resources: Mapping[str, Mapping[str, Any]]
) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the Medication that ``order`` refers to, if it does, and the concept that names it."""
    target = reference(order, "medicationReference")
    medication: Mapping[str, Any] = {}
    if target.startswith("#"):
        for one in parts(order, "contained"):
            if text(one, "id") == target[1:]:
                medication = one
    elif target:
        medication = resources.get(target, {})
    return medication, part(order, "medicationCodeableConcept") or part(medication, "code")


def wanted_medication(
    order: Mapping[str, Any],
    resources: Mapping[str, Mapping[str, Any]],
    bases: Sequence[str] = (),
) -> str:
    """Return the reference to a Medication that is still to be read, or ``""``.

    One of another server than ``bases`` is none: what has its id here is another drug.
    """
    said = text(part(order, "medicationReference"), "reference")
    if bases and "://" in said and not said.startswith(tuple(f"{base}/" for base in bases)):
        return ""
    target = reference(order, "medicationReference")
    is_there = target.startswith(("#", "urn:")) or target in resources
    return "" if is_there or not target.startswith("Medication/") else target


def _label(
    order: Mapping[str, Any], medication: Mapping[str, Any], concept: Mapping[str, Any]
) -> str:
    """Return the text that the clinician knows."""
    names = [text(concept, "text"), *(name for _, _, name in codings(concept))]
    names += [text(part(order, "medicationReference"), "display")]
    names += [
        text(part(one, "itemCodeableConcept"), "text") for one in parts(medication, "ingredient")
    ]
    return next((name.strip()[:200] for name in names if name.strip()), "")


_Why = tuple[str, str, tuple[str, ...]]


def _contained(of: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {f"#{text(one, 'id')}": one for one in parts(of, "contained")}


def _product(
    medication: Mapping[str, Any],
    concept: Mapping[str, Any],
    resources: Mapping[str, Mapping[str, Any]],
    knowledge: Knowledge,
) -> tuple[Product, _Why]:
    """Return the product; and the conflict, what was read as something, what is not known."""
    product, (conflict, read_as, unknown) = named(concept, knowledge)
    listed: dict[str, Strength | None] = {}
    unresolved: list[str] = []
    reachable = {**resources, **_contained(medication)}
    active = [one for one in parts(medication, "ingredient") if one.get("isActive") is not False]
    for one in active[:INGREDIENTS_MAX]:
        item = _item(one, reachable)
        found, (_, misread, strange) = named(item, knowledge)
        unresolved += strange or (() if found.ingredients else ("an ingredient without a name",))
        read_as = read_as or misread
        strength = _ratio(part(one, "strength"))
        for code, its in found.ingredients.items():
            listed[code] = strength or its
    if len(active) > INGREDIENTS_MAX:
        unresolved.append(f"{len(active) - INGREDIENTS_MAX} more ingredients")
    if any(_by_code(system, code, knowledge) for system, code, _ in codings(concept)):
        unresolved = []  # the code says what is in it; what is listed beside may be excipients
    elif listed:
        unknown = ()
    return (
        Product({**product.ingredients, **listed}, product.route, product.release),
        (conflict, read_as, tuple(dict.fromkeys((*unknown, *unresolved)))),
    )


def _item(
    ingredient: Mapping[str, Any], resources: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Return what names an ingredient: its concept, or that of what it refers to."""
    target = part(ingredient, "itemReference")
    there = resources.get(reference(ingredient, "itemReference"), {})
    named_so = part(ingredient, "itemCodeableConcept") or part(there, "code")
    return named_so or {"text": text(target, "display") or text(target, "reference")}


def _by_code(system: str, code: str, knowledge: Knowledge) -> Product | None:
    if system in RXNORM:
        return knowledge.names.codes.get(code)
    return knowledge.maps.get((system, code))


def named(concept: Mapping[str, Any], knowledge: Knowledge) -> tuple[Product, _Why]:
    """Return what a CodeableConcept names by its codings and its texts together."""
    ingredients: dict[str, Strength | None] = {}
    route = release = ""
    for system, code, _ in codings(concept):
        product = _by_code(system, code, knowledge)
        if product is not None:
            ingredients.update(product.ingredients)
            route, release = route or product.route, release or product.release
    by_code = frozenset(ingredients)
    conflict = read_as = ""
    said = dict.fromkeys(
        one for one in (text(concept, "text"), *(name for _, _, name in codings(concept))) if one
    )
    unnamed: dict[str, None] = {}
    for one in said:
        found, misread, left = knowledge.names.in_text(one)
        read_as = read_as or misread
        unnamed.update(dict.fromkeys(left))
        strange = [code for code in found if code not in by_code]
        if by_code and strange and not _kin(strange, by_code, knowledge):
            conflict = one
        if not by_code or conflict:
            ingredients.update({code: None for code in found if code not in ingredients})
    # A code says what is in it; a text may name what nobody here knows.
    unresolved = () if by_code else tuple(unnamed) if ingredients else tuple(said)[:1]
    return Product(ingredients, route, release), (conflict, read_as, unresolved)


def _kin(strange: Iterable[str], by_code: frozenset[str], knowledge: Knowledge) -> bool:
    """Whether what the text says beyond the code is the same substance by another name."""
    return all(any(frozenset((one, code)) in knowledge.same for code in by_code) for one in strange)


def _ratio(ratio: Mapping[str, Any]) -> Strength | None:
    """Return ``Medication.ingredient.strength``: so much in one tablet, mL or mg."""
    above, below = part(ratio, "numerator"), part(ratio, "denominator")
    value = number(above, "value")
    amount = None if value is None else mass(value, unit_of(above))
    count, unit = number(below, "value"), unit_of(below)
    if amount is None or not count or count < 0:
        return None
    if unit.lower() == "ml":
        return Strength(amount / count, "mL")
    if (grams := mass(count, unit)) is not None:
        return Strength(amount / grams, "mg")
    return Strength(amount / count)


def _route(order: Mapping[str, Any]) -> str:
    """Return the route that the order says; of several one by which it reaches the whole body."""
    found = [
        _route_of(part(instruction, "route"))
        for name in ("dosageInstruction", "dosage")
        for instruction in parts(order, name)
        if part(instruction, "route")
    ]
    systemic = [one for one in found if one in SYSTEMIC]  # also one that is not known
    return next(filter(None, systemic), "") if systemic else next(iter(found), "")


def _route_of(concept: Mapping[str, Any]) -> str:
    said = [text(concept, "text"), *(name for _, _, name in codings(concept))]
    words = [one.strip().lower() for one in (*sorted(codes(concept)), *said)]
    found = [_ROUTES.get(one) or _ROUTES.get(one.removesuffix(" route"), "") for one in words]
    found = [one for one in found if one] or [one for one in map(route_in, said) if one]
    return next((one for one in found if one in SYSTEMIC), next(iter(found), ""))


def _replaces(order: Mapping[str, Any]) -> frozenset[str]:
    prior = reference(order, "priorPrescription")
    based = (reference({"of": one}, "of") for one in parts(order, "basedOn"))
    return frozenset(one for one in (prior, *based) if one)


def allergy(entry: Mapping[str, Any], knowledge: Knowledge) -> Allergy | None:
    """Return what an AllergyIntolerance speaks against; ``None`` where that is no drug.

    Statements of no allergy, foods, pollen and the like are no drugs.
    """
    # The code may say no more than "allergy to a drug", and a reaction to which.
    concepts = [part(entry, "code"), *(part(one, "substance") for one in parts(entry, "reaction"))]
    said = [
        word
        for concept in concepts
        for word in (text(concept, "text"), *(name for _, _, name in codings(concept)))
        if word
    ]
    ingredients: set[str] = set()
    classes: set[str] = set()
    strange: dict[str, None] = {}
    for concept in concepts:
        found = named(concept, knowledge)[0].ingredients
        ingredients |= found.keys()
        is_coded = any(_by_code(system, code, knowledge) for system, code, _ in codings(concept))
        words = [text(concept, "text"), *(name for _, _, name in codings(concept))]
        for word in filter(None, words):
            if name := _class(word, knowledge):
                classes.add(name)
            elif not is_coded:
                some, left = _listed(word, knowledge)
                classes |= some
                strange.update(dict.fromkeys(left))
    if not ingredients and not classes and _no_drug(entry, concepts, said, knowledge):
        return None
    display = said[0].strip()[:200] if said else name_of(entry)
    known = bool(ingredients or classes)
    return Allergy(
        id=name_of(entry),
        display=display,
        # The name of a class is that class, even where a drug is called like it.
        ingredients=frozenset(ingredients).difference(*(knowledge.classes[n] for n in classes)),
        classes=frozenset(classes),
        reactions=_reactions(entry),
        is_high=text(entry, "criticality") == "high",
        is_intolerance=text(entry, "type") == "intolerance",
        is_unconfirmed="unconfirmed" in codes(entry.get("verificationStatus")),
        recorded=text(entry, "recordedDate"),
        unresolved=tuple(strange) if known else (display,),
    )


def _class(word: str, knowledge: Knowledge) -> str:
    """Return the class that ``word`` as a whole is the name of, or ``""``."""
    plain = _plain(word)
    names = (plain, plain.removesuffix(" allergy"), plain.removeprefix("allergy to "))
    return next((knowledge.class_names[one] for one in names if one in knowledge.class_names), "")


def _listed(words: str, knowledge: Knowledge) -> tuple[set[str], list[str]]:
    """Return the classes in a list of allergens, ``"sulfa, aspirin"``, and what of it nobody knows.

    A text that is no list is judged as a whole.
    """
    pieces = [one.strip() for one in _LISTED.split(words) if one.strip()]
    classes: set[str] = set()
    strange: list[str] = []
    if len(pieces) < 2:
        return classes, strange
    for piece in pieces[:ALLERGENS_MAX]:
        plain = _plain(piece)
        if name := _class(piece, knowledge):
            classes.add(name)
        elif plain in knowledge.no_drug or plain in knowledge.no_allergy:
            continue
        elif not knowledge.names.in_text(piece)[0]:
            strange.append(piece[:200])
    return classes, [*strange, *(piece[:200] for piece in pieces[ALLERGENS_MAX:])]


def _no_drug(
    entry: Mapping[str, Any],
    concepts: Iterable[Mapping[str, Any]],
    said: Iterable[str],
    knowledge: Knowledge,
) -> bool:
    for concept in concepts:
        for system, code, _ in codings(concept):
            if (system, code) in knowledge.no_allergy_codes:
                return True
    words = [_plain(word) for word in said]
    if any(word in knowledge.no_allergy for word in words):
        return True
    categories = frozenset(texts(entry, "category"))
    if categories and categories <= {"food", "environment"}:
        return True
    return any(
        word in knowledge.no_drug or word.removesuffix(" allergy") in knowledge.no_drug
        for word in words
    )


def _plain(word: str) -> str:
    return " ".join(word.lower().replace("(substance)", "").split())


def _reactions(entry: Mapping[str, Any]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for reaction in parts(entry, "reaction"):
        for manifestation in parts(reaction, "manifestation"):
            names = (text(manifestation, "text"), *(n for _, _, n in codings(manifestation)))
            found.update(dict.fromkeys(name.lower()[:100] for name in names if name))
        if text(reaction, "severity") == "severe":
            found["anaphylaxis or other severe reaction"] = None
    return tuple(found)
