"""Texts: markup where there may be none, addresses of examples, and what a narrative shows.

https://hl7.org/fhir/R4/security.html#narrative, https://hl7.org/fhir/R4/narrative.html
"""

import re2

from fhir_server.outcome import shown
from fhir_server.validation.running import Item, Run

# The beginning of a tag; in markdown < is written &lt; or in code.
_TAG = re2.compile(r"<[/!]?[A-Za-z][^<>]*>")
_HREF = re2.compile(r"""<a\b[^>]*\bhref\s*=\s*["']([A-Za-z][A-Za-z0-9+.\-]*):([^"']*)["']""")
_ANCHOR = re2.compile(r"""<a\b[^>]*\bhref\s*=\s*["']#([^"']+)["']""")
_MARK = re2.compile(r"""\b(?:id|name)\s*=\s*["']([^"']+)["']""")
_NOT_LINKED = ("urn", "javascript", "vbscript", "data")
_EXAMPLE = re2.compile(
    r"https?://(?:[a-z0-9\-]+\.)*(?:example\.(?:org|com|net)|acme\.com)(?:[/:?#].*)?"
)


def markup_check(run: Run, item: Item) -> None:
    """A string or markdown has no HTML: who shows it may take it for what it looks like."""
    severity, value = run.options.markup, item.value
    if severity == "ignore" or not isinstance(value, str) or "<" not in value:
        return
    found = _TAG.search(value)
    if found is not None:
        tag = shown(found.group(0), most=40)
        text = (
            f"{item.name} has {tag}, which looks like HTML; expected text, < as &lt; in markdown."
        )
        run.add("value", text, item, severity)


def address_check(run: Run, item: Item) -> None:
    """A url is no example's."""
    severity, value = run.options.examples, item.value
    if severity == "ignore" or not isinstance(value, str) or "example" not in value:
        return
    if _EXAMPLE.fullmatch(value):
        text = f"{shown(value)} is the address of an example; expected a real one."
        run.add("value", text, item, severity)


def narrative_check(run: Run, item: Item) -> None:
    """A narrative shows something, and its links lead somewhere."""
    div = item.value.get("div") if isinstance(item.value, dict) else None
    if not isinstance(div, str):
        return
    if "<img" not in div and not any(part.partition(">")[2].strip() for part in div.split("<")):
        text = "The narrative shows nothing; expected text or an image (txt-2)."
        run.add("invariant", text, item, below="div")
    if "href" not in div:
        return
    for scheme, rest in _HREF.findall(div):
        if scheme.lower() in _NOT_LINKED:
            link = shown(f"{scheme}:{rest}")
            text = f"The narrative links to {link}, and no browser can follow {scheme.lower()}:."
            run.add("value", text, item, below="div")
    anchors = _ANCHOR.findall(div)
    if anchors:
        marks = set(_MARK.findall(div))
        for anchor in anchors:
            if anchor not in marks and not _is_contained(item, anchor):
                text = f"The narrative links to {shown('#' + anchor)}, which it does not have."
                run.add("value", text, item, "warning", below="div")


def _is_contained(item: Item, id: str) -> bool:
    contained = item.scope.container.get("contained")
    return any(
        isinstance(one, dict) and one.get("id") == id
        for one in (contained if isinstance(contained, list) else ())
    )
