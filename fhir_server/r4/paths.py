"""The FHIRPath of search parameters: expression -> paths through the JSON of a type.

https://hl7.org/fhir/R4/fhirpath.html

A search parameter's expression is compiled against the definition of the type it serves, so the
FHIR type of whatever a path leads to is known before any resource is seen. Supported is what the
R4 parameters use and what profiles commonly add:

- steps, choice elements (``Observation.value``, and by one form ``Extension.valueDateTime``), and
  what some of the forms of a choice have (``Extension.value.code``)
- ``Resource`` and ``DomainResource`` as the root
- ``as``, ``as()``, ``ofType()``, ``is``, unions, ``[0]``, ``first()``, ``%resource``
- ``where()`` with ``=``, ``!=``, ``and``, ``exists()``, ``hasExtension()``, ``resolve() is X``
- ``extension(url)``, and a condition as the whole: ``Patient.deceased.exists() and …``
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fhir_server.r4.definitions import Element, ElementType, TypeDefinition
from fhir_server.r4.fhirpath.tree import (
    Binary,
    Call,
    Index,
    Literal,
    Member,
    Name,
    Node,
    Typed,
    Variable,
)
from fhir_server.r4.references import target

Test = Callable[[Any, Any], bool]
"""``(element, whole resource)`` -> whether the element passes."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a path. Two steps with the same ``key`` do the same.

    A step into a member has its ``name``; ``many`` says that the member is a list, and ``choice``
    names the element that this member is one form of. Any other step has a ``test`` or picks the
    item number ``position`` of a list. With ``computes``, the outcome of the test is the value.
    """

    key: str
    name: str = ""
    many: bool = False
    choice: str = ""
    position: int | None = None
    test: Test | None = field(default=None, compare=False)
    computes: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """A way through the JSON of a type, and what lies at its end.

    ``type`` is the FHIR type there; ``owner`` and ``at`` are where the definitions have it
    (``Observation`` and ``Observation.component``). ``targets`` are those of a reference.
    With ``resolved``, nothing but ``targets`` passes.
    ``from_resource`` says that the path begins at the whole resource, wherever it is asked from.
    """

    steps: tuple[Step, ...]
    type: str
    owner: str
    at: str
    element: Element | None = field(default=None, compare=False)
    targets: tuple[str, ...] = ()
    resolved: bool = False
    from_resource: bool = False

    @property
    def many(self) -> bool:
        """Whether the path can lead to several values."""
        many = False
        for step in self.steps:
            many = (many or step.many) and step.position is None
        return many

    def then(self, step: Step, **changes: Any) -> "Path":
        """Return this path with one more step."""
        return replace(self, steps=(*self.steps, step), **changes)

    def values(self, element: Any, resource: Any) -> list[Any]:
        """Return what the path leads to from ``element``, which lies in ``resource``."""
        found = [resource if self.from_resource else element]
        for step in self.steps:
            found = walked(step, found, resource)
        return found


def walked(step: Step, elements: Iterable[Any], resource: Any) -> list[Any]:
    """Return what ``step`` makes of ``elements``, which lie in ``resource``."""
    if step.position is not None:
        return list(elements)[step.position : step.position + 1]
    test = step.test
    if test is not None:
        if step.computes:
            return [test(element, resource) for element in elements]
        return [element for element in elements if test(element, resource)]
    found: list[Any] = []
    for element in elements:
        value = element.get(step.name) if type(element) is dict else None
        if type(value) is list:
            found += [item for item in value if item is not None]
        elif value is not None:
            found.append(value)
    return found


# Each step into a choice has some fifty branches, and three such steps are 125,000 paths. The
# specification's own parameters take 53 at most.
STEPS_MAX = 1000


class PathCompiler:
    """Compiles the expressions that serve one resource type."""

    def __init__(self, types: Mapping[str, TypeDefinition], resource_type: str) -> None:
        self._types = types
        self.root = Path((), resource_type, resource_type, resource_type)
        self.roots = frozenset(_ancestry(types, resource_type))
        self._steps = 0

    def begin(self) -> None:
        """Begin another parameter: what is counted against :data:`STEPS_MAX` is one's own."""
        self._steps = 0

    def paths(self, node: Node, start: Path | None = None) -> tuple[Path, ...]:
        """Return the paths that ``node`` means, from ``start`` or else from the resource itself.

        The branches of a union that begin with the name of another type are left out. Raises
        :class:`ValueError` for what is not supported and for elements that are not defined.
        """
        return tuple(dict.fromkeys(self._paths(node, start or self.root)))

    def test(self, node: Node, start: Path) -> Test:
        """Return the condition ``node`` on an element at the end of ``start``."""
        match node:
            case Binary("and", left, right):
                first, second = self.test(left, start), self.test(right, start)
                return lambda element, resource: (
                    first(element, resource) and second(element, resource)
                )
            case Binary("=" | "!=" as operator, left, Literal(value)):
                return _compares(self._from_here(left, start), value, operator == "=")
            case Call(source, "exists", ()):
                return _exists(self._from_here(source, start))
            case Call(None, "hasExtension", (Literal(str(url)),)):
                return _exists(self._from_here(Call(None, "extension", (Literal(url),)), start))
            case Typed("is", Call(None, "resolve", ()), type):
                return lambda element, resource: refers_to(element, type, resource)
            case Typed("is", source, type):
                kept = [p for p in self._from_here(source, start) if _is_type(p.type, type)]
                return _exists(kept)
            case Literal(bool(value)):
                return lambda element, resource: value
            case Binary():
                raise ValueError(f"{node.operator} is not supported there")
        return _compares(self._from_here(node, start), True, True)

    def _from_here(self, node: Node | None, start: Path) -> tuple[Path, ...]:
        here = replace(start, steps=(), from_resource=False)
        return self.paths(node, here) if node is not None else (here,)

    def _paths(self, node: Node | None, start: Path) -> Iterator[Path]:
        match node:
            case None:
                yield start
            case Name(name):
                yield from self._named(name, start)
            case Variable("resource" | "context"):
                yield replace(self.root, from_resource=True)
            case Binary("|", left, right):
                yield from self._paths(left, start)
                yield from self._paths(right, start)
            case Binary() | Call(_, "exists" | "hasExtension", _) | Typed("is"):
                yield from self._condition(node, start)
            case Member(source, name):
                yield from self._members_of(tuple(self._paths(source, start)), name)
            case Index(source) | Typed(_, source) | Call(source):
                for path in self._paths(source, start):
                    yield from self._further(path, node)
            case _:
                raise ValueError(f"{node} is not supported")

    def _further(self, path: Path, node: Node) -> Iterator[Path]:
        """Yield where ``node`` leads from its source, which is at the end of ``path``."""
        match node:
            case Index(_, Literal(int(position))) if not isinstance(position, bool):
                yield path.then(Step(f"[{position}]", position=position))
            case Typed("as", _, type):
                if _is_type(path.type, type):
                    yield path
            case Call(_, name, arguments):
                yield self._called(path, name, arguments)
            case _:
                raise ValueError("only a number is supported as an index")

    def _named(self, name: str, start: Path) -> Iterator[Path]:
        """Yield the paths of a first name: a type's name leads nowhere from another type."""
        if name[0].isupper():
            if name in self.roots:
                yield start if start == self.root else replace(self.root, from_resource=True)
            elif name not in self._types:
                raise ValueError(f"{name} is not a type")
        elif name == "$this":
            yield start
        else:
            yield from self._members_of((start,), name)

    def _members_of(self, sources: tuple[Path, ...], name: str) -> Iterator[Path]:
        """Yield the paths to ``name``; one of several ``sources`` at least must have it.

        ``Extension.value`` is of some forty types: ``.code`` is asked of those that have it.
        """
        having = [path for path in sources if any(self._children(path, name))]
        if sources and not having:
            raise ValueError(f"{sources[0].at} has no element {name}")
        for path in having:
            yield from self._children(path, name)

    def _children(self, path: Path, name: str) -> Iterator[Path]:
        """Yield the paths to the element ``name``, or to the one form ``valueCode`` of a choice."""
        owner, at = self._place(path)
        for element in self._types[owner].elements.get(at, ()) if owner in self._types else ():
            if element.name == name:
                yield from self._members(path, owner, element)
                return
            if element.is_choice and name.startswith(element.name):
                forms = self._members(path, owner, element)
                yield from (one for one in forms if one.steps[-1].name == name)

    def _members(self, path: Path, owner: str, element: Element) -> Iterator[Path]:
        if element.content_reference:
            step = Step(element.name, element.name, element.is_list)
            yield path.then(
                step,
                type="BackboneElement",
                owner=owner,
                at=element.content_reference,
                element=element,
                targets=(),
            )
        for member, type in element.members():
            self._steps += 1
            if self._steps > STEPS_MAX:
                raise ValueError("it leads to too many places; name the types of its choices")
            choice = element.path if element.is_choice else ""
            step = Step(member, member, element.is_list, choice)
            yield path.then(
                step,
                type=type.code,
                owner=owner,
                at=element.path,
                element=element,
                targets=_targets(type),
            )

    def _place(self, path: Path) -> tuple[str, str]:
        """Return where the definitions list the children of what lies at the end of ``path``."""
        if path.at in self._types.get(path.owner, _NOTHING).elements:
            return path.owner, path.at
        return path.type, path.type

    def _called(self, path: Path, name: str, arguments: tuple[Node, ...]) -> Path:
        match name, arguments:
            case "where", (condition,):
                step = Step(f"where({condition})", test=self.test(condition, path))
                match condition:
                    case Typed("is", Call(None, "resolve", ()), type):
                        return path.then(step, targets=(type,), resolved=True)
                return path.then(step)
            case "first", ():
                return path.then(Step("[0]", position=0))
            case "extension", (Literal(str(url)),):
                step = Step("extension", "extension", many=True)
                extended = path.then(
                    step, type="Extension", owner="Extension", at="Extension", element=None
                )
                same = _compares((Path((Step("url", "url"),), "uri", "uri", "uri"),), url, True)
                return extended.then(Step(f"extension({url})", test=same))
        raise ValueError(f"{name}() with {len(arguments)} arguments is not supported")

    def _condition(self, node: Node, start: Path) -> Iterator[Path]:
        """Yield the path to a boolean that is computed, unless it is about another type."""
        if start == self.root and not _is_about(node, self.roots):
            return
        step = Step(f"={node}", test=self.test(node, start), computes=True)
        yield start.then(step, type="boolean", owner="boolean", at="boolean", element=None)


_NOTHING = TypeDefinition(
    *("", "", "", False, None),
    root=Element("", 0, None, (), None, None, (), None, False, False),
    elements={},
    regex=None,
)


def _ancestry(types: Mapping[str, TypeDefinition], type: str | None) -> Iterator[str]:
    while type:
        yield type
        type = types[type].base if type in types else None


def _targets(type: ElementType) -> tuple[str, ...]:
    return type.targets if type.code in ("Reference", "canonical") else ()


def _is_type(type: str, wanted: str) -> bool:
    # R4 writes value.as(DateTime) once (Observation code-value-date); the type is dateTime.
    return type == wanted or type == wanted[:1].lower() + wanted[1:]


def _is_about(node: Node, roots: frozenset[str]) -> bool:
    """Whether no name of a type in ``node`` is that of another type."""
    match node:
        case Name(text):
            return text in roots or not text[0].isupper()
        case Binary(_, left, right):
            return _is_about(left, roots) and _is_about(right, roots)
        case Member(source, _) | Index(source, _):
            return _is_about(source, roots)
        case Call(source, _, _) | Typed(_, source, _):
            return source is None or _is_about(source, roots)
    return True


def _exists(paths: Iterable[Path]) -> Test:
    kept = tuple(paths)
    return lambda element, resource: any(path.values(element, resource) for path in kept)


def _compares(paths: tuple[Path, ...], value: Any, equal: bool) -> Test:
    """Return the test of the first value that ``paths`` lead to; no value passes no test."""

    def test(element: Any, resource: Any) -> bool:
        for path in paths:
            for found in path.values(element, resource):
                same: bool = found == value and isinstance(found, bool) == isinstance(value, bool)
                return same == equal
        return False

    return test


def refers_to(reference: Any, type: str, resource: Any) -> bool:
    """Return whether ``reference`` points at a resource of ``type``, as far as can be told.

    A contained resource is looked up in ``resource``; otherwise the text of the reference counts,
    and its element ``type`` where the text names none. Nothing is fetched.
    """
    if not isinstance(reference, dict):
        return False
    text = reference.get("reference")
    if isinstance(text, str) and text.startswith("#"):
        contained = resource.get("contained")
        return isinstance(contained, list) and any(
            isinstance(one, dict) and one.get("id") == text[1:] and one.get("resourceType") == type
            for one in contained
        )
    named = target(text).type if isinstance(text, str) else ""
    return (named or reference.get("type")) == type
