"""Whether what a team file says of tools fits together: tools, pins, rules, principles, and whether a step can act."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interlock.agents.grants import uses_of
from interlock.agents.spelling import did_you_mean
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.permissions import Layer, Permissions
from interlock.protocol.team import Agent, PinnedTool, Step, Team, ToolSources, ToolUse, pins_of, tool_of
from interlock.protocol.tools import ToolSpec
from interlock.runtime.yaml_positions import Location

__all__ = ["Found", "ToolProblems", "check_tools", "team_layers", "tool_roots"]

Found = tuple[Location, str]
"""Where a mistake is, and what it is."""


@dataclass(frozen=True)
class ToolProblems:
    """What is wrong with the tools of a team, and what is known of them."""

    problems: tuple[Found, ...]
    catalogue: Mapping[str, ToolSpec] | None
    """None where the tools cannot be had as the team says, or where it names none."""


def team_layers(team: Team, base: Path, agent: str | None = None, step: Step | None = None) -> list[Layer]:
    """Return the layers of a team's rules that bind an agent in a step, their patterns resolved on this machine."""
    from interlock.agents.tools.normal import resolved  # noqa: PLC0415 -- few teams have tools

    found = [Layer(f"team {team.team}", team.permissions, str(base))]
    if agent is not None:
        found.append(Layer(f"agent {agent}", team.agents[agent].permissions, str(base)))
    if step is not None:
        found.append(Layer(f"step {step.step}", step.permissions, str(base)))
    return [resolved(layer) for layer in found]


def tool_roots(sources: ToolSources, base: Path) -> dict[str, tuple[str, ...]]:
    """Return the folders that the built-in tools of files can reach at all."""
    write = [str((base / folder).resolve()) for folder in sources.files.write]
    read = [*(str((base / folder).resolve()) for folder in sources.files.read), *write]
    return {"files.read": tuple(read), "files.list": tuple(read), "files.write": tuple(write)}


def check_tools(
    team: Team, base: Path, needs: Mapping[str, tuple[str, ...]], mended: Collection[Location]
) -> ToolProblems:
    """Return every mistake in what a team says of tools, rules and principles.

    :param base: the absolute folder of the team file; the team's modules are imported
    :param needs: for each step all steps that must be over before it
    :param mended: where the team is not what the document says, so that nothing follows from it
    """
    if not _says_anything(team):
        return ToolProblems((), None)
    guessed = any(at[:1] == ("tools",) for at in mended)
    catalogue, problems = (None, []) if guessed else _catalogue(team, base)
    checks = _ToolChecks(team, base, catalogue, needs, guessed_rules=any("permissions" in at for at in mended))
    return ToolProblems((*problems, *checks.run()), catalogue)


def _says_anything(team: Team) -> bool:
    parts: list[Agent | Step] = [*team.agents.values(), *team.plan]
    rules = [team.permissions, *(part.permissions for part in parts)]
    tools = team.tools != ToolSources() or any(part.tools for part in parts)
    return tools or bool(team.principles) or any(rule != Permissions() for rule in rules)


def _catalogue(team: Team, base: Path) -> tuple[dict[str, ToolSpec] | None, list[Found]]:
    from interlock.agents.tools.catalogue import catalogue  # noqa: PLC0415 -- takes 0.2 s; few teams have tools
    from interlock.agents.tools.errors import ToolModuleInvalid, ToolSettingsInvalid, ToolSetupError  # noqa: PLC0415

    try:
        return catalogue(team, base), []
    except ToolSettingsInvalid as error:
        return None, [(tuple(error.where.split(".")), str(error))]
    except ToolModuleInvalid as error:
        at = [index for index, path in enumerate(team.tools.modules) if base / path == error.path]
        return None, [(("tools", "modules", *at[:1]), str(error))]
    except ToolSetupError as error:
        return None, [(("tools", "modules") if team.tools.modules else ("tools",), str(error))]


class _ToolChecks:
    def __init__(
        self,
        team: Team,
        base: Path,
        catalogue: Mapping[str, ToolSpec] | None,
        needs: Mapping[str, tuple[str, ...]],
        *,
        guessed_rules: bool,
    ) -> None:
        self._team = team
        self._needs = needs
        self._base = base
        self._catalogue = catalogue
        self._servers = tuple(f"{name}." for name in team.tools.mcp)
        self._guessed_rules = guessed_rules
        self._has_teams = any(agent.kind == "team" for agent in team.agents.values())

    def run(self) -> Iterator[Found]:
        yield from self._idle()
        for at, _, use in self._uses():
            yield from self._use(at, use)
        rules = list(self._rules())
        yield from rules
        principles = list(self._principles())
        yield from principles
        if not rules and not self._guessed_rules and self._catalogue is not None:
            yield from self._hopeless()
        if not principles and self._catalogue is not None:
            yield from self._broken(self._catalogue)

    def _idle(self) -> Iterator[Found]:
        for name, agent in self._team.agents.items():
            if agent.kind != "worker":
                for key in ("tools",) if agent.kind == "team" else ("tools", "permissions"):
                    if getattr(agent, key) != Agent.model_fields[key].default:
                        yield ("agents", name, key), f"agent {name!r} is a {agent.kind}: only workers use tools"

    def _uses(self) -> Iterator[tuple[Location, str, ToolUse]]:
        for name, agent in self._team.agents.items():
            for index, use in enumerate(agent.tools):
                yield ("agents", name, "tools", index), name, use
        for number, step in enumerate(self._team.plan):
            for index, use in enumerate(step.tools or ()):
                yield ("plan", number, "tools", index), step.agent, use

    def _use(self, at: Location, use: ToolUse) -> Iterator[Found]:
        if self._catalogue is None or tool_of(use).startswith(self._servers):
            return
        where = (*at, "tool") if isinstance(use, PinnedTool) else at
        spec = self._catalogue.get(tool_of(use))
        if spec is None:
            yield where, self._no_tool(tool_of(use))
        elif isinstance(use, PinnedTool):
            properties = spec.parameters.get("properties")
            known = properties if isinstance(properties, dict) else {}
            for name in use.pin:
                if name not in known:
                    hint = did_you_mean(name, known) or f"; it has {', '.join(known) or 'none'}"
                    yield (*at, "pin", name), f"{spec.name} has no argument {name!r}{hint}"

    def _no_tool(self, name: str) -> str:
        from interlock.agents.tools.errors import ToolMissing  # noqa: PLC0415 -- few teams have tools

        known = self._catalogue or {}
        hint = "" if name.startswith("files.") else did_you_mean(name, known)
        return f"there is no tool {name!r}{hint}" if hint else str(ToolMissing(name, known))

    # --- rules

    def _rules(self) -> Iterator[Found]:
        from interlock.protocol.rule_checks import Catalogue, dead_rules  # noqa: PLC0415 -- few teams have rules

        for at, layer in self._layers():
            known = self._catalogue
            if known is None or self._has_teams:  # its rules are for their tools too
                yield from self._unreadable(at, layer)
                continue
            roots = tool_roots(self._team.tools, self._base)
            for dead in dead_rules(layer, Catalogue(known, self._servers, roots)):
                yield (*at, dead.outcome, dead.index), dead.reason

    def _unreadable(self, at: Location, layer: Layer) -> Iterator[Found]:
        from interlock.protocol.permissions import RuleInvalid, parse_rule  # noqa: PLC0415 -- few teams have rules

        for outcome in ("allow", "ask", "deny"):
            for index, rule in enumerate(getattr(layer.permissions, outcome)):
                try:
                    parse_rule(rule)
                except RuleInvalid as error:
                    yield (*at, outcome, index), str(error)

    def _layers(self) -> Iterator[tuple[Location, Layer]]:
        team, *_ = team_layers(self._team, self._base)
        yield ("permissions",), team
        for name in self._team.agents:
            yield ("agents", name, "permissions"), team_layers(self._team, self._base, name)[-1]
        for number, step in enumerate(self._team.plan):
            yield ("plan", number, "permissions"), team_layers(self._team, self._base, None, step)[-1]

    # --- what a step can do

    def _hopeless(self) -> Iterator[Found]:
        for name, member in self._team.agents.items() if not self._team.plan else ():
            layers = team_layers(self._team, self._base, name)
            for index, use in enumerate(member.tools if member.kind == "worker" else ()):
                at: Location = ("agents", name, "tools", index)
                yield from ((at, problem) for problem in self._never(f"agent {name!r}", use, layers))
        for number, step in enumerate(self._team.plan):
            agent = self._team.agents.get(step.agent)
            if agent is None or agent.kind != "worker":
                continue
            layers = team_layers(self._team, self._base, step.agent, step)
            for index, use in enumerate(uses_of(step, agent)):
                at = ("plan", number, "agent") if step.tools is None else ("plan", number, "tools", index)
                yield from ((at, problem) for problem in self._never(f"step {step.step!r}", use, layers))

    def _never(self, who: str, use: ToolUse, layers: Sequence[Layer]) -> Iterator[str]:
        """Yield why ``who`` can never use a tool so."""
        from interlock.protocol.rule_checks import may_ever  # noqa: PLC0415 -- few teams have rules

        name = tool_of(use)
        spec = (self._catalogue or {}).get(name)
        if not any(layer.permissions.allow or layer.permissions.ask for layer in layers):
            yield f"{who} can never call {name}: no layer of rules allows anything"
        elif spec is not None:
            pins = self._pins(spec, use)
            if isinstance(pins, str):
                yield f"{who} can never call {name}: {pins}"
            elif not may_ever(layers, spec, pins):
                narrow = " with what it pins" if pins else ""
                yield f"{who} can never call {name}{narrow}: {_who(layers, spec, pins)}"

    def _pins(self, spec: ToolSpec, use: ToolUse) -> dict[str, Json] | str:
        """Return the values that are known before a job runs, in their one form; or what is wrong with one."""
        from interlock.agents.tools.normal import CallNotNormal, normal_value  # noqa: PLC0415 -- few teams have tools

        known = {name: value for name, value in pins_of(use).items() if not _is_template(value)}
        try:
            return {name: normal_value(spec, name, value, self._base) for name, value in known.items()}
        except CallNotNormal as error:
            return str(error)

    # --- principles

    def _principles(self) -> Iterator[Found]:
        from interlock.protocol.principles import PrincipleInvalid, parse_principle  # noqa: PLC0415 -- few teams have any

        seen: dict[str, int] = {}
        for index, principle in enumerate(self._team.principles):
            try:
                spec = parse_principle(principle)
            except PrincipleInvalid as error:
                yield ("principles", index), str(error)
                continue
            meaning = canonical_json(spec.model_dump(mode="json", exclude={"name"}))
            if meaning in seen:
                yield ("principles", index), f"this says the same as principle {seen[meaning] + 1}: leave one out"
            seen.setdefault(meaning, index)

    def _broken(self, catalogue: Mapping[str, ToolSpec]) -> Iterator[Found]:
        from interlock.protocol.principles import broken_by_plan  # noqa: PLC0415 -- few teams have any

        if not self._team.principles or any(step.agent not in self._team.agents for step in self._team.plan):
            return
        tools = {name: agent.tools for name, agent in self._team.agents.items()}
        steps = [step.step for step in self._team.plan]
        plan = [step.model_copy(update={"needs": self._needs.get(step.step, ())}) for step in self._team.plan]
        for broken in broken_by_plan(self._team.principles, plan, tools, catalogue):
            number = steps.index(broken.step)
            own = self._team.plan[number].tools is not None
            yield ("plan", number, "tools" if own else "agent"), f"step {broken.step!r}: {broken}"


def _is_template(value: Json) -> bool:
    match value:
        case str():
            return "{{" in value or "{%" in value
        case list():
            return any(map(_is_template, value))
        case dict():
            return any(map(_is_template, value.values()))
        case _:
            return False


def _who(layers: Sequence[Layer], spec: ToolSpec, pins: Mapping[str, Json]) -> str:
    """Return which layer stands in the way."""
    from interlock.protocol.rule_checks import may_ever  # noqa: PLC0415 -- few teams have rules

    names = [layer.name for layer in layers if layer.permissions.allow and not may_ever([layer], spec, pins)]
    denying = [layer.name for layer in layers if layer.permissions.deny and layer.name not in names]
    return f"the rules of {' and of '.join(names or denying)} do not allow it, or always deny it"
