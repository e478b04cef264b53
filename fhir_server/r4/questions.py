"""What a pure core must know from elsewhere before it can finish, written down as data.

A core that meets something it cannot know (a profile, a code's membership, the target of a
reference) notes the question and goes on. The shell looks the answers up and calls the core again
with what is known, until nothing is asked.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from fhir_server.outcome import FhirError, Issue


class Canonical(NamedTuple):
    """A conformance resource: ``type`` is ``StructureDefinition``, ``ValueSet``, …

    ``url`` is its canonical, perhaps with ``|version``. The answer is the resource, or ``None``.
    """

    type: str
    url: str


class Target(NamedTuple):
    """What the literal ``reference`` leads to. The answer is the resource, or ``None``."""

    reference: str


class CodeInValueSet(NamedTuple):
    """Is this code in the value set? The answer is :class:`Coded`.

    ``system`` is ``""`` for an element of type code, whose system the value set implies. An empty
    ``display`` or ``version`` is not checked.
    """

    value_set: str
    system: str
    code: str
    display: str = ""
    version: str = ""


class CodeInSystem(NamedTuple):
    """Does the code system have this code? The answer is :class:`Coded`."""

    system: str
    code: str
    display: str = ""
    version: str = ""


class Coded(NamedTuple):
    """What a terminology says of a code.

    ``result`` is ``None`` where it cannot be told: the value set or the system is not here, or not
    whole; ``message`` says so in a sentence, and why not where ``result`` is false. ``display`` is
    the right display, where there is one; ``nearest`` a code that may have been meant.
    """

    result: bool | None
    message: str = ""
    display: str = ""
    nearest: str = ""


class Prepared(NamedTuple):
    """A profile that is known and was not compiled yet. There is no answer: it is compiled, where
    that holds up nobody, and the questions that this raises are answered."""

    url: str


class Unanswered(FhirError):
    """A write was judged as far as that goes; ``questions`` are to be answered first.

    Nothing was written. Whoever lets it through to a client has not answered them.
    """

    def __init__(self, questions: Iterable["Question"]) -> None:
        text = "What this resource is to be checked against was not looked up; try again."
        super().__init__(Issue("transient", text))
        self.questions = frozenset(questions)


Question = Canonical | Target | CodeInValueSet | CodeInSystem | Prepared
Answers = Mapping[Question, Any]
