"""The two pages for people: where to start, and how to ask. Plain HTML, nothing from elsewhere."""

from collections.abc import Iterable
from html import escape

from fhir_server import __version__
from fhir_server.settings import Settings

STYLE = """:root { color-scheme: light dark; }
body { font: 1.05rem/1.6 system-ui, sans-serif; max-width: 52rem; margin: 3rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; }
h2 { font-size: 1.2rem; margin-top: 2rem; }
code { font-size: .95em; padding: .1em .3em; border-radius: .3em; background: #8882; }
li { margin: .5rem 0; }
table { border-collapse: collapse; }
td, th { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; }
.state { color: #26824a; font-weight: 600; }
footer { margin-top: 2.5rem; font-size: .85rem; opacity: .75; }
"""
"""The style of all pages, a file of its own: a page has nothing inline that could be another's."""

_SHELL = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<main>
{main}
<footer>{footer}
FHIR&reg; is the registered trademark of HL7.</footer>
</main>
</body>
</html>
"""

_START = """<h1>FHIR Server</h1>
<p><span class="state">Running.</span> FHIR R4 (4.0.1) on MongoDB, version {version}, in
{mode} mode. The FHIR base is <code>{base}</code>.</p>
<ul>
<li><a href="fhir/metadata?_pretty=true">What it can do</a>: the CapabilityStatement</li>
<li><a href="fhir/Patient?_pretty=true&amp;_count=10">A first search</a>:
<code>GET /fhir/Patient</code></li>
<li><a href="fhir/Patient?name=rahima&amp;_pretty=true">Patients named Rahima</a>,
if the sample clinic is loaded</li>
<li><a href="fhir/_history?_pretty=true&amp;_count=10">What was written last</a></li>
<li><a href="auth/console">Sign in</a>: connected apps, and apps to open with a patient</li>
<li><a href="docs">How to ask</a>: interactions, headers, settings</li>
</ul>
<p>From a shell: <code>curl '{base}/Patient?name=rahima'</code></p>"""

_DOCS = """<h1>How to ask</h1>
<p>The FHIR base is <code>{base}</code>. Paths are below it; bodies are
<code>Content-Type: application/fhir+json</code>. <a href="./">Start page</a>,
<a href="openapi.json">OpenAPI of the endpoints beside FHIR</a>.</p>
<h2>Interactions</h2>
<table><tbody>
{interactions}
</tbody></table>
<h2>Parameters and headers</h2>
<table><tbody>
{headers}
</tbody></table>
<h2>Settings</h2>
<p>From the environment, or from a file <code>.env</code>.</p>
<table><thead><tr><th>setting</th><th>default</th><th>meaning</th></tr></thead><tbody>
{settings}
</tbody></table>"""

_INTERACTIONS = (
    ("GET metadata", "what this server can do: types, interactions, search parameters"),
    ("GET Patient/p1", "read; with _summary or _elements a part of it"),
    ("GET Patient/p1/_history", "all versions; also Patient/_history and _history"),
    ("GET Patient/p1/_history/2", "one version"),
    ("GET Patient?name=ali&birthdate=lt1990", "search; or POST Patient/_search with a form"),
    ("POST Patient", "create, under an id of the server's"),
    ("PUT Patient/p1", "update, or create under this id"),
    ("DELETE Patient/p1", "delete; the versions stay"),
    ("POST (the base itself)", "a Bundle of type transaction (all or nothing) or batch"),
)
_HEADERS = (
    ('If-Match: W/"3"', "change only what is still at version 3; else 412"),
    ('If-None-Match: W/"3"', "read only what is not at version 3; else 304"),
    ("Prefer: return=minimal", "no body in the answer; or representation, OperationOutcome"),
    ("Prefer: handling=lenient", "ignore search parameters that are not known, and say so"),
    (
        "_count, _sort, _total=accurate",
        "length of a page, order (-date goes down), how many in all",
    ),
    ("_since, _at", "of a history: versions from a time on, versions current at a time"),
    ("_pretty=true, _format=json", "indented; the format without an Accept header"),
)


_FOOTER = {
    "development": "In development mode everybody who reaches this server is the demo user and may "
    "do everything: keep it on this machine, and real patients elsewhere.",
    "production": "Who reads and changes something here signs in, and it is recorded.",
}


def start_page(settings: Settings, base_url: str) -> str:
    """Return the page at ``/``: what runs, and links to try."""
    main = _START.format(
        version=__version__, mode=escape(settings.mode), base=escape(base_url, quote=True)
    )
    return _SHELL.format(title="FHIR Server", main=main, footer=_FOOTER[settings.mode])


def docs_page(mode: str, base_url: str) -> str:
    """Return the page at ``/docs``: what can be asked, and the settings."""
    settings = (
        (f"FHIR_{name.upper()}", str(field.default), str(field.description).replace("`", ""))
        for name, field in Settings.model_fields.items()
    )
    main = _DOCS.format(
        base=escape(base_url, quote=True),
        interactions=_rows(_INTERACTIONS),
        headers=_rows(_HEADERS),
        settings=_rows(settings),
    )
    return _SHELL.format(title="How to ask - FHIR Server", main=main, footer=_FOOTER[mode])


def _rows(rows: Iterable[tuple[str, ...]]) -> str:
    return "\n".join(
        "<tr>"
        + "".join(
            f"<td>{f'<code>{escape(cell)}</code>' if place == 0 else escape(cell)}</td>"
            for place, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
