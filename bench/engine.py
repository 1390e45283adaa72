"""Tokens per second of the real vLLM through a whole `interlock run`, against the same calls written by hand.

    python -m bench.engine [--items N] [--parallel P] [--rounds R] [--json]

vLLM runs on the CPU with a model of 135 million parameters (`requirements/vllm-engine.sh` builds both, once on a
machine), and both sides ask the same server: the same prompts, the same number at once. Each item is a question about a
handbook of some 600 tokens that all items share. By hand means: one process, asyncio, the official openai client, a
semaphore, nothing checked and nothing kept. Through Interlock the same calls come from worker processes, every answer
is checked, and all is logged. Answers are bound to a schema, on both sides.

Each side runs once a round, and who begins alternates. Every run has a handbook of its own, of the same length: nobody
finds in the prefix cache what somebody else left there. Both times run from the end of a call that warms up to the end
of the last item, so that starting processes is left out on both sides.

``prefix_hit_share``: of the prompt tokens that Interlock's items share with an earlier item of their run, the part that
vLLM's own counters say was found in its prefix cache. A cache of blocks of 32 tokens cannot reach 1.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from bench.vllm.serving import MODEL, folder, meters, serving
from interlock.backends.engines import Endpoint
from interlock.protocol.messages import TaskAssigned, TaskClosed, TaskResult
from interlock.protocol.subjects import log_subjects
from interlock.runtime.place import Place, open_bus

_PROMPT = "You answer questions about a handbook. You use its words."
_GOAL = "Answer every question"
_FORM = 'Answer with one JSON object with the field "answer" (string) and nothing else.'
_SYSTEM = f"{_PROMPT}\n\nThe goal of the whole work: {_GOAL}\n\n{_FORM}"
_LENGTH = {"type": "string", "minLength": 160, "maxLength": 240}
"""Of an answer, in characters: 40 to 60 tokens. What a model of this size says ends of itself too seldom."""
_SCHEMA = {
    "type": "object",
    "properties": {"answer": _LENGTH},
    "required": ["answer"],
    "additionalProperties": False,
}
_MAX_TOKENS = 256
_TEMPERATURE = 0.2
_THINGS = ("gate", "boiler", "kitchen", "ladder", "office", "garden", "cellar", "workshop", "van", "archive")
_WAYS = (
    "is opened at {hour} by whoever comes first, and closed again by the last to leave",
    "is looked after by team {hour}, who write down everything that they have mended",
    "may be used by visitors from {hour} on, if somebody of the house is with them",
)


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of one side came to."""

    seconds: float
    tokens: int
    """That the model answered with."""
    prompt_tokens: int


def main() -> None:
    """Measure both sides and print a line of JSON, or a table."""
    options = _options()
    found = asyncio.run(_measure(options))
    if options.json:
        print(json.dumps(found))
    else:
        print("\n".join(f"{name:20} {value}" for name, value in found.items()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description="Tokens per second, against by hand.")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--parallel", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2, help="of both sides; who begins alternates")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    bare: list[Run] = []
    through: list[Run] = []
    shares: list[float] = []
    async with serving(folder()) as endpoint:
        for number in range(options.rounds):
            for side in ("bare", "interlock") if number % 2 == 0 else ("interlock", "bare"):
                prompts = _prompts(_handbook(f"{side[0]}{number}"), options.items)
                if side == "bare":
                    bare.append(await _by_hand(endpoint, prompts, options))
                    continue
                before = meters(endpoint.url).hit
                through.append(await _interlock(endpoint, _handbook(f"{side[0]}{number}"), options))
                shared = _shared_tokens(endpoint, prompts[:2]) * (options.items - 1)
                shares.append((meters(endpoint.url).hit - before) / shared)
    _same_prompts(bare, through)
    rate, by_hand = _rate(through), _rate(bare)
    return {
        "ratio": round(rate / by_hand, 3),
        "tokens_per_s": round(rate, 1),
        "bare_tokens_per_s": round(by_hand, 1),
        "prefix_hit_share": round(sum(shares) / len(shares), 3),
        "ratio_by_round": [round(_rate([one]) / _rate([other]), 3) for one, other in zip(through, bare, strict=True)],
        "tokens": sum(run.tokens for run in through),
        "bare_tokens": sum(run.tokens for run in bare),
        "items": options.items,
        "parallel": options.parallel,
    }


def _rate(runs: Iterable[Run]) -> float:
    """Return tokens per second over several runs."""
    runs = list(runs)
    return sum(run.tokens for run in runs) / sum(run.seconds for run in runs)


def _same_prompts(bare: list[Run], through: list[Run]) -> None:
    """End here where the two sides did not ask for the same: then their rates cannot be compared."""
    asked = {run.prompt_tokens for run in (*bare, *through)}
    if max(asked) - min(asked) > len(asked):  # the names of the runs in their handbooks may differ by a token
        sys.exit(f"the sides sent different prompts, of {sorted(asked)} tokens in all")


def _handbook(name: str) -> str:
    """Return some 600 tokens that no run of another name has."""
    lines = [f"Handbook of the house {name}."]
    for number, thing in enumerate(_THINGS):
        lines += [f"The {thing} {way.format(hour=(number + row) % 9 + 1)}." for row, way in enumerate(_WAYS)]
    return "\n".join(lines)


def _question(number: int) -> str:
    return f"Question {number}: who opens the {_THINGS[number % len(_THINGS)]}, and what else is said of it?"


def _prompts(handbook: str, items: int) -> list[list[dict[str, str]]]:
    """Return what each item asks, message by message, as Interlock puts it."""
    return [
        [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": f"{handbook}\n\n{_question(number)}"}]
        for number in range(items)
    ]


async def _by_hand(endpoint: Endpoint, prompts: list[list[dict[str, str]]], options: argparse.Namespace) -> Run:
    client = openai.AsyncOpenAI(base_url=endpoint.url, api_key=endpoint.api_key)
    room = asyncio.Semaphore(options.parallel)
    bound: Any = {"type": "json_schema", "json_schema": {"name": "answer", "schema": _SCHEMA, "strict": True}}

    async def call(messages: Any) -> tuple[int, int]:
        async with room:
            answer = await client.chat.completions.create(
                model=MODEL,
                messages=messages,
                temperature=_TEMPERATURE,
                max_tokens=_MAX_TOKENS,
                response_format=bound,
            )
        assert answer.usage
        return answer.usage.completion_tokens, answer.usage.prompt_tokens

    await call([{"role": "user", "content": "Say hello."}])
    began = time.perf_counter()
    used = await asyncio.gather(*map(call, prompts))
    seconds = time.perf_counter() - began
    await client.close()
    return Run(seconds, sum(tokens for tokens, _ in used), sum(prompt for _, prompt in used))


async def _interlock(endpoint: Endpoint, handbook: str, options: argparse.Namespace) -> Run:
    """Run a team over the same questions and read from its log what that took."""
    with tempfile.TemporaryDirectory(prefix="interlock-bench-") as name:
        place = Path(name)
        (place / "items.jsonl").write_text("".join(f"{json.dumps(_question(n))}\n" for n in range(options.items)))
        (place / "team.yaml").write_text(json.dumps(_team(endpoint, handbook, options)))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "interlock.runtime.cli", "run", "team.yaml", _GOAL, "--json"),
            cwd=place,
            env=_environment() | {"INTERLOCK_API_KEY": endpoint.api_key or "", "INTERLOCK_STATE": str(place / "state")},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        if process.returncode:
            sys.exit(f"the run ended with {process.returncode}:\n{said.decode()[-2000:]}")
        return await _read(place / "state")


def _environment() -> dict[str, str]:
    """Return the environment without what would send the team elsewhere than to the server under test."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("INTERLOCK_", "OTEL_"))}


def _team(endpoint: Endpoint, handbook: str, options: argparse.Namespace) -> dict[str, Any]:
    asked = {"agent": "reader", "output": {"answer": _LENGTH}, "verify": {"by": "checker"}}
    return {
        "interlock": 1,
        "team": "bench",
        "model": {
            "engine": "vllm",
            "url": endpoint.url,
            "name": MODEL,
            "temperature": _TEMPERATURE,
        },
        "agents": {"reader": {"kind": "worker", "prompt": _PROMPT}, "checker": {"kind": "verifier"}},
        "plan": [
            {"step": "warm", "do": "Say hello.", **asked},
            {
                "step": "answer",
                "needs": ["warm"],
                "for_each": {"jsonl": "items.jsonl"},
                "do": f"{handbook}\n\n{{{{ item }}}}",
                **asked,
            },
        ],
        # What is ahead waits at the workers, so that none of them waits for the next; it is not asked for sooner.
        "limits": {"parallel": options.parallel, "ahead": options.parallel // 2},
    }


async def _read(state: Path) -> Run:
    """Return the run of the step `answer` as the log has it."""
    begun: list[float] = []
    ended: list[float] = []
    tokens = prompt_tokens = 0
    asked: set[str] = set()
    async with open_bus(Place(state), "bench") as (bus, _), bus.follow([log_subjects(bus.ns)]) as batches:
        async for batch in batches:
            for message in (entry.message for entry in batch.entries):
                if isinstance(message, TaskAssigned) and message.step == "answer":
                    begun.append(message.at.timestamp())
                    asked.add(message.task)
                elif isinstance(message, TaskClosed) and message.task in asked:
                    ended.append(message.at.timestamp())
                elif isinstance(message, TaskResult) and message.task in asked:
                    tokens += message.usage.completion_tokens
                    prompt_tokens += message.usage.prompt_tokens
            if batch.pending == 0:
                break
    return Run(max(ended) - min(begun), tokens, prompt_tokens)


def _shared_tokens(endpoint: Endpoint, prompts: list[list[dict[str, str]]]) -> int:
    """Return how many tokens two prompts have in common from their beginning on, as the server cuts them up."""
    one, other = (_tokens(endpoint, prompt) for prompt in prompts)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _tokens(endpoint: Endpoint, messages: list[dict[str, str]]) -> list[int]:
    address = urlsplit(endpoint.url)
    request = urllib.request.Request(
        f"http://{address.netloc}/tokenize",
        json.dumps({"model": MODEL, "messages": messages}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {endpoint.api_key}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 -- loopback
        found: list[int] = json.load(answer)["tokens"]
    return found


if __name__ == "__main__":
    main()
