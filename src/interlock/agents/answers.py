"""Reading JSON out of what a model wrote."""

import json
import re
from collections.abc import Iterator

from pydantic_core import from_json

from interlock.protocol.base import Json, canonical_json

__all__ = ["NotJson", "embedded_json", "parse_json"]

_FENCED = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)```", re.DOTALL)
_MOST_TRIES = 64
"""How many opening brackets are tried: each try may read to the end of the text."""


class NotJson(ValueError):
    """A text is no JSON value that a message can carry."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


def parse_json(text: str) -> Json:
    """Return the JSON value that ``text`` is, surrounding space aside.

    :raises NotJson: it is none, or it holds NaN, an infinite number or half a character
    """
    try:
        value: Json = from_json(text.strip().encode(), allow_inf_nan=False)
        canonical_json(value)  # a number such as 1e999 becomes infinite while it is parsed
    except (ValueError, RecursionError) as problem:
        raise NotJson(str(problem)) from None
    return value


def embedded_json(text: str) -> Iterator[Json]:
    """Return the JSON objects and arrays inside ``text``: those in code fences, then those in prose, last ones first.

    Models think aloud before the answer, so what stands last is likelier meant. Whoever takes one must validate it.
    """
    for piece in [*reversed(_FENCED.findall(text)), *reversed(_bracketed(text))]:
        try:
            yield parse_json(piece)
        except NotJson:
            continue


def _bracketed(text: str) -> list[str]:
    """Return the outermost pieces of ``text`` that begin with a bracket and read as JSON."""
    decoder, pieces, at = json.JSONDecoder(), [], 0
    for _ in range(_MOST_TRIES):
        opening = re.search(r"[{\[]", text[at:])
        if opening is None:
            break
        start = at + opening.start()
        try:
            _, at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            at = start + 1
        else:
            pieces.append(text[start:at])
    return pieces
