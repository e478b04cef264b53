"""What a search needs to know from the database before it can be compiled.

Compiling waits for nothing. Where a parameter names a value set that is not loaded, or a place in
a hierarchy of resources, what it needs is written down as *wanted*; the caller looks it up, and has
the search compiled again with what is *known*.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from fhir_server.outcome import FhirError, Issue
from fhir_server.r4.codes import Hierarchy
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.expansion import Code, Expander, Shelved, Unexpandable
from fhir_server.r4.selections import Above, Below, Codes, untold

CODES_MAX = 10_000
"""The codes of a value set that a search can ask for."""
_CODES_IN_ALL = 50_000


class Artifact(NamedTuple):
    """A stored ``ValueSet`` or ``CodeSystem``. ``name`` is a canonical, or ``ValueSet/id``.

    Known is the resource, or ``None``.
    """

    type: str
    name: str


class Kin(NamedTuple):
    """What lies above or below the resource ``type/id``, by the references at ``field``.

    Known are the ids, that of the resource itself among them.
    """

    type: str
    field: str
    id: str
    above: bool


class Listing(NamedTuple):
    """The codes of the large code system ``system``, a canonical, that are among ``codes``.

    Known is the set of them, or ``None`` for more than :data:`CODES_MAX`.
    """

    system: str
    codes: Codes


Wanted = Artifact | Kin | Listing
Known = Mapping[Wanted, Any]
NOTHING_KNOWN: Known = {}


class NotKnown(Exception):
    """Something is wanted that has not been looked up yet."""


class Wants:
    """Gives what is known, and remembers what is wanted. One for each compiling of a search."""

    def __init__(self, definitions: Definitions, known: Known = NOTHING_KNOWN) -> None:
        self.wanted: set[Wanted] = set()
        self._definitions = definitions
        self._known = known
        self._expander = Expander(self._artifact, CODES_MAX)
        self._codes = 0

    def get(self, wanted: Wanted) -> Any:
        """Return what is known of ``wanted``. Raises :class:`NotKnown`."""
        if wanted not in self._known:
            self.wanted.add(wanted)
            raise NotKnown(wanted)
        return self._known[wanted]

    def count(self, codes: int) -> None:
        """Count ``codes`` that the search asks for. Raises ``too-costly`` for too many."""
        self._codes += codes
        if self._codes > _CODES_IN_ALL:
            text = f"The value sets of a search have at most {_CODES_IN_ALL:,} codes in all."
            raise FhirError(Issue("too-costly", text), status=400)

    def codes(self, name: str) -> frozenset[Code]:
        """Return the codes of the value set ``name``, loaded or stored.

        Raises :class:`Unexpandable` and :class:`NotKnown`.
        """
        if "|" not in name and (loaded := self._definitions.codes(name)) is not None:
            return loaded
        found: set[Code] = set()
        for system, codes in self._expander.selection(name).items():
            if reason := untold(codes):
                raise Unexpandable(reason)
            versions = sorted(self._expander.versions.get(system, ()))
            canonical = f"{system}|{versions[0]}" if versions else system
            found |= {(system, code) for code in self._listed(canonical, codes)}
        return frozenset(found)

    def kin(self, system: str, code: str, *, above: bool) -> frozenset[str] | None:
        """Return ``code`` and what is above or below it; ``None`` where it is not in ``system``.

        Raises :class:`Unexpandable` and :class:`NotKnown`.
        """
        try:
            hierarchy = self.hierarchy(system)
        except Unexpandable:
            if not isinstance(self._artifact("CodeSystem", system), Shelved):
                raise
            return self._listed(system, Above(code) if above else Below(code)) or None
        return hierarchy.above(code) if above else hierarchy.below(code)

    def _listed(self, system: str, codes: Codes) -> frozenset[str]:
        """Return ``codes`` one by one; those of a large system are looked up."""
        if isinstance(codes, frozenset):
            return codes
        found: frozenset[str] | None = self.get(Listing(system, codes))
        if found is None:
            raise Unexpandable(f"of {system} there are more than {CODES_MAX:,} codes")
        return found

    def hierarchy(self, system: str) -> Hierarchy:
        """Return the hierarchy of a code system, loaded or stored.

        Raises :class:`Unexpandable` and :class:`NotKnown`.
        """
        try:
            return self._definitions.hierarchy(system)
        except Unexpandable:
            return self._expander.hierarchy(system)

    def _artifact(self, type: str, name: str) -> Mapping[str, Any] | None:
        """Return the ValueSet or CodeSystem ``name``: one that is loaded whole, or else stored.

        An id is one of this server before it is one of a package.
        """
        loaded = self._definitions.artifact(type, name)
        if loaded and not name.startswith(f"{type}/") and loaded.get("content") in _WHOLE:
            return loaded
        stored: Mapping[str, Any] | None = self.get(Artifact(type, name))
        return stored or loaded


_WHOLE = ("complete", None)  # a value set has no content
