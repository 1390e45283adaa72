"""Words of a shell: what is known of them, and how they are written so that a shell takes them for just that."""

import re
from dataclasses import dataclass

from interlock.agents.tools._shell_wrappers import NotUnderstood
from interlock.protocol._patterns import MANY

MAX_COMMAND = 16_384
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
_SAFE = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_SPECIAL = re.compile(r"[{}\[\]$`\"'|&;<>()\n]|^#|(^|[=:])~")
_RESERVED = {
    *("if", "then", "else", "elif", "fi", "case", "esac", "for", "select", "while", "until", "do", "done", "in"),
    *("function", "time", "coproc", "{", "}", "!", "[["),
}


@dataclass(frozen=True)
class Word:
    """A word of a command."""

    text: str
    """What the command gets; ``UNKNOWN`` for characters, ``MANY`` for words that are known only when it runs."""
    shell: str
    """How it is written for the shell."""


def literal(text: str, *, name: bool = False) -> str:
    """Return ``text`` as one word that stands for itself; ``name``: as that of a command, never a word of the shell."""
    if _SAFE.fullmatch(text) and not text.startswith("=") and not (name and (text in _RESERVED or "=" in text)):
        return text
    if name and text == "[":
        return text
    return "'" + text.replace("'", "'\"'\"'") + "'"


def plain(text: str, *, splits: bool = True) -> Word:
    """Return the word that a text without quotes stands for.

    :raises NotUnderstood: it holds characters that mean something to a shell, other than ``*`` and ``?``.
    """
    if text in {"[", "]", "!", "{}"}:
        return Word(text, text if text in {"[", "]"} else literal(text))
    pieces = re.findall(r"\\.|[^\\]|\\$", text, re.DOTALL)
    bare = "".join(piece for piece in pieces if not piece.startswith("\\"))
    if _SPECIAL.search(bare) or any(piece in {"\\", "\\\n"} for piece in pieces):
        raise NotUnderstood(f"{text[:60]!r} holds characters that mean something to a shell: put it in single quotes")
    if splits and ("*" in bare or "?" in bare):
        return Word(MANY, "".join(piece if piece in "*?" else literal(piece[-1]) for piece in pieces))
    content = "".join(piece[-1] for piece in pieces)
    return Word(content, literal(content))


def check_text(text: str) -> None:
    """Refuse what is no text of a command line at all.

    :raises NotUnderstood: it is empty, too long, or holds characters that nobody sees
    """
    if len(text) > MAX_COMMAND:
        raise NotUnderstood(f"it is longer than {MAX_COMMAND} characters")
    if _CONTROL.search(text):
        raise NotUnderstood("it holds control characters")
    if not text.strip():
        raise NotUnderstood("it is empty")
