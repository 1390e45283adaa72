"""A stand-in for a model, to see the magazine at work without one: it makes one mistake at each of the two levels."""

from typing import Any

from interlock.testing import Call


def answer(call: Call) -> str | dict[str, Any]:
    """Answer one request: an outline, an article or the front page, by what is asked."""
    redo = "was not accepted" in call.conversation
    if call.schema is None:
        return "Autumn is here: the mill grinds, the bus runs every hour, and the apples are yours to pick."
    sentences = [part for part in after("Notes: ", call).rstrip(".").split(". ") if part]
    if "points" in str(call.schema):
        return {"points": sentences[:3]}
    topic = after("Topic: ", call)
    if topic == "The bus" and not redo:
        return {"title": topic, "text": "It runs."}  # too short for the desk's own subeditor
    title = f"{topic} as nobody in our village has ever seen it"  # too long for the magazine
    text = ". ".join(sentences) + "."
    return {"title": topic if topic != "The mill" or redo else title, "text": text}


def after(words: str, call: Call) -> str:
    """Return the rest of the line in which ``words`` stand last."""
    return call.conversation.rpartition(words)[2].partition("\n")[0]
