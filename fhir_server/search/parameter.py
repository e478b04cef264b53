"""One search parameter of one resource type, compiled.

https://hl7.org/fhir/R4/searchparameter.html
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as member

from fhir_server.r4.paths import Path
from fhir_server.search.token import WITHOUT_SYSTEM, modifiers
from fhir_server.search.written import NAME_PARTS

Wholes = tuple[tuple[Path, tuple[tuple[Path, ...], ...]], ...]
"""Of a composite: the elements it is about, and below each the paths of every component."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter of one resource type.

    ``type`` is ``token``, ``string`` and so on; ``targets`` are the types that a reference can
    point at, all of them where the definition does not say. ``single`` says that a document has
    one key at most, which then stands bare at ``field``, else in an array. ``field`` is where the
    document has the keys (``keys.code``).

    ``components`` are those of a composite, with the field they have inside one of its keys;
    ``wholes`` are the elements it is about, with the paths of the components below each.
    ``added`` says that a site has added it.

    ``narrower`` is, for a type that a reference can point at, the field of the parameter that has
    just those references (``subject`` -> ``Patient`` -> ``keys.patient``).
    """

    code: str
    type: str
    url: str
    resource_type: str
    targets: tuple[str, ...]
    single: bool
    field: str
    paths: tuple[Path, ...] = member(repr=False)
    components: tuple["Parameter", ...] = member(default=(), repr=False)
    wholes: Wholes = member(default=(), repr=False)
    added: bool = False
    narrower: Mapping[str, str] = member(default_factory=dict, repr=False)

    @property
    def key(self) -> str | None:
        """The name inside ``keys``; ``None`` where no key is written for the parameter."""
        return self.field.removeprefix("keys.") if self.field.startswith("keys.") else None

    @property
    def id_types(self) -> tuple[str, ...] | None:
        """The types that a bare id can mean, where references to others have no key."""
        return self.targets if all(path.resolved for path in self.paths) else None

    @property
    def has_parts(self) -> bool:
        """Whether the later words of names are kept beside the keys."""
        return self.type == "string" and any(
            path.type == "HumanName" or path.at in NAME_PARTS for path in self.paths
        )

    @property
    def has_strings(self) -> bool:
        """Whether some of the tokens are of the type string, which is compared without case."""
        return self.type == "token" and any(path.type == "string" for path in self.paths)

    @property
    def is_bare(self) -> bool:
        """Whether none of the tokens has a system."""
        return all(path.type in WITHOUT_SYSTEM for path in self.paths)

    @property
    def token_modifiers(self) -> tuple[str, ...]:
        """The modifiers of a token, by the types of the elements."""
        return modifiers(path.type for path in self.paths)

    @property
    def has_canonicals(self) -> bool:
        """Whether some of the references are canonical urls, which have versions."""
        return self.type == "reference" and any(path.type == "canonical" for path in self.paths)

    @property
    def is_place(self) -> bool:
        """Whether the keys are points on the earth."""
        return self.type == "special"

    @property
    def value_sets(self) -> tuple[str, ...]:
        """The value sets that say which system the elements of type ``code`` have."""
        found = (
            path.element.binding[1]
            for path in self.paths
            if path.type == "code" and path.element and path.element.binding
        )
        return tuple(dict.fromkeys(found)) if self.type == "token" else ()
