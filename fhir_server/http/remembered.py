"""Remembers what was made of a header: clients have few ways to say what they want, and say it
every time. What is longer than most is made anew: that bounds the memory, which strangers fill."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

_TEXTS = 256
_LENGTH_MAX = 200

P = ParamSpec("P")
R = TypeVar("R")


def remembered(made: Callable[P, R]) -> Callable[P, R]:
    """Return ``made``, a function of texts or bytes, which remembers what came of short ones.

    >>> remembered(str.upper)("gzip")
    'GZIP'
    """
    kept = lru_cache(maxsize=_TEXTS)(made)

    @wraps(made)
    def found(*texts: Any) -> Any:
        is_short = sum(len(one) for one in texts if one is not None) <= _LENGTH_MAX
        return kept(*texts) if is_short else cast(Any, made)(*texts)

    return cast(Callable[P, R], found)
