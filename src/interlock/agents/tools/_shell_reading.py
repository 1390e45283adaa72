"""Command lines read into the commands that a shell would run, and written anew from what was read."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from interlock.agents.tools._shell_words import Word, check_text, literal, plain
from interlock.agents.tools._shell_wrappers import NotUnderstood, check_command, inner_commands
from interlock.protocol._globs import HOLE as UNKNOWN
from interlock.protocol._patterns import MANY

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

_MAX_COMMANDS = 200
_MAX_DEPTH = 30
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_VARIABLE = re.compile(r"[a-z_][a-z0-9_]*")
_ASCII = bytes(byte if byte < 128 else ord("x") for byte in range(256))  # noqa: PLR2004 -- where ASCII ends
"""What the parser sees of a line: to a shell, bytes beyond ASCII are letters, and tree-sitter-bash 0.25 looks them up
in tables that end at 255, which reads beyond memory. Places stay the same; texts are taken from the line itself."""
_SEPARATORS = {";", "&", "\n"}
_DEVICES = re.compile(r"/dev/(tcp|udp)(/|$)")


@cache
def _parser() -> "Parser":
    import tree_sitter_bash  # noqa: PLC0415 -- few teams have commands
    from tree_sitter import Language, Parser  # noqa: PLC0415

    return Parser(Language(tree_sitter_bash.language()))


@dataclass
class _Parts:
    """The words of a command while they are read."""

    assignments: list[Word]
    words: list[Word]


class Reading:
    """One parse, turned into a text for the shell while the commands are noted.

    :raises NotUnderstood: from any method: a part is not certainly understood
    """

    def __init__(self, text: str, depth: int) -> None:
        self.commands: list[tuple[str, ...]] = []
        self._source = text.encode()
        self._depth = depth

    def whole(self) -> str:
        """Return the line in its one form."""
        root = _parser().parse(self._source.translate(_ASCII)).root_node
        if root.has_error:
            raise NotUnderstood("it is no complete command line: a quote, a bracket or a word is missing")
        self._check_gaps(root)
        line = self._statements(root.children)
        if not self.commands:
            raise NotUnderstood("it runs nothing")
        return line

    def _check_gaps(self, node: "Node") -> None:
        """Refuse a line of which the parser leaves something out."""
        left = [node]
        while left:
            one = left.pop()
            if one.type in {"string", "heredoc_redirect"}:
                continue
            at = one.start_byte
            for child in one.children:
                if not re.fullmatch(r"([ \t\n]|\\\n)*", self._slice(at, child.start_byte)):
                    raise NotUnderstood(f"{_shown(one)} is not certainly understood")
                at = child.end_byte
            left += one.children

    def _note(self, *words: str) -> None:
        self.commands.append(words)
        if len(self.commands) > _MAX_COMMANDS:
            raise NotUnderstood(f"it runs more than {_MAX_COMMANDS} commands")

    # --- statements

    def _statements(self, nodes: "list[Node]") -> str:
        out: list[str] = []
        for node in nodes:
            if node.type in _SEPARATORS:
                out[-1:] = [f"{out[-1]} &"] if node.type == "&" and out else out[-1:]
            elif node.type != "comment":
                out.append(self._statement(node))
        return "".join(one + (" " if one.endswith(" &") else "; ") for one in out[:-1]) + "".join(out[-1:])

    def _statement(self, node: "Node") -> str:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotUnderstood("it is nested too deeply")
        try:
            return self._reader(node)(node)
        finally:
            self._depth -= 1

    def _reader(self, node: "Node") -> "Callable[[Node], str]":
        readers: dict[str, Callable[[Node], str]] = {
            "command": self._command,
            "test_command": self._test,
            "list": self._chain,
            "pipeline": self._chain,
            "negated_command": lambda one: f"! {self._statement(one.children[1])}",
            "subshell": lambda one: f"( {self._inner(one)} )",
            "compound_statement": lambda one: f"{{ {self._block(one.children[1:-1])} }}",
            "redirected_statement": self._redirected,
            "variable_assignment": self._lone_assignment,
            "if_statement": self._if,
            "for_statement": self._for,
            "while_statement": self._while,
        }
        if node.type not in readers or not node.is_named:
            raise NotUnderstood(f"{_shown(node)} is not allowed in commands ({node.type.replace('_', ' ')})")
        return readers[node.type]

    def _block(self, nodes: "list[Node]") -> str:
        body = self._statements(nodes)
        if not body:
            raise NotUnderstood("a block is empty")
        return body if body.endswith(" &") else f"{body};"

    def _chain(self, node: "Node") -> str:
        out: list[str] = []
        for child in node.children:
            if child.type in {"&&", "||", "|", "|&"}:
                out.append(child.type)
            elif child.type != "comment":
                out.append(self._statement(child))
        return " ".join(out)

    def _if(self, node: "Node") -> str:
        """Return an ``if`` with its clauses, which are laid out alike."""
        out: list[str] = []
        body: list[Node] = []
        for child in node.children:
            if child.type in {"if", "then", "fi", "elif", "else"} and not child.is_named:
                out += [self._block(body), child.type] if body else [child.type]
                body = []
            elif child.type in {"elif_clause", "else_clause"}:
                out += [self._block(body)] if body else []
                out.append(self._if(child))
                body = []
            else:
                body.append(child)
        return " ".join([*out, self._block(body)] if body else out)

    def _while(self, node: "Node") -> str:
        word, *condition, body = [child for child in node.children if child.type != "comment"]
        return f"{word.type} {self._block(condition)} {self._do(body)}"

    def _do(self, node: "Node") -> str:
        if node.type != "do_group":
            raise NotUnderstood(f"{_shown(node)} is no body of a loop")
        return f"do {self._block(node.children[1:-1])} done"

    def _for(self, node: "Node") -> str:
        word, name, *rest = [child for child in node.children if child.type not in {"comment", ";", "\n"}]
        if word.type != "for" or not rest or rest[0].type != "in":
            raise NotUnderstood("a loop must be written as: for NAME in WORDS; do ...; done")
        *items, body = rest[1:]
        variable = self._text(name)
        self._assigned(variable, UNKNOWN)
        words = " ".join(self._word(item).shell for item in items)
        return f"for {variable} in {words}; {self._do(body)}"

    # --- commands

    def _command(self, node: "Node") -> str:
        parts, tail = _Parts([], []), ""
        for one, two in zip(node.children, node.children[1:], strict=False):
            if self._slice(one.end_byte, two.start_byte).startswith("\\"):
                raise NotUnderstood("a line is continued in the middle of a word")
        for child in node.children:
            if child.type == "variable_assignment":
                parts.assignments.append(self._assignment(child))
            elif child.type == "herestring_redirect":
                tail += " " + self._herestring(child)
            elif child.type == "file_redirect":
                tail += " " + self._redirect(child)
            elif child.type == "command_name":
                parts.words.append(self._word(child.children[0]))
            else:
                parts.words.append(self._word(child))
        return self._written(parts) + tail

    def _written(self, parts: _Parts) -> str:
        """Note a command and return it as text."""
        for one in parts.assignments:
            self._note(one.text)
        self._run(tuple(word.text for word in parts.words))
        name = literal(parts.words[0].text, name=True)
        return " ".join([*(one.shell for one in parts.assignments), name, *(word.shell for word in parts.words[1:])])

    def _run(self, words: tuple[str, ...]) -> None:
        """Note a command and all that it makes others run."""
        check_command(words)
        self._note(*words)
        for inner in inner_commands(words):
            if isinstance(inner, str):
                self._script(inner)
            elif "=" in inner[0]:
                self._note(*inner)
            else:
                self._run(inner)

    def _script(self, text: str) -> None:
        """Note what a shell runs that is given a text; it gets it as it stands, so it must be in its one form."""
        check_text(text)
        inner = Reading(text, self._depth + 1)
        if inner._depth > _MAX_DEPTH:
            raise NotUnderstood("it is nested too deeply")
        if inner.whole() != text:
            raise NotUnderstood("a script in a script must be simple: run its commands by themselves")
        for words in inner.commands:
            self._note(*words)

    def _test(self, node: "Node") -> str:
        if node.children[0].type != "[":
            raise NotUnderstood("[[ ]] and (( )) can run what stands in their values: use [ ] with quotes")
        words = [self._word(leaf) for child in node.children[1:-1] for leaf in _leaves_of_test(child)]
        return self._written(_Parts([], [plain("["), *words, plain("]")]))

    def _lone_assignment(self, node: "Node") -> str:
        word = self._assignment(node)
        name, _, value = word.text.partition("=")
        self._assigned(name, value)
        return word.shell

    def _assigned(self, name: str, value: str) -> None:
        """Note a variable that is set; one of the script's own, in small letters, changes nothing for any program."""
        if not _VARIABLE.fullmatch(name):
            raise NotUnderstood(f"{name[:40]!r} is no name of a variable")
        if not _OWN_VARIABLE.fullmatch(name) or name.endswith("_proxy"):
            self._note(f"{name}={value}")

    def _assignment(self, node: "Node") -> Word:
        kinds = [child.type for child in node.children]
        if kinds[:2] != ["variable_name", "="] or len(kinds) > 3:  # noqa: PLR2004 -- name, sign, value
            raise NotUnderstood(f"{_shown(node)} is no plain assignment")
        value = self._word(node.children[2], splits=False) if len(kinds) == 3 else Word("", "")  # noqa: PLR2004
        name = self._text(node.children[0])
        if not _VARIABLE.fullmatch(name):
            raise NotUnderstood(f"{name[:40]!r} is no name of a variable")
        return Word(f"{name}={value.text}", f"{name}={value.shell}")

    # --- redirections

    def _redirected(self, node: "Node") -> str:
        first, *rest = node.children
        if first.type == "file_redirect":
            raise NotUnderstood("a redirection must stand behind its command")
        body = self._statement(first)
        return " ".join([body, *(self._redirection(one) for one in rest)])

    def _redirection(self, node: "Node") -> str:
        match node.type:
            case "file_redirect":
                return self._redirect(node)
            case "herestring_redirect":
                return self._herestring(node)
            case "heredoc_redirect":
                return self._heredoc(node)
            case _:
                raise NotUnderstood(f"{_shown(node)} is no redirection that is allowed")

    def _redirect(self, node: "Node") -> str:
        parts = list(node.children)
        number = self._text(parts.pop(0)) if parts[0].type == "file_descriptor" else ""
        if len(parts) != 2 or number not in {"", "0", "1", "2"}:  # noqa: PLR2004 -- operator and target
            raise NotUnderstood(f"{_shown(node)}: a redirection has one target, and stands behind the command's words")
        operator, target = parts[0].type, self._word(parts[1], splits=False)
        if operator in {">&", "<&"}:
            if target.text not in {"1", "2"} or operator == "<&":
                raise NotUnderstood(f"{_shown(node)}: only >&1 and >&2 join streams")
            return f"{number}{operator}{target.text}"
        if operator not in {">", ">>", "<", "&>", "&>>", ">|"}:
            raise NotUnderstood(f"{_shown(node)} is no redirection that is allowed")
        if _DEVICES.match(re.sub("/+", "/", target.text)) or ".." in target.text.split("/") or UNKNOWN in target.text:
            raise NotUnderstood(f"{_shown(node)}: the target must be the plain path of a file, without '..'")
        if target.text != "/dev/null":
            self._note("<" if operator == "<" else ">", target.text)
        return f"{number}{operator} {target.shell}"

    def _herestring(self, node: "Node") -> str:
        if [child.type for child in node.children[:-1]] != ["<<<"]:
            raise NotUnderstood(f"{_shown(node)} is no here-string that is allowed")
        return f"<<< {self._word(node.children[-1], splits=False).shell}"

    def _heredoc(self, node: "Node") -> str:
        """Return a here-document as a here-string; one that would be expanded is refused where that matters."""
        files = [child for child in node.children if child.type == "file_redirect"]
        parts = [child for child in node.children if child.type != "file_redirect"]
        if [child.type for child in parts] != ["<<", "heredoc_start", "heredoc_body", "heredoc_end"]:
            raise NotUnderstood("only files may stand behind a here-document: << 'END', its lines, END")
        start, body = self._text(parts[1]), self._text(parts[2])
        if not start.startswith(("'", '"')) and re.search(r"[$`\\]", body):
            raise NotUnderstood("a here-document with $, ` or \\ must have its end in quotes: << 'END'")
        return " ".join([f"<<< {literal(body.removesuffix(chr(10)))}", *map(self._redirect, files)])

    # --- words

    def _word(self, node: "Node", *, splits: bool = True) -> Word:
        """Return a word; ``splits`` says whether the shell cuts it and looks for files that fit it."""
        match node.type:
            case "word" | "number" | "test_operator" | "special_character" | "=" | "==" | "!=" | "!":
                return plain(self._text(node), splits=splits)
            case "raw_string":
                text = self._text(node)[1:-1]
                return Word(text, literal(text))
            case "string":
                return self._string(node)
            case "concatenation":
                return self._joined(node, splits=splits)
            case "process_substitution":
                return self._process(node)
            case "simple_expansion" | "expansion" | "command_substitution" if not splits:
                inner = self._expansion(node)
                return Word(UNKNOWN, f'"{inner}"')
            case "simple_expansion" | "expansion" | "command_substitution":
                raise NotUnderstood(f"{_shown(node)} can become any number of words: put it in double quotes")
            case _:
                raise NotUnderstood(f"{_shown(node)} is not allowed in commands ({node.type.replace('_', ' ')})")

    def _joined(self, node: "Node", *, splits: bool) -> Word:
        if self._text(node) == "{}":
            return Word("{}", "'{}'")
        if any(one.end_byte != two.start_byte for one, two in zip(node.children, node.children[1:], strict=False)):
            raise NotUnderstood(f"{_shown(node)} is not certainly one word")
        words = [self._word(child, splits=splits) for child in node.children]
        if any(word.text == MANY or word.shell.startswith(("<(", ">(")) for word in words):
            raise NotUnderstood(f"{_shown(node)}: a wildcard must stand in a word without quotes")
        text = re.sub(f"{UNKNOWN}+", UNKNOWN, "".join(word.text for word in words))
        return Word(text, "".join(word.shell for word in words))

    def _string(self, node: "Node") -> Word:
        texts: list[str] = []
        shells: list[str] = []
        for text, inner in self._inside(node):
            if inner is None:
                content = re.sub(r"\\([$`\"\\\n])", lambda found: found[1].strip("\n"), text)
                texts.append(content)
                shells.append(re.sub(r"([$`\"\\])", r"\\\1", content))
            else:
                texts.append(UNKNOWN)
                shells.append(self._expansion(inner))
        return Word(re.sub(f"{UNKNOWN}+", UNKNOWN, "".join(texts)), f'"{"".join(shells)}"')

    def _inside(self, node: "Node") -> "Iterator[tuple[str, Node | None]]":
        """Yield what stands between the quotes of a string: texts, and expansions."""
        at = node.children[0].end_byte
        for child in node.children[1:-1]:
            if child.type == "string_content" or not child.is_named:
                continue
            yield self._slice(at, child.start_byte), None
            yield "", child
            at = child.end_byte
        yield self._slice(at, node.children[-1].start_byte), None

    def _expansion(self, node: "Node") -> str:
        """Return an expansion as it stands between double quotes."""
        if node.type == "command_substitution":
            if node.children[0].type == "`" and "\\" in self._text(node):
                raise NotUnderstood("backslashes between backticks: write $( )")
            if node.children[0].type not in {"$(", "`"}:
                raise NotUnderstood(f"{_shown(node)} is not allowed in commands")
            return f"$( {self._inner(node)} )"
        found = re.fullmatch(r"\$\{?([A-Za-z_][A-Za-z0-9_]*|[?#1-9])\}?", self._text(node))
        if found is None:
            raise NotUnderstood(f"{_shown(node)}: only plain variables are allowed, as in $name")
        return f"${{{found[1]}}}"

    def _inner(self, node: "Node") -> str:
        body = self._statements(node.children[1:-1])
        if not body:
            raise NotUnderstood(f"{_shown(node)} runs nothing")
        return body

    def _process(self, node: "Node") -> Word:
        """Return ``<(...)``; the word that it becomes is a path that nobody knows yet."""
        opening = node.children[0].type
        if opening not in {"<(", ">("}:
            raise NotUnderstood(f"{_shown(node)} is not allowed in commands")
        return Word(UNKNOWN, f"{opening} {self._inner(node)} )")

    def _text(self, node: "Node") -> str:
        return self._slice(node.start_byte, node.end_byte)

    def _slice(self, start: int, end: int) -> str:
        return self._source[start:end].decode()


def _leaves_of_test(node: "Node") -> "Iterator[Node]":
    """Yield the words of ``[ ... ]``, which the parser reads as an expression."""
    if node.type in {"unary_expression", "binary_expression", "negated_expression"}:
        for child in node.children:
            yield from _leaves_of_test(child)
    else:
        yield node


def _shown(node: "Node") -> str:
    return repr((node.text or b"").decode(errors="replace")[:60])
