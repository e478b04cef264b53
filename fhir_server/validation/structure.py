"""Structural validation: what R4 says about the JSON of a resource, profiles aside.

https://hl7.org/fhir/R4/validation.html

A resource that is valid costs some microseconds: a JSON Schema, made from the definitions when a
type is first seen, passes it. Only what it does not pass goes through the walker that explains,
whose word is final.
"""

import threading
from collections.abc import Callable
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

from fhir_server.outcome import Issue
from fhir_server.r4.definitions import Definitions
from fhir_server.r4.narrative import narrative_fault
from fhir_server.validation.explain import Explainer, container_of
from fhir_server.validation.references import Container, reference_fault
from fhir_server.validation.schema import REFERENCE_FORMAT, schema_of
from fhir_server.validation.shapes import NARRATIVE_DIV, Shapes


class StructureValidator:
    """Checks resources of every type of ``definitions``, each by its own ``resourceType``."""

    def __init__(self, definitions: Definitions) -> None:
        shapes = Shapes(definitions)
        self._explainer = Explainer(shapes)
        self._passing = Schemas(shapes)

    def issues(self, resource: dict[str, Any], *, issues_max: int = 100) -> tuple[Issue, ...]:
        """Return what is wrong with ``resource``, in document order; nothing if it is valid.

        ``resource`` may be anything. At most ``issues_max`` issues are returned.
        """
        if _is_shallow(resource) and self._passing.passes(resource):
            return ()
        return tuple(islice(self._explainer.issues(resource), issues_max))

    def is_valid(self, resource: dict[str, Any]) -> bool:
        """Return whether ``resource`` has no issue."""
        return not self.issues(resource, issues_max=1)


# The schema is run by compiled code that has a stack of a few ten thousand levels and no check. The
# encoder has one, at some hundred levels, and is the cheapest way to walk through everything.
_encode = msgspec.msgpack.Encoder(enc_hook=str).encode


def _is_shallow(resource: Any) -> bool:
    """Return whether ``resource`` is JSON that can be walked through without danger."""
    try:
        _encode(resource)
    except (RecursionError, ValueError, OverflowError, TypeError):
        return False
    return True


class _Found(threading.local):
    """What the callbacks of one run met and the schema cannot judge."""

    def __init__(self) -> None:
        self.resources: list[tuple[dict[str, Any], bool]] = []
        self.fragments: list[tuple[str, tuple[str, ...]]] = []


class Schemas:
    """The compiled schemas of the resource types, each made when it is first needed."""

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = shapes
        self._compiled: dict[str, Callable[[Any], bool]] = {}
        self._found = _Found()
        self._keywords = {"whole": _Whole, "one": _One, "resource": _resource_keyword(self._found)}

    def passes(self, resource: Any, container: Container | None = None) -> bool:
        """Return ``True`` if ``resource`` is valid; if not, or if it is of a rare form, ``False``.

        It is not nested more than some thousand deep.

        ``container`` is given for a contained resource: the resource that contains it.
        """
        type = resource.get("resourceType") if isinstance(resource, dict) else None
        if not isinstance(type, str) or type not in self._shapes.resource_types:
            return False
        found = self._found
        found.resources, found.fragments = [], []
        try:
            if not (self._compiled.get(type) or self._compile(type))(resource):
                return False
        except (ValueError, RecursionError):  # half a surrogate pair, say: the walker names it
            return False
        resources, fragments = found.resources, found.fragments
        if resources or fragments:
            container = container or container_of(resource)
            return self._passes_fragments(fragments, container) and self._passes_inside(
                resources, container
            )
        return True

    def _passes_fragments(
        self, fragments: list[tuple[str, tuple[str, ...]]], container: Container
    ) -> bool:
        return not any(
            reference_fault(text, container, targets, self._shapes.resource_types)
            for text, targets in fragments
        )

    def _passes_inside(
        self, resources: list[tuple[dict[str, Any], bool]], container: Container
    ) -> bool:
        """Return whether each resource inside passes, and whether the contained ones may be so."""
        ids = [one.get("id") for one, is_contained in resources if is_contained]
        if None in ids or len(set(map(str, ids))) < len(ids):
            return False
        for one, is_contained in resources:
            if is_contained and "contained" in one:
                return False
            if not self.passes(one, container if is_contained else None):
                return False
        return True

    def _compile(self, type: str) -> Callable[[Any], bool]:
        schema = schema_of(type, self._shapes)
        validator = jsonschema_rs.Draft202012Validator(
            schema,
            formats=self._formats(schema),
            validate_formats=True,
            keywords=self._keywords,
            pattern_options=jsonschema_rs.RegexOptions(),  # the engine that is linear
            offline=True,
        )
        # Two threads may both compile; either result will do.
        self._compiled[type] = validator.is_valid
        return validator.is_valid

    def _formats(self, schema: Any) -> dict[str, Callable[..., bool]]:
        return {
            name: _is_narrative if name == NARRATIVE_DIV else self._reference_check(name)
            for name in _format_names(schema)
        }

    def _reference_check(self, format: str) -> Callable[[str], bool]:
        targets = tuple(filter(None, format.removeprefix(REFERENCE_FORMAT).split(",")))
        found, types, nowhere = self._found, self._shapes.resource_types, Container("", {})

        def is_reference(text: str) -> bool:
            if text.startswith("#"):
                found.fragments.append((text, targets))
                return text.isprintable()
            return (
                text.isprintable()
                and text != ""
                and not reference_fault(text, nowhere, targets, types)
            )

        return is_reference


def _is_narrative(div: str) -> bool:
    return not narrative_fault(div)


def _format_names(schema: Any) -> set[str]:
    """Return the names of all formats in ``schema``."""
    names: set[str] = set()
    rest = [schema]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            if isinstance(one.get("format"), str):
                names.add(one["format"])
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)
    return names


class _Whole:
    """The keyword ``whole``: to JSON Schema 1.0 is an integer, to FHIR it is not."""

    def __init__(self, schema: Any, value: bool, path: Any) -> None:
        del schema, value, path

    def validate(self, instance: Any) -> None:
        if type(instance) is not int:
            raise ValueError


class _One:
    """The keyword ``one``: of each list of members at most one, and one if it begins with true."""

    def __init__(self, schema: Any, value: list[list[Any]], path: Any) -> None:
        del schema, path
        self._choices = [(required, frozenset(names)) for required, *names in value]

    def validate(self, instance: dict[str, Any]) -> None:
        for required, names in self._choices:
            count = len(names & instance.keys())
            if count > 1 or (required and not count):
                raise ValueError


def _resource_keyword(found: _Found) -> type:
    class Keyword:
        """The keyword ``resource``: keeps the resource inside for a run of its own schema."""

        def __init__(self, schema: Any, is_contained: bool, path: Any) -> None:
            del schema, path
            self._is_contained = is_contained

        def validate(self, instance: dict[str, Any]) -> None:
            found.resources.append((instance, self._is_contained))

    return Keyword
