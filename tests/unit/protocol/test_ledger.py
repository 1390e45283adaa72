"""The effects ledger: keys, what a log says of an effect, and what may be done next."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.strategies import json_values

from interlock.protocol.ledger import Record, digest_of, effect_key, fold_records, next_move, place_of
from interlock.protocol.messages import EffectDone, EffectInDoubt, EffectIntended, Envelope, TaskClosed
from interlock.protocol.state import EffectStatus
from interlock.protocol.tools import EFFECT_CLASSES, EffectClass, ToolSpec

_arguments = st.dictionaries(st.text(max_size=5), json_values, max_size=4)
_names = st.text("abc:_", min_size=1, max_size=3)


def _envelope(answers: int) -> dict[str, Any]:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return {"id": f"m{answers}", "ns": "n", "job": "j", "task": "t", "attempt": 1, "at": at, "answers": answers}


def intended(
    answers: int, key: str = "k", effect: EffectClass = "once", tool: str = "box.send", place: str = ""
) -> EffectIntended:
    return EffectIntended(
        **_envelope(answers), by="w@t", key=key, tool=tool, arguments_digest="d", effect=effect, place=place
    )


def done(answers: int, key: str = "k", *, failed: bool = False, outcome: Any = "out") -> EffectDone:
    return EffectDone(**_envelope(answers), by="w@t", key=key, outcome=outcome, failed=failed)


def in_doubt(answers: int, key: str = "k") -> EffectInDoubt:
    return EffectInDoubt(**_envelope(answers), by="w@t", key=key, reason="why")


def status_after(*messages: Envelope, key: str = "k") -> EffectStatus:
    return fold_records(messages)[key].status


_story = st.lists(
    st.one_of(
        st.builds(intended, st.integers(1, 9), st.sampled_from("kl")),
        st.builds(done, st.integers(1, 9), st.sampled_from("kl"), failed=st.booleans()),
        st.builds(in_doubt, st.integers(1, 9), st.sampled_from("kl")),
    ),
    max_size=12,
)


@given(_names, _names, _names, _arguments, st.randoms(use_true_random=False))
def test_a_key_does_not_depend_on_the_order_of_arguments(job: str, task: str, tool: str, call: Any, dice: Any) -> None:
    """The same call has the same key, however its arguments are written down."""
    items = list(call.items())
    dice.shuffle(items)
    assert effect_key(job, task, tool, dict(items)) == effect_key(job, task, tool, call)
    assert digest_of(dict(items)) == digest_of(call)


@given(st.tuples(_names, _names, _names, _arguments), st.tuples(_names, _names, _names, _arguments))
def test_keys_differ_by_job_task_tool_and_arguments(one: Any, other: Any) -> None:
    """Two calls share a key only where everything that makes them is equal: ``("a", "bc")`` is not ``("ab", "c")``."""
    same = (*one[:3], digest_of(one[3])) == (*other[:3], digest_of(other[3]))
    assert (effect_key(*one) == effect_key(*other)) is same


@pytest.mark.parametrize(("one", "other"), [({"n": 1}, {"n": True}), ({"n": 1}, {"n": "1"}), ({}, {"n": None})])
def test_what_looks_alike_is_not_the_same_call(one: Any, other: Any) -> None:
    """Values of other types are other arguments, although Python may call them equal."""
    assert effect_key("j", "t", "box.send", one) != effect_key("j", "t", "box.send", other)


@given(_story, _story)
def test_what_is_done_stays_done(before: Sequence[Envelope], after: Sequence[Envelope]) -> None:
    """No message in any order makes an effect undone, or changes what it came to."""
    known = fold_records([*before, intended(10), done(11, outcome="first")])
    outcome = known["k"].outcome
    later = fold_records(after, known)["k"]
    assert (later.status, later.outcome) == (EffectStatus.DONE, outcome)


@given(_story, st.integers(0, 12))
def test_folding_in_parts_is_folding_at_once(story: Sequence[Envelope], cut: int) -> None:
    """Whoever goes on from what is known knows the same as who reads all anew."""
    assert fold_records(story[cut:], fold_records(story[:cut])) == fold_records(story)


@given(_story)
def test_what_was_never_meant_is_not_known(story: Sequence[Envelope]) -> None:
    """Without an intent, an outcome is not believed: it is nobody's."""
    meant = {one.key for one in story if isinstance(one, EffectIntended)}
    assert set(fold_records(story)) == meant


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([intended(1)], EffectStatus.INTENDED),
        ([intended(1), done(2)], EffectStatus.DONE),
        ([intended(1), done(2, failed=True)], EffectStatus.FAILED),
        ([intended(1), in_doubt(2)], EffectStatus.IN_DOUBT),
        ([intended(1), in_doubt(2), done(3)], EffectStatus.DONE),
        ([intended(1), in_doubt(2), done(3, failed=True)], EffectStatus.FAILED),
        ([intended(1), done(2, failed=True), intended(3)], EffectStatus.INTENDED),
        ([intended(1), done(2, failed=True), in_doubt(2)], EffectStatus.IN_DOUBT),
        ([done(2), intended(3)], EffectStatus.INTENDED),
    ],
)
def test_what_a_log_says(messages: Sequence[Envelope], status: EffectStatus) -> None:
    """The newest word counts, short of what is done; an outcome from before the first intent is none."""
    assert status_after(*messages) is status


def test_a_late_failure_unsays_no_newer_intent() -> None:
    """A stale worker says that its own effect was not begun, while another one may be in the middle of it."""
    other = [intended(1), intended(5)]
    assert status_after(*other, done(2, failed=True)) is EffectStatus.INTENDED
    assert status_after(*other, done(5, failed=True)) is EffectStatus.INTENDED
    assert status_after(*other, done(6, failed=True)) is EffectStatus.FAILED
    assert status_after(*other, done(2)) is EffectStatus.DONE


def test_other_kinds_are_passed_over() -> None:
    """The rest of a task's log says nothing of effects."""
    closed = TaskClosed(**_envelope(3), outcome="cancelled")
    assert fold_records([intended(1), closed]) == fold_records([intended(1)])


@pytest.mark.parametrize("effect", EFFECT_CLASSES[1:])
@pytest.mark.parametrize("probe", [True, False])
def test_what_is_known_needs_nobody(effect: EffectClass, *, probe: bool) -> None:
    """What was never meant or surely not made is made; what was made is reused, whatever its class."""
    assert next_move({}, "k", effect, probe=probe) == "run"
    assert next_move(fold_records([intended(1), done(2, failed=True)]), "k", effect, probe=probe) == "run"
    assert next_move(fold_records([intended(1), done(2)]), "k", effect, probe=probe) == "reuse"
    assert next_move(fold_records([intended(1), done(2)]), "other", effect, probe=probe) == "run"


@pytest.mark.parametrize(
    ("effect", "probe", "move"),
    [
        ("idempotent", False, "run"),
        ("idempotent", True, "run"),
        ("once", True, "probe"),
        ("once", False, "ask"),
        ("irreversible", True, "probe"),
        ("irreversible", False, "ask"),
    ],
)
@pytest.mark.parametrize("story", [[intended(1)], [intended(1), in_doubt(2)]])
def test_what_is_not_known(effect: EffectClass, *, probe: bool, move: str, story: list[Envelope]) -> None:
    """What may have been made is made again only where that changes nothing; else the tool or a person is asked."""
    assert next_move(fold_records(story), "k", effect, probe=probe) == move


@given(st.data(), _story)
def test_nothing_that_may_have_been_made_is_run_again(data: st.DataObject, story: Sequence[Envelope]) -> None:
    """Whatever stands in the log: ``run`` only where there is no intent that is not known to have come to nothing."""
    effect: EffectClass = data.draw(st.sampled_from(["once", "irreversible"]))
    probe, records = data.draw(st.booleans()), fold_records(story)
    may_be = "k" in records and records["k"].status is not EffectStatus.FAILED
    assert (next_move(records, "k", effect, probe=probe) == "run") is not may_be


_HERE, _THERE = "here", "there"


@pytest.mark.parametrize(
    ("later", "move"),
    [
        ([], "reuse"),
        ([intended(3, "l", place=_HERE)], "run"),
        ([intended(3, "l", place=_HERE), done(4, "l")], "run"),
        ([intended(3, "l", place=_HERE), done(4, "l", failed=True)], "reuse"),
        ([intended(3, "l", place=_THERE)], "reuse"),
        ([intended(3, "l", place=_HERE, tool="box.other")], "reuse"),
        ([intended(3, "l", place=_HERE), intended(5, place=_HERE)], "reuse"),
    ],
)
def test_what_was_overwritten_is_made_again(later: list[Envelope], move: str) -> None:
    """An idempotent effect counts as made until the same tool did something else at the same place."""
    story = [intended(1, effect="idempotent", place=_HERE), done(2), *later]
    assert next_move(fold_records(story), "k", "idempotent", probe=False) == move


def test_what_must_not_be_done_twice_is_not_overwritten() -> None:
    """Only what may be made again is; and where a tool names no places, nothing is at the same one."""
    story = [intended(1, place=_HERE), done(2), intended(3, "l", place=_HERE)]
    assert next_move(fold_records(story), "k", "once", probe=False) == "reuse"
    nowhere = [intended(1, effect="idempotent"), done(2), intended(3, "l", effect="idempotent")]
    assert next_move(fold_records(nowhere), "k", "idempotent", probe=False) == "reuse"


def test_a_place_is_made_of_destinations_alone() -> None:
    """What is written does not change where it goes; a tool without destinations goes nowhere that is known."""
    spec = ToolSpec(name="files.write", destinations=("path", "host"))
    here = place_of(spec, {"path": "/a", "text": "x"})
    assert here == place_of(spec, {"path": "/a", "text": "y"})
    assert here != place_of(spec, {"path": "/b", "text": "x"})
    assert place_of(ToolSpec(name="box.send"), {"path": "/a"}) == place_of(spec, {"text": "x"}) == ""


def test_a_doubt_keeps_its_reason() -> None:
    """A person is told why it is not known."""
    record: Record = fold_records([intended(1), in_doubt(2)])["k"]
    assert (record.reason, record.outcome) == ("why", None)
