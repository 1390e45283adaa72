"""The report of a large job: the same as that of a small one, and memory that tasks do not fill."""

import io

import pytest
from tests.unit.protocol.story import Story, step

from interlock.protocol.state import Entry
from interlock.runtime.lean import LeanFold
from interlock.runtime.report import listed_of, report_of
from interlock.runtime.reporting import ReportWriter
from interlock.runtime.show import print_state


def _written(entries: list[Entry]) -> str:
    out = io.StringIO()
    with ReportWriter() as writer:
        writer.take(entries)
        writer.write(out)
    return out.getvalue()


def _story(items: int, *, ended: bool) -> Story:
    """Return a job of which every third item failed, with a step of one task after the items."""
    steps = (step("s", items=True, attempts=1), step("end", needs=("s",)), step("more", items=True))
    story = Story(steps, items={"s": items, "more": 2}, parallel=items + 3).go_on()
    for number in range(items):
        if ended or number != 1:
            story.attempt(f"s:{number}", "fail" if number % 3 == 2 else "pass")
    if ended:
        story.attempt("more:1")
        story.attempt("more:0")
        story.attempt("end")
    return story


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("items", [0, 1, 7])
def test_a_report_is_written_as_the_model_prints_it(items: int, ended: bool) -> None:
    """Task by task from the log, byte for byte what the whole report is as JSON, also of a job that goes on."""
    story = _story(items, ended=ended)
    assert _written(story.log) == report_of(story.state).model_dump_json(indent=2) + "\n"


def test_a_job_that_has_no_plan_yet_has_a_report() -> None:
    """No tasks are an empty list."""
    story = Story((step("s"),))
    assert _written(story.log) == report_of(story.state).model_dump_json(indent=2) + "\n"


def test_a_large_job_is_told_by_its_counts_and_what_was_missed(capsys: pytest.CaptureFixture[str]) -> None:
    """Accepted tasks are forgotten and counted; of those that failed some are shown, and how many more there are."""
    lean = LeanFold()
    story = _story(300, ended=True)
    for entry in story.log:
        lean.take(entry)
        lean.forget()
    assert len([task for task in lean.state.tasks.values() if task.index is not None]) == 100
    print_state(lean.state)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "j: partial (s: 100 of 300 not accepted)"
    assert lines[1] == "  s: 200 of 300 accepted, 100 failed"
    assert lines[4].startswith("  s:2  w  failed after 1 attempt (fail): ")
    assert lines[53].startswith("  s:149  w  failed")
    assert lines[54] == "  and 50 more that were not accepted, which --json shows"
    assert lines[55].startswith("0 model calls")
    listed = listed_of(lean.state)
    assert (listed.accepted, listed.tasks, listed.report.status) == (203, 303, "partial")


def test_a_small_job_is_kept_whole() -> None:
    """Nothing is forgotten of a job whose every task is shown."""
    lean = LeanFold()
    story = _story(20, ended=True)
    for entry in story.log:
        lean.take(entry)
        lean.forget()
    assert lean.state == story.state
