"""Invariants evaluated by the FHIRPath engine: items of a judgement as its elements.

https://hl7.org/fhir/R4/fhirpath.html
"""

from collections.abc import Iterator, Mapping
from typing import Any

from fhir_server.r4.definitions import Definitions
from fhir_server.r4.fhirpath.engine import Expression
from fhir_server.r4.fhirpath.environment import Environment
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.model import Model, Node
from fhir_server.r4.fhirpath.published import invariant
from fhir_server.r4.questions import Question, Target
from fhir_server.validation.running import Item, Run, Scope

_KEPT_MAX = 5_000
_ABSENT: Any = object()
# What gives nothing where something is not known here: then nothing is said of the invariant.
_LOOKED_UP = ("resolve(", "memberOf(", "conformsTo(", "subsumes", "now()", "today()")


class FhirPathEngine:
    """Says whether expressions hold at items; it compiles each once."""

    def __init__(self, definitions: Definitions) -> None:
        self._model = Model(definitions)
        self._compiled: dict[str, Expression | None] = {}

    def holds(self, run: Run, expression: str, item: Item) -> bool | None:
        """Return whether ``expression`` holds at ``item``; ``None`` where it cannot be told."""
        made = self._compile(expression)
        if made is None:
            text = f"The invariant {expression[:200]} is no FHIRPath, so it was not judged."
            run.once(f"fhirpath {expression}", "not-supported", text, item, "information")
            return None
        if run.is_exhausted:
            return None
        environment = self._environment(run, item.scope)
        before = environment.spent
        try:
            found = made.truth(self._node(item), environment)
        except (FhirPathError, TypeError, AttributeError) as error:
            # The latter two for what is not of its type, of which the structural validator speaks.
            text = f"The invariant {expression[:200]} could not be judged: {error}"
            run.once(f"fhirpath {expression}", "not-supported", text, item, "information")
            return None
        finally:
            run.spent(item, environment.spent - before)
        if found is None:
            return None if any(name in expression for name in _LOOKED_UP) else False
        return found

    def _compile(self, expression: str) -> Expression | None:
        found: Expression | None = self._compiled.get(expression, _ABSENT)
        if found is _ABSENT:
            if len(self._compiled) >= _KEPT_MAX:
                self._compiled.clear()  # clients bring profiles too
            found = self._compiled[expression] = _made(expression)
        return found

    def _node(self, item: Item) -> Node:
        type, value = item.type, item.value
        if isinstance(value, dict) and isinstance(value.get("resourceType"), str):
            return self._model.resource(value)
        owner, dot, _ = type.partition(".")
        if dot:
            return Node(self._model.shape("BackboneElement", owner, type), value, item.sibling)
        return self._model.node(type, value, item.sibling)

    def _environment(self, run: Run, scope: Scope) -> Environment:
        key = id(scope.resource)
        found = run.environments.get(key)
        if found is None:
            resource = self._model.resource(scope.resource)
            is_inside = scope.container is not scope.resource
            found = run.environments[key] = Environment(
                model=self._model,
                resource=resource,
                root_resource=self._model.resource(scope.container) if is_inside else resource,
                known=_Known(run, scope) if scope.bundle is not None else run.known,
                asked=run.asked,
                conforms=lambda node, url: _conforms(run, scope, node, url),
                steps_max=run.limits.of_invariant,
            )
        return found


def _made(expression: str) -> Expression | None:
    try:
        return invariant(expression)
    except FhirPathError:
        return None


def _conforms(run: Run, scope: Scope, node: Node, canonical: str) -> bool | None:
    item = Item(node.value, node.type, scope, None, node.type, None, node.sibling)
    return run.conforms(item, canonical)


class _Known(Mapping[Question, Any]):
    """What is known in an entry of a bundle: first what the entries beside it are."""

    def __init__(self, run: Run, scope: Scope) -> None:
        self._run = run
        self._scope = scope

    def __getitem__(self, question: Question) -> Any:
        if isinstance(question, Target) and self._scope.bundle is not None:
            found = self._scope.bundle.find(question.reference, self._scope.full_url)
            if found is not None:
                return found[0]
        return self._run.known[question]

    def __iter__(self) -> Iterator[Question]:
        return iter(self._run.known)

    def __len__(self) -> int:
        return len(self._run.known)
