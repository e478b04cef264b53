"""A15: each danger has one place. Read from the syntax of all modules, so that no second one comes.

design/security.md: "one place for each danger". Who needs one of these uses what is there; who
moves it changes this table, and is seen.
"""

import ast
from collections.abc import Callable, Iterable
from functools import cache, lru_cache

import pytest

from tests.conftest import ROOT

FILES = [path for folder in ("fhir_server", "adapters") for path in (ROOT / folder).rglob("*.py")]
HL7 = "adapters/hl7v2/"
STORE = "fhir_server/store/"

# Danger -> what is imported or called, and the modules or folders where that may be.
PLACES: dict[str, tuple[str, str]] = {
    "the driver of the database": ("pymongo bson gridfs", STORE),
    "what makes an HTTP client": (
        (
            "httpx.AsyncClient httpx.Client httpx.AsyncHTTPTransport httpx.get httpx.post "
            "httpx.stream httpx.request httpcore"
        ),
        # The commands of HL7 v2 send to the server that their user names.
        f"fhir_server/remote/egress.py {HL7}commands.py {HL7}sending.py",
    ),
    "other ways out": (
        (
            "urllib.request http.client ftplib smtplib poplib imaplib xmlrpc requests aiohttp "
            "urllib3 aiosmtplib"
        ),
        "fhir_server/remote/mail.py",
    ),
    "connections and sockets": (
        (
            "socket asyncio.open_connection asyncio.start_server loop.create_connection "
            "create_connection"
        ),
        (
            f"fhir_server/remote/egress.py {STORE}embedded.py {HL7}server.py {HL7}sending.py "
            f"{HL7}elsewhere.py "
            # What is listened on, and what a parent and its workers say to each other.
            "fhir_server/listening.py fhir_server/http/accepting.py fhir_server/told.py "
            "fhir_server/workers.py fhir_server/worker.py"
        ),
    ),
    # expat, which opens nothing; the others make trees of what passed it, or write.
    "what reads XML": (
        "xml.parsers xml.sax xml.dom lxml defusedxml",
        (
            "fhir_server/r4/narrative.py fhir_server/r4/positions.py fhir_server/r4/xml_reader.py "
            "fhir_server/r4/xml_text.py fhir_server/patch/xml_tree.py"
        ),
    ),
    "trees of XML": ("xml.etree", "fhir_server/patch/xml_tree.py"),
    "other programs": (
        (
            "subprocess os.system os.popen os.execv os.execvp os.spawnv os.fork pty "
            "asyncio.create_subprocess_exec asyncio.create_subprocess_shell"
        ),
        f"{STORE}embedded.py {HL7}strict.py fhir_server/workers.py",
    ),
    "text as a program": ("eval exec __import__ codeop runpy", ""),
    # Both have a parameter of that name.
    "text as code": ("compile", "fhir_server/search/composite.py fhir_server/search/criteria.py"),
    "modules by name": (
        "importlib.import_module import_module",
        f"fhir_server/__main__.py fhir_server/commands.py fhir_server/app.py {STORE}embedded.py",
    ),
    "objects from bytes": ("pickle marshal shelve dill jsonpickle copyreg", ""),
    "YAML": ("yaml ruamel", ""),
    "templates": ("jinja2 mako string.Template", ""),
    "archives": (
        "tarfile zipfile shutil.unpack_archive",
        "fhir_server/r4/packages.py fhir_server/vocabulary.py",
    ),
    "memory by address": ("ctypes cffi", ""),
    # Attachment.hash is SHA-1 by the specification.
    "hashes that are broken": ("hashlib.md5 hashlib.sha1 md5 sha1", f"{HL7}attachments.py"),
    "cryptography": (
        "cryptography",
        (
            "fhir_server/security/ fhir_server/interactions/ fhir_server/http/authorize/ "
            "fhir_server/search/page.py"
        ),
    ),
    "markup that is shown": (
        "nh3 html.escape",
        (
            "fhir_server/http/ fhir_server/r4/fhirpath/functions/strings.py "
            "fhir_server/markup.py "
            "fhir_server/features/scheduling/queue_board.py"
        ),
    ),
}

# Operators of MongoDB that run a program or leave a collection -> where their names may be.
OPERATORS = {
    "$where $function $accumulator $mapReduce": "",
    "$out $merge $unionWith $graphLookup": f"{STORE}access.py",
    "$lookup": STORE,
    "$regex": f"{STORE} fhir_server/search/ fhir_server/security/predicates.py",
}


@lru_cache(maxsize=1)
def trees() -> list[tuple[str, ast.Module]]:
    """Return every module of ours by its path."""
    read = ((path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in FILES)
    return [(path, ast.parse(text)) for path, text in read]


@cache
def used(tree: ast.Module) -> frozenset[str]:
    """Return what a module imports and calls, by full names as far as they are written."""
    names: set[str] = set()
    alias: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                names.add(one.name)
                alias[one.asname or one.name.partition(".")[0]] = (
                    one.name if one.asname else one.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            for one in node.names:
                names.add(f"{node.module}.{one.name}")
                alias[one.asname or one.name] = f"{node.module}.{one.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            head, dot, rest = ast.unparse(node.func).partition(".")
            names.add(f"{alias.get(head, head)}{dot}{rest}")
    return frozenset(names)


def may(path: str, places: str) -> bool:
    """Whether ``path`` is one of ``places``: files, or folders with a slash at their end."""
    return any(
        path == one or (one.endswith("/") and path.startswith(one)) for one in places.split()
    )


def elsewhere(matches: Callable[[ast.Module], Iterable[str]], places: str) -> list[str]:
    """Return where something is that may be in ``places`` only."""
    return [
        f"{path}: {found}"
        for path, tree in trees()
        for found in matches(tree)
        if not may(path, places)
    ]


@pytest.mark.parametrize("danger", PLACES)
def test_a15_a_danger_has_one_place(danger: str) -> None:
    """Imports and calls."""
    wanted, places = PLACES[danger]

    def matches(tree: ast.Module) -> list[str]:
        return [
            name
            for name in used(tree)
            if any(name == one or name.startswith(f"{one}.") for one in wanted.split())
        ]

    assert elsewhere(matches, places) == []


@pytest.mark.parametrize("operators", OPERATORS)
def test_a15_operators_have_one_place(operators: str) -> None:
    """As texts: a client's value never becomes one, so that there is no other way to them."""

    def matches(tree: ast.Module) -> list[str]:
        texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        return [text for text in texts if isinstance(text, str) and text in operators.split()]

    assert elsewhere(matches, OPERATORS[operators]) == []


def test_a15_every_place_is_still_there() -> None:
    """What is not needed any more is taken out of the tables."""
    places = {one for _, row in PLACES.values() for one in row.split()}
    places |= {one for row in OPERATORS.values() for one in row.split()}
    missing = [one for one in places if not (ROOT / one).exists()]
    assert [one for one in missing if one != "fhir_server/http/authorize/"] == []


def _from_data(tree: ast.Module) -> list[str]:
    """Return the calls of Python's own ``re`` whose pattern is made of something that is read.

    A pattern may be a text, or made of constants of the module, whose names are in capitals.
    """
    own = {
        one.asname or one.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for one in node.names
        if one.name == "re"
    }
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        is_re = isinstance(node.func.value, ast.Name) and node.func.value.id in own
        if is_re and node.func.attr != "escape" and node.args and not _is_fixed(node.args[0]):
            found.append(ast.unparse(node)[:100])
    return found


def _is_fixed(pattern: ast.expr) -> bool:
    """Whether a pattern is made of texts and constants only."""
    if isinstance(pattern, ast.Constant):
        return True
    if isinstance(pattern, ast.Name):
        return pattern.id.isupper()
    if isinstance(pattern, ast.BinOp):
        return _is_fixed(pattern.left) and _is_fixed(pattern.right)
    if isinstance(pattern, ast.JoinedStr):
        return all(map(_is_fixed, pattern.values))
    return isinstance(pattern, ast.FormattedValue) and _is_fixed(pattern.value)


def test_a15_patterns_from_data_run_on_re2() -> None:
    """Python's engine, which can take years, is given patterns of ours alone."""
    # Between the separators of a message: one character, escaped, and names of ours.
    assert elsewhere(_from_data, f"{HL7}message.py") == []


DANGEROUS = {
    "import pickle": "objects from bytes",
    "from pickle import loads": "objects from bytes",
    "import subprocess as s\ns.run('ls')": "other programs",
    "from os import system\nsystem('ls')": "other programs",
    "eval('1')": "text as a program",
    "import httpx\nhttpx.AsyncClient()": "what makes an HTTP client",
    "from httpx import AsyncClient as A\nA()": "what makes an HTTP client",
    "import xml.etree.ElementTree as E\nE.parse('a')": "trees of XML",
    "from lxml import etree": "what reads XML",
    "import asyncio\nasyncio.open_connection('a', 1)": "connections and sockets",
}


@pytest.mark.parametrize(("text", "danger"), DANGEROUS.items())
def test_what_is_dangerous_is_seen(text: str, danger: str) -> None:
    """However it is imported."""
    wanted = PLACES[danger][0].split()
    names = used(ast.parse(text))
    assert any(name == one or name.startswith(f"{one}.") for name in names for one in wanted)


def test_a_pattern_from_data_is_seen() -> None:
    """A name that is no constant, alone and inside a text."""
    for text in ("re.compile(x)", "re.search(f'a{x}', y)", "re.sub('a' + given, '', y)"):
        assert _from_data(ast.parse(f"import re\n{text}"))
    for text in ("re.compile('a')", "re.search(f'a{_X}', y)", "re.escape(y)"):
        assert not _from_data(ast.parse(f"import re\n{text}"))
