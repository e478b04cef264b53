"""Pages for people: HTML without scripts, of which everything that is put in is escaped. Pure."""

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


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<link rel="stylesheet" href="/style.css">
{more}
</head>
<body>
<main>
<h1>{title}</h1>
{main}
</main>
</body>
</html>
"""


def page(title: str, main: Html, style: str = "") -> bytes:
    """Return the page ``title`` with ``main``; ``style`` is the path of a further style sheet."""
    more = html('<link rel="stylesheet" href="{style}">', style=style) if style else Html()
    return html(_PAGE, title=title, main=main, more=more).encode()
