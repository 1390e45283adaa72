"""The paths of questions: what agents ask about a job, and answering it."""

from typing import Annotated

from fastapi import APIRouter, Depends

from interlock.runtime.api.access import job_for
from interlock.runtime.api.context import ApiContext, InContext
from interlock.runtime.api.keys import Caller, caller_with
from interlock.runtime.api.problems import (
    AnswerUnusable,
    JobUnknown,
    QuestionOver,
    QuestionUnknown,
    RequestInvalid,
    documented,
)
from interlock.runtime.api.schemas import AnswerRequest, QuestionList
from interlock.runtime.bus_errors import AnswerRefused
from interlock.runtime.questions import (
    AnswerInvalid,
    KnownQuestion,
    QuestionAlreadyAnswered,
    QuestionClosed,
    QuestionExpired,
    answering,
)

__all__ = ["answer", "give_answer", "questions", "router"]

router = APIRouter(prefix="/v1/jobs", tags=["questions"])


@router.get("/{job}/questions", responses=documented(JobUnknown))
async def questions(
    job: str, context: InContext, caller: Annotated[Caller, Depends(caller_with("read"))]
) -> QuestionList:
    """List what agents of a job ask, or asked."""
    known = await job_for(context, caller, job)
    found, _ = await context.reports.questions(known.job)
    return QuestionList(questions=tuple(found))


@router.post(
    "/{job}/questions/{question}/answer",
    responses=documented(JobUnknown, QuestionUnknown, QuestionOver, AnswerUnusable, RequestInvalid),
)
async def answer(
    job: str,
    question: str,
    request: AnswerRequest,
    context: InContext,
    caller: Annotated[Caller, Depends(caller_with("answer"))],
) -> KnownQuestion:
    """Answer a question."""
    known = await job_for(context, caller, job)
    return await give_answer(context, known.job, question, request.answer, request.note)


async def give_answer(context: ApiContext, job: str, question: str, text: str, note: str) -> KnownQuestion:
    """Answer a question of a job that is in the log, and return it with its answer.

    :raises QuestionUnknown: the job has no such question
    :raises QuestionOver: it needs no answer any more
    :raises AnswerUnusable: it does not offer this answer
    :raises BusError: the broker is out of reach
    """
    while True:
        found, state = await context.reports.questions(job)
        chosen = next((one for one in found if one.id == question), None)
        if chosen is None:
            raise QuestionUnknown
        try:
            given = answering(state, chosen, text, note)
            await context.bus.append(given)
        except AnswerInvalid as error:
            raise AnswerUnusable(str(error)) from None
        except (QuestionAlreadyAnswered, QuestionExpired, QuestionClosed) as error:
            raise QuestionOver(str(error)) from None
        except AnswerRefused:
            continue  # somebody wrote there meanwhile: what that was says whether an answer is still wanted
        return chosen.model_copy(update={"status": "answered", "answer": given.answer, "note": note})
