"""Secrets: read once, given only to who declares them, and found in texts whichever way they are written."""

import base64
import html
import io
import json
import logging
import pickle
import re
import time
import urllib.parse
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from interlock.agents.tools.errors import SecretMissing, SecretTooWeak
from interlock.agents.tools.secrets import NO_SECRETS, SHORTEST, ScrubbingFilter, Secrets
from interlock.observability.logging import configure_logging
from interlock.protocol.team import SecretSource

VALUE = 's3cr3t/+=?&"key\\ é'
SECRETS = Secrets({"TOKEN": VALUE})

ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "json": json.dumps,
    "json in json": lambda text: json.dumps(json.dumps(text)),
    "json in json in json": lambda text: json.dumps(json.dumps(json.dumps(text))),
    "json as utf-8": lambda text: json.dumps(text, ensure_ascii=False),
    "json for html": lambda text: json.dumps(text).replace("/", "\\/"),
    "url": lambda text: urllib.parse.quote(text, safe=""),
    "url, but slashes": urllib.parse.quote,
    "url, lower case": lambda text: re.sub("%..", lambda found: found[0].lower(), urllib.parse.quote(text, safe="")),
    "url twice": lambda text: urllib.parse.quote(urllib.parse.quote(text, safe=""), safe=""),
    "form": urllib.parse.quote_plus,
    "all percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
    "html": html.escape,
    "html numbers": lambda text: "".join(f"&#{ord(character)};" for character in text),
    "html hex": lambda text: "".join(f"&#x{ord(character):X};" for character in text),
    "repr": repr,
    "ascii": ascii,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 for urls": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "base64 in a url": lambda text: urllib.parse.quote(base64.b64encode(text.encode()).decode(), safe=""),
    "base64 in json for html": lambda text: json.dumps(base64.b64encode(text.encode()).decode()).replace("/", "\\/"),
}

values = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t/\\\"'&%+ <>é😀"),
    min_size=SHORTEST,
    max_size=30,
)
around = st.text(st.characters(codec="utf-8"), max_size=12)


def secrets_of(value: str) -> Secrets:
    assume(value not in "[secret NAME]")
    return Secrets({"NAME": value})


@given(value=values, before=around, after=around, encoding=st.sampled_from(sorted(ENCODINGS)))
def test_no_form_of_a_secret_is_left(value: str, before: str, after: str, encoding: str) -> None:
    """Whichever way a secret is encoded and whatever stands around it, what is left of it is its name."""
    encoded = ENCODINGS[encoding](value)
    scrubbed = secrets_of(value).scrub(f"{before}{encoded}{after}")
    assert "[secret NAME]" in scrubbed
    assert value not in scrubbed.replace("[secret NAME]", "")
    left = scrubbed.replace("[secret NAME]", "")
    assert len(left) <= len(before) + len(after) + 16  # quotes, escaped often


@given(value=values, before=st.binary(max_size=7), after=st.binary(max_size=7), urlsafe=st.booleans())
def test_base64_hides_no_secret(value: str, before: bytes, after: bytes, urlsafe: bool) -> None:
    """Wherever in the encoded bytes a secret begins, no more than a byte of it at either end can be decoded."""
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    scrubbed = secrets_of(value).scrub(encode(before + value.encode() + after).decode())
    left = scrubbed.split("[secret NAME]")
    assert len(left) >= 2
    assert sum(map(len, left)) <= (len(before) + len(after)) * 4 / 3 + 12


@given(texts=st.lists(st.text(max_size=40), max_size=3), value=values)
def test_other_texts_are_left_alone(texts: list[str], value: str) -> None:
    """A text without the secret is not changed."""
    secrets = secrets_of(value)
    for text in texts:
        assume(value not in text)
        scrubbed = secrets.scrub(text)
        assert scrubbed == text or "[secret NAME]" in scrubbed
    assert NO_SECRETS.scrub(value) == value


def test_json_is_scrubbed_throughout() -> None:
    """Texts, keys and numbers that are secrets are replaced; everything else stays what it is."""
    secrets = Secrets({"TOKEN": VALUE, "PIN": "1234567890"})
    value = {f"at {VALUE}": [VALUE, 1, True, None, 2.5, {"x": 1234567890}], "plain": "text"}
    assert secrets.scrub_json(value) == {  # type: ignore[arg-type]
        "at [secret TOKEN]": ["[secret TOKEN]", 1, True, None, 2.5, {"x": "[secret PIN]"}],
        "plain": "text",
    }


def test_a_secret_that_begins_like_another_is_replaced_whole() -> None:
    """The longer one is found first."""
    secrets = Secrets({"SHORT": "abcdefgh", "LONG": "abcdefghijkl"})
    assert secrets.scrub("abcdefghijkl abcdefgh") == "[secret LONG] [secret SHORT]"


def test_secrets_come_from_the_environment() -> None:
    """A variable that is not set, or empty, is said by its name, and so is a secret that is too short."""
    sources = {"TOKEN": SecretSource(env="MY_TOKEN")}
    secrets = Secrets.from_environment(sources, {"MY_TOKEN": VALUE})
    assert secrets.reveal("TOKEN") == VALUE
    assert secrets.names == {"TOKEN"}
    for environ in ({}, {"MY_TOKEN": ""}):
        with pytest.raises(SecretMissing, match="set the environment variable MY_TOKEN"):
            Secrets.from_environment(sources, environ)
    for value in ("shrt", "[secret TOKEN]"[:9]):
        with pytest.raises(SecretTooWeak) as weak:
            Secrets.from_environment(sources, {"MY_TOKEN": value})
        assert value not in str(weak.value).replace("the secret 'TOKEN'", "")


def test_secrets_do_not_show() -> None:
    """Neither ``repr`` nor pickling gives a value away, and who only knows the names has none."""
    assert repr(SECRETS) == "Secrets(TOKEN)"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(SECRETS)
    with pytest.raises(KeyError):
        Secrets.unread(["TOKEN"]).reveal("TOKEN")
    assert Secrets.unread(["TOKEN"]).names == {"TOKEN"}


@pytest.mark.parametrize("form", ["text", "json"])
def test_logs_hold_no_secret(form: str) -> None:
    """Messages, their arguments, exceptions with their causes, and stacks come out without secrets."""
    stream = io.StringIO()
    root, log = logging.getLogger(), logging.Logger("alone")  # noqa: LOG001 -- pytest's handlers must not see it
    before = root.handlers[:]
    configure_logging("test", {"INTERLOCK_LOG_FORMAT": form}, stream)
    [handler] = [handler for handler in root.handlers if handler not in before]
    root.removeHandler(handler)
    handler.addFilter(ScrubbingFilter(SECRETS))
    log.addHandler(handler)
    try:
        log.warning("token %s and %r", VALUE, {"x": VALUE})
        log.warning("broken %s %s", VALUE)  # noqa: PLE1206 -- that is the mistake
        log.warning(VALUE, extra={"job": VALUE})
        try:
            raise OSError(f"{VALUE!r}") from ValueError(VALUE)  # noqa: TRY301 -- only for its traceback
        except OSError:
            log.exception("failed", stack_info=True)
    finally:
        handler.close()
    written = stream.getvalue()
    assert written.count("[secret TOKEN]") == 7
    assert "ValueError" in written
    assert "s3cr3t" not in written


def test_scrubbing_is_fast() -> None:
    """A megabyte of text takes well under a second with ten secrets, also a text made to slow it down."""
    secrets = Secrets({f"S{number}": f"canary-{number:04}-{'x' * 30}" for number in range(10)})
    for text in (
        "The quick brown fox jumps over the lazy dog. " * 5_000,
        "c" * 200_000,
        "\\" * 200_000,
        "%25" * 70_000,
    ):
        began = time.perf_counter()
        secrets.scrub(text)
        assert time.perf_counter() - began < 2, text[:20]
