"""The words that every model of the protocol is made of: names, JSON, strict frozen models."""

import json
import math
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue, StringConstraints

__all__ = ["MAX_DEPTH", "Json", "Name", "Role", "Strict", "Usage", "canonical_json", "role_of"]

MAX_DEPTH = 64
"""How many arrays and objects may stand inside each other in a JSON value of a message."""


def _sound(value: JsonValue) -> JsonValue:
    level: list[JsonValue] = [value]
    for _ in range(MAX_DEPTH + 1):
        if any(isinstance(one, float) and not math.isfinite(one) for one in level):
            raise ValueError("holds a number that JSON does not have (infinite, or not a number)")
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return value
    raise ValueError(f"is nested deeper than {MAX_DEPTH} levels")


def _children(value: JsonValue) -> Iterable[JsonValue]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


Json = Annotated[JsonValue, AfterValidator(_sound)]
"""Any JSON value (null, boolean, number, string, array or object) of a bounded depth."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
"""A name that a person chose (team, agent, step, input): safe in subjects, file names and templates."""

Role = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}@[a-z][a-z0-9_-]{0,62}$")]
"""``agent@team``: the queue that an assignment or a result is meant for."""


class Strict(BaseModel):
    """A frozen model that refuses unknown fields and NaN."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        serialize_by_alias=True,
        use_attribute_docstrings=True,  # what a field means stands in its JSON Schema too
    )


class Usage(Strict):
    """What model calls cost. Sums with ``+``."""

    calls: int = 0
    """Answered requests to a model, retries after an error not included."""
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            calls=self.calls + other.calls,
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
        )


def role_of(agent: str, team: str) -> str:
    """Return the role ``agent@team``."""
    return f"{agent}@{team}"


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Json) -> str:
    """Return ``value`` as JSON with sorted keys and no spaces: equal values give equal text."""
    return _CANONICAL.encode(value)
