"""Search parameters that a site adds: which SearchParameter resources can be served.

https://hl7.org/fhir/R4/searchparameter.html

One whose status is ``active`` is served, or refused with the reason; any other status only keeps
the resource. One that the specification itself defines, by its url, is served anyway.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from fhir_server.outcome import Issue, nearest, shown
from fhir_server.r4.definitions import SearchParameter, search_parameter
from fhir_server.search.parameters import ParameterTable

# The code becomes the name of a field beside the stored resources, and a name in URLs, where a dot
# is a chain and a colon begins a modifier. Names that begin with _ belong to the specification.
# Each is a path that every write of its types is walked along, and keys of its own.
ADDED_MAX = 200
_TOO_MANY = f"More than {ADDED_MAX} search parameters were added; retire some that nobody asks for."
# An expression is parsed by functions that call each other once for each parenthesis.
_EXPRESSION_CHARACTERS_MAX = 4000
_PARENTHESES_MAX = 40
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_\-]{0,63}")


def added_parameters(
    resources: Iterable[Mapping[str, Any]], table: ParameterTable
) -> tuple[tuple[SearchParameter, ...], dict[str, str]]:
    """Return what the stored SearchParameters define, as far as a site wants it served.

    Also why others are not served, by url: what was stored before it was judged, the second with
    one url, and what is over :data:`ADDED_MAX`. Whether an expression can be used is for the table
    to say.
    """
    known = {one.url for one in table.definitions.search_parameters if not one.added}
    found: dict[str, SearchParameter] = {}
    unusable: dict[str, str] = {}
    for resource in resources:
        if not _is_wanted(resource) or resource["url"] in known:
            continue
        url = str(resource["url"])
        try:
            issues = _shape_issues(resource, table)
            definition = search_parameter(resource, added=True)
        except (KeyError, TypeError, AttributeError):
            unusable[url] = f"SearchParameter {shown(url)} is no valid resource."
            continue
        if issues:
            unusable[url] = f"SearchParameter {shown(url)}: {issues[0].diagnostics}"
        elif url in found:
            unusable[f"{url} {definition.id}"] = _second(definition, found[url])
        elif len(found) >= ADDED_MAX:
            unusable[url] = f"SearchParameter {shown(url)}: {_TOO_MANY}"
        else:
            found[url] = definition
    return tuple(found[url] for url in sorted(found)), unusable


def added_issues(resource: Mapping[str, Any], table: ParameterTable) -> tuple[Issue, ...]:
    """Return why the valid SearchParameter ``resource`` cannot be served beside those of ``table``.

    Nothing for what can, for what is not active, and for what the specification defines.
    """
    known = {one.url for one in table.definitions.search_parameters if not one.added}
    if not _is_wanted(resource) or resource["url"] in known:
        return ()
    if found := _shape_issues(resource, table):
        return found
    definition = search_parameter(resource, added=True)
    added = [one for one in table.definitions.search_parameters if one.added]
    same = [one for one in added if one.url == definition.url]
    others = [one for one in added if one.url != definition.url]
    if same and same[0].id != definition.id:
        return (Issue("business-rule", _second(definition, same[0]), "SearchParameter.url"),)
    if len(others) >= ADDED_MAX:
        return (Issue("business-rule", _TOO_MANY, "SearchParameter.status"),)
    why = table.with_added([*others, definition]).unusable.get(definition.url)
    if why is None:
        return ()
    text = f"{why}. With the status draft it is kept without being served."
    return (Issue("business-rule", text, "SearchParameter.expression"),)


def _second(definition: SearchParameter, first: SearchParameter) -> str:
    return (
        f"The url {shown(definition.url)} is that of SearchParameter/{first.id}; change that one, "
        "or give this one another url."
    )


def _is_wanted(resource: Mapping[str, Any]) -> bool:
    return bool(resource.get("status") == "active" and resource.get("url"))


def _shape_issues(resource: Mapping[str, Any], table: ParameterTable) -> tuple[Issue, ...]:
    found = []
    if not _CODE.fullmatch(resource["code"]):
        text = (
            f"The code {shown(resource['code'])} cannot be served: a letter, then letters, digits, "
            "hyphens and underscores, 64 at most."
        )
        found.append(Issue("business-rule", text, "SearchParameter.code"))
    if resource["type"] == "special":
        text = "What a parameter of the type special does is not in its definition."
        found.append(Issue("business-rule", text, "SearchParameter.type"))
    if not resource.get("expression"):
        text = "Without an expression it is not known which elements are searched."
        found.append(Issue("business-rule", text, "SearchParameter.expression"))
    for text in (resource.get("expression", ""), *_component_expressions(resource)):
        if len(text) > _EXPRESSION_CHARACTERS_MAX or text.count("(") > _PARENTHESES_MAX:
            why = (
                f"The expression is over {_EXPRESSION_CHARACTERS_MAX} characters or "
                f"{_PARENTHESES_MAX} parentheses."
            )
            found.append(Issue("business-rule", why, "SearchParameter.expression"))
    served = {*table.types, "Resource", "DomainResource"}
    for base in resource["base"]:
        if base not in served:
            text = f"{shown(base)} is no type that can be searched.{nearest(base, served)}"
            found.append(Issue("business-rule", text, "SearchParameter.base"))
    return tuple(found)


def _component_expressions(resource: Mapping[str, Any]) -> list[str]:
    return [part["expression"] for part in resource.get("component", ())]
