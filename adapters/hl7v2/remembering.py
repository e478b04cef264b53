"""Answers that are remembered, of texts of an ordinary length: what a peer sends may be long."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec, TypeVar

_CHARACTERS_MAX = 200

P = ParamSpec("P")
T = TypeVar("T")


def remembered(count: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return what remembers the last ``count`` answers of a pure function to short texts.

    ``count`` answers to texts of a message each would be bounded by nothing but its size.
    """

    def remembering(function: Callable[P, T]) -> Callable[P, T]:
        known = lru_cache(maxsize=count)(function)

        @wraps(function)
        def answered(*given: P.args, **named: P.kwargs) -> T:
            for one in given:
                if isinstance(one, str) and len(one) > _CHARACTERS_MAX:
                    return function(*given, **named)
            return known(*given, **named)  # type: ignore[arg-type]

        return answered

    return remembering
