"""The Jinja2 dialect of templates: what may stand in one, and how much work one may do.

A template is program text that a team's author wrote; the values in its scope are data. The dialect is small on
purpose: text, expressions, ``for``, ``if``, ``set``, ``with`` and filters from a fixed list. There are no macros,
imports or namespaces, so every loop runs over something finite, and what loops and operators make is counted against
one allowance per rendering: a template ends, and it ends small.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial, wraps
from itertools import islice
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateRuntimeError, TemplateSyntaxError, UndefinedError
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from jinja2.runtime import Context, LoopContext, StrictUndefined, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from interlock.agents.template_values import AllowanceExceeded, as_json, as_text, charge, counted, size

__all__ = ["MAX_RANGE", "AbsentName", "Sandbox"]

MAX_RANGE = 10_000
"""The longest ``range(...)`` of a template."""

_TURN = 32
_MAX_BITS = 4096
_MAX_TREE = 200


class AbsentName(UndefinedError):
    """A template uses a name that is not there; ``known`` are the names that are."""

    def __init__(self, name: str, known: tuple[str, ...], message: str | None = None) -> None:
        super().__init__(message)
        self.name = name
        self.known = known


class _Absent(StrictUndefined):
    """An undefined value that knows which name was asked for and which there are."""

    def __init__(
        self,
        hint: str | None = None,
        obj: Any = jinja2.utils.missing,
        name: str | None = None,
        exc: type[TemplateRuntimeError] = UndefinedError,
    ) -> None:
        if exc is UndefinedError:
            known = tuple(islice((key for key in obj if isinstance(key, str)), 20)) if isinstance(obj, Mapping) else ()
            exc = cast("type[TemplateRuntimeError]", partial(AbsentName, str(name), known))
        super().__init__(hint, obj, name, exc)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_STR_METHODS = _words(
    "capitalize count endswith find isdigit lower lstrip removeprefix removesuffix rsplit rstrip split splitlines "
    "startswith strip title upper"
)
_DICT_METHODS = frozenset({"get", "items", "keys", "values"})
_LIST_METHODS = frozenset({"count", "index"})
_LOOP_ATTRIBUTES = _words(
    "changed cycle depth depth0 first index index0 last length nextitem previtem revindex revindex0"
)


def _may_read(obj: Any, attribute: str) -> bool:
    match obj:
        case str():
            return attribute in _STR_METHODS
        case Mapping():
            return attribute in _DICT_METHODS
        case list() | tuple():
            return attribute in _LIST_METHODS
        case LoopContext():
            return attribute in _LOOP_ATTRIBUTES
        case _:
            return False


_TEXT_FILTERS = _words("capitalize indent lower replace title trim truncate upper wordcount")
"""Filters that look at their value as text."""

_FILTERS = _TEXT_FILTERS | _words(
    "abs count d default dictsort first float groupby int items last length list map max min reject rejectattr "
    "reverse round select selectattr sort sum unique"
)
"""The filters of Jinja2 that templates may use."""


def _bounded(name: str, filter_: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter of Jinja2 that is charged for what it gets and gives."""
    skip = 1 if hasattr(filter_, "jinja_pass_arg") else 0
    check = _BEFORE.get(name)

    @wraps(filter_)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        head, value, rest = args[:skip], args[skip], args[skip + 1 :]
        if name in _TEXT_FILTERS and not isinstance(value, Undefined):
            value = as_text(value)
        charge(size(value))
        if check is not None:
            check(value, *rest, **kwargs)
        result = filter_(*head, value, *rest, **kwargs)
        if isinstance(result, Iterator):
            return counted(result)
        charge(size(result))
        return result

    return bounded


def _before_indent(value: str, width: int | str = 4, *_: Any, **__: Any) -> None:
    charge((value.count("\n") + 1) * (width if isinstance(width, int) else len(width)))


def _before_replace(value: str, old: str, new: str, *_: Any, **__: Any) -> None:
    charge((value.count(old) + 1) * len(new))


def _before_round(_: Any, precision: int = 0, *__: Any, **___: Any) -> None:
    if not -100 <= precision <= 100:  # noqa: PLR2004  (far more digits than a float has)
        raise AllowanceExceeded("round() takes at most 100 digits")


def _before_sum(_: Any, __: Any = None, start: Any = 0, **___: Any) -> None:
    if not isinstance(start, (int, float)):
        raise TypeError("sum adds numbers only")


_BEFORE: dict[str, Callable[..., None]] = {
    "indent": _before_indent,
    "replace": _before_replace,
    "round": _before_round,
    "sum": _before_sum,
}
"""What is checked before a filter of which a small call can make something huge."""


def _tojson(value: Any, indent: int | None = None) -> str:
    """Return ``value`` as JSON text, as it is: nothing is escaped for HTML."""
    if indent is not None and not 0 <= indent <= 16:  # noqa: PLR2004  (wide enough for any reader)
        raise TypeError("tojson takes an indent from 0 to 16")
    text = json.dumps(as_json(value), ensure_ascii=False, allow_nan=False, indent=indent)
    charge(len(text))
    return text


def _join(value: Iterable[Any], d: Any = "", attribute: str | None = None) -> str:
    parts = [as_text(_attribute(one, attribute)) for one in counted(value)]
    between = as_text(d)
    charge(len(between) * len(parts))
    return between.join(parts)


def _attribute(value: Any, path: str | None) -> Any:
    for name in path.split(".") if path is not None else ():
        value = value[name]
    return value


def _each(values: Any, weight: int) -> Any:
    """Charge for a loop before it runs: each turn costs ``weight``."""
    if isinstance(values, Undefined):
        return values
    listed = values if isinstance(values, (list, tuple, range)) else counted(values)
    charge(len(listed) * weight)
    return listed


def _concat(values: list[Any]) -> str:
    return "".join(as_text(value) for value in values)


def _slice(value: Any, start: int | None, stop: int | None, step: int | None) -> Any:
    part = value[slice(start, stop, step)]
    charge(size(part))
    return part


@jinja2.pass_context
def _finalize(_: Context, value: Any) -> str:
    """Turn what an expression gave into text; it takes the context, or Jinja2 would call it while compiling."""
    return as_text(value)


def _range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > MAX_RANGE:
        raise AllowanceExceeded(f"range() takes at most {MAX_RANGE} numbers")
    return numbers


_STATEMENTS: tuple[type[nodes.Node], ...] = (
    nodes.Template,
    nodes.Output,
    nodes.For,
    nodes.If,
    nodes.Assign,
    nodes.AssignBlock,
    nodes.FilterBlock,
    nodes.With,
)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that templates are parsed and run in."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=_Absent,
            finalize=_finalize,
            autoescape=False,
            trim_blocks=True,
            lstrip_blocks=True,
            cache_size=0,
            optimized=False,
        )
        self.globals = {"range": _range}
        self.filters = {name: _bounded(name, DEFAULT_FILTERS[name]) for name in sorted(_FILTERS)}
        self.filters |= {"tojson": _tojson, "join": _join, "string": as_text}
        self.filters |= {" each": _each, " concat": _concat, " slice": _slice}  # no template can spell these names

    def tree(self, source: str) -> nodes.Template:
        """Return the syntax tree of a template, unchanged.

        :raises TemplateSyntaxError: it is no template, or has something in it that is not of this dialect.
        :raises RecursionError: it is nested too deeply to be parsed.
        """
        tree = super()._parse(source, None, None)
        self._check(tree, 0)
        return tree

    def program(self, source: str, *, native: bool) -> jinja2.Template:
        """Return the template ready to run; ``native``: leave its one expression's value in the variable ``result``.

        :raises TemplateSyntaxError: as ``tree``.
        :raises SyntaxError: it is nested more deeply than Python can compile.
        """
        tree = cast("nodes.Template", _rewritten(self.tree(source)))
        if native:
            target = nodes.Name("result", "store", lineno=1)
            tree.body = [nodes.Assign(target, cast("nodes.Output", tree.body[0]).nodes[0], lineno=1)]
        tree.set_environment(self)
        return jinja2.Template.from_code(self, self.compile(tree), self.globals)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return a mapping's value before its method, so that ``inputs.items`` is the input of that name."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may read this attribute: a few methods of text, lists and mappings."""
        return _may_read(obj, attr) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Leave ``str.format`` as the unsafe attribute that it is."""

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call one of the few methods that there are, charged for what it looks at and gives."""
        result = super().call(context, obj, *args, **kwargs)
        charge(size(getattr(obj, "__self__", None)) + size(result))
        return result

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operator whose result can be huge, if it is not."""
        if isinstance(left, Undefined) or isinstance(right, Undefined):
            return super().call_binop(context, operator, left, right)
        if operator == "%" and isinstance(left, str):
            raise SecurityError("text % values: use ~ to put text together")
        charge(_growth(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def _check(self, node: nodes.Node, depth: int) -> None:
        """Refuse what is not of this dialect, wherever it stands."""
        line = node.lineno
        if depth > _MAX_TREE:
            raise TemplateSyntaxError("this is nested too deeply", line)
        if isinstance(node, nodes.Stmt) and not isinstance(node, _STATEMENTS):
            raise TemplateSyntaxError(f"{{% {_word(node)} %}} cannot be used in a team's templates", line)
        if isinstance(node, nodes.For) and node.recursive:
            raise TemplateSyntaxError("a recursive loop cannot be used in a team's templates", line)
        if isinstance(node, nodes.Const) and isinstance(node.value, float) and not math.isfinite(node.value):
            raise TemplateSyntaxError("a number is too large", line)
        if isinstance(node, nodes.NSRef):
            raise TemplateSyntaxError(f"{node.name}.{node.attr} cannot be set: a template's values do not change", line)
        if isinstance(node, nodes.Filter) and node.name not in self.filters:
            raise TemplateSyntaxError(_unknown("filter", node.name, self.filters), line)
        if isinstance(node, nodes.Test) and node.name not in self.tests:
            raise TemplateSyntaxError(_unknown("test", node.name, self.tests), line)
        for child in node.iter_child_nodes():
            self._check(child, depth + 1)


def _word(node: nodes.Node) -> str:
    return {"CallBlock": "call", "ScopedEvalContextModifier": "autoescape"}.get(
        type(node).__name__, type(node).__name__.lower()
    )


def _unknown(what: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"there is no {what} {name!r}" + (f": did you mean {near[0]!r}?" if near else "")


def _growth(operator: str, left: Any, right: Any) -> int:
    """Return what the result of an operator costs."""
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if _bits(operator, left, right) > _MAX_BITS:
            raise AllowanceExceeded(f"it computes a number of more than {_MAX_BITS} bits")
        return 1
    if operator == "*":
        count, sequence = (left, right) if isinstance(left, int) else (right, left)
        return max(count, 0) * size(sequence) if isinstance(count, int) else 1
    return size(left) + size(right)


def _bits(operator: str, left: float, right: float) -> int:
    if not (isinstance(left, int) and isinstance(right, int)):
        return 0
    if operator == "**":
        return left.bit_length() * abs(right)
    return left.bit_length() + right.bit_length()


def _rewritten(node: nodes.Node) -> nodes.Node:
    """Return the tree with loops, ``~`` and slices going through functions that charge for them."""
    for name, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, name, [_rewritten(one) if isinstance(one, nodes.Node) else one for one in value])
        elif isinstance(value, nodes.Node):
            setattr(node, name, _rewritten(value))
    match node:
        case nodes.For():
            data = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
            node.iter = _call(node.iter, " each", nodes.Const(_TURN + data))
        case nodes.Concat():
            return _call(nodes.List(node.nodes, lineno=node.lineno), " concat")
        case nodes.Getitem(arg=nodes.Slice() as part):
            none = nodes.Const(None)
            return _call(node.node, " slice", part.start or none, part.stop or none, part.step or none)
        case _:
            pass
    return node


def _call(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    for arg in args:
        arg.lineno = arg.lineno or node.lineno
    return nodes.Filter(cast("nodes.Expr", node), name, list(args), [], None, None, lineno=node.lineno)
