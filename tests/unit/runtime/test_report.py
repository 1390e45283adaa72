"""The account of a job, from its log, and how it is told."""

from datetime import timedelta

import pytest
from tests.unit.protocol.story import NOW, Story, step

from interlock.observability.context import new_traceparent, trace_id_of
from interlock.protocol.base import Usage
from interlock.protocol.messages import Approval
from interlock.protocol.state import JobState
from interlock.protocol.team import Handover
from interlock.runtime.report import Report, TaskReport, listed_of, report_of
from interlock.runtime.show import account, one_line, print_jobs, print_report, result_text

APPROVAL = Approval(
    tool="web.post", arguments={"to": "a\u202eb", "text": "x\ny"}, digest="d", effect="irreversible", rule="ask *"
)


def tasks_of(story: Story) -> dict[str, TaskReport]:
    return {task.id: task for task in report_of(story.state).tasks}


def half_done() -> Story:
    """Return a job with an accepted, a failed and a redone task, one under way and a step that waits."""
    steps = (
        step("s", items=True, attempts=2, handover=Handover(agent="w2")),
        step("end", needs=("s",)),
        step("later", items=True, needs=("end",)),
    )
    story = Story(steps, items={"s": 4, "later": 2}, parallel=3).go_on()
    story.attempt("s:0")
    for number in range(3):
        story.attempt("s:1", "fail", f"no {number}", f"bad {number}")
    story.attempt("s:2", "uncertain")
    return story


def test_a_running_job_tells_what_is_open_and_what_waits() -> None:
    """Each task has its status, who had it last, its attempts, verdicts, output and reason."""
    report = report_of(half_done().state)
    assert (report.status, report.result, report.reason, report.seconds) == ("running", None, "", 0)
    tasks = {task.id: task for task in report.tasks}
    assert list(tasks) == ["s:0", "s:1", "s:2", "s:3", "end"], "a step that was not expanded has no tasks yet"
    assert {name: task.status for name, task in tasks.items()} == {
        "s:0": "accepted",
        "s:1": "failed",
        "s:2": "open",
        "s:3": "open",
        "end": "waiting",
    }
    assert (tasks["s:0"].output, tasks["s:0"].index, tasks["s:0"].step) == ("output 1", 0, "s")
    assert (tasks["s:1"].agent, tasks["s:1"].attempts, tasks["s:1"].output) == ("w2", 3, None)
    assert [one.verdict for one in tasks["s:1"].verdicts] == ["fail", "fail", "fail"]
    assert "bad 2" in tasks["s:1"].reason
    assert [one.attempt for one in tasks["s:2"].verdicts] == [1]
    assert (tasks["end"].agent, tasks["end"].attempts, tasks["end"].index) == ("w", 0, None)


def acted() -> Story:
    """Return a job that has done something, may have done another thing, and waits with a third."""
    story = Story((step("s", items=True, attempts=2),), items={"s": 3}).go_on()
    for key, status in (("k1", "done"), ("k2", "in_doubt"), ("k3", "failed")):
        story.intend("s:0", key)
        story.record("s:0", status, key)
    story.intend("s:1", "k4")
    calls = [{"tool": "web.post", "arguments": {"to": number}, "outcome": "done: sent"} for number in range(7)]
    story.result("s:0", actions=calls)
    story.ask("s:2", approval=APPROVAL, expires=NOW + timedelta(hours=1))
    return story


def test_effects_are_told_apart_by_what_is_known_of_them() -> None:
    """Done is done, failed is nothing, under way is not told yet; what nobody knows is in doubt, with the reason."""
    story = acted()
    effects = report_of(story.state).effects
    assert [(one.tool, one.task, one.attempt, one.key) for one in effects.done] == [("web.post", "s:0", 1, "k1")]
    assert [(one.key, one.reason) for one in effects.in_doubt] == [("k2", "lost")]
    story.killed = "enough"
    story.go_on()
    in_doubt = report_of(story.state).effects.in_doubt
    assert [(one.key, one.reason) for one in in_doubt] == [("k2", "lost"), ("k4", "nothing tells what came of it")]
    assert [(one.task, one.key) for one in report_of(story.state).effects.done] == [("s:0", "k1")]


def test_a_task_tells_what_it_did_and_what_it_waits_with() -> None:
    """Every call of its attempts, and the question with its exact call, its default and its deadline."""
    tasks = tasks_of(acted())
    assert [(one.attempt, one.tool, one.arguments) for one in tasks["s:0"].actions[:2]] == [
        (1, "web.post", {"to": 0}),
        (1, "web.post", {"to": 1}),
    ]
    assert (tasks["s:0"].question, tasks["s:2"].status) == (None, "asking")
    question = tasks["s:2"].question
    assert question is not None
    assert (question.id, question.default, question.expires) == ("q", "no", NOW + timedelta(hours=1))
    assert question.approval == APPROVAL


def test_no_question_is_open_in_a_job_that_is_over() -> None:
    """Its task is cancelled, and there is nothing left to answer."""
    story = acted()
    story.killed = "enough"
    story.go_on()
    task = tasks_of(story)["s:2"]
    assert (task.status, task.question) == ("cancelled", None)


def test_the_account_says_what_waits_what_was_done_and_what_is_in_doubt() -> None:
    """How to answer stands with the task; doubts are never left out; of many calls the first are shown."""
    lines = account(report_of(acted().state)).splitlines()
    assert '    attempt 1: web.post {"to": 0}: done: sent' in lines
    assert "    and 2 more calls, which --json shows" in lines
    assert (
        '    May it? web.post(to="a\\u202eb", text="x\\ny") waits for your answer: interlock answer j q yes|no' in lines
    )
    assert "done: web.post (once) of s:0, attempt 1, key k1" in lines
    assert "IN DOUBT: web.post (once) of s:0, attempt 1, key k2: lost" in lines


def test_in_a_job_that_is_over_nothing_is_open() -> None:
    """What was under way or never began is cancelled, with the reason why the job ended."""
    story = half_done()
    story.killed, story.now = "enough", NOW + timedelta(seconds=2)
    story.go_on()
    report = report_of(story.state)
    assert (report.status, report.reason) == ("killed", "enough")
    tasks = {task.id: task for task in report.tasks}
    assert {name: task.status for name, task in tasks.items()} == {
        "s:0": "accepted",
        "s:1": "failed",
        "s:2": "cancelled",
        "s:3": "cancelled",
        "end": "cancelled",
    }
    assert "enough" in tasks["end"].reason


def test_seconds_and_usage_are_those_of_the_log() -> None:
    """Seconds lie between submission and end; tokens are those of all attempts."""
    story = Story((step("s"),)).go_on()
    story.result("s", usage=Usage(calls=1, prompt_tokens=10, completion_tokens=2))
    story.verdict("s", "pass")
    story.go_on()
    assert story.state.closed is not None
    closed = story.state.closed.model_copy(update={"at": NOW + timedelta(milliseconds=1234)})
    story.log[-1:] = []
    story.state = JobState()
    entries, story.log = story.log, []
    for entry in entries:
        story.tell(entry.message)
    story.tell(closed)
    report = report_of(story.state)
    assert report.seconds == 1.234
    assert report.usage == Usage(calls=1, prompt_tokens=10, completion_tokens=2)


def test_the_trace_is_the_one_that_the_job_was_submitted_in() -> None:
    """Where the submission was traced, its trace id; else the one that every process derives from the job's id."""
    story, root = Story((step("s"),)), new_traceparent(sampled=True)
    derived = report_of(story.state).trace_id
    assert len(derived) == 32
    assert derived == report_of(Story((step("s"),)).state).trace_id
    submitted, story.log, story.state = story.log[0].message, [], JobState()
    story.tell(submitted, origin=root)
    assert report_of(story.state).trace_id == trace_id_of(root) != derived


def test_a_job_that_was_not_submitted_has_no_report() -> None:
    """There is nothing to tell."""
    with pytest.raises(ValueError, match="not submitted"):
        report_of(JobState())


def test_the_account_has_a_line_for_each_task() -> None:
    """The job first, then what became of each task and why, then what it took."""
    story = half_done()
    story.killed = "enough"
    story.go_on()
    lines = account(report_of(story.state)).splitlines()
    assert lines[0] == "j: killed (enough)"
    assert lines[1] == "  s:0  w  accepted after 1 attempt (pass)"
    assert lines[2].startswith("  s:1  w2  failed after 3 attempts (fail, fail, fail): ")
    assert lines[3] == "  s:2  w  cancelled after 2 attempts (uncertain): enough"
    assert lines[5].startswith("  end  cancelled: ")
    assert lines[-1].startswith("0 model calls, 0 + 0 tokens, 0.0 s, trace ")


def test_words_of_models_stay_on_their_line() -> None:
    """Escape sequences, returns and line breaks in outputs, reasons and names reach no terminal as such."""
    story = Story((step("s", attempts=1),)).go_on()
    story.attempt("s", "fail", evidence="a\x1b[2Jb\nc\rd\u202e")
    text = account(report_of(story.state))
    assert len(text.splitlines()) == 3
    assert one_line("a\x1b[2Jb\nc\rd") == "a [2Jb c d"
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_the_result_goes_to_standard_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Text as it is, other values as JSON; the account goes to standard error; no result, no line."""
    story = Story((step("s"),)).go_on()
    report = report_of(story.state)
    print_report(report)
    assert capsys.readouterr().out == ""
    print_report(report.model_copy(update={"result": "two\nlines\n\n"}))
    captured = capsys.readouterr()
    assert captured.out == "two\nlines\n"
    assert captured.err == account(report) + "\n"
    assert result_text({"ü": [1]}) == '{\n  "ü": [\n    1\n  ]\n}'
    assert result_text("x \n") == "x"
    assert result_text([None, True]) == "[\n  null,\n  true\n]"


def test_jobs_are_listed_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Id, status, how much was accepted, and the goal on one line."""
    listed = listed_of(half_done().state)
    job = listed.model_copy(update={"report": listed.report.model_copy(update={"goal": "sum\nup"})})
    print_jobs([job, job])
    assert capsys.readouterr().out == "j  running    1/5 accepted  sum up\n" * 2


def test_a_report_survives_its_json() -> None:
    """What ``--json`` prints can be read back."""
    report = report_of(half_done().state)
    assert Report.model_validate_json(report.model_dump_json()) == report
