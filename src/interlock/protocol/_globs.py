"""Wildcards: ``*`` for any characters, everything else for itself. Matching takes time linear in the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

HOLE = "\0"
"""Stands in a text for characters that are known only later; no real text of a path, URL or command holds it."""


@dataclass(frozen=True)
class Glob:
    """A pattern, cut at its wildcards: ``a*b`` is ``("a", "b")``."""

    pieces: tuple[str, ...]

    @property
    def is_any(self) -> bool:
        """Whether it matches every text."""
        return len(self.pieces) > 1 and not any(self.pieces)

    @property
    def is_literal(self) -> bool:
        """Whether it matches one text only."""
        return len(self.pieces) == 1

    def matches(self, text: str) -> bool:
        """Return whether the whole of ``text`` fits."""
        first, *rest = self.pieces
        if not rest:
            return text == first
        *middle, last = rest
        end = len(text) - len(last)
        if not (text.startswith(first) and text.endswith(last)) or end < len(first):
            return False
        at = len(first)
        for piece in middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    def may_match(self, text: str) -> bool:
        """Return whether ``text`` could fit once its holes are filled; too often rather than too seldom."""
        if HOLE not in text:
            return self.matches(text)
        begin, end = text[: text.index(HOLE)], text[text.rindex(HOLE) + 1 :]
        first, last = self.pieces[0], self.pieces[-1]
        return _agree(begin, first) and _agree(end[::-1], last[::-1])

    def folded(self) -> "Glob":
        """Return the same pattern for folded texts."""
        from interlock.protocol._patterns import fold  # noqa: PLC0415 -- that module is made of this one

        return Glob(tuple(fold(piece) for piece in self.pieces))


def _agree(one: str, other: str) -> bool:
    size = min(len(one), len(other))
    return one[:size] == other[:size]


@lru_cache(maxsize=4096)
def parse_glob(pattern: str) -> Glob:
    r"""Return the glob that ``pattern`` spells; ``\*`` is a star that stands for itself, ``\\`` a backslash."""
    pieces, escaped = [""], False
    for character in pattern:
        if escaped:
            pieces[-1] += character if character in "*\\" else f"\\{character}"
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "*":
            pieces.append("")
        else:
            pieces[-1] += character
    pieces[-1] += "\\" if escaped else ""
    return Glob(_without_doubles(pieces))


def _without_doubles(pieces: Sequence[str]) -> tuple[str, ...]:
    """Return the pieces with ``**`` read as one star."""
    if len(pieces) <= 2:  # noqa: PLR2004 -- at most one star
        return tuple(pieces)
    return (pieces[0], *(piece for piece in pieces[1:-1] if piece), pieces[-1])
