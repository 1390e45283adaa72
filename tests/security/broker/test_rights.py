"""Who may do what, as plain data: no right of one party is another's, whatever their roles are called."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.protocol.team import Team
from interlock.runtime.credentials import STREAMS, Party, Right, accounts, parties_of, rights_of

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,4}", fullmatch=True)
"""Short ones, so that they collide where they can: ``a@t`` in lane 1 and ``a@t-1``."""

ROLES = st.builds(lambda agent, team: f"{agent}@{team}", NAMES, NAMES)
PARTIES = st.builds(Party, st.sampled_from(["worker", "verifier"]), ROLES)
SHARED = ("$JS.API.DIRECT.GET.", "$JS.API.STREAM.MSG.GET.", "$JS.API.STREAM.INFO.", "$O.", "il.main.budget.")
"""What everybody may: read the log, orders and bodies, store bodies, which cannot take another's place, and count what
jobs use: agents of many teams pay from the budget of one job."""


def overlap(one: str, other: str) -> bool:
    """Whether some subject matches both wildcards."""
    left, right = one.split("."), other.split(".")
    for mine, theirs in zip(left, right, strict=False):
        if ">" in (mine, theirs):
            return True
        if mine != theirs and "*" not in (mine, theirs):
            return False
    return len(left) == len(right)


def own(party: Party, ns: str = "main") -> list[Right]:
    """Return the rights of a party that are to be nobody else's."""
    return [right for right in rights_of(party, ns) if not right.subject.startswith(SHARED)]


@settings(deadline=None)  # it compares every right with every other one, which takes a while on a busy machine
@given(parties=st.lists(PARTIES, min_size=2, max_size=4, unique=True))
def test_no_right_of_an_agent_is_anothers(parties: list[Party]) -> None:
    """What one worker or verifier may send or take, no other one may, nor does it stand in for the manager.

    Both may ask in a job's own chain, each in its own name: there only the manager's name counts, which no agent has.
    """
    shared = ("MSG.NEXT.IL_main.*", "._.asked.*")
    for one, other in combinations([*parties, Party("manager")], 2):
        both = [(a.subject, b.subject) for a in own(one) for b in own(other) if overlap(a.subject, b.subject)]
        assert [pair for pair in both if not pair[1].endswith(shared)] == []


@given(party=PARTIES, ns=st.sampled_from(["main", "other"]))
def test_nobody_reaches_into_another_namespace(party: Party, ns: str) -> None:
    """All that a party may do names its namespace: with it replaced, no right matches."""
    elsewhere = "other" if ns == "main" else "main"
    mine, theirs = ([right.subject for right in rights_of(party, one)] for one in (ns, elsewhere))
    assert not [(one, other) for one in mine for other in theirs if overlap(one, other)]


FORBIDDEN = {
    "a kill order": "il.main.control.all",
    "a policy": "il.main.control.policy",
    "a job": "il.main.log.3.j._.submitted",
    "a team": "il.main.state.team.t",
    "another's machine": "il.main.state.node.operator.one",
    "making a stream": "$JS.API.STREAM.CREATE.IL_main",
    "changing one": "$JS.API.STREAM.UPDATE.IL_main",
    "emptying one": "$JS.API.STREAM.PURGE.IL_main",
    "deleting one": "$JS.API.STREAM.DELETE.IL_main",
    "putting tasks back": "il.main.log.3.j1._.retried",
    "deleting an entry": "$JS.API.STREAM.MSG.DELETE.IL_main",
    "restoring one": "$JS.API.STREAM.RESTORE.IL_main",
    "deleting a queue": "$JS.API.CONSUMER.DELETE.IL_main.assigned-reader@digest",
    "the server": "$SYS.REQ.SERVER.PING",
    "an inbox": "_INBOX.UABC.1",
}


@pytest.mark.parametrize("subject", FORBIDDEN.values(), ids=FORBIDDEN)
@pytest.mark.parametrize("kind", ["manager", "worker", "verifier"])
def test_nobody_but_an_operator_may(kind: str, subject: str) -> None:
    """Orders, policies, jobs and the streams themselves are an operator's alone."""
    party = Party("manager") if kind == "manager" else Party("worker" if kind == "worker" else "verifier", "a@t")
    assert not [right for right in rights_of(party, "main") if overlap(right.subject, subject)]
    assert overlap(rights_of(Party("operator"), "main")[0].subject, subject)


KINDS = {
    "manager": {"proposed", "accepted", "rejected", "expanded", "assigned", "closed", "asked", "answered"},
    "worker": {"result", "asked", "intended", "done", "in_doubt"},
    "verifier": {"verdict"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_party_writes_its_kinds_of_entries(kind: str) -> None:
    """What a party may write into the log is what the protocol says that it sends, and signed where it can be."""
    party = Party("manager") if kind == "manager" else Party("worker" if kind == "worker" else "verifier", "a@t")
    written = [
        right.subject.split(".") for right in rights_of(party, "main") if right.subject.startswith("il.main.log.")
    ]
    assert {tokens[6] for tokens in written} == KINDS[kind]
    assert all(tokens[-1] == party.role for tokens in written if party.role)


@pytest.mark.parametrize("kind", ["manager", "worker", "verifier"])
def test_what_is_told_of_machines_is_signed(kind: str) -> None:
    """Everybody may say which machines are there in his own name; managers share partitions; teams are no one's."""
    party = Party("manager") if kind == "manager" else Party("worker" if kind == "worker" else "verifier", "a@t")
    told = {right.subject for right in rights_of(party, "main") if right.subject.startswith("il.main.state.")}
    shares = {"il.main.state.lease.*", "il.main.state.manager.*"}
    own = shares if kind == "manager" else {"il.main.state.alone.a@t.*"}
    assert told == {f"il.main.state.node.{party.name}.*"} | own


@given(parties=st.lists(PARTIES, max_size=4, unique=True))
def test_every_account_reaches_only_what_its_party_may(parties: list[Party]) -> None:
    """In the server's configuration each opening is for those whose right it is, and each party has one user."""
    keys = {party: f"U{number}" for number, party in enumerate([Party("operator"), Party("manager"), *parties])}
    made = accounts(keys, "main")
    assert set(made) == {STREAMS, *(party.name for party in keys if party.kind != "operator")}
    offered = {(export["service"], name) for export in made[STREAMS]["exports"] for name in export["accounts"]}
    taken = {(one["service"]["subject"], name) for name in set(made) - {STREAMS} for one in made[name]["imports"]}
    assert offered == taken
    assert [account["users"][0]["nkey"] for account in made.values()].count("U0") == 1
    assert made[STREAMS]["users"] == [{"nkey": "U0"}]
    for party, key in keys.items():
        if party.kind != "operator":
            [user] = made[party.name]["users"]
            assert user["permissions"]["subscribe"] == {"allow": [f"_INBOX.{key}.>"]}
            assert user["permissions"]["publish"] == {"allow": [right.sent_to for right in rights_of(party, "main")]}
            assert "jetstream" not in made[party.name]


def test_the_parties_of_teams_are_their_agents() -> None:
    """Workers and verifiers have one each, and each name is read back."""
    team = Team.model_validate(
        {
            "interlock": 1,
            "team": "t-1",
            "agents": {"a-b": {"kind": "worker"}, "v": {"kind": "verifier"}},
            "plan": [{"step": "s", "agent": "a-b", "do": "x"}],
        }
    )
    parties = parties_of([team, team])
    assert [party.name for party in parties] == ["operator", "manager", "verifier-v@t-1", "worker-a-b@t-1"]
    assert [Party.named(party.name) for party in parties] == list(parties)
    assert [Party.named(name) for name in ("", "worker", "operator-a@b", "worker-a", "worker-a@b/../c")] == [None] * 5


def test_a_team_as_an_agent_begins_jobs_and_answers_as_itself() -> None:
    """Besides what a worker needs to take and to answer it may submit jobs and follow the log, and nothing more."""
    party = Party("team", "desk@paper")
    rights = [right.subject for right in rights_of(party, "main")]
    written = [subject for subject in rights if subject.startswith("il.main.log.")]
    assert sorted(written) == ["il.main.log.*.*.*.result.*.desk@paper", "il.main.log.*.*._.submitted"]
    for what, subject in FORBIDDEN.items():
        assert what == "a job" or not [right for right in rights if overlap(right, subject)], what
    assert Party.named(party.name) == party


def test_the_parties_of_a_team_are_those_of_the_teams_within_it_too() -> None:
    """Each has a key of its own, a team as an agent among them."""
    inner = {"interlock": 1, "team": "desk", "agents": {"writer": {"kind": "worker"}, "sub": {"kind": "verifier"}}}
    agents = {"desk": {"kind": "team", "team": inner}, "checker": {"kind": "verifier"}}
    team = Team.model_validate({"interlock": 1, "team": "paper", "agents": agents})
    assert {party.name for party in parties_of([team])} == {
        "operator",
        "manager",
        "team-desk@paper",
        "verifier-checker@paper",
        "worker-writer@desk",
        "verifier-sub@desk",
    }
