"""The R4 definitions, once loaded: types, elements, search parameters, compartments, codes.

https://hl7.org/fhir/R4/structuredefinition.html

A folder below ``profiles/`` or ``terminology/`` is a FHIR package. Both forms are read: one file a
resource (``SearchParameter-foo.json``) and one file a type (``SearchParameter.ndjson``, a resource
a line).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from fhir_server.r4.codes import Hierarchy
from fhir_server.r4.expansion import Code, Expander, Unexpandable
from fhir_server.r4.ucum import Units, load_units

_TYPE_URL = "http://hl7.org/fhir/StructureDefinition/"
_R4_PARAMETERS = "http://hl7.org/fhir/SearchParameter/"
_EXTENSION_FHIR_TYPE = _TYPE_URL + "structuredefinition-fhir-type"
_EXTENSION_REGEX = _TYPE_URL + "regex"


@dataclass(frozen=True, slots=True)
class Constraint:
    """An invariant of the specification. ``expression`` is FHIRPath."""

    key: str
    severity: str
    human: str
    expression: str


@dataclass(frozen=True, slots=True)
class ElementType:
    """One type that an element may have: a type's name, and for references what they may point at.

    ``targets`` are resource type names; empty means any.
    """

    code: str
    targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type, as the snapshot states it.

    ``path`` is ``Observation.component.value[x]``. ``max`` is ``None`` for ``*``. ``types`` is
    empty when ``content_reference`` names another element's path, whose children these are.
    ``binding`` is ``(strength, value set url without version)``.
    """

    path: str
    min: int
    max: int | None
    types: tuple[ElementType, ...]
    content_reference: str | None
    binding: tuple[str, str] | None
    constraints: tuple[Constraint, ...]
    max_length: int | None
    is_modifier: bool
    is_summary: bool

    @property
    def name(self) -> str:
        """The last step of the path, ``[x]`` cut off: ``value`` for ``value[x]``."""
        return self.path.rpartition(".")[2].removesuffix("[x]")

    @property
    def is_choice(self) -> bool:
        """Whether the JSON member is the name followed by a type: ``valueQuantity``."""
        return self.path.endswith("[x]")

    @property
    def is_list(self) -> bool:
        """Whether the JSON member is an array."""
        return self.max is None or self.max > 1

    def members(self) -> Iterator[tuple[str, ElementType]]:
        """Yield each JSON member name that this element can appear under, with the type it says."""
        for type in self.types:
            suffix = type.code[:1].upper() + type.code[1:] if self.is_choice else ""
            yield self.name + suffix, type


@dataclass(frozen=True, slots=True)
class TypeDefinition:
    """A resource type or data type.

    ``kind`` is ``resource``, ``complex-type`` or ``primitive-type``. ``elements`` maps the path of
    a parent (``Observation``, ``Observation.component``) to its child elements in order. ``regex``
    is the pattern of a primitive's value.
    """

    name: str
    url: str
    kind: str
    abstract: bool
    base: str | None
    root: Element
    elements: Mapping[str, tuple[Element, ...]]
    regex: str | None


@dataclass(frozen=True, slots=True)
class SearchParameter:
    """A search parameter as defined; ``expression`` is FHIRPath over all types of ``base``."""

    url: str
    code: str
    type: str
    base: tuple[str, ...]
    expression: str
    target: tuple[str, ...] = ()
    component: tuple[tuple[str, str], ...] = ()
    """Of a composite: ``(url of the part's definition, expression below the whole)``."""
    added: bool = False
    """Whether a site has added it: it is no part of the packages."""
    id: str = ""
    """The id of the resource that a site has added."""


@dataclass(frozen=True)
class Definitions:
    """Everything that was read from the packages.

    ``types`` by name; ``search_parameters`` in the order of their urls; ``compartments`` maps
    ``Patient`` to ``{type: parameter codes}``; ``units`` converts quantities.
    """

    types: Mapping[str, TypeDefinition]
    search_parameters: tuple[SearchParameter, ...]
    compartments: Mapping[str, Mapping[str, tuple[str, ...]]]
    _code_systems: Mapping[str, Mapping[str, Any]] = field(repr=False)
    _value_sets: Mapping[str, Mapping[str, Any]] = field(repr=False)
    _concept_maps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    units: Units = field(default_factory=Units, repr=False)
    _expansions: dict[str, frozenset[Code] | None] = field(default_factory=dict, repr=False)

    @cached_property
    def resource_types(self) -> tuple[str, ...]:
        """The names of the resource types that can be stored, in alphabetical order."""
        return tuple(
            sorted(
                type.name
                for type in self.types.values()
                if type.kind == "resource" and not type.abstract
            )
        )

    def codes(self, value_set: str) -> frozenset[Code] | None:
        """Return the codes of ``value_set`` (its url), or ``None`` where they cannot all be known.

        They cannot where the set takes in a system that is not loaded whole, such as all of UCUM.
        """
        if value_set not in self._value_sets:
            return None  # and nothing is kept of it: any client can name it
        if value_set not in self._expansions:
            try:
                self._expansions[value_set] = self._expander.codes(value_set)
            except Unexpandable:
                self._expansions[value_set] = None
        return self._expansions[value_set]

    def artifact(self, type: str, name: str) -> Mapping[str, Any] | None:
        """Return the loaded ValueSet, CodeSystem or ConceptMap ``name``: a url, ``url|version``,
        ``type/id``.

        ``None`` where it is not loaded, or not in that version.
        """
        loaded = self._artifacts(type)
        if name.startswith(f"{type}/"):
            id = name.removeprefix(f"{type}/")
            return next((one for one in loaded.values() if one.get("id") == id), None)
        if name in loaded:  # HL7 has given some code systems a url with a version in it
            return loaded[name]
        url, _, version = name.partition("|")
        found = loaded.get(url)
        return found if found and version in ("", found.get("version")) else None

    def _artifacts(self, type: str) -> Mapping[str, Mapping[str, Any]]:
        if type == "ConceptMap":
            return self._concept_maps
        return self._value_sets if type == "ValueSet" else self._code_systems

    @property
    def concept_maps(self) -> Iterable[Mapping[str, Any]]:
        """The loaded ConceptMaps."""
        return self._concept_maps.values()

    @property
    def whole_systems(self) -> Iterator[tuple[str, str]]:
        """The url and version of each code system that is loaded whole."""
        for url, one in self._code_systems.items():
            if one.get("content") == "complete":
                yield url, str(one.get("version", ""))

    def displays(self, system: str, code: str) -> Sequence[str]:
        """Return what the loaded value sets call ``code`` of ``system``, the shortest first."""
        return self._displays.get((system, code), ())

    @cached_property
    def _displays(self) -> Mapping[tuple[str, str], Sequence[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for value_set in self._value_sets.values():
            for part in value_set.get("compose", {}).get("include", ()):
                for one in part.get("concept", ()):
                    if "display" in one:
                        key = part.get("system", ""), one["code"]
                        found.setdefault(key, set()).add(one["display"])
        return {key: sorted(some, key=lambda one: (len(one), one)) for key, some in found.items()}

    def implied(self, value_set: str) -> str | None:
        """Return the url of the loaded code system that says that ``value_set`` is all of it."""
        found = (one for one in self._code_systems.values() if one.get("valueSet") == value_set)
        return next((str(one["url"]) for one in found), None)

    def hierarchy(self, system: str) -> Hierarchy:
        """Return the hierarchy of a loaded code system.

        Raises :class:`Unexpandable` where it is not loaded whole.
        """
        return self._expander.hierarchy(system)

    @cached_property
    def _expander(self) -> Expander:
        return Expander(self.artifact)


def load_definitions(root: Path) -> Definitions:
    """Read the packages in ``profiles/`` and ``terminology/`` below ``root``."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for folder in ("profiles", "terminology"):
        for resource in _resources(root / folder):
            found.setdefault(resource["resourceType"], {})[resource["url"]] = resource
    # A profile has the type that it constrains; only a specialization defines one.
    types = (
        _type_definition(one)
        for one in found.get("StructureDefinition", {}).values()
        if one.get("derivation") != "constraint" and one.get("kind") != "logical"
    )
    parameters = map(search_parameter, _not_repeated(found.get("SearchParameter", {})))
    return Definitions(
        types={type.name: type for type in types},
        search_parameters=tuple(sorted(parameters, key=lambda parameter: parameter.url)),
        compartments={
            compartment["code"]: {
                member["code"]: tuple(member["param"]) for member in compartment["resource"]
            }
            for compartment in found.get("CompartmentDefinition", {}).values()
        },
        _code_systems=found.get("CodeSystem", {}),
        _value_sets=found.get("ValueSet", {}),
        _concept_maps=found.get("ConceptMap", {}),
        units=load_units(root / "terminology" / "ucum"),
    )


_READ_TYPES = (
    *("StructureDefinition", "SearchParameter", "CompartmentDefinition"),
    *("CodeSystem", "ValueSet", "ConceptMap"),
)


def _resources(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the conformance resources of the packages in ``folder``, the packages by name."""
    decoder = msgspec.json.Decoder(dict[str, Any])
    for package in package_folders(folder):
        for file in sorted(package.iterdir()):
            if not file.name.startswith(_READ_TYPES):
                continue
            read = decoder.decode_lines if file.suffix == ".ndjson" else _one_of(decoder)
            if file.suffix not in (".json", ".ndjson"):
                continue
            try:
                found = read(file.read_bytes())
            except msgspec.DecodeError as error:
                raise ValueError(f"{file} is not JSON: {error}") from error
            for resource in found:
                if not resource.keys() >= {"resourceType", "url"}:
                    raise ValueError(f"{file} has a resource without a resourceType or a url")
                yield resource


def _one_of(decoder: msgspec.json.Decoder[dict[str, Any]]) -> Callable[[bytes], Iterable[Any]]:
    return lambda text: (decoder.decode(text),)


def package_folders(folder: Path) -> list[Path]:
    """Return the packages in ``folder``, by name; one unpacked as it is has a ``package/``."""
    if not folder.is_dir():
        return []
    found = sorted(path for path in folder.iterdir() if path.is_dir())
    return [path / "package" if (path / "package").is_dir() else path for path in found]


def _not_repeated(parameters: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield ``parameters`` but those of a guide that only repeat what R4 itself defines."""
    own = {
        (base, one["code"])
        for one in parameters.values()
        if one["url"].startswith(_R4_PARAMETERS)
        for base in one["base"]
    }
    for one in parameters.values():
        is_own = one["url"].startswith(_R4_PARAMETERS)
        inherited = (*one["base"], "Resource", "DomainResource")
        if is_own or not any((base, one["code"]) in own for base in inherited):
            yield one


def _type_definition(resource: dict[str, Any]) -> TypeDefinition:
    root, *rest = map(_element, resource["snapshot"]["element"])
    children: dict[str, list[Element]] = {}
    for element in rest:
        children.setdefault(element.path.rpartition(".")[0], []).append(element)
    base = resource.get("baseDefinition")
    return TypeDefinition(
        name=resource["type"],
        url=resource["url"],
        kind=resource["kind"],
        abstract=resource["abstract"],
        base=base.removeprefix(_TYPE_URL) if base else None,
        root=root,
        elements={path: tuple(elements) for path, elements in children.items()},
        regex=_regex(resource),
    )


def _element(element: dict[str, Any]) -> Element:
    binding = element.get("binding")
    reference = element.get("contentReference")
    return Element(
        path=element["path"],
        min=element["min"],
        max=None if element["max"] == "*" else int(element["max"]),
        types=tuple(map(_element_type, element.get("type", ()))),
        content_reference=reference.removeprefix("#") if reference else None,
        binding=(binding["strength"], binding["valueSet"].partition("|")[0]) if binding else None,
        constraints=tuple(
            Constraint(one["key"], one["severity"], one["human"], one.get("expression", ""))
            for one in element.get("constraint", ())
        ),
        max_length=element.get("maxLength"),
        is_modifier=element.get("isModifier", False),
        is_summary=element.get("isSummary", False),
    )


def _element_type(type: dict[str, Any]) -> ElementType:
    """Return the FHIR type; the value of a primitive names it in an extension."""
    extensions = {one["url"]: one for one in type.get("extension", ())}
    code = extensions.get(_EXTENSION_FHIR_TYPE, {}).get("valueUrl", type["code"])
    if code.startswith("http://hl7.org/fhirpath/System."):
        code = "string"  # the only one without the extension: the id of an xhtml element
    targets = tuple(url.removeprefix(_TYPE_URL) for url in type.get("targetProfile", ()))
    return ElementType(code, () if "Resource" in targets else targets)


def _regex(resource: dict[str, Any]) -> str | None:
    for element in resource["snapshot"]["element"]:
        if element["path"].endswith(".value"):
            for type in element.get("type", ()):
                for one in type.get("extension", ()):
                    if one["url"] == _EXTENSION_REGEX:
                        return str(one["valueString"])
    return None


def search_parameter(resource: Mapping[str, Any], *, added: bool = False) -> SearchParameter:
    """Return what the SearchParameter ``resource`` defines; one that is valid has what is needed.

    https://hl7.org/fhir/R4/searchparameter.html
    """
    return SearchParameter(
        url=resource["url"],
        code=resource["code"],
        type=resource["type"],
        base=tuple(resource["base"]),
        expression=resource.get("expression", ""),
        target=tuple(resource.get("target", ())),
        component=tuple(
            (part["definition"], part["expression"]) for part in resource.get("component", ())
        ),
        added=added,
        id=resource.get("id", "") if added else "",
    )
