"""A stand-in for a model, to see a team plan without one: its first plan has two mistakes, its first notice a third."""

from typing import Any

from interlock.testing import Answer, Call, CallTool

_FACTS = (
    "The council closed the mill bridge to cars on Monday: two of its nine arches are cracked. "
    "The repair begins in May and takes eleven weeks."
)
_NOTICE = (
    "The council closed the mill bridge to cars on Monday, since two of its nine arches are cracked. "
    "The repair begins in May and takes eleven weeks."
)


def answer(call: Call) -> Answer | CallTool | dict[str, Any]:
    """Answer one request: plan, look up, write or judge, whichever is asked for."""
    text = call.conversation
    if "You are the manager of a team" in text:
        return plan(text)
    if "You check an answer" in text:
        return {"c1": {"evidence": "The notice speaks of the bridge and of the repair.", "holds": True, "change": ""}}
    if "You look things up" in text:
        return look_up(call)
    made_up = "" if "was not accepted" in text else " It will cost 40000 crowns."
    return Answer(_NOTICE + made_up)


def plan(text: str) -> dict[str, Any]:
    """Answer a question at once, refuse what nobody can do, and plan the rest; badly, until told what is wrong."""
    goal = text.partition("The goal: ")[2].partition("\n")[0]
    if "how many arches" in goal.lower():
        return {"makes": "question", "text": "Which bridge do you mean?", "steps": []}
    if goal.endswith("?"):
        return {"makes": "answer", "text": "A notice is a short text that tells people what has changed.", "steps": []}
    if "print" in goal.lower():
        return {"makes": "refusal", "text": "No agent of the team can print: they read and write only.", "steps": []}
    corrected = "cannot be used" in text
    return {"makes": "plan", "text": "", "steps": [facts(corrected), notice()]}


def facts(corrected: bool) -> dict[str, Any]:
    """Plan the looking up; at first with an agent and a tool that there are not."""
    return {
        "step": "facts",
        "agent": "researcher" if corrected else "reporter",
        "do": "Look up in the folder archive what is known for this: {{ goal }}. Write the facts down.",
        "needs": [],
        "for_each": "",
        "output": [{"field": "facts", "type": "string"}],
        "criteria": [{"kind": "words", "field": "facts", "value": "10-80"}],
        "tools": [
            {"tool": "files.list", "pin": []},
            {"tool": "files.read" if corrected else "archive.read", "pin": []},
        ],
    }


def notice() -> dict[str, Any]:
    """Plan the writing, with what the notice must keep to."""
    return {
        "step": "notice",
        "agent": "writer",
        "do": "Write a notice of two or three sentences from these facts only: {{ steps.facts.output.facts }}",
        "needs": ["facts"],
        "for_each": "",
        "output": [],
        "criteria": [
            {"kind": "words", "field": "", "value": "15-60"},
            {"kind": "grounded", "field": "", "value": "{{ steps.facts.output.facts }}"},
            {"kind": "judge", "field": "", "value": "It says what has changed, and for how long."},
        ],
        "tools": [],
    }


def look_up(call: Call) -> CallTool | Answer | dict[str, Any]:
    """List the folder, read the page, then write the facts down."""
    steps = [CallTool("files.list", {"path": "archive"}), CallTool("files.read", {"path": "archive/mill-bridge.md"})]
    if len(call.observations) < len(steps):
        return steps[len(call.observations)]
    return Answer("I know enough.") if call.schema is None else {"facts": _FACTS}
