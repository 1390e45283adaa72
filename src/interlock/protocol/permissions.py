"""Permission rules: what may be called with which arguments. Pure.

``deny`` beats ``ask`` beats ``allow``, no match is deny, and layers (operator, team, agent, step) can only narrow.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import Discriminator, Tag

from interlock.protocol._globs import parse_glob
from interlock.protocol._matching import Place, argument_fits
from interlock.protocol._patterns import check_pattern
from interlock.protocol.base import Json, Strict, canonical_json
from interlock.protocol.tools import EffectClass, ToolSpec

__all__ = [
    "DESTINATIONS",
    "PRIMARY",
    "ArgumentRule",
    "Call",
    "Decision",
    "Layer",
    "Outcome",
    "PermissionRule",
    "Permissions",
    "RuleInvalid",
    "RuleSpec",
    "Source",
    "judge_call",
    "parse_rule",
    "rule_matches",
    "rule_text",
]

Source = Literal["pinned", "instructed", "delegated", "named", "worded", "field", "found", "data", "link"]
"""Where the value of an argument comes from; ``docs/taint.md`` says exactly when it is which.

``pinned``: the plan fixed it before anything from outside came in. ``instructed``: it stands as a whole in the
untainted instruction. ``delegated``: it stands in the one record that the instruction describes by two of its fields.
``named``: it is a whole field of the one record that the instruction names. ``worded``: a text made of the
instruction's words. ``field``: a whole field of any structured result of the team's own tools. ``found``: it stands in
a result of such a tool that the instruction selected. ``data``: anything else. ``link``: the same, with a link in it.
"""

Outcome = Literal["allow", "ask", "deny"]

PRIMARY = ""
"""In the arguments of a parsed rule: the tool's primary argument."""

DESTINATIONS = "@destinations"
"""In the arguments of a rule: all of the tool's arguments that say where an effect goes."""


class ArgumentRule(Strict):
    """What an argument must be for a rule to match."""

    like: tuple[str, ...] = ("**",)
    """Patterns; one of them must fit."""
    source: tuple[Source, ...] = ("pinned",)
    """Where the value may come from once text from outside is in the context."""


class RuleSpec(Strict):
    """A rule in its long form."""

    tool: str = "*"
    """The tool's name; ``*`` stands for any part of it."""
    effect: tuple[EffectClass, ...] = ()
    """Only calls of these effect classes; empty: of any."""
    network: bool | None = None
    """Only tools that do (or do not) reach beyond this machine."""
    arguments: dict[str, ArgumentRule] = {}
    """By the argument's name; ``*`` stands for all that are not named, ``@destinations`` for
    those that say where the effect goes."""


PermissionRule = Annotated[
    Annotated[str, Tag("text")] | Annotated[RuleSpec, Tag("rule")],
    Discriminator(lambda value: "rule" if isinstance(value, (dict, RuleSpec)) else "text"),
]
"""A rule as text, such as ``files.read(./docs/**)``, or in its long form."""


class Permissions(Strict):
    """The rules of one layer. It denies what no rule of it matches, if it allows anything at all."""

    allow: tuple[PermissionRule, ...] = ()
    ask: tuple[PermissionRule, ...] = ()
    deny: tuple[PermissionRule, ...] = ()


class RuleInvalid(ValueError):
    """A rule that cannot be read. ``rule`` is its text, ``reason`` what is wrong and what would be right."""

    def __init__(self, rule: str, reason: str) -> None:
        self.rule = rule
        self.reason = reason
        super().__init__(f"the rule {rule[:200]!r} cannot be read: {reason}")


@dataclass(frozen=True)
class Call:
    """A call in its one form, as ``interlock.agents.tools.normal`` makes it: what the tool would get."""

    spec: ToolSpec
    arguments: Mapping[str, Json]
    commands: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """For each argument that is a command line the words of all commands that a shell would run for it."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Where the arguments come from; one that is not named is ``data``."""
    tainted: bool = False
    """Whether text from outside is in the context that made the call."""


@dataclass(frozen=True)
class Layer:
    """The rules of one layer."""

    name: str
    """What people call it, such as ``team`` or ``step 'send'``."""
    permissions: Permissions
    base: str = "/"
    """The absolute folder that relative patterns of paths count from, resolved through links."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Where the fixed parts of path patterns lead to, where that is somewhere else: a deny holds there too."""


@dataclass(frozen=True)
class Decision:
    """What the rules say of a call."""

    outcome: Outcome
    rule: str
    """The rule that decides, as text; empty where none does."""
    layer: str
    """The layer that decides; empty where no layer has rules."""
    reason: str
    """One sentence."""


# --- reading

_RULE = re.compile(r"(?P<tool>[A-Za-z0-9_.*-]+)\s*(\((?P<arguments>.*)\))?", re.DOTALL)
_NAMED = re.compile(r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_-]*)\s*=")
_PATTERN = re.compile(
    r"""\s*(?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>(?:[^'\\]|\\.)*)'|(?P<bare>[^,()"']*))\s*(?P<end>,|$)"""
)


def parse_rule(rule: PermissionRule) -> RuleSpec:
    """Return a rule in its long form; a pattern that names no argument stands under ``PRIMARY``.

    :raises RuleInvalid: it cannot be read.
    """
    spec = _parse_text(rule) if isinstance(rule, str) else rule
    text = rule_text(rule)
    if not re.fullmatch(r"[A-Za-z0-9_.*-]+", spec.tool):
        raise RuleInvalid(text, f"{spec.tool!r} is no name of a tool; expected something like files.read or files.*")
    for argument in spec.arguments.values():
        problem = next(filter(None, map(check_pattern, argument.like)), "")
        if problem or not argument.like:
            raise RuleInvalid(text, problem or "'like' needs at least one pattern")
    return spec


@lru_cache(maxsize=4096)
def _parse_text(rule: str) -> RuleSpec:
    found = _RULE.fullmatch(rule.strip())
    if found is None:
        raise RuleInvalid(rule, "expected TOOL, TOOL(PATTERN) or TOOL(NAME=PATTERN, ...)")
    arguments = found["arguments"]
    if arguments is None:
        return RuleSpec(tool=found["tool"])
    out: dict[str, ArgumentRule] = {}
    for name, pattern in _arguments(rule, arguments):
        if name in out:
            raise RuleInvalid(rule, f"{name!r} stands twice" if name else "only one pattern can go without a name")
        out[name] = ArgumentRule(like=(pattern,))
    return RuleSpec(tool=found["tool"], arguments=out)


def _arguments(rule: str, text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while True:
        named = _NAMED.match(text, at)
        pattern = _PATTERN.match(text, named.end() if named else at)
        if pattern is None:
            raise RuleInvalid(rule, "a pattern with commas, parentheses or quotes must stand in quotes")
        quoted = pattern["double"] if pattern["double"] is not None else pattern["single"]
        content = pattern["bare"].strip() if quoted is None else re.sub(r"\\([\"'])", r"\1", quoted)
        if not content:
            raise RuleInvalid(rule, "a pattern is missing; for any value write **")
        yield (named["name"] if named else PRIMARY), content
        at = pattern.end()
        if pattern["end"] != ",":
            return


def rule_text(rule: PermissionRule) -> str:
    """Return a rule as people read it: as they wrote it, or its long form as JSON."""
    return rule if isinstance(rule, str) else canonical_json(rule.model_dump(mode="json", exclude_defaults=True))


# --- judging

_STRICTNESS: dict[Outcome, int] = {"allow": 0, "ask": 1, "deny": 2}


def judge_call(layers: Sequence[Layer], call: Call) -> Decision:
    """Return what the rules say of a call: the strictest of what the layers say. Never raises.

    A layer that has an ``allow`` denies what none of its rules matches. One that only denies and asks says nothing of
    the rest. Where no layer says anything, the call is denied.
    """
    decisions = [found for layer in layers if (found := _judge_layer(layer, call)) is not None]
    if not decisions:
        return Decision("deny", "", "", f"no rule allows {_what(call)}, and what no rule allows is denied")
    return max(decisions, key=lambda decision: _STRICTNESS[decision.outcome])


def rule_matches(rule: RuleSpec, call: Call, layer: Layer, *, loose: bool) -> bool:
    """Return whether a parsed rule is about a call. Never raises.

    ``loose`` is for rules that hold back: what is not known counts as a match. Otherwise it counts as none.
    """
    spec = call.spec
    if not parse_glob(rule.tool).matches(spec.name) or (rule.effect and spec.effect not in rule.effect):
        return False
    if rule.network is not None and rule.network != spec.network:
        return False
    named = {_real_name(name, spec) for name in rule.arguments}
    if DESTINATIONS in named:
        named.update(spec.destinations or call.arguments)
    place = Place(layer.base, layer.links, "*" not in rule.tool)
    return all(argument_fits(name, one.like, call, named, place, loose=loose) for name, one in rule.arguments.items())


def _judge_layer(layer: Layer, call: Call) -> Decision | None:
    try:
        return _judge(layer, call)
    except RuleInvalid as error:
        return Decision("deny", error.rule, layer.name, str(error))
    except RecursionError:
        return Decision("deny", "", layer.name, "its arguments are nested too deeply to be judged")


def _judge(layer: Layer, call: Call) -> Decision | None:
    denying, asking, allowing = _parsed(layer)
    for rule, spec in denying:
        if rule_matches(spec, call, layer, loose=True):
            return Decision("deny", rule_text(rule), layer.name, f"{layer.name} denies it")
    for rule, spec in asking:
        if rule_matches(spec, call, layer, loose=True):
            return Decision("ask", rule_text(rule), layer.name, f"{layer.name} has a person asked for it")
    return _allowed(layer, allowing, call) if allowing else None


_Rules = Sequence[tuple[PermissionRule, RuleSpec]]


def _parsed(layer: Layer) -> tuple[_Rules, _Rules, _Rules]:
    """Return all rules of a layer, read; one that cannot be read spoils the layer, whatever the others say."""
    rules = layer.permissions
    deny, ask, allow = ([(rule, parse_rule(rule)) for rule in some] for some in (rules.deny, rules.ask, rules.allow))
    return deny, ask, allow


def _allowed(layer: Layer, rules: _Rules, call: Call) -> Decision:
    """Return what the allow rules say: each command of the call must be allowed by one of them."""
    decisions = [_allowed_part(layer, rules, part) for part in _parts(call)]
    return max(decisions, key=lambda decision: _STRICTNESS[decision.outcome])


def _parts(call: Call) -> list[Call]:
    """Return the call once for each single command that it runs."""
    parts = [call]
    for name, commands in call.commands.items():
        if commands:
            parts = [replace(one, commands={**one.commands, name: (words,)}) for one in parts for words in commands]
    return parts


def _allowed_part(layer: Layer, rules: _Rules, call: Call) -> Decision:
    suspect: tuple[str, str] | None = None
    for rule, parsed in rules:
        if not rule_matches(parsed, call, layer, loose=False):
            continue
        untrusted = _untrusted(parsed, call)
        if untrusted is None:
            return Decision("allow", rule_text(rule), layer.name, f"{layer.name} allows it")
        suspect = suspect or (rule_text(rule), untrusted)
    if suspect is None:
        return Decision("deny", "", layer.name, f"{layer.name} has no rule that allows {_what(call)}")
    rule_name, argument = suspect
    source = call.sources.get(argument, "data")
    return Decision("ask", rule_name, layer.name, f"text from outside is in the context, and {argument!r} is {source}")


def _what(call: Call) -> str:
    words = next((commands[0] for commands in call.commands.values() if len(commands) == 1), None)
    return f"the command {' '.join(words)[:120]!r}" if words else "it"


def _untrusted(rule: RuleSpec, call: Call) -> str | None:
    """Return the argument that a tainted context may have chosen although the rule does not trust it to; or None."""
    if not call.tainted or (call.spec.effect == "read" and not call.spec.network):
        return None
    rules = {_real_name(name, call.spec): one for name, one in rule.arguments.items()}
    others = rules.get("*", ArgumentRule())
    if DESTINATIONS in rules:  # a tool that does not say which they are may take any argument for one
        goes = call.spec.destinations or tuple(call.arguments)
        rules = {**dict.fromkeys(goes, rules[DESTINATIONS]), **rules}
    trusted = ((name, rules.get(name, others).source) for name in call.arguments)
    return next((name for name, sources in trusted if call.sources.get(name, "data") not in sources), None)


def _real_name(name: str, spec: ToolSpec) -> str:
    return (spec.primary or name) if name == PRIMARY else name
