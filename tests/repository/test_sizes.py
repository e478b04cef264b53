"""No module and no function is larger than ARCHITECTURE.md, section 12, allows ("never")."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
PARAMETERS_MAX = 7

# Modules that are one long table, and may be as long as the table is. Each one is justified here.
TABLES: dict[str, str] = {}

MODULES = sorted(
    path
    for folder in ("fhir_server", "adapters", "scripts")
    for path in (ROOT / folder).rglob("*.py")
)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(path: Path) -> str:
    """Return ``path`` as it is seen from the root of the repository."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_not_too_long(path: Path) -> None:
    """A module has at most 600 lines, unless it is a table."""
    lines = len(path.read_text(encoding="utf-8").splitlines())

    assert lines <= MODULE_LINES_MAX or name_of(path) in TABLES


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_function_is_not_too_long(path: Path) -> None:
    """A function has at most 70 lines, its docstring not counted."""
    found = {function.name: lines_of(function) for function in functions(path)}

    assert {name: lines for name, lines in found.items() if lines > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_function_does_not_take_too_much(path: Path) -> None:
    """A function has at most 7 parameters, ``self`` and ``cls`` not counted."""
    found = {function.name: parameters_of(function) for function in functions(path)}

    assert {name: count for name, count in found.items() if count > PARAMETERS_MAX} == {}


def test_the_exceptions_are_still_needed() -> None:
    """A table that is gone, or short again, leaves the list."""
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}

    assert [name for name in TABLES if lengths.get(name, 0) <= MODULE_LINES_MAX] == []


def functions(path: Path) -> Iterator[Function]:
    """Yield every function of the module at ``path``, methods and inner functions as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def lines_of(function: Function) -> int:
    """Return how many lines ``function`` has from ``def`` to its end, without its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines


def parameters_of(function: Function) -> int:
    """Return how many parameters ``function`` has, a starred one counting as one."""
    of = function.args
    names = [parameter.arg for parameter in (*of.posonlyargs, *of.args, *of.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")]) + sum(
        starred is not None for starred in (of.vararg, of.kwarg)
    )
