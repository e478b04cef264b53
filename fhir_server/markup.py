"""HTML of which everything that is put in is escaped. Pure."""

from collections.abc import Iterable
from html import escape
from typing import Any


class Html(str):
    """Text that is markup, made by :func:`html`. Any other text is escaped where it is put in."""

    __slots__ = ()


def html(template: str, **values: Any) -> Html:
    """Return ``template`` with ``values``, which are escaped unless they are markup themselves.

    >>> html("<p>{name}</p>", name="<b>")
    '<p>&lt;b&gt;</p>'
    """
    shown = {
        name: value if isinstance(value, Html) else escape(str(value), quote=True)
        for name, value in values.items()
    }
    return Html(template.format(**shown))


def joined(parts: Iterable[Html]) -> Html:
    """Return ``parts`` one after another."""
    return Html("\n".join(parts))
