"""A stand-in for a model, to see the brief team at work without one. Its first edit is too long-winded."""

from typing import Any

from interlock.testing import Call

OUTLINE = {
    "reasoning": "The survey shows the demand, Harwick shows a way that the town can pay for.",
    "answer": "Yes: open on Sundays from 12 to 17, with 2 staff and volunteers, as Harwick does.",
    "points": [
        "61 % of 412 people would come on Sundays",
        "4 staff cost 38,000 a year, the town has 25,000",
        "Harwick opens with 2 staff and volunteers at the desk",
        "the union agrees if Sunday work is voluntary",
    ],
}
DRAFT = """\
The library should open on Sundays from 12 to 17, with 2 staff and volunteers. In the survey 61 % of 412 people would \
come, most of them families and people who work on weekdays. With 4 staff it costs 38,000 a year at Sunday rates, and \
the town has 25,000. Harwick shows another way: it has 2 staff, puts volunteers at the desk, closes the reading room, \
and visits rose by 9 %. The union agrees if it is voluntary and every Sunday is followed by a free day."""
EDITED = """\
The library should open on Sundays from 12 to 17, with 2 staff and volunteers. In the survey 61 % of 412 people would \
come. Most of them are families and people who work on weekdays. With 4 staff it costs 38,000 a year. The town has \
25,000. Harwick has 2 staff, puts volunteers at the desk and closes the reading room. Its visits rose by 9 %. The \
union agrees if it is voluntary. Every Sunday must be followed by a free day."""

OPINION = {"evidence": "It begins: the library should open on Sundays.", "holds": True, "change": ""}


def answer(call: Call) -> str | dict[str, Any]:
    """Answer one request, told apart by what the team's file says to the model."""
    if "Plan a brief" in call.conversation:
        return OUTLINE
    if "Write a brief" in call.conversation:
        return DRAFT
    if "Edit this brief" in call.conversation and "You check an answer" not in call.conversation:
        redo = "was not accepted" in call.conversation
        return {"title": "Sunday opening: yes, with volunteers", "text": EDITED if redo else DRAFT}
    return {"c1": OPINION, "c2": OPINION}  # the critic judges two statements
