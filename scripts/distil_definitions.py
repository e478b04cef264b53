"""Distil the facts of FHIR R4 4.0.1 from HL7's package into ``profiles/`` and ``terminology/``.

    python scripts/distil_definitions.py [--package FILE.tgz]

Without ``--package`` the package is fetched with ``npm pack`` (CC0, hl7.fhir.r4.examples 4.0.1).
Its checksum is compared before anything is written, and running the script again changes nothing.

What is written, one resource a line, sorted by id:

==============================================  ===============================================
``profiles/…core/StructureDefinition.ndjson``   resources and data types, snapshot, facts only
``profiles/…core/Profile.ndjson``               profiles and extensions, differential, facts only
``profiles/…core/SearchParameter.ndjson``       the search parameters
``profiles/…core/CompartmentDefinition.ndjson`` the five compartments
``terminology/…core/CodeSystem.ndjson``         code, display, hierarchy
``terminology/…core/ValueSet.ndjson``           compose
``terminology/…core/ConceptMap.ndjson``         groups
==============================================  ===============================================

Left out: narrative, descriptions, mappings, example values, concept lists of SNOMED CT, LOINC and
other systems that R4 does not define.
"""

import argparse
import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "hl7.fhir.r4.examples"
VERSION = "4.0.1"
INTEGRITY = (
    "sha512-"
    "DXBdIZOeQaSKIgCU7w6HOC7sw/6BzylmipLkBW4f//pT+Bc94x+8LImwTdvaNThPJoOzpBzvxAzNqjeu3X/zLw=="
)
CORE = "hl7.fhir.r4.core"

EXTENSION = "http://hl7.org/fhir/StructureDefinition/"
REGEX = EXTENSION + "regex"
FHIR_TYPE = EXTENSION + "structuredefinition-fhir-type"
MAX_VALUE_SET = EXTENSION + "elementdefinition-maxValueSet"

# Constraints that hold for every element, and are kept where they are defined only.
EVERYWHERE = {"ele-1": "Element", "ext-1": "Extension"}

# Code systems and value sets of R4 itself; others (DICOM, SNOMED CT, LOINC, national lists) are
# licensed by somebody else, and are loaded by the site that has the licence.
TERMINOLOGY_URLS = ("http://hl7.org/fhir/", "http://terminology.hl7.org/")
FOREIGN_SYSTEMS = (
    "http://snomed.info/sct",
    "http://loinc.org",
    "http://dicom.nema.org/",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
    "http://www.ama-assn.org/go/cpt",
)

ELEMENT_FACTS = ("path", "sliceName", "min", "max")
ELEMENT_TAIL = ("contentReference", "maxLength", "isModifier", "isSummary")

Json = dict[str, Any]


def main() -> None:
    """Read the package named on the command line, or fetch it, and write the distilled files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--package", type=Path, help="the package as a .tgz file")
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="where profiles/ and terminology/ go"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = arguments.package or fetched(Path(folder))
        check_integrity(archive)
        resources = list(read_resources(archive))
    for name, distil in FILES.items():
        write_lines(
            arguments.out / name, sorted(distil(resources), key=lambda line: str(line["id"]))
        )
    for folder_name in ("profiles", "terminology"):
        write_manifest(arguments.out / folder_name / CORE)


def fetched(folder: Path) -> Path:
    """Fetch the package with npm into ``folder`` and return the archive's path."""
    command = ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.tgz"))


def check_integrity(archive: Path) -> None:
    """Stop unless ``archive`` is, byte for byte, the package that the facts are known to be in."""
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        sys.exit(f"{archive.name} is not {PACKAGE} {VERSION}: its checksum is sha512-{digest}")


def read_resources(archive: Path) -> Iterator[Json]:
    """Yield every resource of the package, in the order of the archive."""
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".json") else None
            if file is not None and not member.name.endswith("package.json"):
                resource = json.load(file, parse_float=str)
                if isinstance(resource, dict) and "resourceType" in resource:
                    yield resource


def structure_definitions(resources: list[Json]) -> Iterator[Json]:
    """Yield the definitions of resource types and data types: everything that is no profile."""
    for resource in of_type(resources, "StructureDefinition"):
        if resource.get("derivation") == "constraint" or resource["kind"] == "logical":
            continue
        kept = picked(resource, "resourceType", "id", "url", "version", "name", "status")
        kept |= picked(resource, "kind", "abstract", "type", "baseDefinition", "derivation")
        if kept["id"] in ("MetadataResource", "Definition", "Event", "FiveWs", "Request"):
            continue  # patterns of HL7's editors, no types
        elements = [
            element_facts(element, kept["id"]) for element in resource["snapshot"]["element"]
        ]
        yield {**kept, "snapshot": {"element": elements}}


def profiles(resources: list[Json]) -> Iterator[Json]:
    """Yield the profiles and extensions that R4 defines: what each demands beyond its base."""
    for resource in of_type(resources, "StructureDefinition"):
        if resource.get("derivation") != "constraint" or resource["kind"] == "logical":
            continue
        kept = picked(resource, "resourceType", "id", "url", "version", "name", "status")
        kept |= picked(resource, "kind", "abstract", "context", "contextInvariant")
        kept |= picked(resource, "type", "baseDefinition", "derivation")
        elements = [profile_facts(element) for element in resource["differential"]["element"]]
        yield {**kept, "differential": {"element": elements}}


def profile_facts(element: Json) -> Json:
    """Return what an element of a differential demands, without what it explains."""
    facts = element_facts({"min": None, "max": None, **element}, "")
    for name in ("min", "max"):
        if name not in element:
            del facts[name]
    facts.pop("constraint", None)
    if constraints := [
        picked(one, "key", "severity", "human", "expression")
        for one in element.get("constraint", [])
        if one["key"] not in EVERYWHERE
    ]:
        facts["constraint"] = constraints
    if "slicing" in element:
        facts["slicing"] = picked(element["slicing"], "discriminator", "ordered", "rules")
    return {**picked(element, "id"), **facts, **picked(element, "mustSupport")}


def element_facts(element: Json, type: str) -> Json:
    """Return what an ElementDefinition demands, without what it explains."""
    facts = picked(element, *ELEMENT_FACTS)
    if types := [type_facts(one) for one in element.get("type", [])]:
        facts["type"] = types
    facts |= {
        name: value
        for name, value in element.items()
        if name.startswith(("fixed", "pattern", "minValue", "maxValue"))
    }
    if constraints := [
        picked(constraint, "key", "severity", "human", "expression")
        for constraint in element.get("constraint", [])
        if own_constraint(constraint, element["path"], type)
    ]:
        facts["constraint"] = constraints
    if "binding" in element and "valueSet" in element["binding"]:
        facts["binding"] = binding_facts(element["binding"])
    return facts | {name: element[name] for name in ELEMENT_TAIL if element.get(name)}


def own_constraint(constraint: Json, path: str, type: str) -> bool:
    """Tell whether to keep ``constraint`` at ``path``: not inherited, not the universal ones."""
    if constraint["key"] in EVERYWHERE:
        return path == EVERYWHERE[constraint["key"]]
    return str(constraint.get("source", type)).rpartition("/")[2] == type


def type_facts(type: Json) -> Json:
    """Return a type's code and targets; of a primitive's value, its FHIR type and pattern."""
    facts = picked(type, "code", "profile", "targetProfile")
    extensions = {one["url"]: one for one in type.get("extension", [])}
    kept = [
        {"url": url, name: extensions[url][name]}
        for url, name in ((FHIR_TYPE, "valueUrl"), (REGEX, "valueString"))
        if url in extensions
    ]
    return {**({"extension": kept} if kept else {}), **facts}


def binding_facts(binding: Json) -> Json:
    """Return a binding's strength and value set, and the largest set allowed beside it."""
    kept = [
        picked(one, "url", "valueCanonical")
        for one in binding.get("extension", [])
        if one["url"] == MAX_VALUE_SET
    ]
    return {**({"extension": kept} if kept else {}), **picked(binding, "strength", "valueSet")}


def search_parameters(resources: list[Json]) -> Iterator[Json]:
    """Yield the search parameters of R4, without HL7's examples of how one is written."""
    seen = set()
    for resource in of_type(resources, "SearchParameter"):
        found_nowhere = not resource.get("expression") and not {"Resource", "DomainResource"} & set(
            resource.get("base", [])
        )
        if resource["id"].startswith("example") or found_nowhere or resource["url"] in seen:
            continue
        seen.add(resource["url"])
        yield picked(
            resource,
            *("resourceType", "id", "url", "version", "name", "status", "code", "base", "type"),
            *("expression", "target", "multipleOr", "multipleAnd"),
            *("comparator", "modifier", "chain", "component"),
        )


def compartment_definitions(resources: list[Json]) -> Iterator[Json]:
    """Yield the five compartments with the parameters by which a resource belongs to one."""
    for resource in of_type(resources, "CompartmentDefinition"):
        if resource["id"] != "example":
            members = [
                picked(one, "code", "param") for one in resource["resource"] if "param" in one
            ]
            kept = picked(
                resource, "resourceType", "id", "url", "version", "name", "status", "code"
            )
            yield {**kept, "search": True, "resource": members}


def code_systems(resources: list[Json]) -> Iterator[Json]:
    """Yield the code systems that R4 defines, with code, display and hierarchy."""
    for resource in of_type(resources, "CodeSystem"):
        if str(resource.get("url")).startswith(TERMINOLOGY_URLS) and resource.get("concept"):
            kept = picked(
                resource, "resourceType", "id", "url", "version", "name", "title", "status"
            )
            kept |= picked(resource, "caseSensitive", "valueSet", "hierarchyMeaning", "content")
            yield {**kept, "concept": [concept_facts(one) for one in resource["concept"]]}


def concept_facts(concept: Json) -> Json:
    """Return a concept's code, display, state and children."""
    facts = picked(concept, "code", "display")
    if states := [
        one
        for one in concept.get("property", [])
        if one["code"] in ("notSelectable", "status", "inactive", "deprecated", "subsumedBy")
    ]:
        facts["property"] = states
    if "concept" in concept:
        facts["concept"] = [concept_facts(one) for one in concept["concept"]]
    return facts


def value_sets(resources: list[Json]) -> Iterator[Json]:
    """Yield the value sets of R4, but those that list concepts of a system that R4 does not own."""
    for resource in of_type(resources, "ValueSet"):
        compose = resource.get("compose", {})
        parts = compose.get("include", []) + compose.get("exclude", [])
        foreign = any(
            "concept" in part and str(part.get("system")).startswith(FOREIGN_SYSTEMS)
            for part in parts
        )
        if str(resource.get("url")).startswith(TERMINOLOGY_URLS) and parts and not foreign:
            kept = picked(
                resource, "resourceType", "id", "url", "version", "name", "title", "status"
            )
            yield {**kept, "compose": compose_facts(compose)}


def concept_maps(resources: list[Json]) -> Iterator[Json]:
    """Yield the maps of R4 between systems that it owns, without HL7's examples."""
    for resource in of_type(resources, "ConceptMap"):
        groups = resource.get("group", [])
        systems = [str(one.get(end)) for one in groups for end in ("source", "target")]
        is_example = resource.get("experimental") or resource["id"].startswith("example")
        foreign = any(one.startswith(FOREIGN_SYSTEMS) for one in systems)
        if str(resource.get("url")).startswith(TERMINOLOGY_URLS) and not (is_example or foreign):
            kept = picked(
                resource, "resourceType", "id", "url", "version", "name", "title", "status"
            )
            kept |= picked(resource, "sourceUri", "sourceCanonical", "targetUri", "targetCanonical")
            yield {**kept, "group": [group_facts(one) for one in groups]}


def group_facts(group: Json) -> Json:
    """Return what a group of a map says each code becomes."""
    elements = [
        {
            **picked(one, "code", "display"),
            "target": [
                picked(to, "code", "display", "equivalence", "comment", "dependsOn", "product")
                for to in one.get("target", [])
            ],
        }
        for one in group["element"]
    ]
    facts = picked(group, "source", "sourceVersion", "target", "targetVersion")
    return {**facts, "element": elements, **picked(group, "unmapped")}


def compose_facts(compose: Json) -> Json:
    """Return what a value set includes and excludes, with the displays that it gives."""
    return {
        half: [
            {
                **picked(part, "system", "version"),
                **(
                    {"concept": [concept_facts(c) for c in part["concept"]]}
                    if "concept" in part
                    else {}
                ),
                **picked(part, "filter", "valueSet"),
            }
            for part in compose[half]
        ]
        for half in ("include", "exclude")
        if half in compose
    }


def of_type(resources: list[Json], type: str) -> Iterator[Json]:
    """Yield the conformance resources of ``type`` that R4 itself publishes under its version."""
    return (one for one in resources if one["resourceType"] == type and "id" in one)


def picked(source: Json, *names: str) -> Json:
    """Return the members of ``source`` that are named, in that order, as far as they are there."""
    return {name: source[name] for name in names if name in source}


def write_lines(path: Path, lines: list[Json]) -> None:
    """Write one resource a line, compact, so that a change shows as the line it changes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(
        json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines
    )
    path.write_text(text, encoding="utf-8")
    print(f"{path.name}: {len(lines)} resources, {len(text.encode()):,} bytes")


def write_manifest(folder: Path) -> None:
    """Write ``package.json``, which makes the folder a FHIR package, and where it comes from."""
    manifest = {
        "name": CORE,
        "version": VERSION,
        "fhirVersions": [VERSION],
        "type": "Core",
        "license": "CC0-1.0",
        "canonical": "http://hl7.org/fhir",
        "description": "The facts of FHIR R4, distilled by scripts/distil_definitions.py",
    }
    (folder / "package.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    source = f"""# Source

Distilled by `scripts/distil_definitions.py` from the npm package `{PACKAGE}`, version {VERSION},
published by HL7 International under CC0-1.0.

    {INTEGRITY}

`make definitions` fetches the package, compares this checksum and writes the files again; they come
out the same. FHIR is a registered trademark of HL7.
"""
    (folder / "SOURCE.md").write_text(source, encoding="utf-8")


FILES: dict[str, Callable[[list[Json]], Iterator[Json]]] = {
    f"profiles/{CORE}/StructureDefinition.ndjson": structure_definitions,
    f"profiles/{CORE}/Profile.ndjson": profiles,
    f"profiles/{CORE}/SearchParameter.ndjson": search_parameters,
    f"profiles/{CORE}/CompartmentDefinition.ndjson": compartment_definitions,
    f"terminology/{CORE}/CodeSystem.ndjson": code_systems,
    f"terminology/{CORE}/ValueSet.ndjson": value_sets,
    f"terminology/{CORE}/ConceptMap.ndjson": concept_maps,
}

if __name__ == "__main__":
    main()
