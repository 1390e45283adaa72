"""What ``interlock questions`` and ``interlock answer`` do: find what agents ask in the log, and answer it there."""

import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Literal

from interlock.protocol.messages import JOB_TASK, QuestionAnswered, QuestionAsked
from interlock.protocol.state import JobState, Phase, Question
from interlock.runtime.asking import deadline_in_words, plainly, question_in_words, to_answer
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import AnswerRefused
from interlock.runtime.client import JobNotFound, Progress, history
from interlock.runtime.place import Place, open_log
from interlock.runtime.report import QuestionReport, question_report

__all__ = [
    "UNANSWERABLE",
    "AnswerInvalid",
    "JobAmbiguous",
    "KnownQuestion",
    "QuestionAlreadyAnswered",
    "QuestionAmbiguous",
    "QuestionClosed",
    "QuestionExpired",
    "QuestionNotFound",
    "answer",
    "answering",
    "choose_job",
    "choose_question",
    "find",
    "give_answer",
    "questions_of",
    "told",
]

_MARK = "q-"
"""Begins the ids of questions, and may be left out by who types one."""


class JobAmbiguous(LookupError):
    """The beginning of an id that several jobs share."""

    def __init__(self, prefix: str, jobs: Sequence[str]) -> None:
        self.prefix = prefix
        self.jobs = tuple(jobs)
        super().__init__(f"{prefix!r} may be any of the jobs {', '.join(jobs)}: type more of it")


class QuestionNotFound(LookupError):
    """No such question in the job."""

    def __init__(self, job: str, question: str, known: Sequence[str]) -> None:
        self.job = job
        self.question = question
        listed = f"; there are {', '.join(known)}" if known else "; there are none"
        super().__init__(f"no question {question!r} in job {job}{listed}")


class QuestionAmbiguous(LookupError):
    """The beginning of an id that several questions of the job share."""

    def __init__(self, job: str, prefix: str, questions: Sequence[str]) -> None:
        self.job = job
        self.prefix = prefix
        self.questions = tuple(questions)
        super().__init__(f"{prefix!r} may be any of the questions {', '.join(questions)} of job {job}: type more of it")


class AnswerInvalid(ValueError):
    """An answer that the question does not offer."""

    def __init__(self, question: str, answer: str, options: Sequence[str]) -> None:
        self.question = question
        self.answer = answer
        self.options = tuple(options)
        wanted = f"one of {', '.join(options)}" if options else "a text that is not empty"
        super().__init__(f"{answer!r} is no answer to question {question}: it is {wanted}")


class QuestionAlreadyAnswered(Exception):
    """Somebody was faster, or the time was over."""

    def __init__(self, question: str, answer: str, *, by_default: bool) -> None:
        self.question = question
        self.answer = answer
        self.by_default = by_default
        how = "nobody answered in time, so it counts as" if by_default else "somebody answered it with"
        super().__init__(f"question {question} is over: {how} {answer!r}")


class QuestionExpired(Exception):
    """The time for an answer is over."""

    def __init__(self, question: str, expired: datetime) -> None:
        self.question = question
        self.expired = expired
        super().__init__(f"question {question} could be answered until {expired:%Y-%m-%d %H:%M:%S} UTC")


class QuestionClosed(Exception):
    """Nobody waits for the answer any more."""

    def __init__(self, question: str, task: str, job: str) -> None:
        self.question = question
        self.task = task
        self.job = job
        whose = f"job {job}" if task == JOB_TASK else f"task {task} of job {job}"
        super().__init__(f"question {question} needs no answer any more: {whose} went on or has ended")


UNANSWERABLE = (
    AnswerInvalid,
    JobAmbiguous,
    QuestionAlreadyAnswered,
    QuestionAmbiguous,
    QuestionClosed,
    QuestionExpired,
    QuestionNotFound,
)
"""Why an answer is not taken."""


class KnownQuestion(QuestionReport):
    """A question, and how it stands with it."""

    status: Literal["open", "answered", "expired", "closed"]
    """``expired``: its time is over and the default is about to count. ``closed``: it has no answer and needs none."""
    answer: str | None = None
    by_default: bool = False
    note: str = ""


def told(question: KnownQuestion, now: datetime) -> Iterator[str]:
    """Yield the lines that tell a person what is asked, and how to answer it or what became of it."""
    yield from question_in_words(question)
    match question.status:
        case "open":
            yield f"  {deadline_in_words(question, now)}"
            yield f"  {to_answer(question)}"
        case "answered":
            note = f", with the note {question.note!r}" if question.note else ""
            how = "nobody answered in time, which counts as" if question.by_default else "answered with"
            yield plainly(f"  {how} {question.answer!r}{note}")
        case "expired":
            yield "  its time is over"
        case "closed":
            yield "  it needs no answer any more"


def questions_of(news: Iterable[Progress], now: datetime) -> list[KnownQuestion]:
    """Return all questions of one job, from all that the log has of it, oldest first."""
    asked: dict[tuple[str, str], QuestionAsked] = {}
    answers: dict[tuple[str, str], QuestionAnswered] = {}
    state = JobState()
    for progress in news:
        state = progress.state
        for entry in progress.entries:
            match entry.message:
                case QuestionAsked() as message:
                    asked.setdefault((message.task, message.question), message)
                case QuestionAnswered() as message:
                    answers.setdefault((message.task, message.question), message)
                case _:
                    pass
    return [_known(state, one, answers.get(place), now) for place, one in asked.items()]


def _known(state: JobState, asked: QuestionAsked, given: QuestionAnswered | None, now: datetime) -> KnownQuestion:
    task = state.tasks.get(asked.task)
    newest = _question_of(state, asked.task)
    if newest is not None and newest.asked == asked:  # what the machine took counts, whatever else was written
        given = newest.answer
    report = question_report(asked, task.label if task else "")
    known = KnownQuestion(**dict(report), status="closed")
    if given is not None:
        said = {"answer": given.answer, "by_default": given.by_default, "note": given.note}
        return known.model_copy(update={"status": "answered", **said})
    if not _waits(state, asked):
        return known
    over = asked.expires is not None and asked.expires <= now
    return known.model_copy(update={"status": "expired" if over else "open"})


def _question_of(state: JobState, chain: str) -> Question | None:
    """Return the newest question in a chain, as far as the machine knows one."""
    if chain == JOB_TASK:
        return state.question
    task = state.tasks.get(chain)
    return task.question if task else None


def _waits(state: JobState, asked: QuestionAsked) -> bool:
    newest = _question_of(state, asked.task)
    task = state.tasks.get(asked.task)
    waits = asked.task == JOB_TASK or (task is not None and task.phase is Phase.ASKED)
    return waits and state.closed is None and newest is not None and newest.asked == asked


async def find(place: Place, job: str | None = None) -> list[KnownQuestion]:
    """Return the questions of one job, named by its id or the beginning of it, or of all; oldest first.

    :raises JobNotFound: there is no such job
    :raises JobAmbiguous: there are several
    :raises BrokerError: the embedded broker cannot be started
    :raises BusError: the broker cannot be reached
    """
    async with open_log(place, "questions") as bus:
        jobs = await bus.jobs()
        chosen = jobs if job is None else [choose_job(job, jobs)]
        found = [one for name in chosen for one in await _questions(bus, name)]
    return sorted(found, key=lambda one: one.asked)


async def answer(place: Place, job: str, question: str, text: str, note: str = "") -> KnownQuestion:
    """Answer a question in the log of ``place`` as ``give_answer`` does.

    :raises BrokerError: the embedded broker cannot be started
    """
    async with open_log(place, "answer") as bus:
        return await give_answer(bus, job, question, text, note)


async def give_answer(bus: Bus, job: str, question: str, text: str, note: str = "") -> KnownQuestion:
    """Answer a question and return it with its answer; job and question are named by the beginning of their ids.

    :raises JobNotFound: there is no such job
    :raises JobAmbiguous: there are several
    :raises QuestionNotFound: the job has no such question
    :raises QuestionAmbiguous: it has several
    :raises AnswerInvalid: the question does not offer this answer
    :raises QuestionAlreadyAnswered: it has an answer
    :raises QuestionExpired: its time is over
    :raises QuestionClosed: its task does not wait for it any more
    :raises BusError: the broker cannot be reached
    """
    name = choose_job(job, await bus.jobs())
    while True:
        news = [progress async for progress in _history(bus, name)]
        chosen = choose_question(name, question, questions_of(news, datetime.now(UTC)))
        given = answering(news[-1].state, chosen, text, note)
        try:
            await bus.append(given)
        except AnswerRefused:
            continue  # somebody wrote there meanwhile: what that was says whether an answer is still wanted
        return chosen.model_copy(update={"status": "answered", "answer": given.answer, "note": note})


async def _history(bus: Bus, job: str) -> AsyncIterator[Progress]:
    async with aclosing(history(bus, job)) as news:
        async for progress in news:
            yield progress


async def _questions(bus: Bus, job: str) -> list[KnownQuestion]:
    return questions_of([progress async for progress in _history(bus, job)], datetime.now(UTC))


def choose_job(prefix: str, jobs: Sequence[str]) -> str:
    """Return the job whose id is or begins with ``prefix``.

    :raises JobNotFound: there is none
    :raises JobAmbiguous: there are several, and none is called just so
    """
    matching = [prefix] if prefix in jobs else [job for job in jobs if job.startswith(prefix)]
    if not matching:
        raise JobNotFound(prefix, jobs)
    if len(matching) > 1:
        raise JobAmbiguous(prefix, matching)
    return matching[0]


def choose_question(job: str, prefix: str, known: Sequence[KnownQuestion]) -> KnownQuestion:
    """Return the question of ``job`` whose id is or begins with ``prefix``.

    :raises QuestionNotFound: there is none
    :raises QuestionAmbiguous: there are several, and none is called just so
    """
    exact = [one for one in known if prefix == one.id]
    matching = exact or [one for one in known if one.id.startswith((prefix, _MARK + prefix))]
    if not matching:
        raise QuestionNotFound(job, prefix, [one.id for one in known])
    if len(matching) > 1:
        raise QuestionAmbiguous(job, prefix, [one.id for one in matching])
    return matching[0]


def answering(state: JobState, question: KnownQuestion, text: str, note: str) -> QuestionAnswered:
    """Return the message that answers ``question``, of a job in ``state``.

    :raises AnswerInvalid: the question does not offer this answer
    :raises QuestionAlreadyAnswered: it has an answer
    :raises QuestionExpired: its time is over
    :raises QuestionClosed: its task does not wait for it any more
    """
    newest = _question_of(state, question.task)
    match question.status:
        case "answered" if question.answer is not None:
            raise QuestionAlreadyAnswered(question.id, question.answer, by_default=question.by_default)
        case "expired" if question.expires is not None:
            raise QuestionExpired(question.id, question.expires)
        case "open" if newest is not None:
            asked = newest.asked
        case _:
            raise QuestionClosed(question.id, question.task, question.job)
    return QuestionAnswered(
        id=uuid.uuid4().hex,
        ns=asked.ns,
        job=asked.job,
        task=asked.task,
        attempt=asked.attempt,
        answers=state.head_of(asked.task),
        at=datetime.now(UTC),
        deadline=asked.deadline,
        epoch=asked.epoch,
        question=asked.question,
        answer=_option(question, text),
        note=note,
    )


def _option(question: KnownQuestion, text: str) -> str:
    """Return the answer as the question spells it; upper and lower case are the same."""
    if not question.options and text.strip():
        return text
    fitting = [option for option in question.options if option.casefold() == text.strip().casefold()]
    if not fitting and question.about == "plan" and text.strip():
        return text  # what is to be different
    if len(fitting) != 1:
        raise AnswerInvalid(question.id, text, question.options)
    return fitting[0]
