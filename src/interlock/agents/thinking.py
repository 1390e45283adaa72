"""The one place where agents ask a model, and so the one place where such calls are traced."""

from dataclasses import replace
from hashlib import sha256

from interlock.backends.chat import ChatModel, ChatReply, ChatRequest
from interlock.observability.tracing import ModelCall, Tracing

__all__ = ["NO_TRACING", "seed_of", "think"]

NO_TRACING = Tracing()
"""Records nothing."""

_SEED_BITS = 31
"""Engines take seeds that fit into a signed 32-bit number."""


async def think(model: ChatModel, request: ChatRequest, tracing: Tracing = NO_TRACING, job: str = "") -> ChatReply:
    """Return the model's answer; the call is a span below the one that is open here, and the engine is told so.

    :raises interlock.backends.errors.ModelError: there is no answer
    """
    call = ModelCall(
        model=model.name or "",
        provider=model.provider,
        temperature=request.temperature,
        max_tokens=request.max_tokens,
        seed=request.seed,
        url=model.url,
        job=job,
    )
    with tracing.chat(call) as span:
        span.asked([{"role": message.role, "content": message.content} for message in request.messages])
        reply = await model.chat(replace(request, headers={**request.headers, **span.headers}))
        span.answered(
            usage=reply.usage,
            finish_reasons=[reply.finish_reason],
            model=reply.model,
            response_id=reply.response_id,
            text=reply.text,
        )
    return reply


def seed_of(*parts: str | int) -> int:
    """Return a seed that depends on ``parts`` only: the same attempt samples the same, another one differently."""
    digest = sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:4]) >> (32 - _SEED_BITS)
