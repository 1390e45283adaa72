"""A log told step by step."""

import json

from tests.unit.protocol.story import NOW, Story, step

from interlock.protocol.codec import encode
from interlock.protocol.messages import TaskAssigned, TaskClosed
from interlock.protocol.state import Entry
from interlock.protocol.subjects import log_subject
from interlock.runtime._jetstream import Raw
from interlock.runtime._shelf import Record
from interlock.runtime.received import Received
from interlock.runtime.replay_command import _in_words
from interlock.runtime.replaying import Replay, Step, until


def _record(entry: Entry) -> Record:
    subject = log_subject(entry.message)
    raw = Raw(entry.seq, subject, encode(entry.message), {}, entry.seq * 1_000_000_000)
    return Record(raw, Received(entry.seq, entry.message, subject, {}))


def _steps(story: Story) -> list[Step]:
    replay = Replay()
    return [replay.step(_record(entry)) for entry in story.log]


def _story() -> Story:
    story = Story((step("s", attempts=2),)).go_on()
    story.attempt("s", "fail")
    story.attempt("s")
    return story


def test_each_step_says_what_it_led_to() -> None:
    """The phases of the job and of its task, before and after, with who sent what for which attempt."""
    steps = _steps(_story())
    assert [(one.task, one.kind, one.attempt, one.before, one.after) for one in steps] == [
        ("_", "job.submitted", 0, "", "submitted"),
        ("_", "plan.accepted", 0, "submitted", "planned"),
        ("s", "task.assigned", 1, "", "assigned"),
        ("s", "task.result", 1, "assigned", "result"),
        ("s", "task.verdict", 1, "result", "verdict"),
        ("s", "task.assigned", 2, "verdict", "assigned"),
        ("s", "task.result", 2, "assigned", "result"),
        ("s", "task.verdict", 2, "result", "verdict"),
        ("s", "task.closed", 2, "verdict", "accepted"),
        ("_", "job.closed", 0, "planned", "succeeded"),
    ]
    assert [one.by for one in steps[2:5]] == ["", "w@t", "v@t"]
    assert _in_words(steps[3]) == "     4  00:00:04.000000  s #1  task.result by w@t  assigned -> result"


def test_an_entry_that_is_no_next_step_is_marked() -> None:
    """It is shown where it stands, and that nothing came of it."""
    story = _story()
    log = story.log[:4]
    again = next(entry.message for entry in story.log if isinstance(entry.message, TaskAssigned))
    log.append(Entry(5, again))
    replay = Replay()
    steps = [replay.step(_record(entry)) for entry in log]
    assert [one.refused for one in steps] == [False, False, False, False, True]
    assert _in_words(steps[-1]).endswith("task.assigned  refused")


def test_what_nobody_can_read_is_shown_too() -> None:
    """Its place, task and kind are those of its subject."""
    told = Replay().step(Record(Raw(7, "il.n.log.3.j.s:1.verdict.v@t", b"?", {}, 0), None))
    assert (told.seq, told.task, told.kind, told.refused) == (7, "s:1", "verdict", True)
    assert _in_words(told).endswith("nobody can read it")


def test_the_past_is_as_it_was() -> None:
    """Folding up to a sequence gives the state that there was then."""
    story, replay = _story(), Replay()
    records = [_record(entry) for entry in story.log]
    for record in until(records, 4):
        replay.step(record)
    assert (len(replay.state.tasks), replay.state.closed) == (1, None)
    assert replay.state.tasks["s"].phase.value == "result"
    assert until(records, None) == records


def test_a_step_as_json_has_its_message() -> None:
    """What a line of ``--json`` has can be read back."""
    told = json.loads(json.dumps(_steps(_story())[8].as_json()))
    assert (told["seq"], told["kind"], told["after"], told["refused"]) == (9, "task.closed", "accepted", False)
    assert TaskClosed.model_validate(told["message"]).at == NOW
