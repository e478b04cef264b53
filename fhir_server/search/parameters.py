"""The search parameters of every resource type, compiled once.

https://hl7.org/fhir/R4/searchparameter.html

The table is shared by the indexer, the query compiler, the makers of database indexes and the
CapabilityStatement. Parameters of one type that read the same elements in the same way share a
field: ``phonetic`` is asked of ``keys.name``.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from dataclasses import field as member
from functools import cached_property
from itertools import combinations
from typing import Any

from fhir_server.r4.definitions import Definitions, SearchParameter
from fhir_server.r4.expressions import Name, Node, expression
from fhir_server.r4.paths import Path, PathCompiler, Step
from fhir_server.search.composite import composite_index, part_name
from fhir_server.search.token import modifiers
from fhir_server.search.tree import Convert, Tree
from fhir_server.search.written import BARE_SUFFIXES, FAMILY, Written

ID = "_id"
LAST_UPDATED = "_lastUpdated"
# Answered from fields of the document that are there anyway.
_OWN_FIELDS = {ID: "_id", LAST_UPDATED: "last_updated"}

# Of the parameters that share a field, the one after which it is called, if one of these is among
# them; else the first by alphabet.
_NAMED_FIRST = ("patient", "code", "date", "identifier", "name", "status")

# FHIR types of which one value can have several keys; a composite always can.
_SEVERAL_KEYS = {
    "token": ("CodeableConcept",),
    "string": ("HumanName", "Address"),
    "reference": ("canonical", "uri"),
    "uri": ("canonical",),
}
_VALUE = Name("value")  # what an extension is searched by


Wholes = tuple[tuple[Path, tuple[tuple[Path, ...], ...]], ...]
"""Of a composite: the elements it is about, and below each the paths of every component."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter of one resource type.

    ``type`` is ``token``, ``string`` and so on; ``targets`` are the types that a reference can
    point at, all of them where the definition does not say. ``single`` says that a document has
    one key at most, which then stands bare at ``field``, else in an array. ``field`` is where the
    document has the keys (``keys.code``).

    ``components`` are those of a composite, with the field they have inside one of its keys;
    ``wholes`` are the elements it is about, with the paths of the components below each.

    ``narrower`` is, for a type that a reference can point at, the field of the parameter that has
    just those references (``subject`` -> ``Patient`` -> ``keys.patient``).
    """

    code: str
    type: str
    url: str
    resource_type: str
    targets: tuple[str, ...]
    single: bool
    field: str
    paths: tuple[Path, ...] = member(repr=False)
    components: tuple["Parameter", ...] = member(default=(), repr=False)
    wholes: Wholes = member(default=(), repr=False)
    narrower: Mapping[str, str] = member(default_factory=dict, repr=False)

    @property
    def key(self) -> str | None:
        """The name inside ``keys``; ``None`` where no key is written for the parameter."""
        return self.field.removeprefix("keys.") if self.field.startswith("keys.") else None

    @property
    def id_types(self) -> tuple[str, ...] | None:
        """The types that a bare id can mean, where references to others have no key."""
        return self.targets if all(path.resolved for path in self.paths) else None

    @property
    def has_parts(self) -> bool:
        """Whether the later words of family names are kept beside the keys."""
        return self.type == "string" and any(
            path.type == "HumanName" or path.at == FAMILY for path in self.paths
        )

    @property
    def has_strings(self) -> bool:
        """Whether some of the tokens are of the type string, which is compared without case."""
        return self.type == "token" and any(path.type == "string" for path in self.paths)

    @property
    def token_modifiers(self) -> tuple[str, ...]:
        """The modifiers of a token, by the types of the elements."""
        return modifiers(path.type for path in self.paths)

    @property
    def has_canonicals(self) -> bool:
        """Whether some of the references are canonical urls, which have versions."""
        return self.type == "reference" and any(path.type == "canonical" for path in self.paths)

    @property
    def is_place(self) -> bool:
        """Whether the keys are points on the earth."""
        return self.type == "special"

    @property
    def value_sets(self) -> tuple[str, ...]:
        """The value sets that say which system the elements of type ``code`` have."""
        found = (
            path.element.binding[1]
            for path in self.paths
            if path.type == "code" and path.element and path.element.binding
        )
        return tuple(dict.fromkeys(found)) if self.type == "token" else ()


class ParameterTable:
    """``(type, code) -> Parameter`` for all resource types.

    ``text_search`` says that the words of resources are written beside them.
    """

    def __init__(
        self,
        definitions: Definitions,
        base_urls: tuple[str, ...] = (),
        *,
        text_search: bool = True,
    ) -> None:
        self.definitions = definitions
        self.text_search = text_search
        self.base_urls = base_urls
        self._written = Written(base_urls, definitions.units)
        self._converters = self._written.converters
        self._trees: dict[str, Tree] = {}
        self._singles: dict[str, frozenset[str]] = {}
        makers = _makers(definitions, self._converters)
        self._of = {
            type: _of_type(definitions, makers, type) for type in definitions.resource_types
        }

    @property
    def types(self) -> tuple[str, ...]:
        """All resource types, in alphabetical order."""
        return self.definitions.resource_types

    def of(self, type: str) -> Mapping[str, Parameter]:
        """Return the parameters of ``type`` by code. The type must be a resource type."""
        return self._of[type]

    @cached_property
    def compartment_fields(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """Type -> compartment -> the fields of ``keys`` whose references put it there."""
        return {
            type: {
                compartment: tuple(
                    dict.fromkeys(
                        key
                        for code in members.get(type, ())
                        if (found := self._of[type].get(code)) and found.type == "reference"
                        if (key := found.key)
                    )
                )
                for compartment, members in self.definitions.compartments.items()
            }
            for type in self._of
        }

    def compartment_types(self, compartment: str) -> tuple[str, ...]:
        """Return the types that can be in a compartment of the type ``compartment``; none if there
        are no such compartments."""
        return tuple(
            type
            for type, fields in self.compartment_fields.items()
            if fields.get(compartment) or (type == compartment and compartment in fields)
        )

    def singles(self, type: str) -> frozenset[str]:
        """Return the fields of ``keys`` that hold a bare value in documents of ``type``."""
        if type not in self._singles:
            self._singles[type] = frozenset(
                f"{one.key}{suffix}"
                for one in self._of[type].values()
                if one.single and one.key
                for suffix in BARE_SUFFIXES
            )
        return self._singles[type]

    def tree(self, type: str) -> Tree:
        """Return the tree that walks a resource of ``type``; it is grown at the first call."""
        if type not in self._trees:
            tree = Tree()
            for parameter in self._of[type].values():
                if parameter.key == parameter.code:  # others share the field of a namesake
                    self._plant(tree, parameter)
            self._trees[type] = tree
        return self._trees[type]

    def _plant(self, tree: Tree, parameter: Parameter) -> None:
        name = parameter.key
        assert name is not None
        convert = self._converters[parameter.type] if parameter.type != "composite" else {}
        for path in parameter.paths:
            tree.add(path, convert[path.type], name)
            for suffix, beside in self._written.beside(parameter.type, path):
                tree.add(path, beside, name + suffix)
        for whole, below in parameter.wholes:
            parts = [
                [(path, self._converters[part.type][path.type]) for path in paths]
                for part, paths in zip(parameter.components, below, strict=True)
            ]
            tree.add_whole(whole, composite_index(parts), name)


class _Maker:
    """Makes the parameters that one definition means for the types it serves."""

    def __init__(
        self,
        definition: SearchParameter,
        component_types: Mapping[str, str],
        converters: Mapping[str, Mapping[str, Convert]],
    ) -> None:
        self.definition = definition
        self._expression = expression(definition.expression)
        self._components = [
            (component_types[url], expression(text)) for url, text in definition.component
        ]
        self._converters = converters

    def parameter(self, compiler: PathCompiler, resource_types: tuple[str, ...]) -> Parameter:
        """Return the parameter of the type that ``compiler`` is for."""
        definition = self.definition
        paths = compiler.paths(self._expression)
        wholes: Wholes = ()
        components: tuple[Parameter, ...] = ()
        if definition.type == "composite":
            types = [self._component_type(compiler, paths[0], *one) for one in self._components]
            wholes = tuple((whole, self._below(compiler, whole, types)) for whole in paths)
            components = tuple(self._parts(wholes, types, compiler.root.type, resource_types))
            paths = ()
        else:
            paths = self._supported(compiler, definition.type, paths)
        return Parameter(
            code=definition.code,
            type=definition.type,
            url=definition.url,
            resource_type=compiler.root.type,
            targets=_targets(definition.type, definition.target, paths, resource_types),
            single=not wholes and _is_single(definition.type, paths),
            field=_OWN_FIELDS.get(definition.code, f"keys.{definition.code}"),
            paths=paths,
            components=components,
            wholes=wholes,
        )

    def _component_type(self, compiler: PathCompiler, whole: Path, type: str, below: Node) -> str:
        """Return the search type of a component: the one its definition has, if that can be.

        R4 has the definitions of DocumentReference ``relationship`` the wrong way round: the
        expression then decides.
        """
        led_to = {path.type for path in compiler.paths(below, replace(whole, steps=()))}
        candidates = (type, *self._converters)
        return next((one for one in candidates if led_to & set(self._converters[one])), type)

    def _below(
        self, compiler: PathCompiler, whole: Path, types: list[str]
    ) -> tuple[tuple[Path, ...], ...]:
        here = replace(whole, steps=())
        return tuple(
            self._supported(compiler, type, compiler.paths(below, here))
            for type, (_, below) in zip(types, self._components, strict=True)
        )

    def _parts(
        self, wholes: Wholes, types: list[str], resource_type: str, resource_types: tuple[str, ...]
    ) -> Iterator[Parameter]:
        for at, type in enumerate(types):
            paths = tuple(path for _, below in wholes for path in below[at])
            yield Parameter(
                code=f"{self.definition.code}[{at}]",
                type=type,
                url=self.definition.component[at][0],
                resource_type=resource_type,
                targets=_targets(type, (), paths, resource_types),
                single=True,  # inside a key, which is one combination
                field=part_name(at),
                paths=paths,
            )

    def _supported(
        self, compiler: PathCompiler, type: str, paths: tuple[Path, ...]
    ) -> tuple[Path, ...]:
        """Return ``paths`` to types that are searched as ``type``; of extensions, their values."""
        written = self._converters[type]
        found: list[Path] = []
        for path in paths:
            if path.type == "Extension":
                found += (one for one in compiler.paths(_VALUE, path) if one.type in written)
            elif path.type in written:
                found.append(path)
        if not found:
            kinds = ", ".join(path.type for path in paths) or "nothing"
            raise ValueError(f"it leads to {kinds}, which cannot be searched as {type}")
        return tuple(found)


def _makers(
    definitions: Definitions, converters: Mapping[str, Mapping[str, Convert]]
) -> list[_Maker]:
    """Return a maker for each definition with an expression; the others have code of their own."""
    types = {one.url: one.type for one in definitions.search_parameters}
    makers = []
    for definition in definitions.search_parameters:
        if definition.expression:
            with _named(definition):
                makers.append(_Maker(definition, types, converters))
    return makers


@contextmanager
def _named(definition: SearchParameter) -> Iterator[None]:
    """Name the definition in the message of a :class:`ValueError`."""
    try:
        yield
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"SearchParameter {definition.url}: {error} ({definition.expression})"
        ) from error


def _of_type(definitions: Definitions, makers: Iterable[_Maker], type: str) -> dict[str, Parameter]:
    compiler = PathCompiler(definitions.types, type)
    found: dict[str, Parameter] = {}
    for maker in makers:
        if compiler.roots.isdisjoint(maker.definition.base):
            continue
        with _named(maker.definition):
            found[maker.definition.code] = maker.parameter(compiler, definitions.resource_types)
    return _with_narrower(_with_shared_fields(dict(sorted(found.items()))))


def _with_shared_fields(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    """Give one field to those of ``parameters`` that write the same keys."""
    groups: dict[Any, list[str]] = {}
    for parameter in parameters.values():
        if parameter.key:
            what = (parameter.type, frozenset(parameter.paths), parameter.wholes)
            groups.setdefault(what, []).append(parameter.code)
    for codes in groups.values():
        name = next((code for code in _NAMED_FIRST if code in codes), codes[0])
        for code in codes:
            parameters[code] = replace(parameters[code], field=f"keys.{name}")
    return parameters


def _with_narrower(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    """Tell references which others read the same elements, but for one type only."""
    references = [one for one in parameters.values() if one.type == "reference"]
    narrow: dict[frozenset[tuple[Step, ...]], dict[str, str]] = {}
    for one in references:
        targets = {path.targets for path in one.paths}
        if one.id_types and len(targets) == 1 and len(one.id_types) == 1:
            read = frozenset(path.steps[:-1] for path in one.paths)  # the last step is the test
            narrow.setdefault(read, {})[one.id_types[0]] = one.field
    for one in references:
        read = frozenset(path.steps for path in one.paths if path.type == "Reference")
        if (found := narrow.get(read, {})) and len(read) == len(one.paths):
            parameters[one.code] = replace(one, narrower=found)
    return parameters


def _targets(
    type: str, defined: tuple[str, ...], paths: tuple[Path, ...], resource_types: tuple[str, ...]
) -> tuple[str, ...]:
    """Return what ``defined`` and the elements have in common, or all types if neither says."""
    if type != "reference":
        return ()
    everything = frozenset(resource_types)
    allowed = frozenset(target for path in paths for target in path.targets or resource_types)
    known = [target for target in defined or resource_types if target in everything]
    return tuple(target for target in known if target in allowed) or tuple(known)


def _is_single(type: str, paths: tuple[Path, ...]) -> bool:
    """Whether a resource can have one key at most."""
    return not any(path.many or path.type in _SEVERAL_KEYS.get(type, ()) for path in paths) and all(
        _exclude(one, other) for one, other in combinations(paths, 2)
    )


def _exclude(one: Path, other: Path) -> bool:
    """Whether the paths part at two forms of one choice element, which has one form only."""
    for left, right in zip(one.steps, other.steps, strict=False):
        if left != right:
            return left.choice == right.choice != ""
    return False


def parameter_table(
    definitions: Definitions, base_urls: tuple[str, ...] = (), *, text_search: bool = True
) -> ParameterTable:
    """Return the table of all search parameters in ``definitions``.

    ``base_urls`` are those of this server: a reference below one of them is a local one.
    ``text_search`` has the words of every resource written for ``_text`` and ``_content``.

    Raises :class:`ValueError` that names the parameter for an expression that is not supported.
    """
    return ParameterTable(definitions, base_urls, text_search=text_search)
