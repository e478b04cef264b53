"""What an expression is evaluated in, and what an evaluation may cost."""

from collections.abc import Callable, Mapping, MutableSet, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fhir_server.r4.fhirpath.faults import FhirPathError, TooCostly
from fhir_server.r4.fhirpath.model import Model, Node, Value, system
from fhir_server.r4.questions import Answers, Question
from fhir_server.r4.ucum import Units

STEPS_MAX = 1_000_000
"""Elements looked at, items compared and criteria evaluated, each counted; about a microsecond."""
CHARACTERS_MAX = 1_000_000
"""The longest string that is made."""

Conforms = Callable[[Node, str], bool | None]
"""``(element, canonical of a profile)`` -> whether it conforms; ``None`` where it is not known."""
Trace = Callable[[str, Sequence[Value]], None]


@dataclass(slots=True)
class Environment:
    """What is known around an evaluation. One serves all expressions of one resource.

    ``resource`` is ``%resource``; ``root_resource`` is what contains it, and else the same.
    ``variables`` are further external constants. ``now`` has a zone; without it, ``now()``,
    ``today()`` and ``timeOfDay()`` raise :class:`FhirPathError`.

    Nothing waits: what ``resolve()``, ``memberOf()``, ``conformsTo()`` and ``subsumes()`` would
    have to look up is added to ``asked``, and the function gives nothing, like one of which
    nothing can be said. Where something was asked, the result is provisional: the caller answers
    what is in ``asked``, and evaluates again with the answers in ``known``, until nothing new is
    asked. That takes as many rounds as questions depend on one another, mostly one.

    ``conforms`` is a pure function that judges by profiles; without it, ``conformsTo()`` knows the
    types of the specification only.
    """

    model: Model
    resource: Node | None = None
    root_resource: Node | None = None
    variables: Mapping[str, Sequence[Value]] = field(default_factory=dict)
    now: datetime | None = None
    known: Answers = field(default_factory=dict)
    asked: MutableSet[Question] = field(default_factory=set)
    conforms: Conforms | None = None
    trace: Trace | None = None
    steps_max: int = STEPS_MAX
    spent: int = 0
    """The steps of all conditions that were judged here."""
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What is the same for all expressions here, such as ``%resource.descendants()``."""

    def ask(self, question: Question) -> Any:
        """Return the answer to ``question``, or ``None`` having noted it."""
        if question in self.known:
            return self.known[question]
        self.asked.add(question)
        return None


class State:
    """One evaluation: its place (``$index``, ``$total``, ``%context``) and what it may still cost.

    Lists of values are shared; who gets one does not change it.
    """

    __slots__ = ("context", "environment", "index", "left", "total", "units")

    def __init__(self, environment: Environment, context: list[Value]) -> None:
        self.environment = environment
        self.context = context
        self.units: Units = environment.model.definitions.units
        self.left = environment.steps_max
        self.index: int | None = None
        self.total: list[Value] = []

    def spend(self, steps: int) -> None:
        """Count ``steps``. Raises :class:`TooCostly` over the limit."""
        self.left -= steps
        if self.left < 0:
            raise TooCostly(f"The expression takes more than {self.environment.steps_max:,} steps.")

    def weigh(self, *lists: Sequence[Value]) -> None:
        """Count what is compared: each item, and all that is inside it."""
        for items in lists:
            self.spend(len(items))
            for item in items:
                if type(item) is Node and type(item.value) is dict:
                    self.spend(_size(item.value))


def _size(json: Any) -> int:
    inside = json.values() if type(json) is dict else json if type(json) is list else ()
    return 1 + sum(map(_size, inside))


Items = Callable[[list[Value], State], list[Value]]
"""``(what a path here begins at, state)`` -> values."""
Truth = Callable[[list[Value], State], bool | None]
Step = Callable[[list[Value], list[Value], State], list[Value]]
"""``(what the step is applied to, what a path in its arguments begins at, state)`` -> values."""

BOOLEANS: Mapping[bool | None, list[Value]] = {True: [True], False: [False], None: []}


def single(items: Sequence[Value], what: str) -> Any:
    """Return the only item as a system value, or ``None``. Raises :class:`FhirPathError`."""
    if not items:
        return None
    if len(items) > 1:
        raise FhirPathError(f"{what} takes one item, and there are {len(items)}")
    value = system(items[0])
    return None if type(value) is Node and value.value is None else value


def string(items: Sequence[Value], what: str) -> str | None:
    """Return the only item, a string, or ``None``."""
    value = single(items, what)
    if value is not None and type(value) is not str:
        raise FhirPathError(f"{what} takes a string")
    return value


def integer(items: Sequence[Value], what: str) -> int | None:
    """Return the only item, an integer, or ``None``."""
    value = single(items, what)
    if value is not None and type(value) is not int:
        raise FhirPathError(f"{what} takes an integer")
    return value


def truth(items: Sequence[Value], what: str = "A condition") -> bool | None:
    """Return the boolean that ``items`` are: one thing that is no boolean is true."""
    if not items:
        return None
    value = single(items, what)
    return value if type(value) is bool else value is not None or type(items[0]) is Node


def checked_length(text: str, state: State) -> list[Value]:
    """Return ``text`` in a list. Raises :class:`TooCostly` where it is too long."""
    if len(text) > CHARACTERS_MAX:
        raise TooCostly(
            f"The expression makes a string of more than {CHARACTERS_MAX:,} characters."
        )
    state.spend(len(text) >> 6)
    return [text]
