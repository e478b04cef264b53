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
# An expression is parsed by functions that call each other once for each parenthesis.
_EXPRESSION_CHARACTERS_MAX = 4000
_PARENTHESES_MAX = 40
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_\-]{0,63}")


def added_parameters(resources: Iterable[Mapping[str, Any]]) -> tuple[SearchParameter, ...]:
    """Return what the stored SearchParameters define, as far as a site wants it served.

    Of two with one url the first counts. Whether each can be served is for the table to say.
    """
    found: dict[str, SearchParameter] = {}
    for resource in resources:
        if _is_wanted(resource):
            found.setdefault(resource["url"], search_parameter(resource, added=True))
    return tuple(found[url] for url in sorted(found))


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
    others = [
        one
        for one in table.definitions.search_parameters
        if one.added and one.url != definition.url
    ]
    why = table.with_added([*others, definition]).unusable.get(definition.url)
    if why is None:
        return ()
    text = f"{why}. With the status draft it is kept without being served."
    return (Issue("business-rule", text, "SearchParameter.expression"),)


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
