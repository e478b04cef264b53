"""The search parameters of every resource type, compiled once.

https://hl7.org/fhir/R4/searchparameter.html

The table is shared by the indexer, the query compiler, the makers of database indexes and the
CapabilityStatement. Parameters of one type that read the same elements in the same way share a
field: ``phonetic`` is asked of ``keys.name``.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from typing import Any

from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.definitions import Definitions, SearchParameter
from fhir_server.r4.fhirpath.grammar import expression
from fhir_server.r4.fhirpath.tree import Name, Node
from fhir_server.r4.paths import Path, PathCompiler, Step
from fhir_server.search.composite import composite_index, part_name
from fhir_server.search.parameter import Parameter, Wholes
from fhir_server.search.tree import Convert, Tree
from fhir_server.search.written import BARE_SUFFIXES, Written

ID = "_id"
LAST_UPDATED = "_lastUpdated"
# Answered from fields of the document that are there anyway.
_OWN_FIELDS = {ID: "_id", LAST_UPDATED: "last_updated"}

# Of the parameters that share a field, the one after which it is called, if one of these is among
# them; else the first by alphabet.
_NAMED_FIRST = ("patient", "code", "date", "identifier", "name", "status")

# What the parameter is called by which a resource says which other of its type it is a part of.
_PART_OF = ("partof", "part-of", "parent")

# FHIR types of which one value can have several keys; a composite always can.
_SEVERAL_KEYS = {
    "token": ("CodeableConcept",),
    "string": ("HumanName", "Address"),
    "reference": ("canonical", "uri"),
    "uri": ("canonical",),
}
_SHOWN_CHARACTERS_MAX = 300
_VALUE = Name("value")  # what an extension is searched by

COMPARTMENTS = ":compartments"
WORDS = ":words"
CONTAINED = ":contained"
"""What is kept beside the keys of parameters, as fields that can be pending like theirs."""
_CALLED = {COMPARTMENTS: "compartment", WORDS: "words", CONTAINED: "what is contained in others"}


class _Answered(dict[str, Parameter]):
    """The parameters of a type by code; asking for one whose keys are not all there is refused.

    ``pending`` are the fields that a part of the stored resources does not have yet: a search by
    one of them would find too little, and nobody would know.
    """

    def __init__(self, type: str, parameters: Mapping[str, Parameter], pending: Set[str]) -> None:
        super().__init__({code: _asked_by(one, pending) for code, one in parameters.items()})
        self._type = type
        self._pending = pending

    def __getitem__(self, code: str) -> Parameter:
        return self._complete(super().__getitem__(code))

    def get(self, code: str, default: Any = None) -> Any:
        """Return the parameter ``code``. Raises ``transient`` (503) while it is being indexed."""
        found = super().get(code)
        return default if found is None else self._complete(found)

    def _complete(self, parameter: Parameter) -> Parameter:
        if parameter.key in self._pending:
            raise _not_yet(self._type, parameter.code)
        return parameter


def _asked_by(parameter: Parameter, pending: Set[str]) -> Parameter:
    """Return ``parameter`` without the narrower fields that are ``pending``."""
    narrower = {
        type: field
        for type, field in parameter.narrower.items()
        if field.removeprefix("keys.") not in pending
    }
    return replace(parameter, narrower=narrower) if parameter.narrower else parameter


def _not_yet(type: str, what: str) -> FhirError:
    text = (
        f"{type} cannot be searched by {what} yet: the resources stored before are still being "
        "indexed. See $reindex-status."
    )
    return FhirError(Issue("transient", text), headers=(("Retry-After", "30"),), status=503)


class ParameterTable:
    """``(type, code) -> Parameter`` for all resource types.

    ``text_search`` says that the words of resources are written beside them. ``reference_bases``
    are those of ``base_urls`` that somebody has set, and so may set to another value. ``unusable``
    has the parameters that a site added and that cannot be served: url -> why. ``memo`` is for what
    others make of the table once; it goes along where nothing but ``pending`` differs. ``compiled``
    is for what :class:`~criteria.Criteria` made by it.
    """

    def __init__(
        self,
        definitions: Definitions,
        base_urls: tuple[str, ...] = (),
        *,
        text_search: bool = True,
        reference_bases: tuple[str, ...] = (),
    ) -> None:
        self.definitions = definitions
        self.text_search = text_search
        self.base_urls = base_urls
        self.reference_bases = reference_bases
        self._written = Written(base_urls, definitions.units)
        self._converters = self._written.converters
        self._trees: dict[str, Tree] = {}
        self._singles: dict[str, frozenset[str]] = {}
        self.unusable: dict[str, str] = {}
        self._makers = _makers(definitions, definitions.search_parameters, self._converters, {})
        self._of = {
            type: _of_type(definitions, self._makers, type, {})
            for type in definitions.resource_types
        }
        self.memo: dict[str, Any] = {}
        self._pending: Mapping[str, Set[str]] = {}
        self._answered: Mapping[str, Mapping[str, Parameter]] = self._of
        self._complete: dict[str, Mapping[str, Parameter]] = {}
        self.compiled: dict[tuple[str, ...], Any] = {}

    @property
    def types(self) -> tuple[str, ...]:
        """All resource types, in alphabetical order."""
        return self.definitions.resource_types

    def of(self, type: str) -> Mapping[str, Parameter]:
        """Return the parameters of ``type`` by code. The type must be a resource type.

        To look one up that is still being indexed raises ``transient``.
        """
        return self._answered[type]

    def complete(self, type: str) -> Mapping[str, Parameter]:
        """Return those parameters of ``type`` that the specification defines and that nothing
        stored is waiting to be indexed by: what an order may be chosen for, and has its indexes."""
        if type not in self._complete:
            pending = self.pending(type)
            self._complete[type] = {
                code: one
                for code, one in self._of[type].items()
                if not one.added and one.key not in pending
            }
        return self._complete[type]

    def written(self, type: str) -> Mapping[str, Parameter]:
        """Return the parameters of ``type`` for which keys are written, whoever may ask by them."""
        return self._of[type]

    def without(self, pending: Mapping[str, Set[str]]) -> "ParameterTable":
        """Return this table, with a search by one of the fields ``pending`` refused.

        ``pending`` is type -> names inside ``keys``, such as :func:`~digests.field_digests` has.
        """
        table = copy(self)
        table._pending = pending
        table._complete = {}
        table.compiled = {}
        table._answered = {
            type: _Answered(type, of, pending[type]) if pending.get(type) else of
            for type, of in self._of.items()
        }
        return table

    def check_complete(self, field: str, types: Iterable[str]) -> None:
        """Raise ``transient`` while a part of the resources of one of ``types`` has no ``field``.

        ``field`` is ``COMPARTMENTS``, ``WORDS`` or ``CONTAINED``.
        """
        for type in types:
            if field in self.pending(type):
                raise _not_yet(type, _CALLED[field])

    def with_added(self, added: Iterable[SearchParameter]) -> "ParameterTable":
        """Return the table of the specification's parameters and of ``added``, none pending.

        What can be reused is: a site with a hundred of its own adds them one by one.
        """
        added = tuple(added)
        own = [one for one in self.definitions.search_parameters if not one.added]
        before = [one for one in self.definitions.search_parameters if one.added]
        changed = set(before) ^ set(added)
        if not changed:
            table = self.without({})
            table.unusable = {}
            return table
        bases = {base for one in changed for base in one.base}
        table = copy(self)
        table.definitions = replace(self.definitions, search_parameters=(*own, *added))
        table.unusable = {}
        for name in ("_hierarchies", "_by_url"):  # copied with the rest, and not true any more
            table.__dict__.pop(name, None)
        makers = [one for one in self._makers if not one.definition.added]
        makers += _makers(table.definitions, added, self._converters, table.unusable)
        touched = {
            type: _of_type(table.definitions, makers, type, table.unusable)
            for type in table.types
            if not bases.isdisjoint(PathCompiler(table.definitions.types, type).roots)
        }
        if table.unusable:  # one that some types could have is not served for those alone
            usable = self.with_added(one for one in added if one.url not in table.unusable)
            usable.unusable = table.unusable | usable.unusable
            return usable
        table._makers = makers
        table.memo = {}
        table._of = {**self._of, **touched}
        table._trees = {type: tree for type, tree in self._trees.items() if type not in touched}
        table._singles = {type: one for type, one in self._singles.items() if type not in touched}
        return table.without({})

    def pending(self, type: str) -> Set[str]:
        """Return the fields that a part of the stored resources of ``type`` does not have yet."""
        return self._pending.get(type, frozenset())

    @cached_property
    def _hierarchies(self) -> Mapping[str, str]:
        """Type -> the field of the references that make its resources a hierarchy."""
        return {
            type: found.field
            for type in self._of
            for code in _PART_OF
            if (found := self._of[type].get(code))
            if found.type == "reference" and type in found.targets
        }

    def hierarchies(self, parameter: Parameter) -> Mapping[str, str]:
        """Return those types that ``parameter`` can point at whose resources are parts of others
        of the type, each with the field that says of which."""
        return {
            type: self._hierarchies[type] for type in parameter.targets if type in self._hierarchies
        }

    def complete_hierarchies(self, parameter: Parameter) -> Mapping[str, str]:
        """Return the same, to be asked. Raises ``transient`` while one is still being indexed."""
        found = self.hierarchies(parameter)
        for type, field in found.items():
            if field.removeprefix("keys.") in self.pending(type):
                raise _not_yet(type, "what it is a part of")
        return found

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

    def named_parts(self, composite: Parameter) -> Mapping[str, Parameter]:
        """Return the parts of ``composite`` by the codes of their definitions.

        Where a part is not of the type that its definition has (R4 has those of DocumentReference
        ``relationship`` exchanged), it is called after the other definition that has that type.
        """
        defined = [self._by_url[part.url] for part in composite.components]
        return {
            next((one.code for one in (own, *defined) if one.type == part.type), own.code): part
            for part, own in reversed(list(zip(composite.components, defined, strict=True)))
        }

    @cached_property
    def _by_url(self) -> Mapping[str, SearchParameter]:
        return {one.url: one for one in self.definitions.search_parameters}

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
            parts = tuple(
                tuple((path, self._converters[part.type][path.type]) for path in paths)
                for part, paths in zip(parameter.components, below, strict=True)
            )
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
        compiler.begin()
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
            added=definition.added,
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
        for path in map(_with_system, paths) if type == "token" else paths:
            if path.type == "Extension":
                found += (one for one in compiler.paths(_VALUE, path) if one.type in written)
            elif path.type in written:
                found.append(path)
        if not found:
            kinds = ", ".join(path.type for path in paths) or "nothing"
            raise ValueError(f"it leads to {kinds}, which cannot be searched as {type}")
        return tuple(found)


def _with_system(path: Path) -> Path:
    """Return the path to the whole Coding for one to its code, so that its system is searched too.

    US Core has ``Patient.extension.where(…).extension.value.code`` for races.
    """
    if path.at != "Coding.code":
        return path
    coding = replace(path, steps=path.steps[:-1], type="Coding", element=None)
    return replace(coding, owner="Coding", at="Coding")


def _makers(
    definitions: Definitions,
    wanted: Iterable[SearchParameter],
    converters: Mapping[str, Mapping[str, Convert]],
    unusable: dict[str, str],
) -> list[_Maker]:
    """Return a maker for each of ``wanted`` with an expression; the others have code of their own.

    ``definitions`` have those of components.
    """
    types = {one.url: one.type for one in definitions.search_parameters}
    makers = []
    for definition in wanted:
        if definition.expression:
            with _named(definition, unusable):
                makers.append(_Maker(definition, types, converters))
    return makers


@contextmanager
def _named(definition: SearchParameter, unusable: dict[str, str]) -> Iterator[None]:
    """Name the definition in the message of a :class:`ValueError`.

    What a site added does not stop the start: it is noted in ``unusable``, and not served.
    """
    try:
        yield
    except (ValueError, KeyError, IndexError, RecursionError) as error:
        where = definition.expression[:_SHOWN_CHARACTERS_MAX]
        text = f"SearchParameter {definition.url}: {error} ({where})"
        if not definition.added:
            raise ValueError(text) from error
        unusable[definition.url] = text


def _of_type(
    definitions: Definitions, makers: Iterable[_Maker], type: str, unusable: dict[str, str]
) -> dict[str, Parameter]:
    compiler = PathCompiler(definitions.types, type)
    found: dict[str, Parameter] = {}
    for maker in makers:
        definition = maker.definition
        if compiler.roots.isdisjoint(definition.base) or definition.url in unusable:
            continue
        with _named(definition, unusable):
            made = maker.parameter(compiler, definitions.resource_types)
            if definition.added and definition.code in found:
                check_same(made, found[definition.code])
            else:
                found[definition.code] = made
    return _with_narrower(_with_shared_fields(dict(sorted(found.items()))))


def check_same(added: Parameter, known: Parameter) -> None:
    """Raise :class:`ValueError` unless ``added`` only repeats what ``known`` does."""
    same = (added.type, set(added.paths), added.wholes) == (
        *(known.type, set(known.paths), known.wholes),
    )
    if not same:
        raise ValueError(
            f"{added.resource_type} has a search parameter {added.code} already, {known.url}, "
            "which reads other elements; give this one another code"
        )


def _with_shared_fields(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    """Give one field to those of ``parameters`` that write the same keys.

    What a site adds never renames a field: it would have to be written anew everywhere.
    """
    groups: dict[Any, list[str]] = {}
    for parameter in sorted(parameters.values(), key=lambda one: one.added):
        if parameter.key:
            what = (parameter.type, frozenset(parameter.paths), parameter.wholes)
            groups.setdefault(what, []).append(parameter.code)
    for codes in groups.values():
        own = [code for code in codes if not parameters[code].added] or codes
        name = next((code for code in _NAMED_FIRST if code in own), own[0])
        for code in codes:
            parameters[code] = replace(parameters[code], field=f"keys.{name}")
    return parameters


def _with_narrower(parameters: dict[str, Parameter]) -> dict[str, Parameter]:
    """Tell references which others read the same elements, but for one type only."""
    references = [one for one in parameters.values() if one.type == "reference"]
    narrow: dict[frozenset[tuple[Step, ...]], dict[str, str]] = {}
    for one in references:
        targets = {path.targets for path in one.paths}
        # What a site adds may be taken away again, or not be indexed yet.
        if one.id_types and len(targets) == 1 and len(one.id_types) == 1 and not one.added:
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
    definitions: Definitions,
    base_urls: tuple[str, ...] = (),
    *,
    text_search: bool = True,
    reference_bases: tuple[str, ...] = (),
) -> ParameterTable:
    """Return the table of all search parameters in ``definitions``.

    ``base_urls`` are those of this server: a reference below one of them is a local one;
    ``reference_bases`` are those of them that a setting names.
    ``text_search`` has the words of every resource written for ``_text`` and ``_content``.

    Raises :class:`ValueError` that names the parameter for an expression that is not supported,
    unless a site has added it: that one is left out, and is in ``unusable``.
    """
    return ParameterTable(
        definitions, base_urls, text_search=text_search, reference_bases=reference_bases
    )
