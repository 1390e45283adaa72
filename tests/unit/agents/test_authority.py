"""What an attempt may do: grant, principles, rules, taint and autonomy, each of which can only refuse more."""

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.agents.authority import Authority, Judged, plan_objections
from interlock.protocol.base import Json
from interlock.protocol.control import NO_POLICY, Policy
from interlock.protocol.messages import Grant, JobSubmitted, TaskAssigned
from interlock.protocol.permissions import Permissions
from interlock.protocol.principles import DoneCall
from interlock.protocol.taint import Provenance, begun
from interlock.protocol.team import Autonomy, Team
from interlock.protocol.tools import Pin, ToolGrant, ToolSpec

_BASE = "/srv/team"
_TEXT: dict[str, Json] = {"type": "string"}


def _schema(**properties: Json) -> dict[str, Json]:
    required: list[Json] = list(properties)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_CATALOGUE = (
    ToolSpec(name="box.look", effect="read", outside=False, parameters=_schema(what=_TEXT)),
    ToolSpec(name="box.put", effect="idempotent", outside=False, parameters=_schema(what=_TEXT)),
    ToolSpec(name="box.send", effect="once", parameters=_schema(to=_TEXT, text=_TEXT), destinations=("to",)),
    ToolSpec(name="box.burn", effect="irreversible", outside=False, parameters=_schema(what=_TEXT)),
    ToolSpec(
        name="box.file",
        effect="idempotent",
        outside=False,
        parameters=_schema(path=_TEXT),
        kinds={"path": "path"},
        primary="path",
    ),
    ToolSpec(name="box.count", effect="idempotent", outside=False, parameters=_schema(number={})),
)
_NAMES = [spec.name for spec in _CATALOGUE]
_CALLS: dict[str, dict[str, Json]] = {
    "box.look": {"what": "a"},
    "box.put": {"what": "a"},
    "box.send": {"to": "ann", "text": "hi"},
    "box.burn": {"what": "a"},
    "box.file": {"path": "out/a.md"},
    "box.count": {"number": 1},
}


def authority(
    *grants: ToolGrant,
    permissions: Mapping[str, Any] | None = None,
    agent: Mapping[str, Any] | None = None,
    step: Mapping[str, Any] | None = None,
    principles: Sequence[Any] = (),
    autonomy: Autonomy = "bounded",
) -> Authority:
    """Return who judges an attempt with these grants; by default all rules allow everything."""
    team = Team.model_validate(
        {
            "interlock": 1,
            "team": "t",
            "agents": {"w": {"kind": "worker", "permissions": agent or {}}, "v": {"kind": "verifier"}},
            "plan": [{"step": "s", "agent": "w", "do": "go"}],
            "permissions": {"allow": ["*"]} if permissions is None else permissions,
            "principles": principles,
        }
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    common: dict[str, Any] = {"ns": "n", "job": "j", "at": at}
    submitted = JobSubmitted(id="m1", team=team, goal="go", tools=_CATALOGUE, base=_BASE, **common)
    grant = Grant(tools=grants, seconds=9, autonomy=autonomy, permissions=Permissions.model_validate(step or {}))
    assignment = TaskAssigned(
        id="m2", task="s", attempt=1, step="s", role="w@t", verifier="v@t", instruction="go", grant=grant, **common
    )
    return Authority(submitted, assignment, "w")


def judge(
    judges: Authority,
    tool: str,
    arguments: Mapping[str, Json] | None = None,
    *,
    policy: Policy = NO_POLICY,
    context: Provenance | None = None,
    used: Counter[int] | None = None,
    done: Sequence[DoneCall] = (),
) -> Judged:
    """Judge a call in a context that nobody outside has written in, unless another is given."""
    chosen = _CALLS[tool] if arguments is None else arguments
    before = begun("go", "go", ()) if context is None else context
    return judges.judge(policy, tool, chosen, before, used=used or Counter(), done=done)


def policy_of(principles: Sequence[Any] = (), **permissions: Any) -> Policy:
    return Policy(
        id=uuid.uuid4().hex,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        permissions=Permissions.model_validate(permissions),
        principles=tuple(principles),
        base=_BASE,
    )


_granted = st.lists(st.sampled_from(_NAMES), unique=True)
_patterns = st.lists(st.sampled_from(["*", "box.*", "box.look", "box.put", "box.send", "box.burn"]), max_size=2)
_rules = st.fixed_dictionaries({"allow": _patterns, "ask": _patterns, "deny": _patterns})


@given(_granted, _rules, _rules, st.sampled_from(_NAMES), st.sampled_from(["suggest", "ask", "bounded"]))
def test_nothing_goes_without_a_grant(
    granted: list[str], team: dict[str, Any], operator: dict[str, Any], tool: str, autonomy: Autonomy
) -> None:
    """Whatever the rules allow: a tool that the plan does not grant is refused, and a ``deny`` always wins."""
    judges = authority(*(ToolGrant(tool=one) for one in granted), permissions=team, autonomy=autonomy)
    judged = judge(judges, tool, policy=policy_of(**operator))
    denied = any(pattern in ("*", "box.*", tool) for pattern in (*team["deny"], *operator["deny"]))
    if tool not in granted or denied:
        assert judged.outcome == "refuse"
    if judged.outcome in ("go", "ask"):
        assert granted[judged.grant] == tool


@given(_granted, _rules, _rules, st.sampled_from(_NAMES))
def test_an_operator_can_only_narrow(
    granted: list[str], team: dict[str, Any], operator: dict[str, Any], tool: str
) -> None:
    """With a policy of the operator nothing is judged better than without it, as far as the team says anything."""
    judges = authority(*(ToolGrant(tool=one) for one in granted), permissions=team)
    order = ["go", "suggest", "ask", "refuse"]
    without, narrowed = judge(judges, tool), judge(judges, tool, policy=policy_of(**operator))
    if team["allow"]:
        assert order.index(narrowed.outcome) >= order.index(without.outcome)


@pytest.mark.parametrize(
    ("autonomy", "outcomes"),
    [
        ("suggest", {"box.look": "go", "box.put": "suggest", "box.send": "suggest", "box.burn": "suggest"}),
        ("ask", {"box.look": "go", "box.put": "ask", "box.send": "ask", "box.burn": "ask"}),
        ("bounded", {"box.look": "go", "box.put": "go", "box.send": "go", "box.burn": "ask"}),
    ],
)
def test_autonomy_is_by_effect_class(autonomy: Autonomy, outcomes: dict[str, str]) -> None:
    """Reading is free; ``suggest`` does nothing, ``ask`` asks for each effect; what cannot be undone always asks."""
    judges = authority(*(ToolGrant(tool=name) for name in outcomes), autonomy=autonomy)
    assert {name: judge(judges, name).outcome for name in outcomes} == outcomes


def test_a_rule_that_asks_is_asked_and_named() -> None:
    """A person is told which rule asks."""
    judges = authority(ToolGrant(tool="box.put"), permissions={"allow": ["*"], "ask": ["box.put(a*)"]})
    judged = judge(judges, "box.put")
    assert (judged.outcome, judged.rule) == ("ask", "box.put(a*)")
    assert judge(judges, "box.put", {"what": "b"}).outcome == "go"


@pytest.mark.parametrize("where", ["permissions", "agent", "step"])
def test_each_layer_denies(where: Any) -> None:
    """A rule of the team, of the agent and of the step holds alike."""
    rules: dict[str, Any] = {where: {"allow": ["*"], "deny": ["box.put"]}}
    judges = authority(ToolGrant(tool="box.put"), ToolGrant(tool="box.look"), **rules)
    assert (judge(judges, "box.put").outcome, judge(judges, "box.look").outcome) == ("refuse", "go")


def test_without_any_rule_nothing_goes() -> None:
    """No match is deny, also where there are no rules at all."""
    assert judge(authority(ToolGrant(tool="box.look"), permissions={}), "box.look").outcome == "refuse"


def test_what_is_no_tool_is_refused() -> None:
    """A name that the catalogue does not have cannot be granted into being."""
    judges = authority(ToolGrant(tool="box.none"))
    assert judge(judges, "box.none", {}).outcome == "refuse"
    assert judges.granted == ()


@pytest.mark.parametrize("arguments", [{}, {"what": 1}, {"what": "a", "more": "b"}])
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Json]) -> None:
    """What the tool would not take is no call, whatever the rules say of the rest."""
    assert judge(authority(ToolGrant(tool="box.put")), "box.put", arguments).outcome == "refuse"


@pytest.mark.parametrize("path", ["out/a.md", "./out/a.md", "out/sub/../a.md", f"{_BASE}/out/a.md"])
def test_a_pin_is_compared_in_one_form(path: str) -> None:
    """A pinned path may be spelt in any way; what the tool gets is the one that was judged."""
    judges = authority(ToolGrant(tool="box.file", pins={"path": Pin(value="out/a.md")}))
    judged = judge(judges, "box.file", {"path": path})
    assert judged.outcome == "go"
    assert judged.call is not None
    assert judged.call.arguments == {"path": str(Path(_BASE).resolve() / "out/a.md")}


@pytest.mark.parametrize("path", ["out/b.md", "out/a.md/../../a.md", "/out/a.md", "OUT/a.md", "out/a.md\u200b"])
def test_another_value_than_the_pinned_one_is_refused(path: str) -> None:
    """What resolves to something else is not what the plan fixed."""
    judges = authority(ToolGrant(tool="box.file", pins={"path": Pin(value="out/a.md")}))
    assert judge(judges, "box.file", {"path": path}).outcome == "refuse"


@pytest.mark.parametrize("value", [True, 1.5, "1", None, [1]])
def test_a_pin_is_compared_as_json(value: Json) -> None:
    """``true`` is not 1, although Python says so."""
    judges = authority(ToolGrant(tool="box.count", pins={"number": Pin(value=1)}))
    assert judge(judges, "box.count", {"number": value}).outcome == "refuse"
    assert judge(judges, "box.count", {"number": 1}).outcome == "go"


def test_what_the_call_leaves_out_is_filled_in() -> None:
    """The model need not repeat what the plan fixes."""
    judges = authority(ToolGrant(tool="box.send", pins={"to": Pin(value="ann")}))
    judged = judge(judges, "box.send", {"text": "hi"})
    assert judged.call is not None
    assert (judged.outcome, judged.call.arguments) == ("go", {"to": "ann", "text": "hi"})


def test_grants_are_alternatives_and_are_used_up() -> None:
    """A call uses the first grant that it fits and that is not used up; ``times`` is for each of them."""
    judges = authority(
        ToolGrant(tool="box.put", pins={"what": Pin(value="a")}, times=1),
        ToolGrant(tool="box.put", pins={"what": Pin(value="b")}),
        ToolGrant(tool="box.put", pins={"what": Pin(value="a")}, times=2),
    )
    assert judge(judges, "box.put", {"what": "a"}).grant == 0
    assert judge(judges, "box.put", {"what": "b"}).grant == 1
    assert judge(judges, "box.put", {"what": "a"}, used=Counter({0: 1})).grant == 2
    assert judge(judges, "box.put", {"what": "a"}, used=Counter({0: 1, 2: 2})).outcome == "refuse"
    assert judge(judges, "box.put", {"what": "c"}).outcome == "refuse"


def test_principles_stand_above_rules() -> None:
    """What a principle forbids no rule allows and no person is asked about; the operator's hold like the team's."""
    never = "never irreversible effects"
    judged = judge(authority(ToolGrant(tool="box.burn"), principles=[never]), "box.burn")
    assert (judged.outcome, never in judged.reason) == ("refuse", True)
    assert judge(authority(ToolGrant(tool="box.burn")), "box.burn", policy=policy_of([never])).outcome == "refuse"


def test_principles_of_order_look_at_what_was_done() -> None:
    """What may have taken place holds back what must not come after it, and opens nothing that must come later."""
    after = authority(ToolGrant(tool="box.send"), principles=[{"name": "p", "never": "box.send", "after": "box.look"}])
    before = authority(ToolGrant(tool="box.send"), principles=[{"name": "p", "never": "box.send", "before": "box.put"}])
    assert after.looks_back(NO_POLICY)
    assert not authority().looks_back(NO_POLICY)
    assert authority().looks_back(policy_of([{"name": "p", "never": "box.send", "after": "box.look"}]))

    def done(index: int, *, surely: bool) -> list[DoneCall]:
        spec = _CATALOGUE[index]
        return [DoneCall(spec.name, spec.effect, {"what": "a"}, spec, surely)]

    assert judge(after, "box.send").outcome == "go"
    assert judge(after, "box.send", done=done(0, surely=True)).outcome == "refuse"
    assert judge(after, "box.send", done=done(0, surely=False)).outcome == "refuse"
    assert judge(before, "box.send").outcome == "refuse"
    assert judge(before, "box.send", done=done(1, surely=True)).outcome == "go"
    assert judge(before, "box.send", done=done(1, surely=False)).outcome == "refuse"


def test_in_a_tainted_context_only_pinned_arguments_go() -> None:
    """After text from outside a model's own values for an effect need a yes; those of the plan do not."""
    tainted = begun("go", "go", ("tool web.fetch",))
    own = authority(ToolGrant(tool="box.send"))
    both = {"to": Pin(value="ann"), "text": Pin(value="hi")}
    assert judge(own, "box.send").outcome == "go"
    assert judge(own, "box.send", context=tainted).outcome == "ask"
    pinned = authority(ToolGrant(tool="box.send", pins=both))
    assert judge(pinned, "box.send", context=tainted).outcome == "go"
    spoilt = authority(ToolGrant(tool="box.send", pins={**both, "text": Pin(value="hi", tainted=True)}))
    assert judge(spoilt, "box.send", context=tainted).outcome == "ask"


def _submitted(plan: Sequence[Mapping[str, Any]], **more: Any) -> JobSubmitted:
    team = {
        "interlock": 1,
        "team": "t",
        "agents": {"w": {"kind": "worker", "tools": ["box.look"]}, "v": {"kind": "verifier"}},
        "plan": [{"agent": "w", "do": "go", **step} for step in plan],
        "permissions": {"allow": ["*"]},
        **more,
    }
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return JobSubmitted(
        id="m", ns="n", job="j", at=at, team=Team.model_validate(team), goal="g", tools=_CATALOGUE, base=_BASE
    )


def test_a_plan_that_can_never_act_is_objected_to() -> None:
    """A tool that there is not, one that no rule lets pass, and a principle that the plan breaks are each named."""
    fine = _submitted([{"step": "s"}])
    assert plan_objections(fine, NO_POLICY, fine.team.plan) == ()
    [objection] = plan_objections(fine, policy_of(deny=["box.*"]), fine.team.plan)
    assert objection == "step s: no call of box.look can ever be allowed"
    missing = _submitted([{"step": "s", "tools": ["box.none"]}])
    assert plan_objections(missing, NO_POLICY, missing.team.plan) == ("step s: there is no tool box.none",)
    broken = _submitted([{"step": "s", "tools": ["box.burn"]}], principles=["never irreversible effects"])
    objections = plan_objections(broken, NO_POLICY, broken.team.plan)
    assert any("never irreversible effects" in one for one in objections)
