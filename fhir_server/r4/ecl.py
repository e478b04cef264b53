"""The simple part of SNOMED CT's Expression Constraint Language -> codes.

https://confluence.ihtsdotools.org/display/DOCECL

==========================  ====================================================================
``404684003 |a term|``      that concept; ``*`` is any
``< 404684003``, ``<<``     what is below it; with itself
``> 404684003``, ``>>``     what is above it; with itself
``<! 404684003``, ``>!``    its children; its parents
``^ 700043003``             the members of a reference set
``A AND B``, ``OR``         also ``A , B``; of three or more all the same
``A MINUS B``               what A has and B has not
``( … )``                   around any of them
==========================  ====================================================================

Refinements (``:``), attributes (``.``), filters (``{{``) and what is newer are refused by name.
"""

from collections.abc import Callable, Mapping

import re2

from fhir_server.r4.selections import (
    Above,
    Below,
    Children,
    Codes,
    Every,
    Having,
    difference,
    intersection,
    union,
)

REFSET = "refset"
"""The property that members of a reference set have, with its id."""
_TOKEN = re2.compile(
    r"\s*(<<!|>>!|<<|>>|<!|>!|<|>|\^|\(|\)|,|\*|[0-9]{6,18}|\|[^|]*\||[A-Za-z]+|\S)"
)
_TEXT_MAX = 4000
_DEPTH_MAX = 20


class NotEcl(ValueError):
    """What is no expression constraint, or more than is understood here; the text says what."""


def ecl_codes(text: str) -> Codes:
    """Return the codes that the expression constraint ``text`` means. Raises :class:`NotEcl`."""
    if len(text) > _TEXT_MAX:
        raise NotEcl(f"an expression constraint has at most {_TEXT_MAX:,} characters")
    reader = _Reader(_TOKEN.findall(text))
    found = reader.expression(0)
    if reader.next:
        raise NotEcl(f"the expression constraint goes on with {reader.next!r}, not understood here")
    return found


_JOINS: Mapping[str, Callable[[Codes, Codes], Codes]] = {
    "AND": intersection,
    "OR": union,
    ",": intersection,
    "MINUS": difference,
}


class _Reader:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = [one for one in tokens if not one.startswith("|")]
        self._at = 0

    @property
    def next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self.next
        self._at += 1
        return token

    def expression(self, depth: int) -> Codes:
        if depth > _DEPTH_MAX:
            raise NotEcl(f"an expression constraint has at most {_DEPTH_MAX} levels")
        found = self._operand(depth)
        join = ""
        while self.next.upper() in _JOINS:
            word = self._take().upper().replace(",", "AND")
            if join and (word != join or word == "MINUS"):
                raise NotEcl("different operators in an expression constraint need parentheses")
            join = word
            found = _JOINS[word](found, self._operand(depth))
        return found

    def _operand(self, depth: int) -> Codes:
        operator = self._take() if self.next in _OPERATORS else ""
        token = self._take()
        if token == "(" and not operator:
            found = self.expression(depth + 1)
            if self._take() != ")":
                raise NotEcl("a parenthesis of the expression constraint is not closed")
            return found
        if token == "*" and operator in ("", "<<", ">>"):
            return Every()
        if not token.isdigit():
            raise NotEcl(f"the expression constraint has {token!r} where a concept is expected")
        return _OPERATORS[operator](token) if operator else frozenset((token,))


_OPERATORS: Mapping[str, Callable[[str], Codes]] = {
    "<<": Below,
    "<": lambda code: difference(Below(code), frozenset((code,))),
    ">>": Above,
    ">": lambda code: difference(Above(code), frozenset((code,))),
    "<!": lambda code: Having("parent", (code,)),
    ">!": Children,
    "^": lambda code: Having(REFSET, (code,)),
}
