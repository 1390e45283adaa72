"""A stand-in for a model, to see the triage team at work without one: it sorts by keywords and makes three mistakes."""

import re
from typing import Any

from interlock.testing import Call

TOPICS = {
    "billing": ("charged", "invoice"),
    "delivery": ("parcel", "delivery"),
    "defect": ("burnt", "blew", "flickers"),
}
URGENT = ("burnt", "fuse")


def answer(call: Call) -> str | dict[str, Any]:
    """Answer one request: sort a ticket where a schema is asked for, write a reply where free text is."""
    redo = "was not accepted" in call.conversation
    if call.schema is None:
        customer = after('begins with "Dear ', call).removesuffix('".')
        return reply(customer if redo else "customer")  # the first reply forgets the name
    text = after("Ticket: ", call)
    if "senior" in call.conversation:
        return {"reasoning": "I look for what the customer complains about.", **sort(text)}
    if "flickers" in text:
        return {**sort(text), "topic": "electricity"}  # the clerk insists on it, so the senior takes over
    if "charged" in text and not redo:
        return {**sort(text), "why": "The bank made a terrible blunder."}  # made up; right the second time
    return sort(text)


def after(words: str, call: Call) -> str:
    """Return the rest of the line in which ``words`` stand."""
    return call.conversation.partition(words)[2].partition("\n")[0]


def sort(text: str) -> dict[str, Any]:
    """Sort a ticket by its words."""
    return {
        "topic": next((topic for topic, words in TOPICS.items() if any(word in text for word in words)), "other"),
        "urgent": any(word in text for word in URGENT),
        "minutes": len(text.split()),
        "orders": re.findall(r"\b[A-Z]-[0-9]{4}\b", text),
        "why": re.split(r"[.?]", text)[0] + ".",
    }


def reply(customer: str) -> str:
    """Write a reply that promises nothing but a call."""
    return f"Dear {customer},\nthank you for telling us. Please leave the lamp off. A person calls you within the hour."
