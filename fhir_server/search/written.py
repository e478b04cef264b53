"""What is written for the values that a parameter leads to, and what is kept beside that."""

from collections.abc import Iterator, Mapping

from fhir_server.r4.paths import Path
from fhir_server.r4.ucum import Units
from fhir_server.search import date, near, number, quantity, reference, string, token, uri
from fhir_server.search.tree import Convert

NAME_PARTS = ("HumanName.family", "HumanName.given")
"""The elements of names whose words are searched on their own."""
BARE_SUFFIXES = ("", token.SYSTEMS, reference.VERSION)
"""The suffixes of fields that hold one value where the parameter can have one key only."""


class Written:
    """What is written on one server.

    ``converters`` is the table: parameter type -> FHIR type -> function ``value -> keys``.
    """

    def __init__(self, base_urls: tuple[str, ...], units: Units) -> None:
        self.converters: Mapping[str, Mapping[str, Convert]] = {
            "token": token.INDEXED,
            "string": string.INDEXED,
            "date": date.INDEXED,
            "number": number.INDEXED,
            "quantity": quantity.indexed(units),
            "uri": uri.INDEXED,
            "special": near.INDEXED,
            "reference": reference.indexed(base_urls),
        }
        self._versions = reference.indexed_versions(base_urls)

    def beside(self, type: str, path: Path) -> Iterator[tuple[str, Convert]]:
        """Yield the further fields of a path: suffix of the name, and what is written there."""
        if type == "token":
            for suffix, table in token.INDEXED_BESIDE.items():
                if path.type in table:
                    yield suffix, table[path.type]
        elif type == "reference" and path.type == "Reference":
            yield reference.VERSION, self._versions
            yield reference.IDENTIFIER, reference.identifiers
            yield reference.IDENTIFIER + token.SYSTEMS, reference.identifier_systems
        elif type == "string" and path.type == "HumanName":
            yield string.PARTS, string.name_parts
        elif type == "string" and path.at in NAME_PARTS:
            yield string.PARTS, string.word_parts
