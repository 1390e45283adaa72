"""The Python files of a team, imported, and the functions in them that are tools."""

import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType

from interlock.agents.tools.calling import Tool
from interlock.agents.tools.errors import ToolModuleInvalid
from interlock.agents.tools.functions import function_tool
from interlock.agents.tools.secrets import Secrets
from interlock.agents.tools.tool import declaration_of

__all__ = ["tools_of_module"]


def tools_of_module(path: Path, secrets: Secrets) -> Iterator[Tool]:
    """Import a Python file and yield the tools that it defines, in their order; those that it imports are not its own.

    A file that has changed is imported anew; one that has not is not.

    :raises ToolModuleInvalid: it is not there, or an error is raised in it
    :raises ToolDeclarationInvalid: a function marked ``@tool`` is no tool
    """
    module = _imported(path)
    for name, value in vars(module).items():
        if declaration_of(value) is not None and getattr(value, "__module__", None) == module.__name__:
            yield function_tool(value, secrets, module=path.stem.lower(), where=f"{name} in {path}")


def _imported(path: Path) -> ModuleType:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ToolModuleInvalid(path, f"{error.strerror}") from error
    digest = hashlib.sha256(bytes(path.resolve()) + b"\0" + source).hexdigest()[:16]
    name = f"_interlock_tools_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, loader=None, origin=str(path))
    if spec is None:
        raise ToolModuleInvalid(path, "it is no Python module")
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[name] = module  # where dataclasses and pydantic look for the names in annotations
    try:
        # What is run is what was read: a file that changes in between cannot be another one than its name says.
        exec(compile(source, str(path), "exec"), vars(module))  # noqa: S102 -- the team's own code, by its team file
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, (Exception, SystemExit)):
            raise ToolModuleInvalid(path, _told(error, path)) from error
        raise
    return module


def _told(error: BaseException, path: Path) -> str:
    lines = [frame.tb_lineno for frame in _frames(error) if frame.tb_frame.f_code.co_filename == str(path)]
    at = f"line {lines[-1]}: " if lines else ""
    hint = "; each tool says what it changes, as in @tool(effect='read')" if _forgot_effect(error) else ""
    return f"{at}{type(error).__name__}: {error}{hint}"


def _frames(error: BaseException) -> Iterator[TracebackType]:
    frame = error.__traceback__
    while frame is not None:
        yield frame
        frame = frame.tb_next


def _forgot_effect(error: BaseException) -> bool:
    return isinstance(error, TypeError) and "tool()" in str(error)
