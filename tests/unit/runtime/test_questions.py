"""What a person is told of questions, and which answers are taken, from a log."""

from datetime import timedelta

import pytest
from tests.unit.protocol.story import NOW, Story, step

from interlock.protocol.messages import Approval, QuestionAnswered
from interlock.runtime.asking import span_in_words
from interlock.runtime.client import JobNotFound, Progress
from interlock.runtime.questions import (
    AnswerInvalid,
    JobAmbiguous,
    KnownQuestion,
    QuestionAlreadyAnswered,
    QuestionAmbiguous,
    QuestionClosed,
    QuestionExpired,
    QuestionNotFound,
    answering,
    choose_job,
    choose_question,
    questions_of,
    told,
)

APPROVAL = Approval(
    tool="mail.send",
    arguments={"to": "a@example.org", "text": "x" * 500 + "\n\u200b"},
    digest="d",
    effect="irreversible",
)


def asking(**fields: object) -> Story:
    """Return a job of two items, of which the first asks."""
    story = Story((step("s", items=True),), items={"s": 2}).go_on()
    story.ask("s:0", "q-ab12", **fields)
    return story


def known(story: Story) -> list[KnownQuestion]:
    return questions_of([Progress(tuple(story.log), story.state)], story.now)


def answered(story: Story, question: str, text: str) -> QuestionAnswered:
    return answering(story.state, choose_question("j", question, known(story)), text, "")


def test_an_open_question_is_told_with_its_exact_call() -> None:
    """Nothing of a call is cut or hidden where a person decides on it, and the deadline is in words."""
    story = asking(approval=APPROVAL, expires=NOW + timedelta(hours=1, seconds=5))
    (question,) = known(story)
    assert question.status == "open"
    assert list(told(question, NOW + timedelta(seconds=65))) == [
        "q-ab12  s:0, attempt 1 by w@t, job j",
        "  May it?",
        "  mail.send (irreversible)",
        '    to="a@example.org"',
        f'    text="{"x" * 500}\\n\\u200b"',
        "  asked 1 min 5 s ago; without an answer in 59 min 'no' counts",
        "  interlock answer j q-ab12 yes|no",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3_605, "1 h"),
        (3_660, "1 h 1 min"),
        (200_000, "2 d 7 h"),
        (-5, "0 s"),
    ],
)
def test_a_span_has_two_units(seconds: float, words: str) -> None:
    """Enough to know how long there is, and no more; the past is no time."""
    assert span_in_words(seconds) == words


def test_a_doubt_without_an_answer_stays_one() -> None:
    """Nobody is told that a no counts where the question is whether something took place."""
    story = asking(about="doubt", options=("done", "not_done"), default=None, expires=NOW + timedelta(seconds=9))
    assert "  asked 0 s ago; without an answer in 9 s it stays in doubt" in list(told(known(story)[0], NOW))


def test_the_answer_follows_whatever_stands_in_the_chain() -> None:
    """It names the question, is spelt as the option, and answers the head of the task's chain."""
    story = asking()
    message = answered(story, "ab", "YES ")
    assert (message.task, message.attempt, message.question, message.answer) == ("s:0", 1, "q-ab12", "yes")
    story.tell(message)
    assert story.state.refused == 0
    (question,) = known(story)
    assert (question.status, question.answer, question.by_default) == ("answered", "yes", False)
    assert "  answered with 'yes'" in list(told(question, NOW))


def test_an_answer_that_is_no_option_says_which_are() -> None:
    """So does an empty answer to a question for free text."""
    with pytest.raises(AnswerInvalid, match="'maybe' is no answer to question q-ab12: it is one of yes, no"):
        answered(asking(), "q-ab12", "maybe")
    with pytest.raises(AnswerInvalid, match="a text that is not empty"):
        answered(asking(options=()), "q-ab12", " ")
    assert answered(asking(options=()), "q-ab12", "as you like").answer == "as you like"


@pytest.mark.parametrize(("by_default", "how"), [(False, "somebody answered it with 'no'"), (True, "nobody answered")])
def test_a_question_is_answered_once(by_default: bool, how: str) -> None:
    """The second answer is refused, and says what the first one was, also when the attempt went on since."""
    story = asking()
    story.answer("s:0", "no", "q-ab12", by_default=by_default)
    for _ in range(2):
        with pytest.raises(QuestionAlreadyAnswered, match=how):
            answered(story, "q-ab12", "yes")
        story.go_on()
    story.ask("s:0", "q-cd34")
    with pytest.raises(QuestionAlreadyAnswered, match=how):
        answered(story, "q-ab12", "yes")
    assert [one.status for one in known(story)] == ["answered", "open"]


def test_an_answer_after_the_deadline_is_too_late() -> None:
    """Also before a manager has written the default."""
    story = asking(expires=NOW + timedelta(seconds=1))
    story.now += timedelta(seconds=1)
    assert known(story)[0].status == "expired"
    with pytest.raises(QuestionExpired, match="until 2026-01-01 00:00:01 UTC"):
        answered(story, "q-ab12", "yes")


def test_a_question_of_a_job_that_is_over_needs_no_answer() -> None:
    """It was not answered, and nobody waits for it."""
    story = asking()
    story.killed = "stop"
    story.go_on()
    assert known(story)[0].status == "closed"
    with pytest.raises(QuestionClosed, match="task s:0 of job j"):
        answered(story, "q-ab12", "yes")


def test_a_question_that_the_machine_refused_is_not_open() -> None:
    """What another role wrote into a chain asks nobody anything."""
    story = Story((step("s"),)).go_on()
    story.ask("s", "q-ab12", by="x@t")
    assert [one.status for one in known(story)] == ["closed"]


def test_ids_may_be_cut_where_that_is_clear() -> None:
    """The beginning of an id is enough; several that fit, or none, are an error that lists what there is."""
    story = asking()
    story.ask("s:1", "q-ac")
    story.tell(story.log[-1].message)
    assert choose_question("j", "q-ac", known(story)).id == "q-ac"
    assert choose_question("j", "ab", known(story)).id == "q-ab12"
    with pytest.raises(QuestionAmbiguous, match="q-ab12, q-ac"):
        choose_question("j", "q-a", known(story))
    with pytest.raises(QuestionNotFound, match="no question 'x' in job j; there are q-ab12, q-ac"):
        choose_question("j", "x", known(story))
    assert choose_job("t-1", ["t-1", "t-12"]) == "t-1"
    assert choose_job("t-12", ["t-1", "t-123"]) == "t-123"
    with pytest.raises(JobAmbiguous, match="t-12, t-13"):
        choose_job("t-1", ["t-12", "t-13"])
    with pytest.raises(JobNotFound, match="no job 'x'"):
        choose_job("x", ["t-1"])
