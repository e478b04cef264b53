"""Pages for people: HTML without scripts, of which everything that is put in is escaped. Pure."""

from fhir_server.markup import Html, html

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
