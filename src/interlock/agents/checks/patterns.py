"""Whether a text or value is one of those that are wanted: regex, one_of and contains."""

from functools import lru_cache

import regex

from interlock.agents.checks.finding import Finding, failed, held, listed, quoted, undecided
from interlock.agents.checks.text import folded
from interlock.agents.checks.values import same
from interlock.protocol.base import Json, canonical_json
from interlock.protocol.criteria import ContainsCheck, OneOfCheck, RegexCheck

__all__ = ["SEARCH_SECONDS", "check_contains", "check_one_of", "check_regex", "is_found"]

SEARCH_SECONDS = 1.0
"""How long one search for a pattern may take."""


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> "regex.Pattern[str]":
    return regex.compile(pattern)


def is_found(pattern: str, text: str) -> bool:
    """Return whether the pattern is found in ``text``.

    :raises TimeoutError: the search took more than ``SEARCH_SECONDS``
    :raises regex.error: the pattern is no pattern
    """
    return _compiled(pattern).search(text, timeout=SEARCH_SECONDS) is not None


def check_regex(criterion: RegexCheck, text: str) -> Finding:
    """Return whether the pattern is found; undecided where it is no pattern or takes too long."""
    pattern = quoted(criterion.pattern)
    try:
        found = is_found(criterion.pattern, text)
    except TimeoutError:
        return undecided(f"searching for the pattern {pattern} took more than {SEARCH_SECONDS:g} s")
    except regex.error as problem:
        return undecided(f"{pattern} is no pattern: {problem}")
    if found:
        return held(f"the pattern {pattern} is found")
    return failed(f"the pattern {pattern} is not found in {quoted(text)}", f"Write it so that it matches {pattern}.")


def check_one_of(criterion: OneOfCheck, value: Json) -> Finding:
    """Return whether the value equals one of those that are allowed."""
    shown = _shown(value)
    if any(same(value, allowed) for allowed in criterion.values):
        return held(f"{shown} is one of the allowed values")
    allowed = ", ".join(map(_shown, criterion.values))
    return failed(f"{shown} is none of {allowed}", f"Give exactly one of: {allowed}.")


def _shown(value: Json) -> str:
    return quoted(value) if isinstance(value, str) else quoted(canonical_json(value)).strip('"')


def check_contains(criterion: ContainsCheck, text: str) -> Finding:
    """Return whether the text holds what it must and nothing that it must not; what is forbidden counts first."""
    within = folded(text)
    forbidden = [part for part in criterion.none if folded(part) in within]
    missing = [part for part in criterion.all if folded(part) not in within]
    lacking = criterion.any if not any(folded(part) in within for part in criterion.any) else ()
    problems = [
        (forbidden, f"holds {listed(forbidden)}, which it must not", f"Leave out {listed(forbidden)}."),
        (missing, f"lacks {listed(missing)}", f"Write {listed(missing)} in it."),
        (lacking, f"holds none of {listed(lacking)}", f"Write at least one of {listed(lacking)} in it."),
    ]
    present = [(evidence, change) for parts, evidence, change in problems if parts]
    if not present:
        return held("holds what it must and nothing that it must not")
    return failed("; ".join(evidence for evidence, _ in present), " ".join(change for _, change in present))
