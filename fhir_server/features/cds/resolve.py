"""Which drug is it? Orders, statements and allergy entries -> what the checks read. Pure.

design/cds.md, section 4. What names nothing known is said to be so, never passed over.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fhir_server.features.cds.dosage import intakes
from fhir_server.features.cds.dose import equivalents
from fhir_server.features.cds.drug import Allergy, Drug, Strength
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

RXNORM = "http://www.nlm.nih.gov/research/umls/rxnorm"
INGREDIENTS_MAX = 30

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
    product, why = _product(medication, concept, knowledge)
    conflict, read_as, unresolved = why
    said = " ".join((label, text(concept, "text"), *(name for _, _, name in codings(concept))))
    drug = Drug(
        id=name_of(order),
        display=label or name_of(order),
        ingredients=product.ingredients,
        route=_route(order) or product.route or route_in(said),
        release=product.release or release_in(said),
        unresolved=unresolved if not product.ingredients else (),
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


def wanted_medication(order: Mapping[str, Any], resources: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the reference to a Medication that is still to be read, or ``""``."""
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


def _product(
    medication: Mapping[str, Any], concept: Mapping[str, Any], knowledge: Knowledge
) -> tuple[Product, _Why]:
    """Return the product; and the conflict, what was read as something, what is not known."""
    product, why = named(concept, knowledge)
    listed: dict[str, Strength | None] = {}
    unresolved: list[str] = []
    for one in [*parts(medication, "ingredient")][:INGREDIENTS_MAX]:
        if one.get("isActive") is False:
            continue
        item = part(one, "itemCodeableConcept")
        found, (_, _, unknown) = named(item, knowledge)
        unresolved += unknown
        strength = _ratio(part(one, "strength"))
        for code, its in found.ingredients.items():
            listed[code] = strength or its
    if not listed:
        return product, why
    return (
        Product({**product.ingredients, **listed}, product.route, product.release),
        (why[0], why[1], tuple(unresolved)),
    )


def named(concept: Mapping[str, Any], knowledge: Knowledge) -> tuple[Product, _Why]:
    """Return what a CodeableConcept names by its codings and its texts together."""
    ingredients: dict[str, Strength | None] = {}
    route = release = ""
    for system, code, _ in codings(concept):
        product = knowledge.names.codes.get(code) if system == RXNORM else None
        if product is not None:
            ingredients.update(product.ingredients)
            route, release = route or product.route, release or product.release
    by_code = frozenset(ingredients)
    conflict = read_as = ""
    said = dict.fromkeys(
        one for one in (text(concept, "text"), *(name for _, _, name in codings(concept))) if one
    )
    for one in said:
        found, misread = knowledge.names.in_text(one)
        if misread and (by_code or ingredients):
            continue
        read_as = read_as or misread
        strange = [code for code in found if code not in by_code]
        if by_code and strange and not _kin(strange, by_code, knowledge):
            conflict = one
        if not by_code or conflict:
            ingredients.update({code: None for code in found if code not in ingredients})
    unresolved = () if ingredients else tuple(said)[:1]
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
    for name in ("dosageInstruction", "dosage"):
        for instruction in parts(order, name):
            concept = part(instruction, "route")
            said = [text(concept, "text"), *(name for _, _, name in codings(concept))]
            for one in (*codes(concept), *(word.strip().lower() for word in said)):
                found = _ROUTES.get(one) or _ROUTES.get(one.removesuffix(" route"))
                if found:
                    return found
            for one in said:
                if found := route_in(one):
                    return found
    return ""


def _replaces(order: Mapping[str, Any]) -> frozenset[str]:
    prior = reference(order, "priorPrescription")
    based = (reference({"of": one}, "of") for one in parts(order, "basedOn"))
    return frozenset(one for one in (prior, *based) if one)


def allergy(entry: Mapping[str, Any], knowledge: Knowledge) -> Allergy | None:
    """Return what an AllergyIntolerance speaks against; ``None`` where that is no drug.

    Statements of no allergy, foods, pollen and the like are no drugs.
    """
    concepts = [part(entry, "code")]
    if not concepts[0]:
        concepts = [part(one, "substance") for one in parts(entry, "reaction")]
    said = [
        word
        for concept in concepts
        for word in (text(concept, "text"), *(name for _, _, name in codings(concept)))
        if word
    ]
    ingredients: set[str] = set()
    classes: set[str] = set()
    for concept in concepts:
        ingredients |= set(named(concept, knowledge)[0].ingredients)
    for word in map(_plain, said):
        if word in knowledge.class_names:
            classes.add(knowledge.class_names[word])
        elif word.removesuffix(" allergy") in knowledge.class_names:
            classes.add(knowledge.class_names[word.removesuffix(" allergy")])
    if not ingredients and not classes and _no_drug(entry, concepts, said, knowledge):
        return None
    display = said[0].strip()[:200] if said else name_of(entry)
    known = bool(ingredients or classes)
    return Allergy(
        id=name_of(entry),
        display=display,
        # The name of a class is that class, even where a drug is called like it.
        ingredients=frozenset() if classes else frozenset(ingredients),
        classes=frozenset(classes),
        reactions=_reactions(entry),
        is_high=text(entry, "criticality") == "high",
        is_intolerance=text(entry, "type") == "intolerance",
        is_unconfirmed="unconfirmed" in codes(entry.get("verificationStatus")),
        recorded=text(entry, "recordedDate"),
        unresolved=() if known else (display,),
    )


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
