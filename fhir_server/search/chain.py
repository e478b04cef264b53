"""Chains and reverse chains: conditions on the resources that a resource is linked with.

https://hl7.org/fhir/R4/search.html#chaining, https://hl7.org/fhir/R4/search.html#has

======================================  ==================================================
name                                    what is selected
======================================  ==================================================
``code``                                what has the code
``subject:Patient.name``                what refers to a patient of that name
``subject.name``                        the same, of every type that a subject can be of
``_has:Observation:patient:code``       what such an Observation refers to as its patient
======================================  ==================================================

Each can stand behind a point or a ``_has``, so a name is read from its front, step by step. What
comes out is data: a selection, and joins with further selections. The store runs them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.search.keys import Filter
from fhir_server.search.parameter import Parameter
from fhir_server.search.parameters import ParameterTable

HAS = "_has"
_HAS_PARTS = 4  # _has, type, parameter, and what is asked of it
_CANONICALS = ("canonical", "uri")


@dataclass(frozen=True, slots=True)
class Link:
    """How one resource refers to another: by keys at ``field``, in the one that refers.

    ``literal`` says that a key may be ``Type/id``, ``canonical`` that it may be the url of a
    definition, with or without its version.
    """

    field: str
    literal: bool
    canonical: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """The resources of ``type`` that meet ``filter`` and all of ``joins``."""

    type: str
    filter: Filter
    joins: tuple["Part", ...] = ()


@dataclass(frozen=True, slots=True)
class Join:
    """The condition of being linked with a resource of one of ``selections``.

    ``reverse`` says that those refer to the resource in question, not it to them.
    """

    link: Link
    reverse: bool
    selections: tuple[Selection, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """The condition of being in one of ``selections``, which are of the same type."""

    selections: tuple[Selection, ...]


@dataclass(frozen=True, slots=True)
class Without:
    """The condition of not being in ``selection``, which is of the same type."""

    selection: Selection


Part = Join | Either | Without


def link_of(parameter: Parameter, *types: str) -> Link:
    """Return the link that a reference ``parameter`` is, to resources of ``types`` if given."""
    ends = {path.type for path in parameter.paths}
    canonical = not ends.isdisjoint(_CANONICALS)
    field = parameter.narrower.get(types[0], "") if len(types) == 1 else ""
    return Link(field or parameter.field, not ends <= set(_CANONICALS), canonical)


class Chains:
    """Reads the names of search parameters, whatever they are made of.

    ``criterion`` compiles the last step: ``(type, name, values) -> filter``. ``steps_max`` is how
    many resources one chain may lead through, ``selections_max`` how many selections all chains of
    a search may come to: a step without a type is one for each type that it can lead to.
    """

    def __init__(
        self,
        table: ParameterTable,
        criterion: Callable[[str, str, Sequence[str]], Filter],
        *,
        steps_max: int,
        selections_max: int,
    ) -> None:
        self._table = table
        self._criterion = criterion
        self._steps_max = steps_max
        self._selections_max = selections_max
        self._selections = 0

    def check(self, steps: int) -> None:
        """Raise ``too-costly`` where a chain has come through too many resources."""
        if steps > self._steps_max:
            raise _too_long(self._steps_max)

    def selection(self, type: str, name: str, values: Sequence[str], steps: int = 0) -> Selection:
        """Return the resources of ``type`` that the parameter ``name`` with ``values`` selects.

        Raises ``not-supported`` for what is unknown, ``too-costly`` for what is over the limits.
        """
        self.check(steps)
        if name.partition(":")[0] == HAS:
            return self._reverse(type, name, values, steps)
        head, point, rest = name.partition(".")
        if point:
            return self._forward(type, head, rest, values, steps)
        return Selection(type, self._criterion(type, name, values))

    def _forward(
        self, type: str, head: str, rest: str, values: Sequence[str], steps: int
    ) -> Selection:
        """``subject:Patient`` and what is asked of it."""
        asked = rest.partition(".")[0].partition(":")[0]
        return self.forward(
            type, head, asked, lambda one: self.selection(one, rest, values, steps + 1)
        )

    def forward(
        self, type: str, head: str, asked: str, read: Callable[[str], Selection]
    ) -> Selection:
        """Return the resources of ``type`` that refer, by ``head``, to what ``read`` selects.

        ``head`` is a reference parameter, perhaps with a type: ``subject:Patient``. ``asked`` is
        the code of what is asked of the target; ``read`` is called for each type that has it.
        """
        code, _, named = head.partition(":")
        parameter = self._reference(type, code)
        if named and named not in self._table.types:
            raise FhirError(
                Issue(
                    "not-supported",
                    f"{shown(named)} in a chain is no resource type."
                    f"{nearest(named, parameter.targets)}",
                )
            )
        types = (named,) if named else self._having(asked, parameter)
        inner: list[Selection] = []
        refusals: list[FhirError] = []
        for one in types:
            self._count()
            try:
                inner.append(read(one))
            except FhirError as error:
                if error.issues[0].code == "too-costly":
                    raise
                refusals.append(error)
        if not inner:
            raise refusals[0]
        link = link_of(parameter, *(one.type for one in inner))
        return Selection(type, {}, (Join(link, False, tuple(inner)),))

    def _having(self, code: str, parameter: Parameter) -> tuple[str, ...]:
        """Return the types that ``parameter`` can lead to and that have what comes next."""
        targets = parameter.targets
        if code == HAS:
            return targets
        if having := tuple(one for one in targets if code in self._table.of(one)):
            return having
        known = {other for one in targets for other in self._table.of(one)}
        among = ", ".join(targets[:5]) + (" and others" if len(targets) > 5 else "")
        raise FhirError(
            Issue(
                "not-supported",
                f"{parameter.code} leads to {among}, without a search parameter {shown(code)}."
                f"{nearest(code, sorted(known))}",
            )
        )

    def _reverse(self, type: str, name: str, values: Sequence[str], steps: int) -> Selection:
        """``_has:Observation:patient:`` and what is asked of it."""
        parts = name.split(":", _HAS_PARTS - 1)
        if len(parts) < _HAS_PARTS or parts[1] not in self._table.types:
            raise invalid_value(
                "A reverse chain", name, "_has:[type]:[reference parameter]:[parameter]"
            )
        _, other, code, rest = parts
        parameter = self._reference(other, code)
        if type not in parameter.targets:
            raise FhirError(
                Issue("not-supported", f"{other}:{code} never refers to a resource of {type}.")
            )
        self._count()
        inner = self.selection(other, rest, values, steps + 1)
        return Selection(type, {}, (Join(link_of(parameter, type), True, (inner,)),))

    def _reference(self, type: str, code: str) -> Parameter:
        """Return the reference parameter ``code`` of ``type``."""
        known = self._table.of(type)
        parameter = known.get(code)
        if parameter is None or parameter.type != "reference":
            what = "no search parameter" if parameter is None else "no reference parameter"
            references = [one for one, found in known.items() if found.type == "reference"]
            near = nearest(code, references)
            raise FhirError(Issue("not-supported", f"{type} has {what} {shown(code)}.{near}"))
        return parameter

    def _count(self) -> None:
        self._selections += 1
        if self._selections > self._selections_max:
            text = (
                f"The chains lead to more than {self._selections_max} types of resources; name "
                "the types: subject:Patient.name."
            )
            raise FhirError(Issue("too-costly", text), status=400)


def _too_long(steps_max: int) -> FhirError:
    text = f"A chain has at most {steps_max} steps; ask for the last resources first."
    return FhirError(Issue("too-costly", text), status=400)
