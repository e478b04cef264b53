"""Types of values, profiles that a value conforms to, and what a reference may lead to.

https://hl7.org/fhir/R4/elementdefinition-definitions.html#ElementDefinition.type
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fhir_server.outcome import shown
from fhir_server.r4.structures import TYPE_URL
from fhir_server.validation.references import pointed_type
from fhir_server.validation.running import PENDING, Check, Item, Run, resolved
from fhir_server.validation.snapshot import Trees, type_code

_ANY = (TYPE_URL + "Resource", TYPE_URL + "DomainResource")


def types_check(element: Mapping[str, Any], base: Mapping[str, Any], where: str) -> Iterator[Check]:
    """Yield the check that a value is of one of the types of ``element``, where they are fewer."""
    allowed = {type_code(one) for one in element.get("type") or ()}
    before = {type_code(one) for one in base.get("type") or ()}
    if not allowed or not before - allowed or allowed & {"Resource", "DomainResource"}:
        return
    listed = " or ".join(sorted(allowed)[:12])

    def check(run: Run, item: Item) -> None:
        if item.type and item.type not in allowed:
            text = f"{item.name} is of the type {item.type}; {where} allows {listed}."
            run.add("structure", text, item)

    yield check


def profiles_check(element: Mapping[str, Any], where: str) -> Iterator[Check]:
    """Yield the check that a value conforms to one of the profiles of its type."""
    by_type: dict[str, list[str]] = {}
    for one in element.get("type") or ():
        code = type_code(one)
        if code != "Extension" and one.get("profile"):  # extensions are judged by their url
            by_type.setdefault(code, []).extend(one["profile"])
    if not by_type:
        return

    def check(run: Run, item: Item) -> None:
        urls = by_type.get(item.type)
        if urls is None and "Resource" in by_type:
            urls = by_type["Resource"]
        if urls is None and len(by_type) == 1 and not item.type[:1].isupper():
            return
        if urls:
            _conforming(run, item, urls, where)

    yield check


def _conforming(run: Run, item: Item, urls: Sequence[str], where: str) -> None:
    if len(urls) == 1:
        rule = run.rules.profile_rule(run, urls[0])
        if rule is not None and (key := (id(item.value), urls[0])) not in run.judging:
            run.judging.add(key)
            try:
                rule.apply(run, item)
            finally:
                run.judging.discard(key)
        return
    verdicts = [run.conforms(item, url) for url in urls]
    if not any(one is not False for one in verdicts):
        text = f"{item.name} conforms to none of {', '.join(urls[:8])}, of which {where} wants one."
        run.add("structure", text, item)


def targets_check(
    element: Mapping[str, Any], base: Mapping[str, Any], where: str, trees: Trees
) -> Iterator[Check]:
    """Yield the check of what a Reference leads to, where the profile allows less than R4."""
    targets = _targets(element)
    plain = {url.partition("|")[0] for url in targets}
    if not plain or plain == set(_targets(base)) or not plain.isdisjoint(_ANY):
        return
    types: dict[str, str] = {}
    for url in targets:
        types[url] = trees.type_of(url)
    names = sorted(set(types.values()) - {""})
    is_whole = "" not in types.values()
    special = [url for url in targets if not _is_type(url)]

    def check(run: Run, item: Item) -> None:
        value = item.value
        if not isinstance(value, dict):
            return
        reference = value.get("reference")
        found, target = _found_type(run, item, value, bool(special))
        if found and is_whole and found not in names:
            text = (
                f"{item.name} refers to a {found} ({shown(reference or found)}); {where} allows "
                f"{' or '.join(names)}."
            )
            run.add("structure", text, item)
            return
        if not found or target is None or not special:
            return
        of_type = [url for url, type in types.items() if type == found]
        if any(_is_type(url) for url in of_type) or not of_type:
            return
        if all(run.conforms(target, url) is False for url in of_type):
            text = (
                f"{item.name} refers to {shown(reference)}, which does not conform to "
                f"{' or '.join(of_type)}; {where} wants that."
            )
            run.add("structure", text, item)

    yield check


def _found_type(
    run: Run, item: Item, value: Mapping[str, Any], is_special: bool
) -> tuple[str, Item | None]:
    """Return the type of what a Reference leads to, and that itself where it is at hand."""
    reference = value.get("reference")
    text = reference if isinstance(reference, str) else ""
    target = None
    is_near = text.startswith("#") or (
        item.scope.bundle is not None
        and item.scope.bundle.find(text, item.scope.full_url) is not None
    )
    if text and (is_near or (is_special and run.options.targets)):
        found = resolved(run, text, item)
        if found is not None and found is not PENDING:
            target = found
    if target is not None:
        return target.type, target
    pointed = pointed_type(text, run.definitions.types) if text else ""
    if not pointed and isinstance(value.get("type"), str):
        pointed = value["type"].removeprefix(TYPE_URL)
    return pointed, None


def _targets(element: Mapping[str, Any]) -> list[str]:
    return [url for one in element.get("type") or () for url in one.get("targetProfile", ())]


def _is_type(url: str) -> bool:
    name = url.partition("|")[0].removeprefix(TYPE_URL)
    return "/" not in name and name[:1].isupper() and name.isalpha()
