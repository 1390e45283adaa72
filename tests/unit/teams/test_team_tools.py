"""What a team file says of tools, rules and principles: every mistake at its place, before anything runs."""

from pathlib import Path

import pytest
from tests.unit.teams.test_team_schema import errors_of

from interlock.runtime.teamfile import TeamFileInvalid, load_team

GOOD = """\
interlock: 1
team: guarded
agents:
  clerk: {kind: worker, tools: [files.read, web.fetch]}
  writer: {kind: worker, tools: [{tool: files.write, pin: {path: "out/{{ goal }}.md"}, times: 1}]}
  checker: {kind: verifier}
tools:
  files: {read: [docs], write: [out]}
  web: {seconds: 5, bytes: 100000}
  mcp:
    tickets: {command: [serve-tickets], effects: {create: once}, env: [TICKETS]}
secrets: {TICKETS: {env: TICKETS_TOKEN}}
permissions:
  allow:
    - files.read(./docs/**)
    - {tool: files.write, arguments: {path: {like: ["./out/**"]}, text: {source: [pinned, data]}}}
    - web.fetch(https://*.example.org/**)
    - tickets.create
    - shell.run(git log *)
  ask: [shell.run(git push *)]
  deny: [files.read(./docs/secret/**)]
principles: [never tickets.create with tainted data]
autonomy: ask
inputs: {note: {type: string, outside: true, default: x}}
plan:
  - step: look
    agent: clerk
    do: "Look at {{ inputs.note }}"
    output: {x: string}
  - step: act
    agent: clerk
    do: "Act"
    output: {x: string}
    tools: [tickets.create, {tool: files.read, pin: {path: "docs/{{ steps.look.output.x }}.md"}}]
    permissions: {deny: ["files.read(./docs/b/**)"]}
"""


def check(folder: Path, text: str) -> list[str]:
    """Return what is said of a team file, without its path."""
    path = folder / "team.yaml"
    path.write_text(text)
    try:
        load_team(path)
    except TeamFileInvalid as error:
        return [line.removeprefix(f"{path}:") for line in str(error).splitlines()]
    return []


def place_of(text: str, part: str) -> str:
    """Return the line and column at which ``part`` stands."""
    before = text[: text.index(part)]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}: "


def test_a_good_team_is_read(tmp_path: Path) -> None:
    """All keys about safety are read, and a pin's template makes its step wait for the step that it names."""
    (tmp_path / "docs").mkdir()
    assert check(tmp_path, GOOD) == []
    loaded = load_team(tmp_path / "team.yaml")
    assert loaded.needs["act"] == ("look",)
    assert loaded.inputs_used == {"note"}
    assert errors_of(tmp_path / "team.yaml") == []


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        ("tools: [files.read, web", "tools: [files.raed, web", "files.raed", "there is no tool 'files.raed'"),
        ("web.fetch]}", "web.fech]}", "web.fech", "there is no tool 'web.fech': did you mean 'web.fetch'?"),
        ("web.fetch]}", "Fetch]}", "Fetch", "'Fetch' is no name of a tool"),
        ('pin: {path: "out', 'pin: {paht: "out', "paht", "files.write has no argument 'paht': did you mean 'path'?"),
        ("{{ goal }}.md", "{{ gaol }}.md", '"out/', "there is no variable 'gaol': did you mean 'goal'?"),
        ("{{ goal }}.md", "{{ steps.look.output.x }}.md", '"out/', "what an agent pins holds in every step"),
        ("look.output.x }}.md", "look.output.y }}.md", '"docs/{', "the output of step 'look' has no 'y'"),
        ("times: 1", "times: 0", "0}]", "'times': expected at least 1, got the number 0"),
        ("kind: verifier}", "kind: verifier, tools: [files.read]}",
         "[files.read]}", "agent 'checker' is a verifier: only"),
        ("mcp:", "mpc:", "mpc", "unknown key 'mpc': did you mean 'mcp'?"),
        ("seconds: 5", "secods: 5", "secods", "unknown key 'secods': did you mean 'seconds'?"),
        ("create: once", "create: twice", "twice", "expected read, idempotent, once or irreversible, got 'twice'"),
        ("env: [TICKETS]", "env: [TICKET]", "[TICKET]", "'TICKET' is none of the team's secrets"),
        ("{env: TICKETS_TOKEN}", "{evn: TICKETS_TOKEN}", "evn", "unknown key 'evn': did you mean 'env'?"),
        ("{command: [serve-tickets]", "{url: x, command: [y]",
         "{url: x", "it needs either a command to start or a url"),
        ("files.read(./docs/**)", "files.read(./docs/**", "files.read(./docs/**\n", "cannot be read: expected TOOL"),
        ("files.read(./docs/**)", "files.read(./dosc/**)", "files.read(./dosc", "dosc is out of the tool's reach"),
        ("files.read(./docs/**)", "files.read(paht=./docs/**)", "files.read(paht", "files.read has no argument 'paht'"),
        ("files.read(./docs/**)", "file.read(./docs/**)",
         "file.read(", "there is no tool 'file.read'; did you mean 'files.read'"),
        ("https://*.example.org/**)", "*.example.org)", "web.fetch(*", "'*.example.org' is no pattern of URLs"),
        ("{like: [", "{liek: [", "liek", "unknown key 'liek': did you mean 'like'?"),
        ("source: [pinned, data]", "source: [pined]", "pined", "expected pinned"),
        ("[shell.run(git push *)]", "[{effect: [once], tool: web.*}]", "{effect", "effect read, not once"),
        ("deny: [files.read(./docs/secret/**)]", "deny: [web.*]",
         "web.fetch(https", "always comes before it"),
        ('{deny: ["files.read', '{dney: ["files.read', "dney", "unknown key 'dney': did you mean 'deny'?"),
        ('{deny: ["files.read(./docs/b/**)"]}', "{allow: [tickets.create]}",
         "{tool: files.read, pin", "can never call files.read"),
        ('pin: {path: "docs/{{', 'pin: {path: "/etc/passwd"} }]#',
         "{tool: files.read, pin", "can never call files.read with what it pins"),
        ("[never tickets.create with", "[never tickets.create, never tickets.create with",
         "[tickets", "may use tickets.create"),
        ("[never tickets", "[be nice, never tickets", "be nice", "the principle 'be nice' cannot be read"),
        ("tainted data]", "tainted data, 'never tickets.create with tainted data.']",
         "'never", "says the same as principle 1"),
        ("autonomy: ask", "autonomy: asks", "asks", "'autonomy': expected suggest, ask or bounded, got 'asks'"),
        ("outside: true", "outside: 1", "1, default", "'outside': expected true or false"),
    ],
)  # fmt: skip
def test_each_mistake_is_shown_at_its_place(tmp_path: Path, old: str, new: str, at: str, message: str) -> None:
    """One mistake in a good team is one message, with the line and the column where it stands."""
    (tmp_path / "docs").mkdir()
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    (said,) = check(tmp_path, text)
    assert said.startswith(place_of(text, at))
    assert message in said


def test_an_allow_over_a_link_names_where_it_leads(tmp_path: Path) -> None:
    """Calls are judged by where links lead, so an allow that is written over one would never match."""
    (tmp_path / "real").mkdir()
    (tmp_path / "docs").symlink_to("real")
    found = check(tmp_path, GOOD)
    assert any(f"is, or leads over, a link; write {tmp_path / 'real'}" in one for one in found)


def test_without_rules_no_tool_can_be_called(tmp_path: Path) -> None:
    """A step with tools in a team without rules is a mistake."""
    text = "\n".join(
        line
        for line in GOOD.splitlines()
        if not line.startswith(("permissions", "  allow", "    - ", "  ask", "  deny"))
    )
    found = check(tmp_path, text.replace('    permissions: {deny: ["files.read(./docs/b/**)"]}', ""))
    assert any("no layer of rules allows anything" in one for one in found)


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    """A team's own module is imported to learn its tools; what is wrong with it stands at its path."""
    (tmp_path / "mine.py").write_text("1/0\n")
    text = GOOD.replace("  web: {", "  modules: [mine.py]\n  web: {")
    (said,) = check(tmp_path, text)
    assert said.startswith(place_of(text, "mine.py"))
    assert "cannot be imported" in said


def test_many_mistakes_are_all_shown(tmp_path: Path) -> None:
    """Mistakes of shape in one part do not hide those of other parts."""
    text = (
        GOOD.replace("autonomy: ask", "autonomy: asks")
        .replace("web.fetch]}", "web.fech]}")
        .replace("effects", "efects")
    )
    assert len(check(tmp_path, text)) == 3
