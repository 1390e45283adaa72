"""Commands that run other commands: what they run, or why that cannot be told."""

import posixpath
import re
from collections.abc import Iterator, Sequence

from interlock.protocol._globs import HOLE as UNKNOWN
from interlock.protocol._patterns import MANY

_NAME = re.compile(r"[A-Za-z0-9_.+/@:-]+|\[")

_BUILTINS = {
    *("cd", "echo", "exit", "false", "kill", "printf", "pwd", "read", "set", "test", "true", "wait", ":", "["),
    *("break", "continue", "umask"),
}
"""Builtins of the shell that run nothing else and change nothing but the shell."""

_OTHER_BUILTINS = {
    *(".", "alias", "bg", "bind", "builtin", "caller", "command", "compgen", "complete", "compopt", "declare", "dirs"),
    *("disown", "enable", "eval", "exec", "export", "fc", "fg", "getopts", "hash", "help", "history", "jobs", "let"),
    *("local", "logout", "mapfile", "popd", "pushd", "readarray", "readonly", "return", "shift", "shopt", "source"),
    *("suspend", "times", "trap", "type", "typeset", "ulimit", "unalias", "unset", "coproc", "select", "function"),
}
"""Builtins that can run what stands in their arguments, or change what later words mean."""

_SHELLS = {"bash", "dash", "sh"}

_OPAQUE = {
    *("busybox", "toybox", "chroot", "cgexec", "chrt", "csh", "doas", "entr", "expect", "fish", "flock", "ionice"),
    *("ltrace", "nsenter", "numactl", "parallel", "pkexec", "prlimit", "rlwrap", "run-parts", "runuser", "screen"),
    *("script", "setarch", "setpriv", "ssh", "start-stop-daemon", "strace", "su", "sudo", "systemd-run", "taskset"),
    *("tcsh", "tmux", "unshare", "watch", "at", "batch", "crontab", "gdb", "catchsegv", "faketime", "fakeroot"),
    *(
        "mksh",
        "ash",
        "zsh",
        "ksh",
        "rbash",
        "pwsh",
        "linux32",
        "linux64",
        "uname26",
        "i386",
        "x86_64",
        "choom",
        "unbuffer",
    ),
    *("daemonize", "proxychains", "torsocks", "valgrind", "perf", "bwrap", "firejail", "ld.so", "dpkg-architecture"),
}
"""Programs that run other programs in ways that are not read here."""

_PLAIN_PREFIXES: dict[str, tuple[frozenset[str], str, int]] = {
    # options that stand alone; options with a value behind them, as a regular expression; operands before the command
    "nohup": (frozenset(), "", 0),
    "time": (frozenset({"-p"}), "", 0),
    "setsid": (frozenset({"-w", "--wait", "-f", "--fork", "-c", "--ctty"}), "", 0),
    "nice": (frozenset(), r"-n", 0),
    "stdbuf": (frozenset(), r"-[ioe]", 0),
    "timeout": (frozenset({"--foreground", "--preserve-status", "-v", "--verbose"}), r"-[ks]", 1),
    "env": (frozenset({"-i", "-", "--ignore-environment"}), r"-u", 0),
    "xargs": (frozenset({"-0", "--null", "-r", "--no-run-if-empty", "-t", "-x"}), r"-[nLPd]", 0),
}

_FIND_RUNS = {"-exec", "-execdir", "-ok", "-okdir"}
_TESTS = re.compile(r"-[bcdefghknprstuwxzGLNOS]")
_COMPARISONS = {"=", "==", "!=", "<", ">", "-eq", "-ne", "-lt", "-le", "-gt", "-ge", "-nt", "-ot", "-ef"}
_SET = {"-e", "-u", "-eu", "-ue", "-x", "-f", "-eux", "-euo", "-eo", "-uo", "-o", "-euxo", "pipefail", "+e", "+u", "+x"}


class NotUnderstood(Exception):
    """A part of a command line is not certainly understood; the message is a reason for people."""


def check_command(words: Sequence[str]) -> None:
    """Refuse a command whose name is not known, or that can do more than its words say.

    :raises NotUnderstood: it is one.
    """
    name = words[0] if words else ""
    if UNKNOWN in name:
        raise NotUnderstood("the name of a command must stand there, not come from a variable or a wildcard")
    if not _NAME.fullmatch(name) or name.startswith("-"):
        raise NotUnderstood(f"{name[:60]!r} is no plain name of a command")
    bare = posixpath.basename(name)
    if name in _OTHER_BUILTINS or bare in {"eval", "source"}:
        raise NotUnderstood(f"{name!r} can run what stands in its arguments, or change what later words mean")
    if bare in _OPAQUE:
        raise NotUnderstood(f"{bare!r} runs other commands in a way that cannot be judged: run them by themselves")
    if name in _BUILTINS:
        _check_builtin(name, words[1:])


def _check_builtin(name: str, words: Sequence[str]) -> None:
    match name:
        case "test" | "[":
            fine = _is_plain_test([*words[:-1]] if name == "[" else words)
        case "read":
            fine = all(word == "-r" or re.fullmatch("[a-z][a-z0-9_]*", word) for word in words)
            fine = fine and not any(word.endswith("_proxy") for word in words)
        case "set":
            fine = bool(words) and all(word in _SET for word in words)
            fine = fine and all((before[-1] == "o") == (word == "pipefail") for before, word in _pairs(words))
        case "printf":
            fine = bool(words) and not words[0].startswith(("-", UNKNOWN))
        case "wait" | "exit" | "break" | "continue":
            fine = all(re.fullmatch("[0-9]{1,9}", word) for word in words)
        case _:
            return
    if not fine:
        raise NotUnderstood(f"{' '.join((name, *words))[:80]!r}: this form of {name!r} is not certainly harmless")


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    yield from zip(("-", *words), words, strict=False)


def _is_plain_test(words: Sequence[str]) -> bool:
    """Return whether a test is one of the forms that look at texts and files only."""
    if MANY in words:
        return False
    match [*words]:
        case ["!", *rest]:
            return _is_plain_test(rest)
        case [operator, _]:
            return bool(_TESTS.fullmatch(operator))
        case [_, operator, _]:
            return operator in _COMPARISONS
        case _:
            return False


def inner_commands(words: tuple[str, ...]) -> Iterator[tuple[str, ...] | str]:
    """Yield what a command runs: the words of a command, or of an assignment for it, or a script.

    :raises NotUnderstood: that cannot be told.
    """
    name, rest = posixpath.basename(words[0]), words[1:]
    if name in _SHELLS:
        yield _script(name, rest)
    elif name == "find":
        yield from _run_by_find(rest)
    elif name in _PLAIN_PREFIXES:
        yield from _behind(name, rest)


def _script(name: str, words: Sequence[str]) -> str:
    if len(words) != 2 or words[0] != "-c" or UNKNOWN in words[1]:  # noqa: PLR2004 -- the option and its script
        raise NotUnderstood(f"{name!r} is only judged as: {name} -c 'COMMANDS', and nothing behind it")
    return words[1]


def _behind(name: str, words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the command that stands behind the options of one that runs it."""
    alone, valued, operands = _PLAIN_PREFIXES[name]
    rest = [*words]
    while rest and rest[0].startswith(("-", UNKNOWN)):
        option = rest.pop(0)
        if option in alone:
            continue
        if not valued or not re.match(valued, option) or UNKNOWN in option or option.startswith("--"):
            raise NotUnderstood(f"{name} with {option.replace(UNKNOWN, '...')[:40]!r} cannot be judged")
        if re.fullmatch(valued, option):
            rest = _without_value(name, rest)
    for _ in range(operands):
        rest = _without_value(name, rest)
    while name == "env" and rest and "=" in rest[0]:
        yield (rest.pop(0),)
    if not rest:
        if name in {"xargs", "env"}:
            return  # env alone prints the environment, xargs alone is echo
        raise NotUnderstood(f"{name!r} without a command")
    yield (*rest, MANY) if name == "xargs" else tuple(rest)


def _without_value(name: str, words: list[str]) -> list[str]:
    if not words or UNKNOWN in words[0]:
        raise NotUnderstood(f"what {name!r} runs cannot be told")
    return words[1:]


def _run_by_find(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the commands behind ``-exec`` and the like; ``{}`` is a path that is not known yet."""
    if any(word.startswith(UNKNOWN) for word in words):
        raise NotUnderstood("the words of 'find' must begin with plain characters, since it can run what they say")
    rest = [*words]
    while rest:
        if rest.pop(0) not in _FIND_RUNS:
            continue
        end = next(
            (at for at, word in enumerate(rest) if word == ";" or (word == "+" and at and rest[at - 1] == "{}")), 0
        )
        if not end:
            raise NotUnderstood("a command of 'find' must end with ';' in quotes, or with '{}' +")
        many = rest[end] == "+"
        yield tuple(_filled(word, many=many) for word in rest[:end])
        rest = rest[end + 1 :]


def _filled(word: str, *, many: bool) -> str:
    return MANY if word == "{}" and many else word.replace("{}", UNKNOWN)
