"""design/hl7v2.md, section 2: what of the adapter only computes, what touches the world. H77."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = ROOT / "adapters" / "hl7v2"
DRIVERS = frozenset("pymongo bson gridfs fastapi starlette uvicorn aiohttp requests".split())
CLIENTS = {"commands": {"httpx"}, "sending": {"httpx"}}
WORLD = frozenset(
    "asyncio httpx logging multiprocessing os random secrets signal socket ssl subprocess "
    "threading time urllib.request uuid1 uuid4".split()
)
CLOCKS = frozenset(("now", "utcnow", "today", "time", "monotonic", "uuid1", "uuid4"))
MODULES = sorted(ADAPTER.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return ``server``, or ``segments/obx``."""
    return path.relative_to(ADAPTER).with_suffix("").as_posix()


def imports(tree: ast.Module) -> set[str]:
    """Return what is imported: whole modules, and their first part."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found | {name.partition(".")[0] for name in found}


def calls(tree: ast.Module) -> set[str]:
    """Return the names of the methods that are called, as ``now`` of ``datetime.now()``."""
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_h77_no_module_knows_driver_or_web_framework(path: Path) -> None:
    """The HTTP client is that of two commands, which send to where their user says."""
    found = imports(ast.parse(path.read_text("utf-8")))

    assert not found & DRIVERS
    assert found & {"httpx"} <= CLIENTS.get(name_of(path), set())


CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
LISTED = {
    module.removeprefix("adapters.*.")
    for contract in CONTRACTS["contracts"]
    if contract["name"] == "Floors 0 to 2 are pure"
    for module in contract["source_modules"]
    if module.startswith("adapters.*.")
}
PURE = [path for path in MODULES if name_of(path).partition("/")[0] in LISTED]


@pytest.mark.parametrize("path", PURE, ids=name_of)
def test_h77_what_computes_has_no_clock_socket_or_loop(path: Path) -> None:
    """Equal arguments give equal answers; nothing waits, nothing is asked of the world."""
    tree = ast.parse(path.read_text("utf-8"))

    assert not imports(tree) & WORLD
    assert not calls(tree) & CLOCKS
    assert not [
        node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await)
    ]


def test_h77_the_pure_part_is_the_larger_one() -> None:
    """What the import linter lists is there, and it is most of the adapter."""
    assert {name_of(path).partition("/")[0] for path in PURE} == LISTED
    assert len(PURE) > len(MODULES) / 2
