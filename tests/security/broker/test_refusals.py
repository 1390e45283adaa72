"""What a party must not do, tried with its real key on a real server: refused at once, told and logged."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import anyio
import pytest
from tests.integration.bus.messages import assigned, effect_done, result
from tests.security.broker.parties import (
    CHECKER,
    MANAGER,
    NS,
    OTHER,
    READER,
    SECONDS,
    VERIFIER,
    WORKER,
    WRITER,
    Raw,
    bus_of,
    log_of,
    told,
)

from interlock.protocol.control import AllScope, ControlOrder, Policy
from interlock.protocol.messages import TaskVerdict
from interlock.runtime._jetstream import api
from interlock.runtime.address import API, BrokerAddress, inbox_of
from interlock.runtime.bus import Bus
from interlock.runtime.bus_errors import BusError, PublishDenied, SubscribeDenied
from interlock.runtime.credentials import Party
from interlock.runtime.keyring import login_of

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_LOG = f"il.{NS}.log.3.j1.t"
_STREAM = f"IL_{NS}"

COMMON = {
    "a kill order": f"il.{NS}.control.all",
    "a kill order for a team": f"il.{NS}.control.team.digest",
    "a policy": f"il.{NS}.control.policy",
    "a job": f"il.{NS}.log.3.j1._.submitted",
    "making a stream": f"{API}.STREAM.CREATE.MINE",
    "changing the log": f"{API}.STREAM.UPDATE.{_STREAM}",
    "emptying the log": f"{API}.STREAM.PURGE.{_STREAM}",
    "emptying it by the other name": f"il-api.STREAM.PURGE.{_STREAM}",
    "deleting the log": f"{API}.STREAM.DELETE.{_STREAM}",
    "deleting an entry": f"{API}.STREAM.MSG.DELETE.{_STREAM}",
    "emptying the bodies": f"{API}.STREAM.PURGE.OBJ_{_STREAM}",
    "deleting a queue": f"il-api.CONSUMER.DELETE.{_STREAM}.assigned-{READER}",
    "an answer to who sits at another inbox": "_INBOX.UABC.1",
    "the server": "$SYS.REQ.SERVER.PING",
    "anything else": "orders.new",
}
"""What none but an operator may send."""

OF_AGENTS = {
    "an assignment": f"{_LOG}.assigned.{READER}",
    "a plan": f"il.{NS}.log.3.j1._.accepted",
    "closing a task": f"{_LOG}.closed",
    "closing a job": f"il.{NS}.log.3.j1._.closed",
    "answering a question": f"{_LOG}.answered",
    "a queue on the log": f"il-api.CONSUMER.CREATE.{_STREAM}.x.il.{NS}.log.>",
    "a queue under JetStream's own name": f"{API}.CONSUMER.CREATE.{_STREAM}.x.il.{NS}.log.>",
    "a queue on another role's": f"il-api.CONSUMER.CREATE.{_STREAM}.x.il.{NS}.log.*.*.*.assigned.{WRITER}",
    "taking from another role's": f"il-api.CONSUMER.MSG.NEXT.{_STREAM}.assigned-{WRITER}",
    "taking from one of its jobs": f"il-api.CONSUMER.MSG.NEXT.{_STREAM}.assigned-1-{WRITER}",
    "acknowledging for it": f"$JS.ACK.{_STREAM}.assigned-{WRITER}.1.1.1.1.0",
    "another's result": f"{_LOG}.result.{CHECKER}.{WRITER}",
    "another's effect": f"{_LOG}!.done.{WRITER}",
    "another's question": f"{_LOG}.asked.{WRITER}",
    "another's progress": f"il.{NS}.live.j1.{WRITER}.token",
}
"""What neither the worker ``reader`` nor the verifier ``checker`` may send."""

CASES = [
    *((party, what, subject) for party in (WORKER, VERIFIER, MANAGER) for what, subject in COMMON.items()),
    *((party, what, subject) for party in (WORKER, VERIFIER) for what, subject in OF_AGENTS.items()),
    (WORKER, "a verdict", f"{_LOG}.verdict.{CHECKER}"),
    (WORKER, "a verdict in its own name", f"{_LOG}.verdict.{READER}"),
    (WORKER, "taking results", f"il-api.CONSUMER.MSG.NEXT.{_STREAM}.result-{CHECKER}"),
    (WORKER, "acknowledging results", f"$JS.ACK.{_STREAM}.result-{CHECKER}.1.1.1.1.0"),
    (VERIFIER, "a result", f"{_LOG}.result.{CHECKER}.{READER}"),
    (VERIFIER, "a result in its own name", f"{_LOG}.result.{CHECKER}.{CHECKER}"),
    (VERIFIER, "another's verdict", f"{_LOG}.verdict.lenient@digest"),
    (MANAGER, "a verdict", f"{_LOG}.verdict.{CHECKER}"),
    (MANAGER, "a result", f"{_LOG}.result.{CHECKER}.{READER}"),
    (MANAGER, "an effect", f"{_LOG}.intended.{READER}"),
    (MANAGER, "acknowledging for a role", f"$JS.ACK.{_STREAM}.assigned-{READER}.1.1.1.1.0"),
]


async def _written(operator: BrokerAddress) -> dict[str, int]:
    """Return how much was ever written to each stream."""
    async with bus_of(operator, Party("operator")) as bus:
        names = (_STREAM, f"{_STREAM}_CONTROL", f"OBJ_{_STREAM}")
        return {name: (await api(bus._wire, f"STREAM.INFO.{name}"))["state"]["last_seq"] for name in names}


@pytest.mark.parametrize(("party", "what", "subject"), CASES, ids=[f"{p.kind}: {what}" for p, what, _ in CASES])
async def test_what_a_party_must_not_send(operator: BrokerAddress, party: Party, what: str, subject: str) -> None:
    """The server says so at once, stores nothing, and writes it down with the party's name."""
    before = await _written(operator)
    async with Raw.of(operator, party) as raw:
        seconds = await raw.refused_publish(subject)
    print(f"{party.kind}, {what}: refused after {1000 * seconds:.1f} ms")  # noqa: T201 -- a figure
    assert seconds < SECONDS
    assert await _written(operator) == before
    assert f'"{party.name}/nkey:' in log_of(operator)
    assert f'Publish Violation - Subject "{subject}"' in log_of(operator)


@pytest.mark.parametrize(
    "subject", [">", "*", "_INBOX.>", "il.>", f"il.{NS}.log.>", f"il.{NS}.control.>", "$SYS.>", "$JS.>", "il-api.>"]
)
@pytest.mark.parametrize("party", [WORKER, VERIFIER, MANAGER], ids=lambda party: party.kind)
async def test_what_a_party_must_not_hear(operator: BrokerAddress, party: Party, subject: str) -> None:
    """Nobody hears more than the answers to what he asked."""
    async with Raw.of(operator, party) as raw:
        seconds = await raw.refused_subscribe(subject)
    print(f"{party.kind} on {subject}: refused after {1000 * seconds:.1f} ms")  # noqa: T201 -- a figure
    assert f'Subscription Violation - Subject "{subject}"' in log_of(operator)


async def test_others_inboxes_are_closed(operator: BrokerAddress) -> None:
    """A worker cannot listen where the answers for another one, a verifier or the operator go."""
    async with Raw.of(operator, WORKER) as raw:
        for party in (OTHER, VERIFIER, MANAGER):
            async with Raw.of(operator, party) as victim:
                await raw.refused_subscribe(f"{victim.inbox}.>")
        await raw.refused_subscribe("_INBOX.*.>")


def _verdict() -> TaskVerdict:
    return TaskVerdict(
        id=uuid.uuid4().hex, ns=NS, job="j1", task="t", attempt=1, answers=1, at=_NOW, by=CHECKER, verdict="pass"
    )


def _order() -> ControlOrder:
    return ControlOrder(id=uuid.uuid4().hex, stop=False, scope=AllScope(), at=_NOW)


async def _take_from_another(bus: Bus) -> None:
    async with bus.pull("assigned", WRITER, 1) as deliveries:
        await anext(deliveries)


OVER_THE_BUS: dict[str, Callable[[Bus], Awaitable[object]]] = {
    "a verdict": lambda bus: bus.append(_verdict()),
    "a kill order": lambda bus: bus.orders.write(_order()),
    "a policy": lambda bus: bus.orders.write_policy(Policy(id="mine", at=_NOW)),
    "an assignment": lambda bus: bus.append(assigned(NS)),
    "another role's result": lambda bus: bus.append(result(assigned(NS), 1).model_copy(update={"by": WRITER})),
    "another role's effect": lambda bus: bus.append(effect_done(NS).model_copy(update={"by": WRITER})),
    "another role's queue": _take_from_another,
    "a stream": lambda bus: api(bus._wire, "STREAM.CREATE.MINE", {"name": "MINE"}),
    "no more log": lambda bus: api(bus._wire, f"STREAM.DELETE.{_STREAM}"),
}


@pytest.mark.parametrize("what", OVER_THE_BUS)
async def test_a_refusal_is_an_error_of_its_own(
    operator: BrokerAddress, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Over the bus a worker gets ``PublishDenied`` at once, not a timeout, and it is logged with its subject."""
    async with bus_of(operator, WORKER) as bus:
        began = time.monotonic()
        with pytest.raises(PublishDenied) as caught:
            await OVER_THE_BUS[what](bus)
        seconds = time.monotonic() - began
        assert bus.is_connected
    print(f"PublishDenied for {what} after {1000 * seconds:.1f} ms")  # noqa: T201 -- a figure
    assert seconds < SECONDS
    assert caught.value.subject.startswith((f"il.{NS}.", "il-api."))
    assert f"the broker's permissions do not let this user publish to {caught.value.subject}" in told(caplog)


async def test_a_pull_that_is_refused_later_says_so(operator: BrokerAddress, caplog: pytest.LogCaptureFixture) -> None:
    """Where only the asking for messages is forbidden the iterator raises, and waits for nothing."""
    async with bus_of(operator, WORKER) as bus, bus.pull("assigned", READER, 1) as deliveries:
        pull = deliveries._pull

        async def elsewhere() -> str:
            return f"{_STREAM}.assigned-{WRITER}"

        pull._prepare = elsewhere
        pull._end_era()
        with anyio.fail_after(5), pytest.raises(PublishDenied, match=r"MSG\.NEXT"):
            await anext(deliveries)
    assert any("MSG.NEXT" in line for line in told(caplog))


async def test_listening_is_refused_over_the_bus(operator: BrokerAddress, caplog: pytest.LogCaptureFixture) -> None:
    """What a worker may not hear is a ``SubscribeDenied``, logged."""
    async with bus_of(operator, WORKER) as bus:
        with pytest.raises(SubscribeDenied):
            async with bus.listen("j1"):
                pass
        async with bus.orders.heard():  # nothing is asked for: it has to look
            pass
        with pytest.raises(BusError):
            async with bus.follow() as batches:
                await anext(batches)
    assert any("subscribe to il.main.live.j1.>" in line for line in told(caplog))


FORGED = {
    "a verdict": f"{_LOG}.verdict.{CHECKER}",
    "another's result": f"{_LOG}.result.{CHECKER}.{WRITER}",
    "a kill order": f"il.{NS}.control.all",
    "a purge": f"{API}.STREAM.PURGE.{_STREAM}",
    "its own result": f"{_LOG}.result.{CHECKER}.{READER}",
    "an entry of an object": f"$O.{_STREAM}.M.x",
}


@pytest.fixture
async def stored(operator: BrokerAddress) -> AsyncIterator[int]:
    """Return the sequence of a stored body that a worker wrote: what it would like to stand elsewhere."""
    async with Raw.of(operator, WORKER) as raw:
        order = _order().model_dump_json().encode()
        yield json.loads((await raw.client.request(f"$O.{_STREAM}.C.forged", order)).data)["seq"]


@pytest.mark.parametrize("what", FORGED)
async def test_no_answer_of_the_broker_can_be_sent_elsewhere(operator: BrokerAddress, what: str, stored: int) -> None:
    """The subject for the answer to a request is the sender's to choose: none of them reaches the streams' account.

    Where all share one account this puts a stored body into the log as a verdict, or takes the place of a kill order.
    """
    target = FORGED[what]
    before = await _written(operator)
    async with Raw.of(operator, WORKER) as raw, bus_of(operator, Party("operator")) as bus:
        async with bus.queues([("assigned", READER)]):
            for query in ({"seq": stored}, {"seq": stored, "no_hdr": True}):
                body = json.dumps(query).encode()
                await raw.client.publish(f"il-api.DIRECT.GET.OBJ_{_STREAM}", body, target)
            await raw.client.publish(f"il-api.STREAM.MSG.GET.{_STREAM}", b'{"seq":1}', target)
            await raw.client.publish(f"il-api.STREAM.INFO.{_STREAM}_CONTROL", b"", target)
            queue = f"{_STREAM}.assigned-{READER}"
            await raw.client.publish(f"il-api.CONSUMER.MSG.NEXT.{queue}", b'{"batch":1,"no_wait":true}', target)
            await raw.client.publish(f"il-api.CONSUMER.INFO.{queue}", b"", target)
            await raw.client.flush()
            await raw.client.request(
                f"il-api.DIRECT.GET.OBJ_{_STREAM}", json.dumps({"seq": stored}).encode(), timeout=5
            )
            await raw.api(f"STREAM.INFO.{_STREAM}_CONTROL")
            await raw.api(f"CONSUMER.INFO.{queue}")
        assert not raw.refusals
    assert await _written(operator) == before


async def test_a_reply_for_an_acknowledgement_is_refused(operator: BrokerAddress) -> None:
    """A request whose answer would be an acknowledgement for somebody else is not taken at all."""
    async with Raw.of(operator, WORKER) as raw:
        target = f"$JS.ACK.{_STREAM}.assigned-{WRITER}.1.1.1.1.0"
        await raw.refused_publish(f"il-api.STREAM.INFO.{_STREAM}_CONTROL", b"", target)


async def test_a_manager_s_consumer_delivers_nowhere_else(operator: BrokerAddress) -> None:
    """A consumer that would push what a manager wrote into the stream of orders writes nothing there."""
    async with bus_of(operator, MANAGER) as bus:
        await bus.append(assigned(NS, job=f"j{uuid.uuid4().hex[:8]}"))
    before = await _written(operator)
    async with Raw.of(operator, MANAGER) as raw:
        config = {
            "name": "evil",
            "deliver_subject": f"il.{NS}.control.all",
            "filter_subject": f"il.{NS}.log.>",
            "ack_policy": "none",
            "deliver_policy": "last",
        }
        call = f"CONSUMER.CREATE.{_STREAM}.evil.il.{NS}.log.>"
        await raw.api(call, {"stream_name": _STREAM, "config": config})
        await raw.api(f"STREAM.INFO.{_STREAM}_CONTROL")
    async with bus_of(operator, MANAGER) as bus, bus.follow() as batches:
        await anext(batches)  # what was written is delivered to those who may have it by now
    assert await _written(operator) == before


async def test_what_was_stored_cannot_be_replaced(operator: BrokerAddress) -> None:
    """A worker that writes another description of somebody's body, or rolls the bucket up, harms no reader."""
    body = uuid.uuid4().bytes * 20_000
    async with bus_of(operator, MANAGER) as bus:
        reference = await bus._blobs.put(body)
        async with Raw.of(operator, WORKER) as raw:
            subject = bus._blobs._meta_subject(reference)
            await raw.client.request(subject, b'{"nuid": "none", "chunks": 1}')
            for scope in ("sub", "all"):
                answer = await raw.client.request(subject, b"{}", headers={"Nats-Rollup": scope})
                assert "rollup not permitted" in answer.data.decode()
        assert await bus._blobs.get(reference) == body


async def test_a_key_opens_one_party_s_door(operator: BrokerAddress) -> None:
    """Each party has a key of its own, and the inbox is that key's."""
    logins = [login_of(operator, party, 0) for party in (WORKER, OTHER, VERIFIER, MANAGER)]
    assert len({login.seed for login in (*logins, operator)}) == 5
    assert all(login.keys is None for login in logins), "an agent is not told where the others' keys are"
    assert inbox_of("U") == "_INBOX.U"
