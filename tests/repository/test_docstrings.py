"""What has to have a docstring has one (ARCHITECTURE.md, section 10)."""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("fhir_server", "adapters", "scripts", "tests", "examples")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
COMPOUND = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.If, ast.Match, ast.Try, ast.TryStar),
    *(ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith),
)

MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
SERVER = [path for path in MODULES if path.is_relative_to(ROOT / "fhir_server")]
TESTS = [path for path in MODULES if path.is_relative_to(ROOT / "tests")]


def name_of(path: Path) -> str:
    """Return ``path`` as it is seen from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_knows(path: Path) -> None:
    """A module begins with a docstring."""
    assert ast.get_docstring(parsed(path))


@pytest.mark.parametrize("path", SERVER, ids=name_of)
def test_what_is_public_is_explained(path: Path) -> None:
    """A public function or class has a docstring, unless it is trivial."""
    found = {name: node for name, node in public(parsed(path).body) if not trivial(node)}

    assert [name for name, node in found.items() if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_names_the_behaviour(path: Path) -> None:
    """A test function has a docstring."""
    found = {name: node for name, node in public(parsed(path).body) if is_test(name)}

    assert [name for name, node in found.items() if not ast.get_docstring(node)] == []


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def public(body: Sequence[ast.stmt], inside: str = "") -> Iterator[tuple[str, Definition]]:
    """Yield the public functions and classes of ``body``, and those inside its public classes."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield inside + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{inside}{node.name}.")


def is_test(name: str) -> bool:
    return name.rpartition(".")[2].startswith("test_")


def trivial(node: Definition) -> bool:
    """Tell whether ``node`` needs no docstring, as the refusals of section 14.1 need none.

    That is an ``@overload``, a class of one statement, and a function of one or two, none of
    which contains another statement.
    """
    if any("overload" in ast.unparse(decorator) for decorator in node.decorator_list):
        return True
    statements_max = 1 if isinstance(node, ast.ClassDef) else 2
    return len(node.body) <= statements_max and not any(
        isinstance(statement, COMPOUND) for statement in node.body
    )
