"""The layout is the architecture: who may import whom, what is public, and one sentence for each module."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.modules import MODULES, ROOT, SOURCE, Module

MAY_IMPORT = {
    "protocol": {"protocol"},
    "observability": {"protocol", "observability", "_version"},
    "backends": {"protocol", "backends", "_version"},
    "agents": {"protocol", "observability", "backends", "agents", "_version"},
    "runtime": {"protocol", "observability", "backends", "agents", "runtime", "_version"},
    "testing": {"protocol", "backends", "testing", "_version"},
    # What stands in no folder is the front door; how little it loads is measured in test_project_imports.py.
    "": {"protocol", "observability", "backends", "agents", "runtime", "_version"},
}
"""For each folder of the package what it may import of ours."""

IMPURE = {
    *("aiohttp", "anyio", "asyncio", "concurrent", "http", "io", "logging", "multiprocessing", "nats", "openai"),
    *("opentelemetry", "os", "pathlib", "random", "secrets", "signal", "socket", "ssl", "subprocess", "tempfile"),
    *("threading", "time", "urllib", "uuid", "uvloop"),
}
"""What a pure module has no use for: a clock, randomness, the network, files, processes, a logger."""

IMPURE_CALLS = {"open", "input", "print", "now", "utcnow", "today"}

ENTRY = re.compile(r"- `(?P<path>[^`]+)`: (?P<sentence>.+)")
ONE_SENTENCE = re.compile(r"[A-Z`]((?![.!?]\s).)*\.")

by_entry = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.entry)


def breaches_of_direction(module: Module) -> Iterator[str]:
    for line, name in module.imports():
        first, _, rest = f"{name}.".partition(".")
        if first == "interlock" and rest.partition(".")[0] not in MAY_IMPORT[module.layer]:
            yield f"line {line}: a module of {module.layer or 'interlock'} imports {name}"


def breaches_of_purity(module: Module) -> Iterator[str]:
    yield from (f"line {line}: imports {name}" for line, name in module.imports() if name.partition(".")[0] in IMPURE)
    for node in ast.walk(module.tree):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield f"line {node.lineno}: is asynchronous"
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in IMPURE_CALLS:
                yield f"line {node.lineno}: calls {name}()"
            case _:
                pass


def breaches_of_all(module: Module) -> Iterator[str]:
    declared = module.declares()
    public = {name for name in module.makes() if not name.startswith("_")}
    yield from (f"{name} is public but not in __all__" for name in sorted(public.difference(declared)))
    yield from (f"{name} in __all__ is not made here" for name in sorted({*declared} - public - {"__version__"}))
    yield from (f"{name} stands twice in __all__" for name in sorted({*declared}) if declared.count(name) > 1)


def described() -> list[tuple[str, str]]:
    """Each entry of docs/layout.md: the path and what is said of it."""
    lines = (ROOT / "docs" / "layout.md").read_text().splitlines()
    return [(found["path"], found["sentence"]) for line in lines if (found := ENTRY.fullmatch(line))]


@by_entry
def test_imports_run_one_way(module: Module) -> None:
    """A module imports nothing of ours but what its folder may."""
    assert list(breaches_of_direction(module)) == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.layer == "protocol"], ids=lambda module: module.entry)
def test_protocol_is_pure(module: Module) -> None:
    """Nothing in ``protocol`` reads a clock, draws a random number, waits, or touches anything outside."""
    assert list(breaches_of_purity(module)) == []


@pytest.mark.parametrize("module", [m for m in MODULES if m.is_public], ids=lambda module: module.entry)
def test_all_is_exact(module: Module) -> None:
    """``__all__`` is every public name that the module makes, once, and nothing else."""
    assert list(breaches_of_all(module)) == []


def test_every_module_has_one_sentence() -> None:
    """docs/layout.md says once of each module what it owns, and nothing of modules that are gone."""
    paths = [path for path, _ in described()]
    modules = [module.entry for module in MODULES]
    assert {"missing": sorted({*modules} - {*paths}), "gone": sorted({*paths} - {*modules})} == {
        "missing": [],
        "gone": [],
    }
    assert sorted(paths) == sorted(modules)


def test_what_is_said_of_a_module_is_one_sentence() -> None:
    """It begins with a capital letter, ends in a full stop and has no second one."""
    assert [(path, sentence) for path, sentence in described() if not ONE_SENTENCE.fullmatch(sentence)] == []


@pytest.mark.parametrize("name", ["protocol", "agents", "runtime", "backends", "observability"])
def test_folders_at_the_top_are_links(name: str) -> None:
    """The folders at the top lead into the one src layout, by a relative path."""
    link = ROOT / name
    assert link.is_symlink()
    assert link.readlink() == Path("src", "interlock", name)
    assert (link / "__init__.py").is_file()


def imagined(path: str, *lines: str) -> Module:
    return Module(SOURCE / path, "\n".join(lines))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("protocol/x.py", "import interlock.runtime.bus"),
        ("protocol/x.py", "from interlock import backends"),
        ("protocol/x.py", "from interlock import __version__"),
        ("protocol/x.py", "from .. import agents"),
        ("protocol/x.py", "from ..agents.worker import Worker"),
        ("protocol/sub/__init__.py", "from ...agents.worker import Worker"),
        ("backends/x.py", "from interlock.observability.tracing import Tracing"),
        ("observability/x.py", "def f():\n    from interlock.backends import chat"),
        ("agents/x.py", "importlib.import_module('interlock.runtime.bus')"),
        ("testing/__init__.py", "from interlock.runtime.bus import Bus"),
        ("runtime/x.py", "from interlock.testing import Script"),
    ],
)
def test_wrong_direction_is_seen(path: str, line: str) -> None:
    """The rule of direction finds every form of an import that it forbids."""
    assert list(breaches_of_direction(imagined(path, line)))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("protocol/x.py", "from .base import Strict"),
        ("protocol/sub/x.py", "from ..base import Strict"),
        ("protocol/x.py", "from interlock.protocol import base"),
        ("runtime/x.py", "from interlock._version import __version__"),
        ("agents/x.py", "import interlocking"),
    ],
)
def test_right_direction_is_let_pass(path: str, line: str) -> None:
    """The rule of direction lets through what it allows."""
    assert not list(breaches_of_direction(imagined(path, line)))


@pytest.mark.parametrize(
    "line", ["import time", "from datetime import datetime\ndatetime.now()", "async def f(): ...", "open('x')"]
)
def test_impurity_is_seen(line: str) -> None:
    """The rule of purity finds clocks, waiting and files."""
    assert list(breaches_of_purity(imagined("protocol/x.py", line)))


@pytest.mark.parametrize(
    ("path", "lines"),
    [
        ("protocol/x.py", ["__all__ = []", "a, (b, _c) = 1, (2, 3)"]),
        ("protocol/x.py", ["from json import loads", "__all__ = ['loads']"]),
        ("protocol/x.py", ["__all__ = ['A', 'A']", "class A: ..."]),
        ("protocol/x.py", ["try:\n    A: int = 1\nexcept E:\n    B = 2", "__all__ = ['A']"]),
        ("protocol/__init__.py", ["from .base import Strict", "__all__ = []"]),
    ],
)
def test_wrong_all_is_seen(path: str, lines: list[str]) -> None:
    """The rule of ``__all__`` finds what leaks, what is missing and what stands there twice."""
    assert list(breaches_of_all(imagined(path, *lines)))
