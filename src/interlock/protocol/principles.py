"""Principles: checks on plans and on actions that nothing overrides, no rule and no person's yes. Pure.

A principle is a sentence of a small grammar, or the same in its long form::

    never WHAT [to PATTERN] [with tainted data] [before WHAT | after WHAT]

    WHAT  send anything outside      a call of any tool that reaches beyond this machine
          [CLASS] effects            a call of a tool of that effect class; without one, of any but ``read``
          anything                   any call
          TOOL, TOOL(PATTERN)        a call, written as in a permission rule

``before``: as long as no such call was made in the job. ``after``: once one was. Patterns of paths are absolute.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

from pydantic import Discriminator, Tag

from interlock.protocol.base import Json, Strict, canonical_json
from interlock.protocol.permissions import (
    ArgumentRule,
    Call,
    Layer,
    PermissionRule,
    Permissions,
    RuleInvalid,
    RuleSpec,
    parse_rule,
    rule_matches,
    rule_text,
)
from interlock.protocol.tools import EffectClass, ToolSpec

if TYPE_CHECKING:  # a team has principles, so at run time this module comes first
    from interlock.protocol.team import Step, ToolUse

__all__ = [
    "Broken",
    "DoneCall",
    "Principle",
    "PrincipleInvalid",
    "PrincipleSpec",
    "broken_by_call",
    "broken_by_plan",
    "parse_principle",
]

_FORMS = (
    "never send anything outside",
    "never irreversible effects",
    "never effects to PATTERN",
    "never TOOL",
    "never TOOL(PATTERN)",
    "never anything with tainted data",
    "never TOOL before TOOL",
    "never TOOL after TOOL",
)


class PrincipleSpec(Strict):
    """A principle in its long form: what must never be done."""

    never: PermissionRule
    """The calls that it is about."""
    to: tuple[str, ...] = ()
    """Only where a destination is like one of these patterns; empty: wherever it goes."""
    before: PermissionRule | None = None
    """Only as long as no call like this was made in the job."""
    after: PermissionRule | None = None
    """Only once a call like this was made in the job."""
    tainted: bool = False
    """Only where text from outside is in the context."""
    name: str = ""
    """What people call it."""


Principle = Annotated[
    Annotated[str, Tag("text")] | Annotated[PrincipleSpec, Tag("principle")],
    Discriminator(lambda value: "principle" if isinstance(value, (dict, PrincipleSpec)) else "text"),
]
"""A principle as a sentence, such as ``never send anything outside``, or in its long form."""


class PrincipleInvalid(ValueError):
    """A principle that cannot be read. ``principle`` is its text, ``reason`` what is wrong and what would be right."""

    def __init__(self, principle: str, reason: str) -> None:
        self.principle = principle
        self.reason = reason
        super().__init__(f"the principle {principle[:200]!r} cannot be read: {reason}")


@dataclass(frozen=True)
class DoneCall:
    """A call that was made in the job."""

    tool: str
    effect: EffectClass
    arguments: Mapping[str, Json]
    spec: ToolSpec | None = None
    """What the tool is; where it is not known, a principle takes the worse of what it could be."""
    surely: bool = True
    """Whether it is known to have taken place; what may have does not open what has to come after it."""


@dataclass(frozen=True)
class Broken:
    """A principle that a call or a plan breaks."""

    principle: str
    """As people call it."""
    reason: str
    """What breaks it."""
    step: str = ""
    """The step of the plan that does; empty for a call."""

    def __str__(self) -> str:
        return f"{self.reason}, against the principle {self.principle!r}"


# --- reading

_TOOL = r"[A-Za-z0-9_.*-]+(?:\s*\((?:[^()\"']|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')*\))?"
_WHAT = rf"send\s+anything\s+outside|(?:(?:idempotent|once|irreversible|read)\s+)?effects|{_TOOL}"
_PATTERN = r"\"[^\"]+\"|'[^']+'|[^\s\"']+"
_START = re.compile(rf"\s*[Nn]ever\s+(?P<never>{_WHAT})")
_CLAUSE = re.compile(
    rf"\s+(?:to\s+(?P<to>{_PATTERN})|with\s+(?P<tainted>tainted)\s+data|before\s+(?P<before>{_WHAT})|after\s+(?P<after>{_WHAT}))"
)


def parse_principle(principle: Principle) -> PrincipleSpec:
    """Return a principle in its long form, under the name that people know it by.

    :raises PrincipleInvalid: it cannot be read.
    """
    if isinstance(principle, str):
        return _parse_sentence(principle)
    named = principle if principle.name else principle.model_copy(update={"name": _text(principle)})
    _check(named)
    return named


@lru_cache(maxsize=1024)
def _parse_sentence(sentence: str) -> PrincipleSpec:
    text = sentence.strip().removesuffix(".")
    start = _START.match(text)
    if start is None:
        raise PrincipleInvalid(sentence, _expected())
    clauses: dict[str, str] = {}
    at = start.end()
    while at < len(text):
        clause = _CLAUSE.match(text, at)
        if clause is None or clause.lastgroup is None:
            raise PrincipleInvalid(sentence, f"{text[at:].strip()[:60]!r} is not understood; {_expected()}")
        if clause.lastgroup in clauses:
            raise PrincipleInvalid(sentence, f"{clause.lastgroup!r} stands twice; write two principles")
        clauses[clause.lastgroup] = clause[clause.lastgroup]
        at = clause.end()
    spec = PrincipleSpec(
        never=_what(sentence, start["never"]),
        to=(clauses["to"].strip("\"'"),) if "to" in clauses else (),
        before=_what(sentence, clauses["before"]) if "before" in clauses else None,
        after=_what(sentence, clauses["after"]) if "after" in clauses else None,
        tainted="tainted" in clauses,
        name=sentence.strip(),
    )
    _check(spec)
    return spec


def _what(sentence: str, text: str) -> PermissionRule:
    words = text.split()
    if words == ["send", "anything", "outside"]:
        return RuleSpec(network=True)
    if words[-1] == "effects":
        return RuleSpec(effect=_CLASSES[words[0]])
    if words == ["anything"]:
        return RuleSpec()
    tool = text.partition("(")[0]
    if "." not in tool and "*" not in tool:
        raise PrincipleInvalid(sentence, f"{tool.strip()!r} is no name of a tool; {_expected()}")
    return text


_CLASSES: dict[str, tuple[EffectClass, ...]] = {
    "effects": ("idempotent", "once", "irreversible"),
    "read": ("read",),
    "idempotent": ("idempotent",),
    "once": ("once",),
    "irreversible": ("irreversible",),
}


def _check(spec: PrincipleSpec) -> None:
    for rule in (spec.never, spec.before, spec.after, _to_rule(spec.to)):
        try:
            if rule is not None:
                parse_rule(rule)
        except RuleInvalid as error:
            raise PrincipleInvalid(spec.name, error.reason) from error


def _expected() -> str:
    return f"expected one of: {'; '.join(_FORMS)}"


def _text(principle: Principle) -> str:
    if isinstance(principle, str):
        return principle
    return principle.name or canonical_json(principle.model_dump(mode="json", exclude_defaults=True))


# --- judging calls

_EVERYWHERE = Layer("principles", Permissions())


def broken_by_call(principles: Iterable[Principle], call: Call, done: Sequence[DoneCall] = ()) -> Broken | None:
    """Return the first of ``principles`` that a call breaks, after the calls that were made before; None: it may go.

    Never raises: a principle that cannot be read is broken by every call.
    """
    for principle in principles:
        try:
            spec = parse_principle(principle)
        except PrincipleInvalid as error:
            return Broken(_text(principle), f"{call.spec.name} cannot be judged: {error.reason}")
        if _breaks(spec, call, done):
            return Broken(spec.name, f"{call.spec.name} {_why(spec)}")
    return None


def _breaks(spec: PrincipleSpec, call: Call, done: Sequence[DoneCall]) -> bool:
    if spec.tainted and not call.tainted:
        return False
    if not _matches(spec.never, call, loose=True) or not _goes_to(spec.to, call):
        return False
    if spec.before is not None and any(one.surely and _was(spec.before, one, loose=False) for one in done):
        return False
    return spec.after is None or any(_was(spec.after, one, loose=True) for one in done)


def _why(spec: PrincipleSpec) -> str:
    if spec.before is not None:
        return f"comes before {rule_text(spec.before)}"
    if spec.after is not None:
        return f"comes after {rule_text(spec.after)}"
    return "must not be called with text from outside in the context" if spec.tainted else "must not be called so"


def _matches(rule: PermissionRule, call: Call, *, loose: bool) -> bool:
    return rule_matches(parse_rule(rule), call, _EVERYWHERE, loose=loose)


def _goes_to(patterns: tuple[str, ...], call: Call) -> bool:
    """Return whether an effect may go to a destination like one of ``patterns``.

    A tool that does not say which of its arguments are destinations may take any of them for one.
    """
    if not patterns:
        return True
    places = [name for name in call.spec.destinations or call.arguments if name in call.arguments]
    return any(_matches(_to_rule(patterns, name), call, loose=True) for name in places)


def _to_rule(patterns: tuple[str, ...], name: str = "*") -> RuleSpec:
    return RuleSpec(arguments={name: ArgumentRule(like=patterns or ("**",))})


def _was(rule: PermissionRule, done: DoneCall, *, loose: bool) -> bool:
    unknown = ToolSpec.model_construct(name=done.tool, effect=done.effect, network=loose)
    return _matches(rule, Call(done.spec or unknown, done.arguments), loose=loose)


# --- judging plans


def broken_by_plan(
    principles: Iterable[Principle],
    steps: Sequence["Step"],
    tools: Mapping[str, Sequence["ToolUse"]],
    catalogue: Mapping[str, ToolSpec],
) -> tuple[Broken, ...]:
    """Return how a plan breaks ``principles``, before anything of it runs; empty: it does not.

    A plan breaks a principle where a step may use a tool of which the principle forbids every call that the step could
    make: a tool that is never allowed, an argument that the plan itself fixes to what is forbidden, or a tool before
    another that neither the step nor one that it needs may use. What depends on values or on taint shows only in calls.

    :param tools: the tools of each agent, for steps that name none
    :param catalogue: what the tools are; one that is not in it is taken for the worst
    """
    plan = _Plan(steps, tools, catalogue)
    broken: list[Broken] = []
    for principle in principles:
        try:
            spec = parse_principle(principle)
        except PrincipleInvalid as error:
            broken.append(Broken(_text(principle), f"the plan cannot be judged: {error.reason}"))
            continue
        broken += plan.broken(spec)
    return tuple(broken)


class _Plan:
    """Which calls each step of a plan may make, as far as the plan fixes them."""

    def __init__(
        self, steps: Sequence["Step"], tools: Mapping[str, Sequence["ToolUse"]], catalogue: Mapping[str, ToolSpec]
    ) -> None:
        self._needs = {step.step: step.needs for step in steps}
        self._calls = {step.step: [_planned(use, catalogue) for use in _uses_of(step, tools)] for step in steps}

    def broken(self, spec: PrincipleSpec) -> Iterator[Broken]:
        """Yield the steps that break a principle, each once for each of its tools."""
        if spec.tainted or spec.after is not None:
            return  # whether it holds shows only when the calls are made
        for step, calls in self._calls.items():
            names = {call.spec.name for call in calls if self._always_breaks(spec, step, call)}
            for name in sorted(names):
                yield Broken(spec.name, f"step {step!r} may use {name}, which {self._why(spec)}", step)

    def _always_breaks(self, spec: PrincipleSpec, step: str, call: Call) -> bool:
        """Return whether every call that the plan lets ``step`` make in this way breaks the principle."""
        if not _matches(spec.never, call, loose=False) or not self._always_goes_to(spec.to, call):
            return False
        first = spec.before
        return first is None or not any(
            _matches(first, other, loose=True) for one in self._up_to(step) for other in self._calls[one]
        )

    def _always_goes_to(self, patterns: tuple[str, ...], call: Call) -> bool:
        fixed = [name for name in call.spec.destinations if name in call.arguments]
        return not patterns or any(_matches(_to_rule(patterns, name), call, loose=False) for name in fixed)

    def _up_to(self, step: str) -> set[str]:
        """Return the step and all that it needs, directly or not."""
        found: set[str] = set()
        left = [step]
        while left:
            name = left.pop()
            if name in self._needs and name not in found:
                found.add(name)
                left += self._needs[name]
        return found

    def _why(self, spec: PrincipleSpec) -> str:
        if spec.before is None:
            return "must never be called so"
        return f"must not be called before {rule_text(spec.before)}, which neither it nor a step that it needs may use"


def _uses_of(step: "Step", tools: Mapping[str, Sequence["ToolUse"]]) -> list["ToolUse"]:
    """Return what a step may use; one without tools of its own has those of its agent and of who takes over."""
    if step.tools is not None:
        return list(step.tools)
    taking_over = () if isinstance(step.on_failure, str) else tools.get(step.on_failure.agent, ())
    return [*tools.get(step.agent, ()), *taking_over]


def _planned(use: "ToolUse", catalogue: Mapping[str, ToolSpec]) -> Call:
    """Return the call of a tool with the arguments that the plan fixes, templates left out."""
    name, pins = (use, {}) if isinstance(use, str) else (use.tool, use.pin)
    spec = catalogue.get(name) or ToolSpec(name=name, network=True)
    return Call(spec, {key: value for key, value in pins.items() if not _is_template(value)})


def _is_template(value: Json) -> bool:
    match value:
        case str():
            return any(mark in value for mark in ("{{", "{%", "{#"))
        case list():
            return any(map(_is_template, value))
        case dict():
            return any(map(_is_template, value.values()))
        case _:
            return False
