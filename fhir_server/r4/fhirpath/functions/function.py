"""What a function is to the compiler."""

from collections.abc import Callable
from dataclasses import dataclass

from fhir_server.r4.fhirpath.environment import Items, State, Step
from fhir_server.r4.fhirpath.model import Value
from fhir_server.r4.fhirpath.tree import Node

Run = Callable[[list[Value], list[list[Value]], State], list[Value]]
"""``(what it is called on, arguments, state)`` -> values."""
Make = Callable[[tuple[Items, ...], tuple[Node, ...]], Step]
"""``(arguments, as they are written)`` -> the step; the arguments are evaluated by the step."""
Test = Callable[[list[Value], list[list[Value]], State], bool | None]


@dataclass(frozen=True, slots=True)
class Function:
    """A function with ``least`` to ``most`` arguments, and one of three ways to do it.

    ``test`` gives a boolean; ``make`` has arguments that are evaluated for each item.
    """

    least: int
    most: int
    run: Run | None = None
    test: Test | None = None
    make: Make | None = None
