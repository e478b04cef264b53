# design/security.md, sections 3.1 and 8, A15: one holder of collections
"""Who may read more than a request's plan says: whoever needs it is listed, with the reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

AS_SERVER = {
    "fhir_server/interactions/admitting.py": "what is open to all, or about the server itself",
    "fhir_server/interactions/relationship.py": "whose care somebody takes part in, for the plan",
    "fhir_server/operations/export_files.py": "the rights of who reads a file, when it is read",
    "fhir_server/operations/break_glass.py": "whether there is such a patient; that is counted",
    "fhir_server/operations/named.py": "terminology, which is for whoever is signed in",
    "fhir_server/interactions/asking.py": "definitions that a search names",
    "fhir_server/interactions/defining.py": "definitions by their canonical",
    "fhir_server/interactions/stored.py": "concept maps",
    "fhir_server/interactions/terms.py": "value sets and concept maps by id",
    "fhir_server/features/scheduling/publishing.py": "places and free times, without patients",
    "fhir_server/features/scheduling/looking.py": "hours, zones, whose role it is; no names",
    "fhir_server/features/cds/enforce.py": "what was found of an order, and who overrode it",
}
"""The modules above the store that may use the store whole."""

BY_SERVER = {
    "fhir_server/features/scheduling/writing.py": "the Slot of an Appointment that was granted",
}
"""The modules above the store that write what whoever asks may not write."""

DATABASE = {
    "fhir_server/sample.py": "the marks of a load",
    "fhir_server/app.py": "the parts of the server are made of it",
    "fhir_server/audit_commands.py": "the audit record, at the command line",
    "fhir_server/security/production.py": "a setting of that name",
    "fhir_server/interactions/auditing.py": "the audit record's own retention",
    "fhir_server/interactions/consenting.py": "who has broken the glass, for the plan",
    "fhir_server/interactions/people.py": "users and sessions, which are no resources",
    "fhir_server/interactions/relationship.py": "whose care somebody takes part in, for the plan",
    "fhir_server/operations/break_glass.py": "who has broken the glass",
    "fhir_server/operations/export.py": "which patients are there, by a plan of its own",
    "fhir_server/operations/export_files.py": "which versions may be seen, by the plan",
    "fhir_server/operations/export_provenance.py": "to whom targets belong, by the plan",
    "fhir_server/operations/export_pages.py": "what was deleted, by the plan",
    "fhir_server/operations/closure.py": "closure tables, which are no resources",
    "fhir_server/features/cds/http.py": "tokens and feedback of CDS clients",
    "fhir_server/features/cds/operations.py": "what CDS calls were counted",
    "fhir_server/features/cds/record.py": "what cards were shown",
    "fhir_server/features/cds/reloading.py": "when knowledge was changed",
    "fhir_server/features/cds/services.py": "which cards were shown",
    "adapters/hl7v2/interface.py": "whether it is the same one; nothing is read",
}
"""The modules above the store that hand its database on. None of them takes a collection of it."""

WHOLE = {
    "fhir_server/store/resources.py": "as_server, as_of, expunge, parts, guides, granules, "
    "calendar_links",
    "fhir_server/store/access.py": "the choke point",
    "fhir_server/store/versions.py": "the choke point, for what is no current version",
    "fhir_server/store/joins.py": "another word: all that a document has to meet",
}
"""The modules of the store that know of what is behind the plan."""

RAW = {
    "Indexes": "makes collections",
    "Contents": "bytes, by the id that a visible Binary has",
    "Reindex": "writes keys",
    "SearchKeys": "which keys are complete",
    "Fetch": "puts the predicate of a plan into each question",
    "Writer": "judges by the plan of each change",
    "Integrity": "judges by the plan of each change",
    "Concepts": "codes, which are no resources",
    "Conformance": "which definitions have changed",
    "Packages": "which packages are loaded",
    "Server": "the command line",
    "Accounts": "users, grants and tokens, which are no resources",
    "SigningKeys": "keys",
    "Audit": "the audit record",
    "Denials": "what Consents deny",
    "Exports": "jobs and files, by their requester",
    "_audit": "makes Audit",
    "_audit_key": "a key",
    "_master_key": "a key",
    "ensure_people": "indexes of users and sessions",
    "ensure_answers": "an index",
    "ensure_claims": "an index",
    "ensure_queues": "indexes",
    "ensure_outbox": "an index",
    "shared_key": "the key of page links",
    "is_ready": "whether there is a database",
    "_store": "makes the store",
    "_server": "makes the server",
    "_search_keys": "makes SearchKeys",
    "ResourceStore": "the store, which is narrowed for each request",
}
"""What the composition root gives the whole database to."""


def _modules(*folders: str) -> Iterator[tuple[str, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def _attributes(tree: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _names(tree: ast.AST) -> set[str]:
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return named | _attributes(tree)


def _is_store(name: str) -> bool:
    return name.startswith("fhir_server/store/")


def test_few_modules_use_the_store_whole() -> None:
    """``as_server`` stands in the modules of the list, and in no other."""
    using = {
        name
        for name, tree in _modules("fhir_server", "adapters")
        if "as_server" in _names(tree) and not _is_store(name)
    }
    assert using == AS_SERVER.keys()


def test_few_modules_write_for_the_server() -> None:
    """``Change.by_server`` and ``by_operation`` are said in the modules of the list, and in no
    other."""
    saying = {
        name
        for name, tree in _modules("fhir_server", "adapters")
        if not _is_store(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg in ("by_server", "by_operation")
    }
    assert saying == BY_SERVER.keys()


def test_no_module_above_the_store_takes_a_collection() -> None:
    """The database is handed on by the modules of the list, and subscripted by none of them."""
    handing = {
        name
        for name, tree in _modules("fhir_server", "adapters")
        if not _is_store(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "database"
        and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert handing == DATABASE.keys()
    taking = [
        f"{name}:{node.lineno}"
        for name, tree in _modules("fhir_server", "adapters")
        if not _is_store(name)
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and _ends_with_database(node.value)
    ]
    assert taking == []


def _ends_with_database(node: ast.expr) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr == "database") or (
        isinstance(node, ast.Name) and node.id == "database"
    )


def test_few_modules_of_the_store_know_the_whole() -> None:
    """What is behind a plan is known to the modules of the list, and to no other."""
    knowing = {
        name
        for name, tree in _modules("fhir_server")
        if {"whole", "_whole"} & _attributes(tree) and _is_store(name)
    }
    assert knowing == WHOLE.keys()


def test_the_store_uses_the_whole_for_itself_alone() -> None:
    """In the verbs of the store, the whole database is for those that answer no client with it."""
    tree = ast.parse((ROOT / "fhir_server/store/resources.py").read_text())
    using = {
        function.name
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        and "_whole" in _attributes(function)
    }
    plain = {"narrowed", "as_server", "as_of", "expunge", "parts", "guides"}
    assert using == plain | {"granules", "calendar_links"}


def test_few_parts_are_given_the_whole_database() -> None:
    """The composition root gives it to those of the list."""
    tree = ast.parse((ROOT / "fhir_server/app.py").read_text())
    given = {
        node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for one in (*node.args, *(keyword.value for keyword in node.keywords))
        for part in (one.value if isinstance(one, ast.Starred) else one,)
        for each in (part.elts if isinstance(part, ast.Tuple) else [part])
        if _ends_with_database(each)
    }
    assert given <= RAW.keys()


@pytest.mark.parametrize("listed", [AS_SERVER, BY_SERVER, DATABASE, WHOLE])
def test_what_is_listed_is_there(listed: dict[str, str]) -> None:
    """No list names what is gone."""
    assert all((ROOT / name).is_file() for name in listed)
