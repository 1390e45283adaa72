"""What templates use of a job: which inputs, and what of which steps. Only that has to be at hand to render them."""

from collections.abc import Iterable
from dataclasses import dataclass

from interlock.agents.templates import find_references

__all__ = ["LISTS", "Uses", "uses_in"]

LISTS = frozenset({"outputs", "results", "failures"})
"""What of a step of many tasks is as long as its list."""


@dataclass(frozen=True, slots=True)
class Uses:
    """What some templates use. Where they do not spell it out, it is everything."""

    paths: frozenset[tuple[str, ...]]

    def input(self, name: str) -> bool:
        """Return whether the value of an input is used."""
        return bool(self.paths & {("inputs",), ("inputs", name)})

    def lists(self, step: str) -> frozenset[str]:
        """Return which of the ``LISTS`` of a step are used."""
        if self.paths & {("steps",), ("steps", step)}:
            return LISTS
        return frozenset(one for one in LISTS if ("steps", step, one) in self.paths)


def uses_in(templates: Iterable[str]) -> Uses:
    """Return what ``templates`` use.

    :raises interlock.agents.templates.TemplateInvalid: one is no template
    """
    paths = (reference.path for template in templates for reference in find_references(template))
    return Uses(frozenset(path[:3] if path[0] == "steps" else path[:2] for path in paths))
