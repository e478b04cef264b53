"""FHIRPath expressions, compiled once and evaluated on elements.

http://hl7.org/fhirpath/N1/, https://hl7.org/fhir/R4/fhirpath.html

>>> expression = compiled("1 + 2 * 3")
>>> expression.text
'1 + 2 * 3'
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from fhir_server.r4.fhirpath.compiler import Compiled, compiled_tree
from fhir_server.r4.fhirpath.environment import Environment, State
from fhir_server.r4.fhirpath.faults import FhirPathError
from fhir_server.r4.fhirpath.grammar import expression
from fhir_server.r4.fhirpath.model import Node, Value
from fhir_server.r4.fhirpath.tree import Node as Tree

_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that can be evaluated again and again, in any environment."""

    text: str
    tree: Tree
    _compiled: Compiled

    def evaluate(self, focus: Node | Sequence[Value], environment: Environment) -> list[Value]:
        """Return what the expression means at ``focus``, an element or several values.

        Values of elements are :class:`Node`, any others plain ones. What must be looked up is
        added to ``environment.asked``. Raises :class:`FhirPathError` for what means nothing there,
        :class:`TooCostly` over the limits of the environment.
        """
        this: list[Value] = [focus] if isinstance(focus, Node) else list(focus)
        try:
            return list(self._compiled.items(this, State(environment, this)))
        except RecursionError as error:
            raise FhirPathError("the expression is nested too deeply") from error

    def truth(self, focus: Node | Sequence[Value], environment: Environment) -> bool | None:
        """Return whether the condition holds at ``focus``; ``None`` where nothing can be said.

        One item that is no boolean is true. Raises like :meth:`evaluate`.
        """
        this: list[Value] = [focus] if isinstance(focus, Node) else list(focus)
        state = State(environment, this)
        try:
            return self._compiled.truth(this, state)
        except RecursionError as error:
            raise FhirPathError("the expression is nested too deeply") from error
        finally:
            environment.spent += environment.steps_max - state.left

    def test(self, focus: Node | Sequence[Value], environment: Environment) -> bool:
        """Return whether an invariant holds at ``focus``: it must be true, nothing less.

        Raises like :meth:`evaluate`.
        """
        return self.truth(focus, environment) is True


@lru_cache(maxsize=_KEPT)
def compiled(text: str) -> Expression:
    """Return the expression ``text``, compiled.

    Raises :class:`FhirPathError`, with the position of the fault, for what is outside the grammar,
    calls what is no function, or calls one with other arguments than it has.
    """
    tree = expression(text)
    return Expression(text, tree, compiled_tree(tree))
