"""What an attempt to apply a message may come to, besides a row that is done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.hl7v2.ack import Fault
from fhir_server.store.inbox import Row


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt: the state of the row, what else is set in it, why."""

    state: str
    faults: tuple[Fault, ...] = ()
    set: Mapping[str, Any] | None = None
    refused: bool = False


class RepeatedError(Exception):
    """The message is here already, as ``row``."""

    def __init__(self, row: Row) -> None:
        super().__init__(row.id)
        self.row = row


class LostError(Exception):
    """Another process has taken the row up, or a person has changed it."""
