"""Pages for people: HTML without scripts, of which everything that is put in is escaped.

https://www.w3.org/TR/CSP3/: nothing is loaded from elsewhere, no script runs, nobody frames them.
"""

from urllib.parse import urlsplit

import re2 as re

from fhir_server.http.authorize.exchange import AUTH_PATH, Answer, Headers
from fhir_server.markup import Html, html

STYLE_PATH = f"{AUTH_PATH}/style.css"
_HOST = re.compile(r"[A-Za-z0-9\.\-]{1,253}(?::[0-9]{1,5})?")
_SCHEME = re.compile(r"[a-z][a-z0-9+\.\-]{0,40}")
_NO_STORE: Headers = (("Cache-Control", "no-store"), ("Pragma", "no-cache"))


NOTHING = Html()

_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<link rel="stylesheet" href="{style}">
</head>
<body>
<main>
{main}
</main>
</body>
</html>
"""


def page(
    title: str, main: Html, *, status: int = 200, to: str = "", headers: Headers = ()
) -> Answer:
    """Return the page ``title`` with ``main``. ``to`` is the address of an app that a form of the
    page may lead back to: a browser holds the redirect after a form to the same list."""
    body = html(_SHELL, title=title, style=STYLE_PATH, main=main)
    said = (("Content-Security-Policy", policy(to)), *_NO_STORE, *headers)
    return Answer(status, body.encode(), "text/html; charset=utf-8", said)


def policy(to: str) -> str:
    """Return the Content-Security-Policy of a page whose forms may lead to ``to``.

    >>> policy("https://app.example/back?x=1").rpartition("form-action ")[2]
    "'self' https://app.example"
    """
    forms = " ".join(("'self'", *_sources(to)))
    return (
        "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; "
        f"frame-ancestors 'none'; form-action {forms}"
    )


def _sources(to: str) -> tuple[str, ...]:
    """Return what of ``to`` a policy can name: its origin, or the scheme of an app of a phone."""
    if not to:
        return ()
    try:
        parts = urlsplit(to)
    except ValueError:
        return ()
    scheme = parts.scheme.lower()
    if scheme in ("http", "https") and _HOST.fullmatch(parts.netloc):
        return (f"{scheme}://{parts.netloc}",)
    return (f"{scheme}:",) if _SCHEME.fullmatch(scheme) else ()


STYLE = """:root { color-scheme: light dark; --line: #8885; --soft: #8881; --deep: #1a5fa8;
  --bad: #b3261e; --good: #1b7340; --on: #fff; }
@media (prefers-color-scheme: dark) { :root { --deep: #86b9f5; --bad: #ff9d94; --good: #7fd6a2;
  --on: #10141a; } }
* { box-sizing: border-box; }
body { font: 1.05rem/1.55 system-ui, sans-serif; margin: 0; padding: 1.2rem; }
main { max-width: 34rem; margin: 2rem auto; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .6rem; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .4rem; }
p { margin: .5rem 0; }
form { margin: 1rem 0; }
label.field { display: block; margin: .9rem 0; font-weight: 600; }
label.field input { display: block; width: 100%; margin-top: .25rem; font-weight: 400; }
input, button, select { font: inherit; min-height: 2.9rem; border-radius: .45rem;
  border: 1px solid var(--line); padding: .5rem .8rem; }
input[type=checkbox] { min-height: 0; width: 1.3rem; height: 1.3rem; flex: none;
  margin: .15rem .7rem 0 0; }
button { cursor: pointer; background: var(--soft); color: inherit; }
button.first { background: var(--deep); border-color: var(--deep); color: var(--on);
  font-weight: 600; }
button:focus-visible, input:focus-visible, a:focus-visible { outline: 3px solid var(--deep);
  outline-offset: 2px; }
.actions { display: flex; flex-wrap: wrap; gap: .7rem; margin-top: 1.2rem; }
.actions button { flex: 1 1 9rem; }
.rows { list-style: none; margin: .8rem 0; padding: 0; border: 1px solid var(--line);
  border-radius: .6rem; overflow: hidden; }
.rows li { border-top: 1px solid var(--line); padding: .75rem .9rem; }
.rows li:first-child { border-top: 0; }
.rows label { display: flex; align-items: flex-start; cursor: pointer; }
.rows form { margin: .4rem 0 0; }
.rows button.row { display: block; width: 100%; text-align: left; border: 0; border-radius: 0;
  background: none; padding: 0; min-height: 2rem; }
.rows button.row:hover, .rows button.row:focus-visible { text-decoration: underline; }
.small { font-size: .88rem; opacity: .8; }
.note { border-left: .3rem solid var(--deep); background: var(--soft); padding: .6rem .9rem;
  border-radius: 0 .4rem .4rem 0; margin: 1rem 0; }
.note.bad { border-color: var(--bad); }
.bad { color: var(--bad); }
.note.bad { color: inherit; }
.codes { font: 1.1rem/1.9 ui-monospace, monospace; columns: 2; padding: .6rem 1rem;
  list-style: none; background: var(--soft); border-radius: .5rem; }
.key { font: 1.1rem/1.6 ui-monospace, monospace; overflow-wrap: anywhere; }
.search { display: flex; gap: .6rem; }
.search input { flex: 1; min-width: 0; }
code { overflow-wrap: anywhere; }
@media (max-width: 26rem) { .codes { columns: 1; } main { margin: .4rem auto; } }
"""
