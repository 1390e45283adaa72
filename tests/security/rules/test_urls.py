"""Rules of URLs: one spelling for each place, and no spelling that gets past a rule."""

from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.security.rules.harness import FETCH, call_of, decide, layer

from interlock.agents.tools.normal import UrlUnclear
from interlock.protocol.permissions import judge_call
from interlock.protocol.urls import UrlNotNormal, normal_url

RULES = layer(
    allow=("web.fetch(https://*.example.org/open/**)", "web.fetch(https://one.example/)"),
    deny=("web.fetch(*://secret.example.org/**)", "web.fetch(https://*.example.org/open/private/**)"),
)

TRICKS = (
    *(
        "@evil.example",
        "%40evil.example",
        "#",
        "?",
        "\\",
        "/..",
        "/../",
        "/%2e%2e/",
        "/.%2E/",
        "/..;/",
        "%2f",
        "%5c",
        "//",
        ":80",
    ),
    *(
        "%00",
        "\t",
        "\n",
        " ",
        "%20",
        ".",
        "。",
        "\uff0e",
        "%2e",
        "%252e",
        "evil.example",
        "[::1]",
        "127.1",
        "0x7f000001",
        ":443",
        ":0",
    ),
    *(
        "\uff45",
        "ⓔ",
        "é",
        "xn--",
        "\u200b",
        "\u202e",
        "/private/x",
        "/PRIVATE/",
        "/priv%61te/",
        ";",
        "&",
        "=",
        "%",
        "%zz",
        "*",
        "~",
    ),
)

hosts = st.sampled_from(
    [
        "a.example.org",
        "secret.example.org",
        "SECRET.example.org",
        "example.org",
        "evil.example",
        "one.example",
        "secret%2Eexample.org",
        "\uff53ecret.example.org",
        "a.example.org.",
        "127.0.0.1",
        "[::1]",
        "notexample.org",
    ]
)


@st.composite
def urls(draw: st.DrawFn) -> str:
    """URLs with what is read in different ways put anywhere."""
    scheme = draw(st.sampled_from(["https", "https", "HTTPS", "http", "ftp", "file", "javascript"]))
    path = "/".join(
        draw(st.lists(st.sampled_from(["open", "private", "..", ".", "", "%2e%2e", "x", "Open", "a;b"]), max_size=4))
    )
    url = f"{scheme}://{draw(hosts)}/{path}"
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(url)))
        url = url[:at] + draw(st.sampled_from(TRICKS)) + url[at:]
    return url


@given(url=urls())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_allowed_goes_where_the_rules_say(url: str) -> None:
    """Another reader of URLs (urllib) finds an allowed host, path and port in what the tool gets, and no user name."""
    try:
        call = call_of(FETCH, url)
    except UrlUnclear:
        return
    if judge_call([RULES], call).outcome != "allow":
        return
    parts = urlsplit(str(call.arguments["url"]))
    host = parts.hostname or ""
    assert parts.scheme == "https"
    assert parts.username is None
    assert (parts.port or 443) == 443
    assert host.isascii()
    assert host != "secret.example.org"
    if host == "one.example":
        assert (parts.path, parts.query) == ("/", "")
    else:
        assert host.endswith(".example.org")
        assert parts.path == "/open" or parts.path.startswith("/open/")
        assert not parts.path.lower().startswith("/open/private")
        assert ".." not in parts.path.split("/")


@given(url=st.one_of(urls(), st.text(max_size=40).map(lambda rest: f"http://{rest}"), st.text(max_size=40)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_url_has_one_form_or_none(url: str) -> None:
    """Whatever is given becomes a URL that is its own one form, or the typed error."""
    try:
        normal = str(normal_url(url))
    except UrlNotNormal:
        return
    assert str(normal_url(normal)) == normal
    assert normal.isascii()
    assert normal.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("HTTP://Example.ORG", "http://example.org/"),
        ("https://example.org:443/a", "https://example.org/a"),
        ("http://example.org:0080/", "http://example.org/"),
        ("https://example.org./", "https://example.org/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://017700000001/", "http://127.0.0.1/"),
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://[0:0::1]/", "http://[::1]/"),
        ("http://[::ffff:7f00:1]/", "http://127.0.0.1/"),
        ("http://\uff11\uff12\uff17。0.0.1/", "http://127.0.0.1/"),
        ("http://%31%32%37.0.0.1/", "http://127.0.0.1/"),
        ("http://bücher.example/ü?ö", "http://xn--bcher-kva.example/%C3%BC?%C3%B6"),
        ("http://a/b/../c/./d/..", "http://a/c/"),
        ("http://a/%62/%2e%2e/%7ec#x", "http://a/~c"),
        ("http://a?b", "http://a/?b"),
    ],
)
def test_one_form(url: str, normal: str) -> None:
    """Case, escapes, ports, dots and the many spellings of an address come to one."""
    assert str(normal_url(url)) == normal


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "example.org",
            "//example.org/",
            "ftp://a/",
            "file:///etc/passwd",
            "javascript:x",
            "http:a",
            "http:///a",
            "http://",
        ),
        *(
            "http://a@b/",
            "http://a:b@c/",
            "http://@a/",
            "http://a%40b/",
            "http://a\\@b/",
            "http://a/\\b",
            "http://a b/",
            "http://a\t/",
        ),
        *(
            "http://a:99999/",
            "http://a:x/",
            "http://a:0/",
            "http://[::1%25eth0]/",
            "http://[::1/",
            "http://1.2.3.4.5/",
            "http://256.1.1.1/",
        ),
        *(
            "http://a.0x/",
            "http://a.1/",
            "http://a%00b/",
            "http://a%2fb/",
            "http://a%252eb/",
            "http://a/%",
            "http://a/%2f",
            "http://a/%5C",
        ),
        *(
            "http://a/%00",
            "http://a/%252e",
            "http://a/..;x/b",
            "http://-a/",
            "http://a..b/",
            "http://a\u200b b/",
            "http://[1.2.3.4]/",
        ),
        *("http://" + "a" * 70 + "/", "http://a/" + "b" * 9000, "http://a/\ud800", "http://\u2100/"),
    ],
)
def test_unclear_urls_are_refused(url: str) -> None:
    """What two programs could read in two ways is refused."""
    with pytest.raises(UrlUnclear):
        call_of(FETCH, url)


@pytest.mark.parametrize(
    ("pattern", "url", "fits"),
    [
        ("https://a.b/**", "https://a.b/", True), ("https://a.b/**", "http://a.b/", False),
        ("*://a.b/**", "http://a.b/", True),         ("https://*.a.b/**", "https://x.y.a.b/", True),
        ("https://*.a.b/**", "https://a.b/", False),
        ("https://*.a.b/**", "https://xa.b/", False), ("https://*/**", "https://1.2.3.4/", True),
        ("https://a.b/", "https://a.b/?q=secret", False), ("https://a.b/x/*", "https://a.b/x/y?q", False),
        ("https://a.b/x/*", "https://a.b/x/y", True), ("https://a.b/x/*", "https://a.b/x/y/z", False),
        ("https://a.b/x/**", "https://a.b/x?q", True), ("https://a.b/x/**", "https://a.b/xy", False),
        ("https://a.b:8443/**", "https://a.b:8443/", True), ("https://a.b/**", "https://a.b:8443/", False),
        ("https://a.b:*/**", "https://a.b:1/", True), ("https://a.b/?q=*", "https://a.b/?q=1", True),
        ("https://bücher.example/**", "https://xn--bcher-kva.example/", True), ("**", "http://a/", True),
        ("https://a.b/**/z", "https://a.b/x/y/z", True), ("http://0x7f.1/**", "http://127.0.0.1/a", True),
    ],
)  # fmt: skip
def test_patterns_of_urls(pattern: str, url: str, fits: bool) -> None:
    """Scheme, host, port, path and query each have to fit."""
    rules = layer(allow=(f'web.fetch("{pattern}")',))
    assert (decide(FETCH, url, rules).outcome == "allow") is fits


def test_many_wildcards_take_no_time() -> None:
    """A long URL against a pattern with many wildcards is judged at once, not in exponential time."""
    rules = layer(allow=("web.fetch(https://a.b/" + "**a*a" * 20 + "b)",))
    assert decide(FETCH, "https://a.b/" + "a" * 8000, rules).outcome == "deny"
