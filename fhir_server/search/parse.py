"""Query string -> SearchQuery.

https://hl7.org/fhir/R4/search.html

What is not understood is refused, or, where the client asked to be lenient, left out and reported:
nothing is dropped in silence.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from fhir_server.outcome import FhirError, Issue, invalid_value, nearest, shown
from fhir_server.r4.subsets import element_names, summary_word
from fhir_server.search.chain import HAS, Chains, Part, Selection
from fhir_server.search.criteria import Criteria
from fhir_server.search.escape import split
from fhir_server.search.filter import filter_tree
from fhir_server.search.include import NAMES as INCLUDES
from fhir_server.search.include import Include, includes
from fhir_server.search.keys import Filter, conditions_in
from fhir_server.search.lists import LIST, compile_list
from fhir_server.search.operators import FILTER, Operators
from fhir_server.search.page import EXPLAIN, page_length
from fhir_server.search.parameters import WORDS, ParameterTable
from fhir_server.search.queries import QUERY, named_query
from fhir_server.search.sort import sort_keys
from fhir_server.search.special import DOCUMENTATION, compile_special
from fhir_server.search.text import CONTENT, TEXT
from fhir_server.search.wanted import Known, Wanted, Wants

CURSOR = "_cursor"
REST = "_rest"
"""The parameters of page links: where a page begins, and where the rest of its includes does."""

CONTAINED = ("false", "true", "both")
CONTAINED_TYPES = ("container", "contained")
TOTALS = ("none", "estimate", "accurate")

# Names that the specification defines and this server does not serve yet: each with what it is.
NOT_SERVED = {
    "_type": "search over several types",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one search may ask for; each bounds the work of the database.

    ``conditions_max`` counts what all parameters together are compared with: a bare id of a
    reference is one for each type that it may be of. ``count_max`` is the length of a page; a
    ``_count`` above it is lowered to it. ``chain_steps_max`` is how many resources a chain leads
    through, ``chain_types_max`` how many types of them all chains together. ``explain`` says
    whether it may ask to be explained.
    """

    parameters_max: int = 64
    values_max: int = 500
    value_characters_max: int = 2000
    conditions_max: int = 20_000
    count_max: int = 1000
    chain_steps_max: int = 8
    chain_types_max: int = 300
    explain: bool = False


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Given:
    """What a search is read against: the time that ``ap`` measures a date's distance from, and
    what was looked up for it."""

    now: datetime | None = None
    known: Known = field(default_factory=dict)


NOTHING_GIVEN = Given()


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """A search as asked.

    ``filters`` and ``joins`` are to be met all at once. ``sort`` has parameter codes, a minus sign
    before those that go down. ``summary`` is ``""`` where it was not asked for;
    ``cursor`` and ``rest`` are the texts of page links. ``understood`` are the parameters that were
    used, for the self link; ``ignored`` says what was not, as warnings. ``wanted`` is what has to
    be looked up first: the search is then to be parsed again with what is known of it.
    ``contained`` and ``contained_type`` are what ``contained.py`` is about. ``explain`` asks how
    the database goes about it.
    """

    type: str
    filters: tuple[Filter, ...]
    sort: tuple[str, ...]
    count: int
    total: str
    summary: str
    elements: tuple[str, ...]
    cursor: str
    understood: tuple[tuple[str, str], ...]
    ignored: tuple[Issue, ...]
    joins: tuple[Part, ...] = ()
    includes: tuple[Include, ...] = ()
    rest: str = ""
    contained: str = "false"
    contained_type: str = "container"
    wanted: frozenset[Wanted] = frozenset()
    explain: bool = False


@dataclass(slots=True)
class _Builder:
    """What has been read so far."""

    type: str
    types: Sequence[str]
    table: ParameterTable
    criteria: Criteria
    count: int
    limits: Limits
    filters: list[Filter] = field(default_factory=list)
    joins: list[Part] = field(default_factory=list)
    includes: list[Include] = field(default_factory=list)
    rest: str = ""
    contained: str = "false"
    contained_type: str = "container"
    sort: tuple[str, ...] = ()
    total: str = "none"
    summary: str = ""
    elements: tuple[str, ...] = ()
    cursor: str = ""
    explain: bool = False
    conditions: int = 0
    seen: set[str] = field(default_factory=set)
    chains: Chains = field(init=False)

    def __post_init__(self) -> None:
        self.chains = Chains(
            self.table,
            partial(_criterion, self),
            steps_max=self.limits.chain_steps_max,
            selections_max=self.limits.chain_types_max,
        )


def parse(
    type: str | Sequence[str],
    parameters: Sequence[tuple[str, str]],
    table: ParameterTable,
    *,
    count_default: int,
    lenient: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    given: Given = NOTHING_GIVEN,
) -> SearchQuery:
    """Return what ``parameters`` ask of the resources of ``type``.

    ``parameters`` are names and values, percent-decoded, in the order of the URL; escapes of
    values are in place. ``count_default`` is the length of a page whose ``_count`` is not given.
    ``lenient`` turns what would be refused into ``ignored``. ``given`` is the
    time, and what was looked up of the ``wanted`` of an earlier parsing. Where several types are
    searched at once, ``type`` is the one that is meant here, and behind it all of them.

    Raises ``not-supported`` for unknown names and modifiers, and names the nearest; ``value`` for
    values that a parameter cannot have; ``too-costly`` for what is over ``limits``.
    """
    if len(parameters) > limits.parameters_max:
        raise _too_much("parameters", limits.parameters_max)
    type, *types = (type,) if isinstance(type, str) else type
    criteria = Criteria(table, given.now, Wants(table.definitions, given.known))
    builder = _Builder(type, types or [type], table, criteria, count_default, limits)
    understood: list[tuple[str, str]] = []
    ignored: list[Issue] = []
    for name, value in parameters:
        if not value and _is_served(builder, name):
            continue  # "Empty parameters are not an error - they are just ignored by the server"
        try:
            _read(builder, name, value)
        except FhirError as found:
            error = _named(name, found)
            if not (lenient and _may_be_ignored(builder, name, error)):
                raise error from found
            ignored += [
                Issue(issue.code, f"Ignored: {issue.diagnostics}", severity="warning")
                for issue in error.issues
            ]
        else:
            understood.append((name, value))
    return SearchQuery(
        type=type,
        filters=tuple(builder.filters),
        sort=builder.sort,
        count=builder.count,
        total=builder.total,
        summary=builder.summary,
        elements=builder.elements,
        cursor=builder.cursor,
        understood=tuple(pair for pair in understood if pair[0] not in (CURSOR, REST)),
        ignored=tuple(ignored),
        joins=tuple(builder.joins),
        includes=tuple(dict.fromkeys(builder.includes)),
        rest=builder.rest,
        contained=builder.contained,
        contained_type=builder.contained_type,
        wanted=frozenset(criteria.wants.wanted),
        explain=builder.explain,
    )


def _may_be_ignored(builder: _Builder, name: str, error: FhirError) -> bool:
    """Whether lenient handling may ignore ``name``: a parameter or an order that is not served.

    A modifier or a value that is not understood is refused all the same (search.html#modifiers,
    #errors): without it the search would find more than was asked for.
    """
    is_filter = _is_served(builder, name) and (name not in _RESULT_PARAMETERS or name == QUERY)
    return error.issues[0].code == "not-supported" and not is_filter


def _is_served(builder: _Builder, name: str) -> bool:
    code = name.partition(":")[0].partition(".")[0]
    filters = (*builder.table.of(builder.type), *DOCUMENTATION, HAS)
    return code in filters or code in INCLUDES or name in _RESULT_PARAMETERS


def _named(name: str, error: FhirError) -> FhirError:
    """Return ``error`` with the parameter's name in each sentence that does not have it yet."""
    named = (
        issue
        if name in issue.diagnostics
        else replace(issue, diagnostics=f"{shown(name)}: {issue.diagnostics}")
        for issue in error.issues
    )
    # http.html#search: a search that cannot be processed is 400, also one that asks for too much.
    status = error.status if error.status >= 500 else 400
    return FhirError(*named, status=status, headers=error.headers)


def _too_much(what: str, limit: int) -> FhirError:
    text = f"A search has at most {limit:,} {what}; split it into several."
    return FhirError(Issue("too-costly", text), status=400)


def _read(builder: _Builder, name: str, value: str) -> None:
    # A page link is signed by us and as long as its sort keys are.
    if name not in (CURSOR, REST) and len(value) > builder.limits.value_characters_max * (
        1 + value.count(",")
    ):
        raise _too_much("characters in a value", builder.limits.value_characters_max)
    try:
        f"{name}{value}".encode()
    except UnicodeEncodeError as error:
        raise invalid_value("A search parameter", name, "text in UTF-8") from error
    if name in _RESULT_PARAMETERS:
        if name in builder.seen:
            raise invalid_value(name, value, "a parameter that stands once")
        _RESULT_PARAMETERS[name](builder, value)
        builder.seen.add(name)
    elif name.partition(":")[0] in INCLUDES:
        builder.includes += includes(name, value, builder.types, builder.table)
    else:
        _read_criterion(builder, name, value)


def _read_criterion(builder: _Builder, name: str, value: str) -> None:
    if name == FILTER and value:
        operators = Operators(
            builder.table, builder.criteria, builder.chains, partial(_bounded, builder)
        )
        _select(builder, operators.selection(builder.type, filter_tree(value)))
        return
    values = list(dict.fromkeys(split(value, ","))) if value else []
    if len(values) > builder.limits.values_max:
        raise _too_much("alternatives in a parameter", builder.limits.values_max)
    if any(len(one) > builder.limits.value_characters_max for one in values):
        raise _too_much("characters in a value", builder.limits.value_characters_max)
    if name == LIST and values:
        found_on = compile_list(builder.type, values, builder.table, builder.criteria)
        builder.filters.append(_bounded(builder, found_on))
        return
    _select(builder, builder.chains.selection(builder.type, name, values))


def _select(builder: _Builder, found: Selection) -> None:
    if found.filter:
        builder.filters.append(found.filter)
    builder.joins += found.joins


def _criterion(builder: _Builder, type: str, name: str, values: Sequence[str]) -> Filter:
    """Return the filter of one parameter of ``type``; it may stand at the end of a chain."""
    code, _, modifier = name.partition(":")
    parameter = builder.table.of(type).get(code)
    if parameter is None and code not in (TEXT, CONTENT):
        raise _unknown(builder, type, code)
    if not values:
        raise invalid_value(f"Search parameter {name}", "", "a value to look for")
    if parameter is None:
        builder.table.check_complete(WORDS, (type,))
        return _bounded(builder, compile_special(name, values, builder.table))
    found, conditions = builder.criteria.counted(parameter, modifier, values)
    return _bounded(builder, found, conditions)


def _bounded(builder: _Builder, found: Filter, conditions: int = -1) -> Filter:
    """Return ``found``, counted against what a search may ask for; ``conditions`` is how many those
    are, if that is known."""
    builder.conditions += conditions_in(found) if conditions < 0 else conditions
    if builder.conditions > builder.limits.conditions_max:
        raise _too_much("conditions", builder.limits.conditions_max)
    return found


def _unknown(builder: _Builder, type: str, code: str) -> FhirError:
    """Return the refusal of a name that is not known, or known and not served."""
    if code in NOT_SERVED:
        return FhirError(Issue("not-supported", f"{code} ({NOT_SERVED[code]}) is not served yet."))
    known = [*builder.table.of(type), *DOCUMENTATION, *_RESULT_PARAMETERS, *INCLUDES]
    return FhirError(
        Issue(
            "not-supported", f"{type} has no search parameter {shown(code)}.{nearest(code, known)}"
        )
    )


def _read_count(builder: _Builder, value: str) -> None:
    builder.count = page_length(value, builder.limits.count_max)


def _read_sort(builder: _Builder, value: str) -> None:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    sort_keys(names, builder.table.of(builder.type))
    builder.sort = names


def _read_total(builder: _Builder, value: str) -> None:
    if value not in TOTALS:
        raise invalid_value("_total", value, ", ".join(TOTALS))
    builder.total = value


def _read_summary(builder: _Builder, value: str) -> None:
    builder.summary = summary_word(value)


def _read_elements(builder: _Builder, value: str) -> None:
    builder.elements = element_names(value, builder.types, builder.table.definitions)


def _read_cursor(builder: _Builder, value: str) -> None:
    builder.cursor = value


def _read_contained(builder: _Builder, value: str) -> None:
    if value not in CONTAINED:
        raise invalid_value("_contained", value, ", ".join(CONTAINED))
    builder.contained = value


def _read_contained_type(builder: _Builder, value: str) -> None:
    if value not in CONTAINED_TYPES:
        raise invalid_value("_containedType", value, ", ".join(CONTAINED_TYPES))
    builder.contained_type = value


def _read_query(builder: _Builder, value: str) -> None:
    wanted = named_query(builder.type, value)
    for name, values in wanted.parameters(builder.criteria.now):
        _select(builder, builder.chains.selection(builder.type, name, values))


def _read_rest(builder: _Builder, value: str) -> None:
    builder.rest = value


def _read_explain(builder: _Builder, value: str) -> None:
    if not builder.limits.explain:
        text = f"{EXPLAIN} is switched off here (the setting FHIR_SEARCH_EXPLAIN)."
        raise FhirError(Issue("not-supported", text))
    if value not in ("true", "false"):
        raise invalid_value(EXPLAIN, value, "true or false")
    builder.explain = value == "true"


_RESULT_PARAMETERS: dict[str, Callable[[_Builder, str], None]] = {
    "_count": _read_count,
    "_sort": _read_sort,
    "_total": _read_total,
    "_summary": _read_summary,
    "_elements": _read_elements,
    QUERY: _read_query,
    "_contained": _read_contained,
    "_containedType": _read_contained_type,
    EXPLAIN: _read_explain,
    CURSOR: _read_cursor,
    REST: _read_rest,
}
