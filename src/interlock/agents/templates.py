"""Templates of a team file: rendered to text, evaluated to values, and read for the variables that they use.

What is in scope: ``goal``; ``inputs.NAME``; ``item`` and ``index`` under ``for_each``; ``steps.NAME.output`` of a step
without ``for_each``; ``steps.NAME.outputs`` (accepted, in item order), ``.results`` (of ``{index, item, output}``),
``.failed`` and ``.total`` (counts) of any step. Values are data: text that looks like a template is never run.

Errors, all of them ``TemplateError``:

* ``TemplateInvalid``: it is no template of this dialect; found without running it.
* ``VariableMissing``: it uses a name that is not in scope.
* ``TemplateForbidden``: it reaches for something that templates may not touch.
* ``TemplateTooCostly``: it makes too much text, or loops for too long.
* ``TemplateFailed``: an operation in it fails, such as a division by zero, or a value is no JSON.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError

from interlock.agents.template_sandbox import AbsentName, Sandbox
from interlock.agents.template_values import AllowanceExceeded, allowance, as_json
from interlock.protocol.base import Json

__all__ = [
    "MAX_TEMPLATE",
    "Reference",
    "TemplateError",
    "TemplateFailed",
    "TemplateForbidden",
    "TemplateInvalid",
    "TemplateTooCostly",
    "VariableMissing",
    "evaluate",
    "find_references",
    "is_expression",
    "references",
    "render",
    "variable",
]

MAX_TEMPLATE = 262_144
"""The longest template, in characters."""

_SHOWN = 60


class TemplateError(ValueError):
    """A template that cannot be used. ``template`` is its text."""

    def __init__(self, template: str, reason: str) -> None:
        line = " ".join(template.split())
        shown = line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
        super().__init__(f"template {shown!r}: {reason}")
        self.template = template
        self.reason = reason


class TemplateInvalid(TemplateError):
    """A text that is no template of this dialect; ``line`` counts from 1 within it."""

    def __init__(self, template: str, reason: str, line: int = 1) -> None:
        super().__init__(template, reason)
        self.line = line


class VariableMissing(TemplateError):
    """A template uses ``variable``, which is not in scope; ``known`` are the names in its place."""

    def __init__(self, template: str, variable: str, known: Iterable[str] = ()) -> None:
        self.variable = variable
        self.known = tuple(known)
        there = f"; there are: {', '.join(self.known)}" if self.known else ""
        super().__init__(template, f"there is no {variable!r}{there}")


class TemplateForbidden(TemplateError):
    """A template reaches for something that templates may not touch."""


class TemplateTooCostly(TemplateError):
    """A template makes too much text, or loops for too long."""


class TemplateFailed(TemplateError):
    """An operation in a template fails, or its value is no JSON."""


@dataclass(frozen=True, order=True)
class Reference:
    """A variable that a template uses: its dotted path as far as it is spelt out, and the line, from 1."""

    path: tuple[str, ...]
    line: int


_sandbox = Sandbox()


def render(template: str, scope: Mapping[str, Json]) -> str:
    """Return the template's text. Text values stand as they are, all others as JSON.

    :raises TemplateError: one of its kinds, see the module.
    """
    return _run(template, scope, native=False)[1]


def evaluate(template: str, scope: Mapping[str, Json]) -> Json:
    """Return the value of a template that is one ``{{ expression }}`` and nothing else; any other is rendered.

    :raises TemplateError: one of its kinds, see the module.
    """
    if not is_expression(template):
        return render(template, scope)
    return _run(template.strip(), scope, native=True)[0]


def is_expression(template: str) -> bool:
    """Return whether the template is exactly one ``{{ expression }}``, white space around it aside.

    :raises TemplateInvalid: it is no template.
    """
    body = _tree(template.strip()).body
    match body:
        case [nodes.Output(nodes=[expression])]:
            return not isinstance(expression, nodes.TemplateData)
        case _:
            return False


def variable(template: str) -> tuple[str, ...]:
    """Return the path of a template that is one ``{{ variable }}`` spelt out to its end and nothing else, or ``()``.

    ``{{ inputs.tickets }}`` gives ``("inputs", "tickets")``; with a filter, a call or an index it gives ``()``.

    :raises TemplateInvalid: it is no template.
    """
    match _tree(template.strip()).body:
        case [nodes.Output(nodes=[nodes.Name() | nodes.Getattr() | nodes.Getitem() as expression])]:
            return _path(expression)
        case _:
            return ()


def references(template: str) -> frozenset[str]:
    """Return the dotted paths of the variables that the template uses, such as ``steps.summarise.outputs``.

    :raises TemplateInvalid: it is no template.
    """
    return frozenset(".".join(reference.path) for reference in find_references(template))


def find_references(template: str) -> tuple[Reference, ...]:
    """Return the variables that the template uses, each path once, at its first line, in order of lines.

    Names that the template itself sets, such as loop variables, are not among them. A path ends where it is not
    spelt out: ``inputs.documents[0].text`` gives ``inputs.documents``, ``steps[name]`` gives ``steps``.

    :raises TemplateInvalid: it is no template.
    """
    _program(template, native=False)  # what loads must also compile
    first: dict[tuple[str, ...], Reference] = {}
    for reference in _uses(_tree(template), set(_sandbox.globals)):
        first.setdefault(reference.path, reference)
    return tuple(sorted(first.values(), key=lambda reference: reference.line))


def _run(template: str, scope: Mapping[str, Json], *, native: bool) -> tuple[Json, str]:
    """Return the value of the one expression, where that is asked for, and the text."""
    program = _program(template, native=native)
    try:
        with allowance():
            context = program.new_context(dict(scope))
            text = "".join(program.root_render_func(context))
            return as_json(context.vars["result"]) if native else None, text
    except AbsentName as error:
        raise VariableMissing(template, _whole_path(template, error.name, scope), error.known) from error
    except SecurityError as error:
        raise TemplateForbidden(template, str(error)) from error
    except (AllowanceExceeded, MemoryError, RecursionError) as error:
        raise TemplateTooCostly(template, str(error)) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, jinja2.TemplateError) as error:
        raise TemplateFailed(template, str(error)) from error


@lru_cache(maxsize=1024)
def _program(template: str, *, native: bool) -> jinja2.Template:
    try:
        _tree(template)
        return _sandbox.program(template, native=native)
    except (SyntaxError, RecursionError, MemoryError, ValueError) as error:
        if isinstance(error, TemplateInvalid):
            raise
        raise TemplateInvalid(template, "it is nested too deeply") from error


@lru_cache(maxsize=1024)
def _tree(template: str) -> nodes.Template:
    if len(template) > MAX_TEMPLATE:
        raise TemplateInvalid(template, f"it has {len(template)} characters; at most {MAX_TEMPLATE}")
    try:
        return _sandbox.tree(template)
    except TemplateSyntaxError as error:
        raise TemplateInvalid(template, error.message or "it is no template", error.lineno) from error
    except (RecursionError, ValueError) as error:
        raise TemplateInvalid(template, "it is nested too deeply, or has a number that is too long") from error


def _whole_path(template: str, name: str, scope: Mapping[str, Json]) -> str:
    """Return the path that ends in the absent ``name``, as far as the template spells it out."""
    for reference in find_references(template):
        value: Json | Mapping[str, Json] = scope
        for depth, part in enumerate(reference.path):
            if not isinstance(value, Mapping) or part not in value:
                if part == name:
                    return ".".join(reference.path[: depth + 1])
                break
            value = value[part]
    return name


def _uses(node: nodes.Node, local: set[str]) -> Iterator[Reference]:
    """Walk the tree in the order of evaluation; ``local`` gains the names that ``set`` gives from here on."""
    match node:
        case nodes.For():
            yield from _uses(node.iter, local)
            inner = local | _targets(node.target) | {"loop"}
            yield from _all_uses([*([node.test] if node.test else []), *node.body], inner)
            yield from _all_uses(node.else_, set(local))
        case nodes.With():
            yield from _all_uses(node.values, local)
            yield from _all_uses(node.body, local.union(*map(_targets, node.targets)))
        case nodes.Assign():
            yield from _uses(node.node, local)
            local |= _targets(node.target)
        case nodes.AssignBlock() | nodes.FilterBlock():
            yield from _all_uses([*([node.filter] if node.filter else []), *node.body], set(local))
            local |= _targets(node.target) if isinstance(node, nodes.AssignBlock) else set()
        case nodes.Call(node=nodes.Getattr() as method):
            yield from _all_uses([method.node, *node.args, *node.kwargs], local)
        case nodes.Name() | nodes.Getattr() | nodes.Getitem() if path := _path(node):
            if path[0] not in local:
                yield Reference(path, node.lineno)
        case _:
            yield from _all_uses(node.iter_child_nodes(), local)


def _all_uses(several: Iterable[nodes.Node], local: set[str]) -> Iterator[Reference]:
    for node in several:
        yield from _uses(node, local)


def _targets(target: nodes.Node) -> set[str]:
    """Return the names that an assignment or a loop gives a value to."""
    return {name.name for name in (target, *target.find_all(nodes.Name)) if isinstance(name, nodes.Name)}


def _path(node: nodes.Node) -> tuple[str, ...]:
    """Return ``("steps", "x")`` for ``steps.x`` and ``steps["x"]``; empty if it is not spelt out."""
    match node:
        case nodes.Name():
            return (node.name,)
        case nodes.Getattr(attr=name) | nodes.Getitem(arg=nodes.Const(value=str(name))):
            start = _path(node.node)
            return (*start, name) if start else ()
        case _:
            return ()
