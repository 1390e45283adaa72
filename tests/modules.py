"""The project's own modules as the tests about its layout see them: parsed, not imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

__all__ = ["MODULES", "ROOT", "SOURCE", "Module"]

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "interlock"


@dataclass(frozen=True)
class Module:
    """A module of the package."""

    path: Path
    source: str

    @property
    def name(self) -> str:
        """Its import name."""
        parts = self.path.relative_to(SOURCE.parent).with_suffix("").parts
        return ".".join(parts[:-1] if self.is_package else parts)

    @property
    def is_package(self) -> bool:
        """Whether it is a package's ``__init__``."""
        return self.path.name == "__init__.py"

    @property
    def is_public(self) -> bool:
        """Whether no part of its name is private."""
        return not any(part.startswith("_") for part in self.name.split("."))

    @property
    def layer(self) -> str:
        """The folder below ``interlock`` that it stands in; empty for what stands in none."""
        return self.name.split(".")[1] if len(self.path.relative_to(SOURCE).parts) > 1 else ""

    @property
    def entry(self) -> str:
        """How docs/layout.md calls it: its path, a package by its folder."""
        return self.path.relative_to(SOURCE).as_posix().removesuffix("__init__.py") or "/"

    @cached_property
    def tree(self) -> ast.Module:
        """Its source, parsed."""
        return ast.parse(self.source)

    def imports(self) -> Iterator[tuple[int, str]]:
        """Yield each import, inside functions too: its line and the whole name of what is imported."""
        for node in ast.walk(self.tree):
            match node:
                case ast.Import():
                    yield from ((node.lineno, alias.name) for alias in node.names)
                case ast.ImportFrom():
                    yield from ((node.lineno, f"{self._origin(node)}.{alias.name}") for alias in node.names)
                case ast.Call(
                    func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    yield node.lineno, name
                case _:
                    pass

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.path.relative_to(SOURCE.parent).parts
        return ".".join([*parts[: len(parts) - node.level], *([node.module] if node.module else [])])

    def makes(self) -> set[str]:
        """Return the names that it makes, not those that it imports; but a package may pass on its modules' names."""
        return set(self._made(self.tree.body))

    def _made(self, statements: list[ast.stmt]) -> Iterator[str]:
        for statement in statements:
            match statement:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    yield statement.name
                case ast.Assign():
                    yield from (name for target in statement.targets for name in _names(target))
                case ast.AnnAssign():
                    yield from _names(statement.target)
                case ast.ImportFrom():
                    if self.is_package and f"{self._origin(statement)}.".startswith(f"{self.name}."):
                        yield from (alias.asname or alias.name for alias in statement.names)
                case _:
                    yield from (name for block in _blocks(statement) for name in self._made(block))

    def declares(self) -> list[str]:
        """Return what ``__all__`` says; nothing where there is none."""
        for statement in self.tree.body:
            match statement:
                case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                    names: list[str] = ast.literal_eval(value)
                    return names
                case _:
                    pass
        return []


def _names(target: ast.expr) -> Iterator[str]:
    match target:
        case ast.Name():
            yield target.id
        case ast.Tuple() | ast.List():
            yield from (name for element in target.elts for name in _names(element))
        case _:
            return


def _blocks(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    """Yield the statements inside a statement, as those below ``if TYPE_CHECKING``."""
    if isinstance(statement, ast.If | ast.Try | ast.With):
        yield from (getattr(statement, field, []) for field in ("body", "orelse", "finalbody"))
        yield from (handler.body for handler in getattr(statement, "handlers", ()))


MODULES = [Module(path, path.read_text()) for path in sorted(SOURCE.rglob("*.py"))]
