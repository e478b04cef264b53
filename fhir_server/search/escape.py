"""Separators inside a search value, and the escapes that take their meaning away.

https://hl7.org/fhir/R4/search.html#escaping
"""

from fhir_server.outcome import invalid_value

SEPARATORS = ",|$"


def split(value: str, separator: str) -> list[str]:
    r"""Return the parts of ``value`` between unescaped separators, their escapes still in place.

    >>> split(r"a\,b,c", ",")
    ['a\\,b', 'c']
    """
    if "\\" not in value:
        return value.split(separator)
    parts, start, at = [], 0, 0
    while at < len(value):
        if value[at] == "\\":
            at += 1
        elif value[at] == separator:
            parts.append(value[start:at])
            start = at + 1
        at += 1
    return [*parts, value[start:]]


def unescape(value: str) -> str:
    r"""Return ``value`` with ``\,`` ``\|`` ``\$`` and ``\\`` as what they stand for.

    A backslash before another character, or at the end, is refused with ``value``: the client has
    forgotten to escape it, and a guess could find the wrong things.
    """
    if "\\" not in value:
        return value
    text, at = [], 0
    while at < len(value):
        if value[at] == "\\":
            at += 1
            if at == len(value) or value[at] not in f"{SEPARATORS}\\":
                raise invalid_value("A search value", value, r"only the escapes \, \| \$ and \\")
        text.append(value[at])
        at += 1
    return "".join(text)


def escape(text: str) -> str:
    r"""Return ``text`` as it is written in a search value.

    >>> escape("a,b")
    'a\\,b'
    """
    for sign in f"\\{SEPARATORS}":
        text = text.replace(sign, f"\\{sign}")
    return text
