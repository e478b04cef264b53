"""design/hl7v2.md, section 2: what of the adapter only computes, what touches the world. H77."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADAPTER = ROOT / "adapters" / "hl7v2"
# The modules that wait, write, listen or run. Every other one is pure.
SHELL = frozenset(
    """__init__ apply batches chains commands failures folder gathering http inbox interface
    lookups merging operations outcomes replaying sending server strict workers""".split()
)
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


PURE = [path for path in MODULES if name_of(path) not in SHELL]


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
    """And every module of the shell is there still."""
    names = {name_of(path) for path in MODULES}

    assert names >= SHELL
    assert len(PURE) > 2 * len(SHELL)
