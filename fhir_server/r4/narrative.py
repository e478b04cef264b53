"""Whether the ``div`` of a Narrative is XHTML that may be shown to a person.

https://hl7.org/fhir/R4/narrative.html#rules

The elements and attributes are those of the invariant txt-1 and of the reference validator. A
document type is refused, so there are no entities but the five of XML, and none that grow. A
narrative of blanks only (txt-2) is not refused here: it is an invariant, and harms nobody.
"""

from xml.parsers import expat

from fhir_server.outcome import shown

_XHTML = "http://www.w3.org/1999/xhtml"
_ELEMENTS = frozenset(
    "a abbr acronym address area b bdo big blockquote br caption cite code col colgroup dd dfn div"
    " dl dt em h1 h2 h3 h4 h5 h6 hr i img kbd li map ol p pre q samp small span strong sub sup"
    " table tbody td tfoot th thead tr tt ul var".split()
)
_ATTRIBUTES = frozenset(
    "abbr accesskey align alt axis bgcolor border cellhalign cellpadding cellspacing cellvalign"
    " char charoff charset cite class colspan compact coords dir frame headers height href hreflang"
    " hspace id ismap lang longdesc name nohref nowrap rel rev rowspan rules scope shape span src"
    " start style summary tabindex title type usemap valign value vspace width xml:lang xml:space"
    " xml:id".split()
)
_LINKS = ("href", "src", "cite", "longdesc")
_SCRIPT_SCHEMES = ("javascript:", "vbscript:")
# A browser drops these inside a scheme: https://url.spec.whatwg.org/#concept-basic-url-parser
_DROPPED = str.maketrans("", "", "".join(map(chr, range(0x21))))
_UNDEFINED_ENTITY = expat.errors.codes[expat.errors.XML_ERROR_UNDEFINED_ENTITY]


class _FaultError(Exception):
    """Ends the reading of a ``div``; its text completes *The narrative …*."""


def narrative_fault(div: str) -> str:
    """Return what is wrong with ``div`` as the end of a sentence, or ``""``."""
    parser = expat.ParserCreate()
    _Reader(parser)
    try:
        parser.Parse(div, True)
    except _FaultError as fault:
        return str(fault)
    except expat.ExpatError as error:
        return _malformed(error)
    except UnicodeEncodeError:
        return "has half of a surrogate pair, which is no character"
    return ""


def _malformed(error: expat.ExpatError) -> str:
    if error.code == _UNDEFINED_ENTITY:
        return (
            f"has an entity that XML does not know at line {error.lineno}, column {error.offset}; "
            "write the character itself or its number, &#160; instead of &nbsp;"
        )
    reason = expat.ErrorString(error.code) or "error"
    return f"is not well-formed XML: {reason} at line {error.lineno}, column {error.offset}"


class _Reader:
    """Looks at each start tag."""

    def __init__(self, parser: expat.XMLParserType) -> None:
        self._parser = parser
        parser.StartDoctypeDeclHandler = _refuse_doctype
        parser.StartElementHandler = self._root

    def _root(self, name: str, attributes: dict[str, str]) -> None:
        if name != "div" or attributes.get("xmlns") != _XHTML:
            raise _FaultError(f'does not begin with <div xmlns="{_XHTML}">')
        _start(name, attributes)
        self._parser.StartElementHandler = _start


def _start(name: str, attributes: dict[str, str]) -> None:
    """Refuse an element or an attribute that the rules leave out. Runs for every tag."""
    if name not in _ELEMENTS:
        raise _FaultError(
            f"has the element {shown(name)}; allowed is basic formatting without scripts, forms, "
            "frames and objects (txt-1)"
        )
    for attribute, value in attributes.items():
        if attribute not in _ATTRIBUTES:
            _refuse_attribute(name, attribute, value)
        elif attribute in _LINKS and value.translate(_DROPPED).lower().startswith(_SCRIPT_SCHEMES):
            raise _FaultError(f"has a script in {name}.{attribute}; scripts are not allowed")


def _refuse_attribute(name: str, attribute: str, value: str) -> None:
    if attribute == "xmlns" and value == _XHTML:
        return
    raise _FaultError(
        f"has the attribute {shown(attribute)} on {name}, which is not allowed (txt-1)"
    )


def _refuse_doctype(*_: object) -> None:
    raise _FaultError("has a document type declaration, which is not allowed")
