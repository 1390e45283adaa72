"""What a person sees of a running job."""

import io
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TextIO

import pytest
from rich.console import Console
from tests.unit.protocol.story import NOW, Story, step

from interlock.protocol.messages import PlanRejected
from interlock.protocol.state import JobState
from interlock.runtime.client import Progress
from interlock.runtime.view import LiveView, PlainView, View, describe, open_view


def played() -> Story:
    """Return a whole job: three items, one redone, one failed, then a reduce step."""
    story = Story((step("s", items=True, attempts=2), step("end", needs=("s",))), items={"s": 3}).go_on()
    story.attempt("s:0")
    story.attempt("s:1", "fail", evidence="41 words")
    story.attempt("s:1", "pass")
    story.attempt("s:2", "fail", evidence="bad\nline \x1b[2J")
    story.attempt("s:2", "uncertain")
    story.attempt("end")
    return story


def news(story: Story, begin: int = 0, end: int | None = None) -> Progress:
    """Return a part of a story's log as news."""
    entries = tuple(story.log[begin:end])
    told = Story(story.steps, items=story.items)
    told.log, told.state = [], JobState()
    for entry in story.log[:end]:
        told.tell(entry.message)
    return Progress(entries, told.state)


def drawn(view: LiveView, width: int = 110) -> str:
    """Return what the live view draws."""
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view.draw())
    return out.getvalue()


def test_each_entry_that_is_worth_a_line_has_one() -> None:
    """Submission, expansion, refusals with their reasons, redos and ends; not every message."""
    story = played()
    lines = [line for entry in story.log if (line := describe(entry, story.state))]
    assert lines == [
        "job j: g",
        "s: 3 tasks",
        "s:0: accepted",
        "s:1: attempt 1 fail: words: 41 words",
        "s:1: attempt 2 by w",
        "s:1: accepted after 2 attempts",
        "s:2: attempt 1 fail: words: bad\nline \x1b[2J",
        "s:2: attempt 2 by w",
        "s:2: attempt 2 uncertain: words: evidence 2",
        "s:2: failed: words: evidence 2",
        "end: accepted",
        "job j: partial: s: 1 of 3 not accepted",
    ]


def waiting() -> Story:
    """Return a job whose three items wait for a person, go on and have an effect in doubt."""
    story = Story((step("s", items=True),), items={"s": 3}).go_on()
    for number in range(3):
        story.ask(f"s:{number}", f"q-{number}")
    story.answer("s:1", "no", "q-1")
    story.answer("s:2", "no", "q-2", by_default=True)
    story.go_on()
    story.intend("s:1")
    story.record("s:1", "in_doubt")
    return story


def test_a_question_has_a_line_that_says_how_to_answer_it() -> None:
    """What waits, what was answered and by whom, what goes on and what is in doubt: a line each, in plain words."""
    story = waiting()
    lines = [line for entry in story.log[6:] if (line := describe(entry, story.state))]
    assert lines == [
        *(f"s:{n}: May it? waits for your answer: interlock answer j q-{n} yes|no" for n in range(3)),
        "s:1: the answer is no",
        "s:2: nobody answered in time, which counts as no",
        "s:1: attempt 1 goes on",
        "s:2: attempt 1 goes on",
        "s:1: web.post in doubt: lost",
    ]


def test_a_rejected_plan_is_told() -> None:
    """The reason stands in the plain view before the job's end."""
    story = Story((step("s"),))
    story.tell(PlanRejected(id="p", ns="n", job="j", at=NOW, answers=1, version=1, reasons=("never X", "never Y")))
    assert describe(story.log[-1], story.state) == "the plan is rejected: never X; never Y"


def test_the_live_view_keeps_open_questions_in_sight() -> None:
    """How to answer stands below the table for as long as the question is open; the task counts as asking."""
    story, view = waiting(), LiveView()
    view.show(news(story))
    text = drawn(view)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert rows == [["s", "w", "3", "0", "2", "1", "", "", "", ""]]
    assert [line.rstrip() for line in text.splitlines() if line.startswith("interlock answer")] == [
        "interlock answer j q-0 yes|no   s:0: May it?"
    ]


def test_the_live_view_counts_the_questions_that_it_does_not_show() -> None:
    """Many questions leave room for the table."""
    story = Story((step("s", items=True),), items={"s": 7}).go_on()
    for number in range(7):
        story.ask(f"s:{number}", f"q-{number}")
    view = LiveView()
    view.show(news(story))
    assert "and 3 more questions: interlock questions" in drawn(view)


def test_the_plain_view_prints_lines() -> None:
    """A line an event, nothing that a terminal would act on, and a summary of the steps now and then."""
    out, story = io.StringIO(), played()
    view = PlainView(out)
    view.show(news(story, 0, 5))
    view.show(news(story, 5))
    view.say("starting\nthe model")
    lines = out.getvalue().splitlines()
    assert lines[0] == "job j: g"
    assert lines[2] == "s 0/3 (2 open); end 0/1"
    assert "s:2: attempt 1 fail: words: bad line  [2J" in lines
    assert lines[-1] == "starting the model"
    assert sum(line.startswith("s ") for line in lines) == 1, "a summary a second, and none once the job is over"


def test_what_is_waited_for_takes_one_line() -> None:
    """In a terminal the next word of what comes up takes the place of the last one; elsewhere it is a line more."""
    live, out = LiveView(), io.StringIO()
    plain = PlainView(out)
    views: tuple[View, ...] = (live, plain)
    for view in views:
        view.say("before")
        view.wait("vllm, 5 s: loading")
        view.wait("vllm, 10 s: profiling")
        view.say("between")
        view.wait("vllm is ready")
    shown = drawn(live)
    assert [line in shown for line in ("before", "loading", "10 s: profiling", "between", "vllm is ready")] == [
        True,
        False,
        True,
        True,
        True,
    ]
    assert len(out.getvalue().splitlines()) == 5


def test_the_plain_view_falls_silent_when_nobody_reads() -> None:
    """After ``2>&1 | head -1`` the view goes on without a word, and nothing is left to fail later."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=1) as stream:
        view = PlainView(stream)
        for _ in range(3):
            view.say("hello")


def test_the_live_view_draws_the_steps_and_the_last_events() -> None:
    """One row a step with its counts, the last events below, how the job stands on top."""
    story, view = played(), LiveView()
    assert "checking" in drawn(view), "there is something to see before there is any news"
    view.show(news(story, 0, 7))
    text = drawn(view)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert rows == [["s", "w", "3", "0", "2", "", "1", "", "", ""], ["end", "w", "1", "1", "", "", "", "", "", ""]]
    assert "j  running" in text
    view.show(news(story, 7))
    text = drawn(view)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert rows == [["s", "w", "3", "0", "", "", "", "2", "2", "1"], ["end", "w", "1", "0", "", "", "", "1", "", ""]]
    assert "j  partial" in text
    events = text.splitlines()[-8:]
    assert events[-1].rstrip() == "job j: partial: s: 1 of 3 not accepted"
    assert "\x1b" not in text
    view.say("one more")
    assert drawn(view).rstrip().endswith("one more")


def test_markup_in_the_words_of_models_is_text() -> None:
    """What looks like rich's markup is shown as it was written."""
    story = Story((step("s", attempts=1),)).go_on()
    story.attempt("s", "fail", evidence="[bold]x[/bold] [/nope]")
    view = LiveView()
    view.show(news(story))
    assert "[bold]x[/bold] [/nope]" in drawn(view)


def test_a_narrow_terminal_breaks_nothing() -> None:
    """Long events are cut, not wrapped."""
    story, view = played(), LiveView()
    view.show(news(story))
    view.say("x" * 500)
    assert max(map(len, drawn(view, 40).splitlines())) <= 40


def test_where_there_is_no_terminal_the_view_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    """By default it writes to the standard error of the moment."""
    with open_view() as view:
        assert isinstance(view, PlainView)
        view.say("hello")
    assert capsys.readouterr().err == "hello\n"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_logs_appear_above_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the table is drawn, log lines go through it; afterwards they go to standard error as before."""
    terminal: TextIO = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    log = logging.getLogger("interlock.test")
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        with open_view() as view:
            check: View = view
            check.say("hello")
            log.warning("above")
            assert sys.stderr is not terminal
        log.warning("below")
    finally:
        root.handlers[:] = before
    assert sys.stderr is terminal
    assert isinstance(terminal, Terminal)
    text = terminal.getvalue()
    assert text.index("above") < text.index("below")
    assert text.count("above") == text.count("below") == 1


def test_the_title_counts_the_seconds() -> None:
    """A running job's title says for how long it has run."""
    story, view = played(), LiveView()
    submitted = story.log[0].message.model_copy(update={"at": datetime.now(UTC)})
    story.log, story.state = [], JobState()
    story.tell(submitted)
    view.show(Progress((), story.state))
    assert "j  running  0 s, 0 calls, 0 tokens" in drawn(view)
