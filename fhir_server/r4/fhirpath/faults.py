"""What can be wrong with an expression, and what it may cost."""


class FhirPathError(ValueError):
    """A wrong expression, or one that means nothing where it is evaluated; the text is a sentence.

    ``position`` counts the characters before the fault, where the text of the expression shows it.
    """

    def __init__(self, message: str, position: int | None = None) -> None:
        at = f" (at character {position + 1})" if position is not None else ""
        super().__init__(message + at)
        self.position = position


class TooCostly(FhirPathError):
    """An evaluation that takes more steps, or makes something larger, than is allowed."""
