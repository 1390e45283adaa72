"""The gateway over a real broker: what is logged, what is really done, and what the model is told."""

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import pytest_asyncio
from tests.integration.tools.desk import Attempt, Desk, box_team, envelope, open_desk, policy_of, said
from tests.killable_broker import KillableBroker

from interlock.agents.toolbox import AttemptLost, Suspended
from interlock.protocol.control import Control, ControlOrder, JobScope
from interlock.protocol.messages import EffectDone, EffectIntended, Envelope, QuestionAsked, TaskClosed, TaskResult
from interlock.protocol.state import EffectStatus
from interlock.protocol.tools import ToolGrant
from interlock.runtime import effects
from interlock.runtime.approvals import Pending
from interlock.runtime.bus import Bus
from interlock.runtime.chain import Chain
from interlock.runtime.effects import EffectsLedger

pytestmark = pytest.mark.timeout(60)


@pytest_asyncio.fixture
async def desk(bus: Bus, tmp_path: Path) -> AsyncIterator[Desk]:
    """Open a desk whose worker may do everything."""
    async with open_desk(bus, tmp_path) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _time_for_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who is cancelled take longer to record what it knows: this machine may be busy."""
    monkeypatch.setattr(effects, "_LAST_WORDS", 10)


async def pending(attempt: Attempt, tool: str, /, **arguments: Any) -> Pending:
    """Make a call that has to wait for a person, and return what he has to be asked."""
    with pytest.raises(Suspended) as waits:
        await attempt.call(tool, **arguments)
    question = waits.value.question
    assert isinstance(question, Pending)
    return question


async def kill_job(desk: Desk) -> None:
    order = ControlOrder(
        id=uuid.uuid4().hex, stop=True, scope=JobScope(job=desk.job), reason="enough", at=datetime.now(UTC)
    )
    await desk.bus.orders.write(order)


def after_the(number: int, control: Callable[[], Awaitable[Control]], then: Callable[[], Awaitable[Any]]) -> Any:
    """Return ``control`` with something that happens right after its read with this number."""
    reads = 0

    async def read() -> Control:
        nonlocal reads
        reads += 1
        found = await control()
        if reads == number:
            await then()
        return found

    return read


def control_of(desk: Desk) -> Callable[[], Awaitable[Control]]:
    return desk.bus.orders.control


async def test_an_effect_is_logged_before_and_after(desk: Desk) -> None:
    """Intent in the chain, effect, outcome beside it; the key that the tool gets is the one in the log."""
    attempt = await desk.begin()
    assert said(await attempt.call("box.put", what="a")) == (True, "put a")
    assert await desk.effects() == ["intended", "done"]
    [intent] = [one.message for one in await desk.log() if isinstance(one.message, EffectIntended)]
    assert f'"given": "{intent.key}"' in (desk.base / "outside.log").read_text()
    assert (desk.outside, attempt.gateway.actions[0].outcome) == ([("box.put", "a")], "done: put a")


async def test_a_read_leaves_no_trace_in_the_ledger(desk: Desk) -> None:
    """What changes nothing is neither intended nor recorded, and is done again when it is asked for again."""
    attempt = await desk.begin()
    for _ in range(2):
        assert said(await attempt.call("box.look", what="a")) == (True, "saw a")
    assert await desk.effects() == []


async def test_what_is_refused_is_told_and_the_attempt_goes_on(bus: Bus, tmp_path: Path) -> None:
    """A call that a rule denies does nothing but tell the model so; the next call is made."""
    team = box_team(permissions={"allow": ["box.*"], "deny": ["box.send(*secret*)"]})
    async with open_desk(bus, tmp_path, team) as desk:
        attempt = await desk.begin()
        done, text = said(await attempt.call("box.send", what="the secret plan"))
        assert (done, text.startswith("refused: ")) == (False, True)
        assert said(await attempt.call("box.send", what="a")) == (True, "sent a")
        assert (desk.outside, await desk.effects()) == ([("box.send", "a")], ["intended", "done"])
        assert [action.outcome.partition(":")[0] for action in attempt.gateway.actions] == ["refused", "done"]


@pytest.mark.parametrize("tool", ["box.put", "box.send"])
async def test_an_outcome_is_reused_by_later_attempts(desk: Desk, tool: str) -> None:
    """The second attempt is given what the first one's call returned, and told that nothing was done again."""
    first = await desk.begin()
    await first.call(tool, what="a")
    second = await desk.attempt(*(await desk.assign(2, answers=first.chain.head)))
    done, text = said(await second.call(tool, what="a"))
    assert (done, len(desk.outside)) == (True, 1)
    assert text.startswith("Not done again")
    assert text.endswith(" a")
    assert second.gateway.actions[0].outcome.startswith("reused: ")


async def test_the_same_call_twice_in_one_attempt_is_made_once(desk: Desk) -> None:
    """The model is told that its second, equal call did nothing, whatever the order of its arguments."""
    attempt = await desk.begin()
    await attempt.call("box.send", what="a")
    done, text = said(await attempt.call("box.send", what="a"))
    assert (done, text) == (
        True,
        "Not done again, since this task did exactly this before. What it came to then: sent a",
    )
    assert desk.outside == [("box.send", "a")]


async def test_what_was_overwritten_is_written_again(desk: Desk) -> None:
    """An idempotent call is made again where the tool did something else at the same place since, and only there."""
    attempt = await desk.begin()
    for where, what in (("x", "a"), ("y", "b"), ("x", "c"), ("x", "a"), ("y", "b")):
        await attempt.call("box.write", where=where, what=what)
    assert [what for _, what in desk.outside] == ["x=a", "y=b", "x=c", "x=a"]
    keys = {one.message.key for one in await desk.log() if isinstance(one.message, EffectIntended)}
    assert len(keys) == 3


async def test_after_a_crash_idempotent_is_run_again_with_the_same_key(desk: Desk) -> None:
    """An intent without an outcome: what is idempotent is run again, under the key that it had."""
    assignment, seq = await desk.assign()
    await _dies_after_its_intent(desk, assignment, seq, "box.put", "idempotent")
    attempt = await desk.attempt(assignment, seq)
    assert said(await attempt.call("box.put", what="a")) == (True, "put a")
    keys = {one.message.key for one in await desk.log() if isinstance(one.message, (EffectIntended, EffectDone))}
    assert (len(keys), desk.outside) == (1, [("box.put", "a")])


async def _dies_after_its_intent(desk: Desk, assignment: Any, seq: int, tool: str, effect: Any) -> None:
    """Leave behind what a worker leaves that is killed in the middle of an effect."""
    attempt = await desk.attempt(assignment, seq)
    call = attempt.gateway._authority.judge(
        (await desk.bus.orders.control()).policy, tool, {"what": "a"}, attempt.gateway.provenance, used=Counter()
    ).call
    assert call is not None
    assert call.spec.effect == effect
    ledger = EffectsLedger(attempt.chain)
    await ledger.record_of("nothing")
    await ledger.intend(call.spec, attempt.gateway._key(call), call.arguments)


@pytest.mark.parametrize(
    ("says", "told", "outside", "status"),
    [
        ("done", "Not done again", [], EffectStatus.DONE),
        ("not_done", "sent a", [("box.send", "a")], EffectStatus.DONE),
        ("unknown", "in_doubt: nobody could say", [], EffectStatus.IN_DOUBT),
    ],
)
async def test_a_doubt_goes_to_a_person(
    desk: Desk, says: str, told: str, outside: list[tuple[str, str]], status: EffectStatus
) -> None:
    """What may have been made once is never made again unless a person says that it was not."""
    assignment, seq = await desk.assign()
    await _dies_after_its_intent(desk, assignment, seq, "box.send", "once")
    attempt = await desk.attempt(assignment, seq)
    question = await pending(attempt, "box.send", what="a")
    assert (question.about, question.approval.arguments) == ("doubt", {"what": "a"})
    assert desk.outside == []
    resumed = await desk.resume(attempt, question, says)
    assert said(await resumed.call("box.send", what="a"))[1].startswith(told)
    assert desk.outside == outside
    records = EffectsLedger(resumed.chain)
    known = await records.record_of(str(question.key))
    assert known is not None
    assert known.status is status


async def test_after_not_done_the_rules_are_asked_as_for_any_call(bus: Bus, tmp_path: Path) -> None:
    """A person who knows that nothing happened has not said yes to it: the call still waits for that, and only once."""
    team = box_team(permissions={"allow": ["box.*"], "ask": ["box.send"]})
    async with open_desk(bus, tmp_path, team) as desk:
        assignment, seq = await desk.assign()
        await _dies_after_its_intent(desk, assignment, seq, "box.send", "once")
        attempt = await desk.attempt(assignment, seq)
        doubt = await pending(attempt, "box.send", what="a")
        resumed = await desk.resume(attempt, doubt, "not_done")
        approval = await pending(resumed, "box.send", what="a")
        assert (doubt.about, approval.about, desk.outside) == ("doubt", "approval", [])
        approved = await desk.resume(resumed, approval, "yes")
        assert said(await approved.call("box.send", what="a")) == (True, "sent a")


@pytest.mark.parametrize(
    ("probe", "told", "outside"),
    [("done", "Not done again", []), ("not_done", "shipped a", [("box.ship", "a")])],
)
async def test_a_probe_settles_a_doubt(desk: Desk, probe: str, told: str, outside: list[tuple[str, str]]) -> None:
    """A tool that can say what became of its key is asked instead of a person."""
    (desk.base / "probe").write_text(probe)
    assignment, seq = await desk.assign()
    await _dies_after_its_intent(desk, assignment, seq, "box.ship", "once")
    attempt = await desk.attempt(assignment, seq)
    assert said(await attempt.call("box.ship", what="a"))[1].startswith(told)
    assert desk.outside == outside
    assert (await desk.effects())[-1] == "done"


async def test_a_probe_that_fails_leaves_it_to_a_person(desk: Desk) -> None:
    """Who cannot be reached has not said no: nothing is made, and the person is told why it is not known."""
    (desk.base / "probe").write_text("fail")
    assignment, seq = await desk.assign()
    await _dies_after_its_intent(desk, assignment, seq, "box.ship", "once")
    question = await pending(await desk.attempt(assignment, seq), "box.ship", what="a")
    assert question.about == "doubt"
    assert "nobody answers" in question.text
    assert desk.outside == []


async def test_failed_and_uncertain_are_told_apart(desk: Desk) -> None:
    """A tool that says that it changed nothing may be called again; one that ended otherwise goes to a person."""
    attempt = await desk.begin()
    for _ in range(2):
        assert said(await attempt.call("box.fail", how="clean")) == (False, "failed: box.fail: the box is shut")
    done, text = said(await attempt.call("box.fail", how="dirty"))
    assert (done, text.startswith("in_doubt: it is not known whether it took place")) == (False, True)
    question = await pending(attempt, "box.fail", how="dirty")
    assert (question.about, "the line went dead" in question.text) == ("doubt", True)
    assert await desk.effects() == ["intended", "not", "intended", "not", "intended", "in_doubt"]


async def test_what_cannot_be_undone_waits_for_a_yes(desk: Desk) -> None:
    """A yes is for exactly the call that was shown, and for one time."""
    attempt = await desk.begin()
    question = await pending(attempt, "box.burn", what="a")
    assert (question.about, question.approval.arguments, question.approval.effect) == (
        "approval",
        {"what": "a"},
        "irreversible",
    )
    assert await desk.effects() == []
    resumed = await desk.resume(attempt, question, "yes")
    other = await pending(resumed, "box.burn", what="b")
    assert other.approval.arguments == {"what": "b"}
    assert said(await resumed.call("box.burn", what="a")) == (True, "burnt a")
    assert desk.outside == [("box.burn", "a")]
    assert (await pending(resumed, "box.burn", what="b")).about == "approval"


@pytest.mark.parametrize(
    ("says", "more", "told"),
    [
        ("no", {"note": "keep it"}, "refused: a person said no: keep it"),
        ("no", {"by_default": True}, "refused: a person was asked and did not answer in time, which is a no"),
        ("of course", {}, "refused: a person said no"),
    ],
)
async def test_anything_but_a_yes_is_a_no_for_the_rest_of_the_attempt(
    desk: Desk, says: str, more: dict[str, Any], told: str
) -> None:
    """The model is told, and asking for the same again asks nobody again; also after another question."""
    attempt = await desk.begin()
    resumed = await desk.resume(attempt, await pending(attempt, "box.burn", what="a"), says, **more)
    for _ in range(2):
        assert said(await resumed.call("box.burn", what="a")) == (False, told)
    again = await desk.resume(resumed, await pending(resumed, "box.burn", what="b"), "yes")
    assert said(await again.call("box.burn", what="b")) == (True, "burnt b")
    assert said(await again.call("box.burn", what="a")) == (False, told)
    assert desk.outside == [("box.burn", "b")]


async def test_a_yes_under_an_older_policy_counts_no_more(desk: Desk) -> None:
    """Whoever changes the policy between the question and the answer has the person asked again, or the call denied."""
    attempt = await desk.begin()
    question = await pending(attempt, "box.burn", what="a")
    await desk.bus.orders.write_policy(policy_of(deny=["box.look"]))
    resumed = await desk.resume(attempt, question, "yes")
    again = await pending(resumed, "box.burn", what="a")
    assert again.approval.policy > question.approval.policy
    await desk.bus.orders.write_policy(policy_of(deny=["box.burn"]))
    denied = await desk.resume(resumed, again, "yes")
    assert said(await denied.call("box.burn", what="a"))[1].startswith("refused: ")
    assert desk.outside == []


async def test_a_policy_that_changes_before_the_effect_is_obeyed(desk: Desk) -> None:
    """Between judging and the effect the operator denies: the intent is taken back and the call refused."""

    async def deny() -> None:
        await desk.bus.orders.write_policy(policy_of(deny=["box.send"]))

    attempt = await desk.begin(control=after_the(1, control_of(desk), deny))
    assert said(await attempt.call("box.send", what="a"))[1].startswith("refused: ")
    assert (desk.outside, await desk.effects()) == ([], ["intended", "not"])


async def test_a_policy_that_changes_and_still_allows_delays_nothing(desk: Desk) -> None:
    """The call is judged anew, and made."""

    async def change() -> None:
        await desk.bus.orders.write_policy(policy_of(deny=["box.look"]))

    attempt = await desk.begin(control=after_the(1, control_of(desk), change))
    assert said(await attempt.call("box.send", what="a")) == (True, "sent a")
    assert await desk.effects() == ["intended", "not", "intended", "done"]


async def test_a_kill_between_intent_and_effect_stops_the_effect(desk: Desk) -> None:
    """The order is seen right before the effect: nothing is done, and the ledger says so."""
    assignment, seq = await desk.assign()
    real = desk.workshop.outside(await desk.workshop.job(desk.job), assignment, "w").control

    async def kill() -> None:
        await kill_job(desk)

    attempt = await desk.attempt(assignment, seq, control=after_the(1, real, kill))
    with pytest.raises(AttemptLost, match="enough"):
        await attempt.call("box.send", what="a")
    assert (desk.outside, await desk.effects()) == ([], ["intended", "not"])


async def test_cancelled_between_intent_and_effect_nothing_is_in_doubt(desk: Desk) -> None:
    """Who is told to end before he has begun says that he has not."""
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            scope.cancel()
            await anyio.lowlevel.checkpoint()

        attempt = await desk.begin(control=after_the(2, control_of(desk), cancel))
        await attempt.call("box.send", what="a")
    assert scope.cancelled_caught
    assert (desk.outside, await desk.effects()) == ([], ["intended", "not"])


@pytest.mark.parametrize("mover", ["result", "closed", "other worker"])
async def test_a_worker_that_lost_its_task_makes_no_effect(desk: Desk, mover: str) -> None:
    """The chain has moved on without it, whoever moved it: its intent is refused and nothing is done."""
    assignment, seq = await desk.assign()
    stale, attempt = await desk.attempt(assignment, seq), await desk.attempt(assignment, seq)
    moved: Envelope
    if mover == "other worker":
        await attempt.call("box.put", what="b")
    else:
        common = envelope(desk.bus.ns, desk.job, 1, seq)
        role = assignment.role
        moved = (
            TaskResult(**common, by=role, role=assignment.verifier, status="done")
            if mover == "result"
            else TaskClosed(**common, outcome="cancelled")
        )
        await desk.bus.append(moved)
    with pytest.raises(AttemptLost, match="moved on"):
        await stale.call("box.send", what="a")
    assert ("box.send", "a") not in desk.outside


async def test_a_worker_that_loses_its_task_after_its_intent_makes_no_effect(desk: Desk) -> None:
    """Another one takes over between its intent and its effect, and asks a person: the first one lets it be."""
    assignment, seq = await desk.assign()

    async def take_over_and_ask() -> None:
        other = await desk.attempt(assignment, seq)
        await desk.ask(other, await pending(other, "box.send", what="a"))

    attempt = await desk.attempt(assignment, seq, control=after_the(2, control_of(desk), take_over_and_ask))
    with pytest.raises(AttemptLost):
        await attempt.call("box.send", what="a")
    assert desk.outside == []


@pytest.mark.parametrize("tool", ["box.put", "box.send", "box.burn"])
async def test_with_autonomy_suggest_nothing_acts(bus: Bus, tmp_path: Path, tool: str) -> None:
    """What would be done is noted, for the person to see; only reading goes on."""
    async with open_desk(bus, tmp_path, grant={"autonomy": "suggest"}) as desk:
        attempt = await desk.begin()
        assert said(await attempt.call(tool, what="a"))[1].startswith("suggested: ")
        assert said(await attempt.call("box.look", what="a")) == (True, "saw a")
        assert (desk.outside, await desk.effects()) == ([], [])
        assert attempt.gateway.actions[0].arguments == {"what": "a"}


async def test_with_autonomy_ask_each_effect_waits(bus: Bus, tmp_path: Path) -> None:
    """Reading is free; anything else needs a yes of its own."""
    async with open_desk(bus, tmp_path, grant={"autonomy": "ask"}) as desk:
        attempt = await desk.begin()
        assert said(await attempt.call("box.look", what="a")) == (True, "saw a")
        assert (await pending(attempt, "box.put", what="a")).about == "approval"
        assert desk.outside == []


async def test_where_a_tool_is_led_on_to_is_judged(bus: Bus, tmp_path: Path) -> None:
    """An address that the arguments do not name is judged as if they did."""
    team = box_team(permissions={"allow": ["box.follow(https://a.example/**)"]})
    async with open_desk(bus, tmp_path, team) as desk:
        attempt = await desk.begin()
        good = await attempt.call("box.follow", url="https://a.example/x", leads_to="https://a.example/y")
        bad = await attempt.call("box.follow", url="https://a.example/x", leads_to="https://b.example/y")
        assert (said(good)[0], said(bad)[0]) == (True, False)
        assert "it was led on to https://b.example/y" in bad.text


async def test_the_budget_of_calls_ends(bus: Bus, tmp_path: Path) -> None:
    """After the grant's number of calls each further one is refused, also after a question."""
    async with open_desk(bus, tmp_path, grant={"actions": 2}) as desk:
        attempt = await desk.begin()
        await attempt.call("box.look", what="a")
        resumed = await desk.resume(attempt, await pending(attempt, "box.burn", what="a"), "yes")
        assert said(await resumed.call("box.burn", what="a")) == (True, "burnt a")
        done, text = said(await resumed.call("box.look", what="a"))
        assert (done, text) == (False, "refused: the attempt's tool calls are used up")


async def test_a_grant_for_so_many_times_is_used_up(bus: Bus, tmp_path: Path) -> None:
    """``times`` counts the calls that were made, before a question and after it."""
    grants = (ToolGrant(tool="box.send", times=2), ToolGrant(tool="box.burn"))
    async with open_desk(bus, tmp_path, grant={"tools": grants}) as desk:
        attempt = await desk.begin()
        await attempt.call("box.send", what="a")
        resumed = await desk.resume(attempt, await pending(attempt, "box.burn", what="x"), "no")
        await resumed.call("box.send", what="b")
        assert "2 times" in said(await resumed.call("box.send", what="c"))[1]
        assert [what for _, what in desk.outside] == ["a", "b"]


async def test_an_effect_that_is_cancelled_is_in_doubt(desk: Desk) -> None:
    """When the attempt's time runs out under an effect, the ledger and the attempt's actions say that nobody knows."""
    attempt = await desk.begin()
    with anyio.move_on_after(0.5) as scope:
        await attempt.call("box.hang", what="a")
    assert scope.cancelled_caught
    assert await desk.effects() == ["intended", "in_doubt"]
    assert attempt.gateway.actions[-1].outcome.startswith("in_doubt: ")


async def test_what_is_done_is_recorded_although_cancelled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation between the effect and its record loses nothing."""
    attempt = await desk.begin()
    append = Chain.record
    with anyio.CancelScope() as scope:

        async def record(chain: Chain, message: Envelope) -> None:
            scope.cancel()
            await anyio.lowlevel.checkpoint()
            await append(chain, message)

        monkeypatch.setattr(Chain, "record", record)
        await attempt.call("box.send", what="a")
    assert (desk.outside, await desk.effects()) == ([("box.send", "a")], ["intended", "done"])


async def test_a_broker_that_is_away_after_the_effect_is_waited_for(
    killable_broker: KillableBroker, ns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcome is recorded once the broker is back; who is killed meanwhile leaves an intent, which is a doubt."""
    record, away = Chain.record, anyio.Event()

    async def record_while_away(chain: Chain, message: Envelope) -> None:
        if not away.is_set():
            await killable_broker.kill()
            away.set()
        await record(chain, message)

    monkeypatch.setattr(Chain, "record", record_while_away)
    async with Bus.connect(killable_broker.address, ns, "test") as bus, open_desk(bus, tmp_path) as desk:
        attempt = await desk.begin()
        async with anyio.create_task_group() as group:
            group.start_soon(partial(attempt.call, "box.send", what="a"))
            await away.wait()
            assert desk.outside == [("box.send", "a")]
            await killable_broker.restart()
        assert await desk.effects() == ["intended", "done"]
        away = anyio.Event()
        with anyio.move_on_after(5) as limit:
            await attempt.call("box.send", what="b")
        assert limit.cancelled_caught
        await killable_broker.restart()
        await bus.wait_connected()
        later = await desk.attempt(*(await desk.assign(2, answers=attempt.chain.head)))
        assert (await pending(later, "box.send", what="b")).about == "doubt"
        assert desk.outside == [("box.send", "a"), ("box.send", "b")]


async def test_no_secret_leaves_the_gateway(bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever brings a secret along (a model, a tool, a rule's reason), no message and no observation has it."""
    secret = "hunter2-but-longer"
    monkeypatch.setenv("BOX_TOKEN", secret)
    team = box_team(secrets={"BOX": {"env": "BOX_TOKEN"}}, permissions={"allow": ["box.*"], "deny": ["box.look(no*)"]})
    async with open_desk(bus, tmp_path, team) as desk:
        attempt = await desk.begin()
        seen = [
            (await attempt.call("box.look", what=f"x{secret}")).text,
            (await attempt.call("box.send", what=secret)).text,
            (await attempt.call("box.look", what=f"no {secret}")).text,
            (await attempt.call("box.fail", how=secret)).text,
        ]
        question = await pending(attempt, "box.burn", what=secret)
        await desk.ask(attempt, question)
        entries = [one.message.model_dump_json() for one in await desk.log()]
        assert not [text for text in (*seen, *entries, *map(repr, attempt.gateway.actions)) if secret in text]
        assert any("[secret BOX]" in text for text in entries)
        asked = [one.message for one in await desk.log() if isinstance(one.message, QuestionAsked)]
        assert asked[0].approval is not None


async def test_a_huge_outcome_is_kept_within_bounds_and_reused(desk: Desk) -> None:
    """An outcome larger than a message may be goes through the store, and a later attempt gets the same."""
    attempt = await desk.begin()
    huge = "ü" * 190_000
    _, first = said(await attempt.call("box.send", what=huge))
    second = await desk.attempt(*(await desk.assign(2, answers=attempt.chain.head)))
    _, again = said(await second.call("box.send", what=huge))
    assert again.endswith(first)
    assert len(attempt.gateway.actions[0].outcome) < 400
    assert len(desk.outside) == 1
