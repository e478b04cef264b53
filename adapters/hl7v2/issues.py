"""What is to be said about a message: for its row in the inbox, its acknowledgement, the operator.

design/hl7v2.md, sections 5 and 6. A text never carries a value of the message, only positions.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing noticed. ``where`` is ``OBX[3]-5``: segments of a name are counted from 1.

    ``severity`` is ``information``, ``warning``, or ``error`` for what keeps the message from
    being applied; ``code`` is a word of ours, such as ``date-invalid``.
    """

    severity: str
    code: str
    where: str
    text: str


class MessageFault(Exception):
    """A message that is not applied, and why, in the words of an acknowledgement.

    ``error_code`` is of table 0357 (100, 101, 102, 200 to 207); ``where`` is ``PID-3`` or "";
    ``refused`` is true for what the table of section 5 answers with AR, false for AE.
    """

    def __init__(self, error_code: int, where: str, text: str, *, refused: bool = False) -> None:
        super().__init__(text)
        self.error_code = error_code
        self.where = where
        self.text = text
        self.refused = refused
