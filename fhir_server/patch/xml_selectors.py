"""The selectors of an XML Patch: a bounded part of XPath 1.0, and what they locate.

https://www.rfc-editor.org/rfc/rfc5261#section-4.1 and https://www.w3.org/TR/1999/REC-xpath-19991116/

================================  ==================================================================
``/f:Patient/f:name``, ``//f:x``  steps from the document; the first slash may be left out
``f:name``, ``*``, ``f:*``        elements; also ``child::``
``text()``, ``comment()``,        other nodes; also ``processing-instruction('x')``
``node()``
``@value``, ``namespace::f``      an attribute, also ``attribute::``; a declared namespace. The last
                                  step
``[2]``, ``[last()]``             the place among what the step finds in one parent
``[f:use/@value='home']``         a comparison, ``=`` or ``!=``, with a text in quotes; ``.`` is the
                                  element itself; without a comparison: whether it is there
``[… and …]``, ``[…][…]``         both
================================  ==================================================================
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import re2 as re

from fhir_server.outcome import shown
from fhir_server.patch.xml_tree import Comment, Element, Instruction, Node, Text, below

_CHARACTERS_MAX = 1000
_NAME = r"[A-Za-z_][A-Za-z0-9_.\-]*"
_TOKEN = re.compile(
    r"[ \t\r\n]*(?:(//|::|!=|\.\.|[/\[\]()@.=*])"
    r"|(\"[^\"]*\"|'[^']*')"
    r"|([0-9]{1,9})"
    rf"|({_NAME}(?::(?:{_NAME}|\*))?))"
)
_ANY = "*"
_NODE_TESTS = ("text", "comment", "node", "processing-instruction")
_CHARACTERS_A_LOOK = 100  # what is compared or joined costs as much as a look at a node


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute that is located: ``owner.attributes[key]``."""

    owner: Element
    key: str


@dataclass(frozen=True, slots=True)
class Namespace:
    """A declared namespace that is located: ``owner.namespaces[prefix]``."""

    owner: Element
    prefix: str


Located = Node | Attribute | Namespace


@dataclass(frozen=True, slots=True)
class Step:
    """One step. ``kind`` is ``element``, ``attribute``, ``namespace`` or a node test; ``*`` stands
    for any namespace or name. ``deep`` says that any number of elements may lie between."""

    kind: str
    namespace: str = ""
    name: str = _ANY
    deep: bool = False
    predicates: "tuple[Predicate, ...]" = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Whether what ``steps`` find is there, or compares to ``text``."""

    steps: tuple[Step, ...]
    operator: str = ""
    text: str = ""


Predicate = int | tuple[Comparison, ...]
"""A place, from 1 on, with -1 for the last; or comparisons that all hold."""

Selector = tuple[Step, ...]


def selector(text: str, namespaces: Mapping[str, str]) -> Selector:
    """Return the steps of ``text``; ``namespaces`` is what prefixes mean, ``""`` for none.

    Raises :class:`ValueError`, with a sentence, for what is none or not understood.
    """
    if len(text) > _CHARACTERS_MAX:
        raise ValueError(f"a selector has at most {_CHARACTERS_MAX:,} characters")
    tokens = _Tokens(text)
    deep = tokens.take("//")
    if not deep:
        tokens.take("/")
    steps = _steps(tokens, namespaces, predicates=True)
    tokens.expect("")
    if any(one.kind in ("attribute", "namespace") for one in steps[:-1]):
        raise ValueError("an attribute or a namespace can only be the last step")
    return (replace(steps[0], deep=deep), *steps[1:])


class _Tokens:
    """The tokens of a selector, one after the other; ``kind`` is what the next one is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self.next = ""
        self.kind = ""
        self.move()

    def move(self) -> str:
        """Return the next token, and go on to the one behind it."""
        token = self.next
        rest = self._text[self._place :]
        if not rest.strip(" \t\r\n"):
            self.next, self.kind = "", "end"
            return token
        found = _TOKEN.match(rest)
        if found is None:
            raise ValueError(f"{shown(rest.strip(), most=30)} is not understood")
        self.kind = ("sign", "text", "number", "name")[found.lastindex - 1]
        self.next = found.group(found.lastindex)
        self._place += found.end()
        return token

    def take(self, sign: str) -> bool:
        """Whether the next token is ``sign``, which is then passed."""
        if self.kind == "sign" and self.next == sign:
            self.move()
            return True
        return False

    def expect(self, sign: str) -> None:
        """Pass ``sign``, or the end where it is empty."""
        if sign and self.take(sign):
            return
        if sign or self.kind != "end":
            raise ValueError(f"{self.said()} is not understood; expected {sign or 'the end'}")

    def said(self) -> str:
        """Return the next token for a message."""
        return shown(self.next, most=30) if self.next else "the end"


def _steps(tokens: _Tokens, namespaces: Mapping[str, str], *, predicates: bool) -> list[Step]:
    found = [_step(tokens, namespaces, predicates)]
    while True:
        deep = tokens.take("//")
        if not deep and not tokens.take("/"):
            return found
        found.append(replace(_step(tokens, namespaces, predicates), deep=deep))


def _step(tokens: _Tokens, namespaces: Mapping[str, str], predicates: bool) -> Step:
    if tokens.take("@"):
        return _attribute(tokens, namespaces)
    if tokens.kind not in ("name",) and tokens.next != _ANY:
        raise ValueError(f"{tokens.said()} is not understood; expected the name of an element")
    name = tokens.move()
    if tokens.take("::"):
        if name == "attribute":
            return _attribute(tokens, namespaces)
        if name == "namespace" and tokens.kind == "name" and ":" not in tokens.next:
            return Step("namespace", name=tokens.move())
        if name != "child":
            raise ValueError(f"the axis {shown(name)} is not supported")
        name = tokens.move()
    if tokens.take("("):
        step = _node_test(tokens, name)
    else:
        step = Step("element", *_expanded(name, namespaces))
    found: list[Predicate] = []
    while predicates and tokens.take("["):
        found.append(_predicate(tokens, namespaces))
        tokens.expect("]")
    return replace(step, predicates=tuple(found))


def _attribute(tokens: _Tokens, namespaces: Mapping[str, str]) -> Step:
    if tokens.kind != "name" and tokens.next != _ANY:
        raise ValueError(f"{tokens.said()} is not understood; expected the name of an attribute")
    # An attribute without a prefix is in no namespace: https://www.w3.org/TR/xml-names/#defaulting
    return Step("attribute", *_expanded(tokens.move(), {**namespaces, "": ""}))


def _node_test(tokens: _Tokens, name: str) -> Step:
    if name not in _NODE_TESTS:
        raise ValueError(f"the function {shown(name + '()')} is not supported there")
    target = _ANY
    if name == "processing-instruction" and tokens.kind == "text":
        target = tokens.move()[1:-1]
    tokens.expect(")")
    return Step(name, name=target)


def _expanded(name: str, namespaces: Mapping[str, str]) -> tuple[str, str]:
    """Return namespace and name of a name as it is written."""
    if name == _ANY:
        return _ANY, _ANY
    prefix, _, local = name.rpartition(":")
    if prefix not in namespaces:
        raise ValueError(f"the prefix {shown(prefix)} is not declared (invalid-namespace-prefix)")
    return namespaces[prefix], local


def _predicate(tokens: _Tokens, namespaces: Mapping[str, str]) -> Predicate:
    if tokens.kind == "number":
        return _place(tokens)
    if tokens.kind == "name" and tokens.next in ("last", "position"):
        name = tokens.move()
        tokens.expect("(")
        tokens.expect(")")
        if name == "last":
            return -1
        tokens.expect("=")
        return _place(tokens)
    comparisons = [_comparison(tokens, namespaces)]
    while tokens.kind == "name" and tokens.next == "and":
        tokens.move()
        comparisons.append(_comparison(tokens, namespaces))
    return tuple(comparisons)


def _place(tokens: _Tokens) -> int:
    if tokens.kind != "number" or int(tokens.next) == 0:
        raise ValueError(f"{tokens.said()} is no place; they are counted from 1")
    return int(tokens.move())


def _comparison(tokens: _Tokens, namespaces: Mapping[str, str]) -> Comparison:
    steps = [] if tokens.take(".") else _steps(tokens, namespaces, predicates=False)
    for operator in ("=", "!="):
        if tokens.take(operator):
            if tokens.kind != "text":
                raise ValueError(f"{tokens.said()} is not understood; expected a text in quotes")
            return Comparison(tuple(steps), operator, tokens.move()[1:-1])
    return Comparison(tuple(steps))


class Search:
    """Finds what selectors locate, within a number of nodes to look at, in all."""

    def __init__(self, looks_max: int) -> None:
        self._left = looks_max

    def located(self, steps: Selector, root: Element) -> list[Located]:
        """Return what ``steps`` locate in the document of ``root``, each once.

        Raises :class:`ValueError` over the limit.
        """
        document = Element("", "", children=[root])
        return self._walked(steps, document)

    def look(self, count: int) -> None:
        """Count ``count`` nodes as looked at."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the selectors of the patch look at too many nodes; name them by path")

    def copying(self, characters: int) -> None:
        """Count ``characters`` as copied or compared."""
        self.look(characters // _CHARACTERS_A_LOOK)

    def _walked(self, steps: Sequence[Step], start: Element) -> list[Located]:
        current: list[Located] = [start]
        for step in steps:
            found: dict[object, Located] = {}
            for context in current:
                if not isinstance(context, Element):
                    continue
                for parent in below(context) if step.deep else (context,):
                    for one in self._found(step, parent):
                        found[one if isinstance(one, Attribute | Namespace) else id(one)] = one
            current = list(found.values())
        return current

    def _found(self, step: Step, parent: Element) -> list[Located]:
        self.look(1 + len(parent.children))
        found = list(_CANDIDATES[step.kind](step, parent))
        for predicate in step.predicates:
            if isinstance(predicate, int):
                place = predicate - 1 if predicate > 0 else len(found) - 1
                found = found[place : place + 1] if place >= 0 else []
            else:
                found = [one for one in found if all(self._holds(c, one) for c in predicate)]
        return found

    def _holds(self, comparison: Comparison, context: Located) -> bool:
        found: list[Located] = [context]
        if comparison.steps:
            found = self._walked(comparison.steps, context) if isinstance(context, Element) else []
        if not comparison.operator:
            return bool(found)
        equal = comparison.operator == "="
        return any((self.string(one) == comparison.text) is equal for one in found)

    def string(self, located: Located) -> str:
        """Return the string value of what is located. https://www.w3.org/TR/xpath-10/#data-model"""
        match located:
            case Attribute(owner, key):
                return owner.attributes[key]
            case Namespace(owner, prefix):
                return owner.namespaces[prefix]
            case Element():
                return "".join(self._texts(located))
        return located.text

    def _texts(self, element: Element) -> Iterator[str]:
        stack: list[Node] = [element]
        while stack:
            one = stack.pop()
            self.look(1)
            if isinstance(one, Text):
                self.copying(len(one.text))
                yield one.text
            elif isinstance(one, Element):
                stack += reversed(one.children)


def _elements(step: Step, parent: Element) -> Iterator[Located]:
    for child in parent.children:
        if (
            isinstance(child, Element)
            and step.name in (_ANY, child.name)
            and step.namespace in (_ANY, child.namespace)
        ):
            yield child


def _attributes(step: Step, parent: Element) -> Iterator[Located]:
    for key in parent.attributes:
        namespace, _, name = key.rpartition(" ")
        if step.name in (_ANY, name) and step.namespace in (_ANY, namespace):
            yield Attribute(parent, key)


def _namespaces(step: Step, parent: Element) -> Iterator[Located]:
    if step.name in parent.namespaces:
        yield Namespace(parent, step.name)


def _instructions(step: Step, parent: Element) -> Iterator[Located]:
    for child in parent.children:
        if isinstance(child, Instruction) and step.name in (_ANY, child.target):
            yield child


def _of(*types: type) -> Callable[[Step, Element], Iterator[Located]]:
    return lambda _, parent: (child for child in parent.children if isinstance(child, types))


_CANDIDATES: Mapping[str, Callable[[Step, Element], Iterator[Located]]] = {
    "element": _elements,
    "attribute": _attributes,
    "namespace": _namespaces,
    "processing-instruction": _instructions,
    "text": _of(Text),
    "comment": _of(Comment),
    "node": _of(Element, Text, Comment, Instruction),
}
