"""Rules of commands against a real bash: what is allowed runs nothing else, however it is spelt."""

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.security.rules.harness import RUN, Recorder, call_of, layer

from interlock.agents.tools.normal import CommandUnclear
from interlock.agents.tools.normal_command import CommandNotUnderstood, normal_command
from interlock.protocol.permissions import Call, Layer, judge_call

RULES = layer(
    allow=(
        *("shell.run(git log *)", "shell.run(ls *)", "shell.run(head *)", "shell.run(grep *)", "shell.run(wc *)"),
        *("shell.run(cat *.txt)", "shell.run(echo *)", "shell.run(true)", "shell.run(read *)", "shell.run(test *)"),
        *("shell.run([ *)", "shell.run(xargs *)", "shell.run(env *)", "shell.run(find *)", "shell.run(bash -c *)"),
        *(
            "shell.run(timeout *)",
            "shell.run(nice *)",
            "shell.run('> out*')",
            "shell.run('< *.txt')",
            "shell.run(cd *)",
        ),
        *("shell.run(printf *)", "shell.run('A=*')", "shell.run(: *)"),
    ),
    deny=("shell.run(git log --output*)", "shell.run(rm *)"),
)
"""What a careful author would write, and the commands that run others, which are not so careful."""

FREE = layer(allow=("shell.run",))

TRICKS = (
    *(
        "\\'\\;rm\\ x\\;\\'",
        "\\'\\$\\(rm\\)\\'",
        "\"'; rm x; '\"",
        '\\"\\;rm\\ x',
        "'\"'\\'';rm x;'",
        '"\\"; rm x; \\""',
    ),
    *("; rm x", "&& rm x", "|| rm x", "| rm x", "\nrm x", "& rm x", "$(rm x)", "`rm x`", "<(rm x)", ">(rm x)", "\\\n"),
    *("${x:-$(rm x)}", "$((a[$(rm x)]))", "${!x}", "$'\\x72m'", '$"rm"', "{rm,x}", "r\\m x", 'r""m x', "'r'm x", "#"),
    *(
        "<<E\nrm x\nE\nrm y\n",
        "<<'E'\n$(rm)\nE\n",
        "<<-E\n\trm\n\tE\n",
        "<<< rm",
        "|& rm x",
        "&> out",
        ">| out",
        "&>> out",
    ),
    *("eval rm x", "exec rm x", "command rm x", "builtin eval rm", "xargs rm", "sh -c 'rm x'", "env rm x", "! rm x"),
    *("find . -exec rm {} ;", "find . -exec rm {} +", "find . -exec sh -c 'rm {}' \\;", "timeout 1 rm x", "nice rm x"),
    *(
        "sudo rm x",
        "time rm x",
        "coproc rm x",
        "nohup rm x",
        "[[ a ]]",
        "((x=1))",
        "function f { rm x; }",
        "f() { rm x; }",
    ),
    *("case x in x) rm x;; esac", "(rm x)", "{ rm x; }", "if rm x; then ls; fi", "for i in rm; do $i x; done", "* x"),
    *("trap 'rm x' EXIT", "alias ls=rm", "PATH=. ls", "A=1 rm x", "A=1 ls", "read PATH", "test -v 'a[$(rm x)]'", "\r"),
    *(
        "printf -v 'a[$(rm x)]' y",
        "x=rm; $x y",
        'x=rm; "$x" y',
        "echo rm | xargs",
        "echo x | xargs -I{} rm {}",
        "\t",
        "''",
    ),
    *(
        "let 'a[$(rm x)]=1'",
        "declare x=$(rm)",
        "export A=$(rm x)",
        "IFS=x",
        ". a.txt",
        "source a.txt",
        "bash a.txt",
        "/",
    ),
    *(
        "env -S 'rm x'",
        "xargs -a f rm",
        'bash -c "rm x"',
        "bash -c 'ls; rm x'",
        "bash -c ls rm",
        "\\",
        '"',
        "'",
        "$",
        "`",
    ),
    *(
        "$(",
        ")",
        "}",
        "fi",
        "done",
        "do",
        "then",
        "time",
        "[",
        "]",
        "=",
        "~",
        "!",
        "*",
        "?",
        "{}",
        "${",
        "<",
        ">",
        "2>&1",
    ),
)

plain = st.sampled_from(["a.txt", "-n", "x", "log", "--format=%H", "3", "a=b", "HEAD~1", "--", "-", "{}", "x:y", "é"])
quoted = st.sampled_from(
    ['"a b"', "'a b'", "'$x'", '"$x"', '"$(ls)"', '"`ls`"', "a\\ b", '"a\\"b"', '"it\'s"', "''", '""']
)
globbed = st.sampled_from(["*.txt", "*", "./*", "?.txt", '"*"', "\\*"])
word = st.one_of(plain, quoted, globbed, st.tuples(plain, quoted).map("".join))
names = st.sampled_from(
    ["git log", "ls", "head", "grep", "wc", "echo", "cat a.txt", "cat", "rm", "curl", "git", "true", '"ls"', "l\\s"]
)
wrapped = st.sampled_from(["", "", "", "xargs ", "env ", "env A=1 ", "timeout 5 ", "nice ", "A=1 ", "find . -exec "])
simple = st.builds(
    lambda wrap, name, words: wrap + " ".join([name, *words]), wrapped, names, st.lists(word, max_size=3)
)
joins = st.sampled_from([" && ", " || ", "; ", " | ", "\n", " & ", "&&", ";", "|", " |& ", "&"])
wrappings = st.sampled_from(
    [
        *("{}", "{}", "{}", "( {} )", "{{ {}; }}", "if {}; then ls; fi", "for f in a b; do {}; done", "! {}"),
        *('echo "$({})"', "grep -f <({}) a.txt", "{} > out", "{} 2>&1", "{} < a.txt", "{} 2>/dev/null", "x=$({})"),
        *(
            "bash -c '{}'",
            '{} | while read -r l; do echo "$l"; done',
            "if [ -f a.txt ]; then {}; else ls; fi",
            "{} # rm",
        ),
    ]
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    """Lines that a model could write."""
    parts = draw(st.lists(st.tuples(simple, wrappings), min_size=1, max_size=3))
    out = ""
    for index, (one, wrapping) in enumerate(parts):
        out += (draw(joins) if index else "") + wrapping.replace("{{", "\1").replace("}}", "\2").replace("{}", one)
    return out.replace("\1", "{").replace("\2", "}")


@st.composite
def hostile(draw: st.DrawFn) -> str:
    """Lines in which somebody put what a shell could read in another way."""
    line = draw(lines())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(st.sampled_from(["", " "])) + draw(st.sampled_from(TRICKS)) + line[at:]
    return line


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """Return a folder of programs that write down that they were called."""
    return Recorder(tmp_path_factory.mktemp("recorder"))


def breaches(recorder: Recorder, line: str, rules: Layer) -> list[tuple[str, ...]] | None:
    """Return what an allowed line runs that no rule allows; None where it is not allowed."""
    try:
        call = call_of(RUN, line)
    except CommandUnclear:
        return None
    if judge_call([rules], call).outcome != "allow":
        return None
    ran = recorder.run(str(call.arguments["command"]))
    return [words for words in ran if judge_call([rules], one_command(words)).outcome != "allow"]


def one_command(words: tuple[str, ...]) -> Call:
    return Call(RUN, {"command": ""}, {"command": (words,)})


bounded = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@bounded
@given(line=hostile())
def test_what_is_allowed_runs_nothing_else(recorder: Recorder, line: str) -> None:
    """A line that the rules allow makes bash start no program in a way that they would not allow by itself."""
    assert not breaches(recorder, line, RULES), line


@bounded
@given(line=st.one_of(hostile(), lines()))
def test_no_command_is_left_out(recorder: Recorder, line: str) -> None:
    """Every program that bash starts for a line that is understood is among the commands that were found in it."""
    try:
        normal, commands = normal_command(line)
    except CommandNotUnderstood:
        return
    found = Call(RUN, {"command": normal}, {"command": commands})
    for words in recorder.run(normal):
        rule = layer(deny=(f"shell.run({quoted_name(words[0])} *)",), allow=("shell.run",))
        assert judge_call([rule], found).outcome == "deny", (line, words)


def quoted_name(name: str) -> str:
    return f"'{name}'" if name else "*"


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize(
    "form", ["ls {}", "{} ls", "ls{}", 'ls "{}"', "git log '{}'", "ls -l {} a.txt", "echo {} | head"]
)
def test_each_trick_runs_nothing_else(recorder: Recorder, form: str, trick: str) -> None:
    """Each known trick, in each place of a line, is refused, or runs nothing but what the rules allow."""
    assert not breaches(recorder, form.replace("{}", trick), RULES)


@pytest.mark.parametrize("trick", [one for one in TRICKS if "rm" in one and not one.startswith(("#", "'", '"'))])
def test_a_denied_command_is_never_started(recorder: Recorder, trick: str) -> None:
    """Where all but ``rm`` is allowed, ``rm`` is still not started."""
    rules = layer(allow=("shell.run",), deny=("shell.run(rm *)", "shell.run('* rm *')", "shell.run('* * rm *')"))
    for form in ("ls {}", "{}", "echo x; {}"):
        try:
            call = call_of(RUN, form.replace("{}", trick))
        except CommandUnclear:
            continue
        if judge_call([rules], call).outcome == "allow":
            assert "rm" not in [words[0] for words in recorder.run(str(call.arguments["command"]))]


def started(recorder: Recorder, line: str) -> Counter[tuple[str, ...]]:
    """Return what a line starts, whichever numbers the shell gives to its pipes."""
    return Counter(
        tuple(re.sub(r"/dev/fd/\d+", "/dev/fd/N", word) for word in words) for words in recorder.run(line, 30)
    )


@bounded
@given(line=lines())
def test_the_one_form_means_the_same(recorder: Recorder, line: str) -> None:
    """What is written anew starts the same programs with the same words as the line itself; and is its own one form."""
    assume("<(" not in line)  # nobody waits for what stands in one
    line = line.replace("> out", "> a.txt")  # a new file would be there for a * of a command beside it, or not yet
    try:
        normal, commands = normal_command(line)
    except CommandNotUnderstood:
        return
    assert started(recorder, normal) == started(recorder, line)
    assert normal_command(normal) == (normal, commands)


def test_most_honest_lines_are_understood() -> None:
    """The properties are about something: lines such as models write are understood."""
    honest = [
        *("ls -la", "git log --oneline -5 | head -3", "grep -rn 'TODO' src | wc -l", "cat a.txt && echo done"),
        *('for f in *.txt; do wc -l "$f"; done', "if [ -f a.txt ]; then cat a.txt; fi", "ls > out 2>&1"),
        *("python3 -m pytest -q tests 2>/dev/null", "find . -name '*.py' -exec grep -l main {} +", "git diff HEAD~1"),
        *('echo "$(date)" >> log', "set -euo pipefail\ncd src\nmake -j4 all", "cat <<'EOF' > f.txt\na $b\nEOF"),
        *("timeout 10 ./run.sh --x=1", "sed -n '1,5p' a.txt", "tar czf out.tgz src/", "awk '{print $1}' a.txt | sort"),
    ]
    for line in honest:
        assert normal_command(line)[1], line


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("a && b || c; d | e & f", ("a", "b", "c", "d", "e", "f")),
        ('a "$(b "$(c)")" "`d`"', ("c", "b", "d", "a")),
        ("a <(b) > out < in", ("b", "a", "> out", "< in")),
        ("bash -c 'a; b'", ("bash -c a; b", "a", "b")),
        ("env A=1 nice -n 5 timeout 3 a b", ("env A=1 nice -n 5 timeout 3 a b", "A=1", "nice -n 5 timeout 3 a b")),
        ("PATH=/x a", ("PATH=/x", "a")),
        ("# b\na # c\n# d", ("a",)),
        ("'a' \"b\"c\\ d", ("a bc d",)),
    ],
)
def test_all_commands_are_found(line: str, commands: tuple[str, ...]) -> None:
    """Commands in every part of a line are found, also those that others run."""
    found = [" ".join(words).replace(" \0", "") for words in normal_command(line)[1]]
    assert tuple(found[: len(commands)]) == commands


@pytest.mark.parametrize(
    "line",
    [
        *(
            "",
            "  ",
            "# a",
            "a 'b",
            'a "b',
            "a $(b",
            "a `b",
            "$a b",
            "$(a) b",
            "`a`",
            "*/ls",
            "a $b",
            "a $(b)",
            "a {b,c}",
        ),
        *(
            "a $'b'",
            'a $"b"',
            "a ${b:-c}",
            "a ${!b}",
            "a $((1))",
            "((a))",
            "[[ a ]]",
            "a() { b; }",
            "case a in a) b;; esac",
        ),
        *("eval a", "exec a", ". a", "source a", "alias a=b", "export A=1", "trap a EXIT", "declare a", "command a"),
        *(
            "sudo a",
            "ssh h a",
            "bash a",
            'bash -c "$a"',
            "sh -x -c a",
            "xargs -I{} a {}",
            "env -S a",
            "find . -exec a {}",
        ),
        *(
            'find "$a" -name b',
            "find * -name b",
            'xargs "$a" b',
            "a > $b",
            "a > ../b",
            "a > /dev/tcp/h/1",
            "a <> b",
            "a 3> b",
        ),
        *(
            "read A",
            "read 'a[0]'",
            "printf -v a b",
            "test -v a",
            '[ "$a" "$b" ]',
            "wait -p a",
            "set -o posix",
            "a\0b",
            "a\rb",
        ),
        *(
            "r\\\nm",
            "a <<E\n$(b)\nE",
            "a[0]=1",
            "a+=1",
            "time",
            "-a",
            'a=b=c; "$a"',
            "=a b",
            "~/a",
            "select a in b; do c; done",
        ),
        "a " * 9000,
        "(" * 40 + "a" + ")" * 40,
        "(" * 8000,
        "[ " + "! " * 8000 + "]",
        "if " * 5000,
    ],
)
def test_what_is_not_certain_is_refused(line: str) -> None:
    """A line whose meaning depends on values, or that changes what words mean, is refused with a reason."""
    with pytest.raises(CommandNotUnderstood) as caught:
        normal_command(line)
    assert caught.value.reason


@given(st.text(max_size=60))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever is given, there is a one form with commands, or the typed error."""
    try:
        normal, commands = normal_command(text)
    except CommandNotUnderstood:
        return
    assert normal
    assert commands


def test_every_builtin_of_bash_is_known() -> None:
    """No builtin is taken for a program: each is allowed on purpose, or refused."""
    from interlock.agents.tools import _shell_wrappers as wrappers  # noqa: PLC0415 -- this test looks inside

    listed = subprocess.run(["/bin/bash", "-c", "compgen -b"], capture_output=True, text=True, check=True)
    assert set(listed.stdout.split()) <= wrappers._BUILTINS | wrappers._OTHER_BUILTINS


@pytest.mark.parametrize("name", ["ls", "/bin/ls", "./ls", "../ls", "a/../ls"])
def test_a_rule_that_allows_a_name_allows_no_other_place(name: str, tmp_path: Path) -> None:
    """``ls`` is what the PATH says; a file of that name elsewhere is another command."""
    rules = layer(tmp_path, allow=("shell.run(ls *)",))
    assert (judge_call([rules], call_of(RUN, f"{name} -l")).outcome == "allow") is (name == "ls")
    denying = layer(tmp_path, allow=("shell.run",), deny=("shell.run(ls *)",))
    assert judge_call([denying], call_of(RUN, f"{name} -l")).outcome == "deny"


@pytest.mark.parametrize(
    ("pattern", "line", "fits"),
    [
        ("git log *", "git log", True), ("git log *", "git log -p x", True), ("git log", "git log -p", False),
        ("git log *", "git", False), ("git * log", "git x log", True), ("git * log", "git *.txt log", False),
        ("git * log", 'git "$x" log', True), ("git -* log", 'git "$x" log', False), ("cat *.txt", "cat a.txt", True),
        ("cat *.txt", 'cat "$x.txt"', True), ("cat *.txt", "cat *.txt", False), ("cat *", "cat *.txt", True),
        ("'cat a b'", "cat 'a b'", False), ("*", "a; b > c", True), ("ls", "ls > out", False), ("ls", "A=1 ls", False),
    ],
)  # fmt: skip
def test_patterns_of_commands(pattern: str, line: str, fits: bool) -> None:
    """Words are matched one by one; what is known only when it runs fits an allow only where anything does."""
    assert (judge_call([layer(allow=(f"shell.run({pattern})",))], call_of(RUN, line)).outcome == "allow") is fits


@pytest.mark.parametrize(
    "line",
    ["rm x", 'r"m" x', "ls; rm", "find . -exec rm {} +", 'ls "$(rm x)"', "ls | xargs rm", "/bin/rm", "bash -c 'rm x'"],
)
def test_deny_finds_a_command_wherever_it_stands(line: str) -> None:
    """A denied command is denied in every part of a line, and by its whole path."""
    assert judge_call([layer(allow=("shell.run",), deny=("shell.run(rm *)",))], call_of(RUN, line)).outcome == "deny"


@pytest.mark.parametrize(
    ("pattern", "denied"), [("git push *", True), ("git pull *", True), ("ls *", False), ("git", False)]
)
def test_deny_takes_what_is_not_known_for_a_match(pattern: str, denied: bool) -> None:
    """A word that a variable or a wildcard fills in could be what is denied."""
    for line in ('git "$x" y', "git *"):
        rules = layer(allow=("shell.run",), deny=(f"shell.run({pattern})",))
        assert (judge_call([rules], call_of(RUN, line)).outcome == "deny") is (
            denied or (pattern == "git" and "*" in line)
        )


def test_words_of_the_shell_in_quotes_are_names(recorder: Recorder) -> None:
    """A program that is called like a word of the shell is called, and does not become that word."""
    rules = layer(allow=("shell.run(if *)", "shell.run(then *)", "shell.run(fi *)"))
    line = "\"if\" x; 'then' rm y; \\fi"
    assert breaches(recorder, line, rules) == []
    assert [words[0] for words in recorder.run(normal_command(line)[0])] == ["if", "then"]


def test_the_parser_is_given_ascii_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser's library crashes on some characters beyond ASCII; it never sees one, and none gets lost."""
    from interlock.agents.tools import _shell_reading as reading  # noqa: PLC0415 -- this test looks inside

    seen: list[bytes] = []
    parser = reading._parser()

    class Watched:
        def parse(self, source: bytes) -> Any:
            seen.append(source)
            return parser.parse(source)

    monkeypatch.setattr(reading, "_parser", Watched)
    line, commands = normal_command("echo \u00e9 \"\u4f60 $x\" '\U0001f600' a\u3002b")
    assert commands == (("echo", "\u00e9", "\u4f60 \0", "\U0001f600", "a\u3002b"),)
    assert line == "echo '\u00e9' \"\u4f60 ${x}\" '\U0001f600' 'a\u3002b'"
    assert all(source.isascii() for source in seen)
    for refused in ("\u00e9=1 ls", "$\u00e9", '"$\u00e9"', "\u00e9t\u00e9 x", "for \u00e9 in a; do ls; done"):
        with pytest.raises(CommandNotUnderstood):
            normal_command(refused)
