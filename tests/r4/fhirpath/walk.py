"""Every element of a resource with the invariants that hold for it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fhir_server.r4.definitions import Constraint
from fhir_server.r4.fhirpath.environment import Environment
from fhir_server.r4.fhirpath.model import Model, Node


@dataclass(frozen=True, slots=True)
class Focus:
    """An element, what is around it, and its invariants."""

    node: Node
    environment: Environment
    constraints: tuple[Constraint, ...]
    path: str


def foci(model: Model, root: Node) -> Iterator[Focus]:
    """Yield every element of the resource ``root``, those of contained ones as well."""
    environment = Environment(model, resource=root, root_resource=root)
    yield from _foci(model, root, (), environment, root.type)


def _foci(
    model: Model,
    node: Node,
    constraints: Iterable[Constraint],
    around: Environment,
    path: str,
) -> Iterator[Focus]:
    types = model.definitions.types
    own = {one.key: one for one in constraints}
    for name in sorted(
        node.shape.names & types.keys()
    ):  # what a type specializes has invariants as well
        own |= {one.key: one for one in types[name].root.constraints}
    yield Focus(node, around, tuple(own.values()), path)
    for form in _forms(node):
        for at, child in enumerate(node.member(form.name)):
            where = f"{path}.{form.name}[{at}]"
            here = around
            if child.shape.is_resource:
                here = Environment(model, resource=child, root_resource=around.root_resource)
            yield from _foci(model, child, form.element.constraints, here, where)


def _forms(node: Node) -> list:  # type: ignore[type-arg]
    holder = node.sibling if node.shape.is_primitive else node.value
    members = node.shape.members
    found = [members[key] for key in holder if key in members] if isinstance(holder, dict) else []
    return list({form.name: form for form in found}.values())
