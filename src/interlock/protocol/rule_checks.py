"""What can be said of rules before any call: which can never match, and which tools can never be called. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches

from interlock.protocol._globs import parse_glob
from interlock.protocol._matching import properties_of
from interlock.protocol._patterns import (
    PatternInvalid,
    is_any,
    parse_command_pattern,
    parse_path_pattern,
    parse_url_pattern,
    path_is_below,
)
from interlock.protocol.base import Json
from interlock.protocol.permissions import (
    DESTINATIONS,
    PRIMARY,
    Call,
    Layer,
    Outcome,
    PermissionRule,
    RuleInvalid,
    RuleSpec,
    parse_rule,
    rule_matches,
    rule_text,
)
from interlock.protocol.tools import ToolSpec

__all__ = ["Catalogue", "DeadRule", "dead_rules", "fixed_folders", "may_ever"]

_COLLECTIVE = {PRIMARY, DESTINATIONS, "*"}
"""What stands among the arguments of a rule and is no name of one."""


@dataclass(frozen=True)
class Catalogue:
    """The tools that there are, as far as that is known."""

    tools: Mapping[str, ToolSpec]
    unseen: tuple[str, ...] = ()
    """Beginnings of names, such as ``tickets.``, below which there are tools that are not known yet."""
    roots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For a tool the absolute folders that it can reach at all."""

    def matching(self, rule: RuleSpec) -> list[ToolSpec]:
        """Return the tools that a rule names."""
        glob = parse_glob(rule.tool)
        return [spec for name, spec in self.tools.items() if glob.matches(name)]

    def may_hold_more(self, rule: RuleSpec) -> bool:
        """Return whether a rule could name tools that are not known yet."""
        fixed, *wild = parse_glob(rule.tool).pieces
        return any(fixed.startswith(one) or (wild and one.startswith(fixed)) for one in self.unseen)


@dataclass(frozen=True)
class DeadRule:
    """A rule that is a mistake: it cannot be read, or can never match."""

    outcome: Outcome
    index: int
    """Its place among the rules with this outcome, from 0."""
    rule: str
    reason: str
    """What is wrong, and what would be right."""


def dead_rules(layer: Layer, catalogue: Catalogue) -> list[DeadRule]:
    """Return every rule of a layer that cannot be read, can never match, or is always overruled in its own layer."""
    out: list[DeadRule] = []
    stronger: list[tuple[PermissionRule, RuleSpec]] = []
    for outcome, rules in _by_strength(layer):
        readable: list[tuple[PermissionRule, RuleSpec]] = []
        for index, rule in enumerate(rules):
            try:
                parsed = parse_rule(rule)
                reason = _dead(parsed, layer, catalogue, allow=outcome == "allow")
            except RuleInvalid as error:
                out.append(DeadRule(outcome, index, error.rule, str(error)))
                continue
            reason = reason or _shadow(parsed, stronger, catalogue)
            if reason:
                out.append(DeadRule(outcome, index, rule_text(rule), f"{rule_text(rule)!r} can never match: {reason}"))
            else:
                readable.append((rule, parsed))
        stronger += readable
    return out


def fixed_folders(rule: PermissionRule, base: str) -> set[str]:
    """Return the absolute folders, or files, that the patterns of a rule begin with, if they are patterns of paths."""
    try:
        patterns = [pattern for one in parse_rule(rule).arguments.values() for pattern in one.like]
    except RuleInvalid:
        return set()
    out: set[str] = set()
    for pattern in patterns:
        with suppress(PatternInvalid):
            out.add(parse_path_pattern(pattern, base).fixed())
    return out


def may_ever(layers: Sequence[Layer], spec: ToolSpec, pins: Mapping[str, Json]) -> bool:
    """Return whether a call of a tool can ever be allowed, or asked for, given the values that ``pins`` fixes.

    It looks at each layer alone: two layers whose patterns have nothing in common are not found.
    """
    said = [_layer_may(layer, spec, pins) for layer in layers]
    return False not in said and True in said


def _layer_may(layer: Layer, spec: ToolSpec, pins: Mapping[str, Json]) -> bool | None:
    """Return whether a layer can admit a call; None where it has nothing to say."""
    rules = layer.permissions
    try:
        admitting = [parse_rule(rule) for rule in (*rules.allow, *rules.ask)]
        denying = [parse_rule(rule) for rule in rules.deny]
    except RuleInvalid:
        return False  # and so says ``judge_call``
    call = Call(spec, pins, {name: () for name in pins if spec.kinds.get(name) == "command"})
    if any(rule_matches(_on_pins(rule, call, hold_back=True), call, layer, loose=False) for rule in denying):
        return False
    if any(rule_matches(_on_pins(rule, call, hold_back=False), call, layer, loose=True) for rule in admitting):
        return True
    return False if rules.allow else None


def _on_pins(rule: RuleSpec, call: Call, *, hold_back: bool) -> RuleSpec:
    """Return what is left of a rule that admits once the arguments that nothing is known of are taken as they suit.

    One that holds back (``hold_back``) stays as it is: it is certain only of values that are known.
    """
    if hold_back:
        return rule
    spec, kept = call.spec, dict(rule.arguments)
    for name in rule.arguments:
        real = (spec.primary or name) if name == PRIMARY else name
        known = real in call.arguments and spec.kinds.get(real) != "command"
        if real in _COLLECTIVE or (not known and real in properties_of(spec)):
            del kept[name]
    return rule.model_copy(update={"arguments": kept})


def _by_strength(layer: Layer) -> Iterator[tuple[Outcome, tuple[PermissionRule, ...]]]:
    yield "deny", layer.permissions.deny
    yield "ask", layer.permissions.ask
    yield "allow", layer.permissions.allow


def _dead(rule: RuleSpec, layer: Layer, catalogue: Catalogue, *, allow: bool) -> str:
    """Return why a rule can never match; empty if it can, as far as is known."""
    if catalogue.may_hold_more(rule):
        return ""
    specs = catalogue.matching(rule)
    if not specs:
        return _no_tool(rule.tool, catalogue)
    named = [spec for spec in specs if not rule.effect or spec.effect in rule.effect]
    if not named:
        return f"{_tools(specs)}: effect {' or '.join({spec.effect for spec in specs})}, not {' or '.join(rule.effect)}"
    wanted = [spec for spec in named if rule.network is None or spec.network == rule.network]
    if not wanted:
        return f"{_tools(named)}: no such tool {'reaches' if rule.network else 'keeps off'} the network"
    reasons = [_no_call(rule, spec, layer, catalogue, allow=allow) for spec in wanted]
    return reasons[0] if all(reasons) else ""


def _no_tool(pattern: str, catalogue: Catalogue) -> str:
    near = get_close_matches(pattern, catalogue.tools, n=1, cutoff=0.6)
    known = f"did you mean {near[0]!r}?" if near else f"tools: {', '.join(sorted(catalogue.tools))}"
    return f"there is no tool {pattern!r}; {known}"


def _tools(specs: Sequence[ToolSpec]) -> str:
    return ", ".join(spec.name for spec in specs[:3])


def _no_call(rule: RuleSpec, spec: ToolSpec, layer: Layer, catalogue: Catalogue, *, allow: bool) -> str:
    """Return why a rule can match no call of one tool."""
    properties = properties_of(spec)
    for name, argument in rule.arguments.items():
        real = (spec.primary or name) if name == PRIMARY else name
        if real == PRIMARY and allow:
            return f"{spec.name} has no primary argument: write NAME=PATTERN; it has {_known(properties)}"
        if real not in properties and real not in _COLLECTIVE:
            return f"{spec.name} has no argument {real!r}; it has {_known(properties)}"
        reasons = [_no_value(pattern, spec, real, layer, catalogue, allow=allow) for pattern in argument.like]
        if all(reasons):
            return reasons[0]
    return ""


def _known(properties: Mapping[str, Json]) -> str:
    return ", ".join(properties) or "none"


def _no_value(pattern: str, spec: ToolSpec, name: str, layer: Layer, catalogue: Catalogue, *, allow: bool) -> str:
    if is_any(pattern):
        return ""
    try:
        match spec.kinds.get(name, "text"):
            case "url":
                parse_url_pattern(pattern)
            case "command":
                parse_command_pattern(pattern)
            case "path":
                return _no_path(pattern, layer, catalogue.roots.get(spec.name), allow=allow)
            case _:
                pass
    except PatternInvalid as error:
        return str(error)
    return ""


def _no_path(pattern: str, layer: Layer, roots: Sequence[str] | None, *, allow: bool) -> str:
    parsed = parse_path_pattern(pattern, layer.base)
    fixed = parsed.fixed()
    if allow and fixed in layer.links:
        return f"{fixed} is, or leads over, a link; write {layer.links[fixed]}, where it leads"
    open_ended = len(parsed.segments) > len([name for name in fixed.split("/") if name])
    reached = layer.links.get(fixed, fixed)
    if roots is None or any(
        path_is_below(reached, root) or (open_ended and path_is_below(root, reached)) for root in roots
    ):
        return ""
    folders = f"; it reaches {', '.join(roots)}" if roots else ", which reaches no folder: name some under 'tools'"
    return f"{fixed} is out of the tool's reach{folders}"


def _shadow(rule: RuleSpec, stronger: Sequence[tuple[PermissionRule, RuleSpec]], catalogue: Catalogue) -> str:
    if catalogue.may_hold_more(rule):
        return ""
    for text, other in stronger:
        if _covers(other, rule, catalogue):
            return f"{rule_text(text)!r} always comes before it"
    return ""


def _covers(other: RuleSpec, rule: RuleSpec, catalogue: Catalogue) -> bool:
    """Return whether all that ``rule`` can match ``other`` matches too; sometimes no although it is so."""
    wanted = [spec for spec in catalogue.matching(rule) if not rule.effect or spec.effect in rule.effect]
    free = {name for name, one in other.arguments.items() if any(map(is_any, one.like))}
    bound = {name: set(one.like) for name, one in other.arguments.items() if name not in free}
    narrower = all(name in rule.arguments and set(rule.arguments[name].like) <= like for name, like in bound.items())
    return bool(wanted) and narrower and all(_is_about(other, spec, free) for spec in wanted)


def _is_about(rule: RuleSpec, spec: ToolSpec, free: set[str]) -> bool:
    named = parse_glob(rule.tool).matches(spec.name) and (not rule.effect or spec.effect in rule.effect)
    there = all(name in _COLLECTIVE or name in properties_of(spec) for name in free)
    return named and there and (rule.network is None or rule.network == spec.network)
