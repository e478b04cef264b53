"""https://hl7.org/fhir/R4/narrative.html#rules"""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.r4.narrative import narrative_fault

OPEN = '<div xmlns="http://www.w3.org/1999/xhtml">'

ALLOWED = {
    "text": f"{OPEN}x</div>",
    "blanks only": f"{OPEN} \n <p> </p></div>",  # txt-2 is an invariant, not structure
    "an image": f'{OPEN}<img src="#a" alt="b"/></div>',
    "a table": f'{OPEN}<table><tr><td colspan="2">x</td></tr></table></div>',
    "the entities of XML": f"{OPEN}&lt; &gt; &amp; &quot; &apos; &#160; &#x2014;</div>",
    "a language": '<div xmlns="http://www.w3.org/1999/xhtml" lang="bn" xml:lang="bn">ঢাকা</div>',
    "a style": f'{OPEN}<p style="color: red" id="a">x</p></div>',
    "a comment": f"{OPEN}<!-- <script> -->x</div>",
    "a link": f'{OPEN}<a href="https://example.org" name="b">x</a></div>',
    "CDATA": f"{OPEN}<![CDATA[<script>]]></div>",
    "an XML declaration": f'<?xml version="1.0" encoding="UTF-8"?>{OPEN}x</div>',
}
REFUSED = {
    "no element": "x",
    "nothing": "",
    "another root": '<p xmlns="http://www.w3.org/1999/xhtml">x</p>',
    "no namespace": "<div>x</div>",
    "another namespace": '<div xmlns="http://example.org">x</div>',
    "a namespace inside": f'{OPEN}<p xmlns="http://example.org">x</p></div>',
    "a prefix": '<h:div xmlns:h="http://www.w3.org/1999/xhtml">x</h:div>',
    "not closed": f"{OPEN}<p>x</div>",
    "two roots": f"{OPEN}x</div>{OPEN}x</div>",
    "script": f"{OPEN}<script>alert(1)</script></div>",
    "script in capitals": f"{OPEN}<SCRIPT>alert(1)</SCRIPT></div>",
    "form": f"{OPEN}<form><input/></form></div>",
    "frame": f'{OPEN}<iframe src="x"/></div>',
    "object": f"{OPEN}<object/></div>",
    "style sheet": f"{OPEN}<style>p {{}}</style></div>",
    "head": f"{OPEN}<head/>x</div>",
    "svg": f"{OPEN}<svg/></div>",
    "event": f'{OPEN}<p onclick="x()">x</p></div>',
    "event on the root": f'{OPEN[:-1]} onload="x()">x</div>',
    "script in a link": f'{OPEN}<a href="javascript:x()">x</a></div>',
    "hidden script in a link": f'{OPEN}<a href=" jAva&#9;script:x()">x</a></div>',
    "document type": f"<!DOCTYPE div>{OPEN}x</div>",
    "entity of HTML": f"{OPEN}&nbsp;x</div>",
    "entity of its own": f'<!DOCTYPE div [<!ENTITY a "b">]>{OPEN}&a;</div>',
    "file": f'<!DOCTYPE div [<!ENTITY a SYSTEM "file:///etc/passwd">]>{OPEN}&a;</div>',
    "control character": f"{OPEN}\x01</div>",
    "half a surrogate pair": f"{OPEN}\ud800</div>",
}


@pytest.mark.parametrize("div", ALLOWED.values(), ids=ALLOWED)
def test_formatting_is_allowed(div: str) -> None:
    """Basic formatting, links, images and styles have no fault."""
    assert narrative_fault(div) == ""


@pytest.mark.parametrize("div", REFUSED.values(), ids=REFUSED)
def test_what_is_no_formatting_is_refused(div: str) -> None:
    """Everything active, foreign or malformed is named as a fault."""
    assert narrative_fault(div) != ""


def test_an_entity_of_html_comes_with_the_way_out() -> None:
    """The message says what to write instead of a named entity."""
    assert "&#160;" in narrative_fault(f"{OPEN}a&nbsp;b</div>")


def test_a_bomb_costs_nothing() -> None:
    """Entities that would grow to gigabytes are refused before the first one is read."""
    levels = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12))
    bomb = f'<!DOCTYPE div [<!ENTITY a0 "x">{levels}]>{OPEN}&a11;</div>'
    before = time.perf_counter()

    assert "document type" in narrative_fault(bomb)
    assert time.perf_counter() - before < 1


def test_depth_is_no_danger() -> None:
    """A hundred thousand elements inside each other are read like any others."""
    assert narrative_fault(f"{OPEN}{'<b>' * 100_000}x{'</b>' * 100_000}</div>") == ""


@given(st.text() | st.text("<>&;/=\"' div!-[]ax:\n"))
def test_any_text_is_judged(text: str) -> None:
    """No text raises, neither as the whole nor as the content."""
    assert isinstance(narrative_fault(text), str)
    assert isinstance(narrative_fault(f"{OPEN}{text}</div>"), str)
