"""``web.fetch`` against real servers: what it follows, where it never goes, and that nothing makes it wait or swell."""

import gzip
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from aiohttp import web
from tests.integration.tools.pages import Names, serving
from tests.unit.agents.tools.calls import context_of_call, tool_of

from interlock.agents.tools._reach import Reach, networks
from interlock.agents.tools.calling import Tool
from interlock.agents.tools.errors import ToolFailed, ToolRefused, ToolSettingsInvalid
from interlock.agents.tools.web import Web
from interlock.protocol.base import Json
from interlock.protocol.team import WebTools

LOOPBACK = "127.0.0.0/8"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def fetcher(
    names: Names, *, private: tuple[str, ...] = (LOOPBACK,), seconds: float = 20, size: int = 2_000_000
) -> Tool:
    settings = WebTools(private=private, seconds=seconds, bytes=size)
    return tool_of(Web(settings, resolve=names).fetch)


async def fetched(tool: Tool, url: str, **more: Json) -> dict[str, Json]:
    outcome = await tool.call({"url": url, **more}, context_of_call())
    assert isinstance(outcome, dict)
    return outcome


def always(response: Callable[[], web.StreamResponse]) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return response()

    return handler


@asynccontextmanager
async def page(response: Callable[[], web.StreamResponse]) -> AsyncIterator[str]:
    """Serve one response; yields its URL under the name ``site``."""
    async with serving(always(response)) as port:
        yield f"http://site:{port}/"


SITE = {"site": ["127.0.0.1"]}


def test_spec_says_that_it_goes_out() -> None:
    """It reads, but its argument leaves the machine, and what it returns is from outside."""
    spec = tool_of(Web(WebTools()).fetch).spec
    assert (spec.name, spec.effect, spec.network, spec.outside) == ("web.fetch", "read", True, True)
    assert (spec.kinds, spec.primary, spec.destinations) == ({"url": "url"}, "url", ("url",))


async def test_html_becomes_what_a_person_reads() -> None:
    """Tags, scripts and styles are gone, lists and tables keep their lines, and links show where asked for."""
    text = (
        "<html><head><title>T</title><style>p{}</style></head><body><script>evil()</script><h1>Tea</h1>"
        "<p>Gr&uuml;n &amp; <b>black</b></p><ul><li>one<li>two</ul><table><tr><td>a</td><td>b</td></tr></table>"
        "<a href='/more'>More</a></body></html>"
    )
    async with page(lambda: web.Response(text=text, content_type="text/html")) as url:
        tool = fetcher(Names(**SITE))
        plain = await fetched(tool, url)
        linked = await fetched(tool, url, links=True)
    assert plain["text"] == "Tea\n\nGrün & black\n\n  * one\n  * two\na  b\n\nMore"
    assert str(linked["text"]).endswith("[More](/more)")
    assert (plain["url"], plain["status"], plain["type"], plain["cut"]) == (url, 200, "text/html", False)


async def test_other_text_comes_as_it_is() -> None:
    """JSON and plain text are not touched, and an error page is told with its status."""
    async with page(lambda: web.json_response({"a": "<b>"}, status=404)) as url:
        outcome = await fetched(fetcher(Names(**SITE)), url)
    assert (outcome["status"], outcome["text"]) == (404, '{"a": "<b>"}')


@pytest.mark.parametrize(
    ("body", "header", "text"),
    [
        ("é漢".encode(), "text/plain; charset=utf-8", "é漢"),
        ("é漢".encode(), "text/plain", "é漢"),
        ("é€".encode("cp1252"), "text/plain; charset=ISO-8859-1", "é€"),
        ("漢字".encode("shift_jis"), 'text/plain; charset="Shift_JIS"', "漢字"),
        ("hé".encode("utf-16"), "text/plain", "hé"),
        (b"\xef\xbb\xbfabc", "text/plain; charset=latin-1", "abc"),
        ('<meta charset="iso-8859-2">ő'.encode("iso-8859-2"), "text/html", "ő"),
        (b'<?xml version="1.0" encoding="latin-1"?><html><p>\xe9</p></html>', "application/xhtml+xml", "é"),
        (b"abc \xff", "text/plain; charset=nonsense", "abc �"),
        (b"abc", "text/plain; charset=zlib", "abc"),
        (b"abc-", "text/plain; charset=punycode", "abc-"),
        (rb"\u0041", "text/plain; charset=unicode_escape", r"\u0041"),
        (b"+AGEAYg-", "text/plain; charset=utf-7", "+AGEAYg-"),
        (b"\xef\xbb\xbf<?xml version='1.0' encoding='utf-8'?><html><p>\xc3\xa9</p></html>", "text/html", "é"),
        (b"abc", "", "abc"),
    ],
)
async def test_character_sets(body: bytes, header: str, text: str) -> None:
    """A character set is taken from the header, the bytes or the page; what is none of them is read as UTF-8."""
    async with page(lambda: web.Response(body=body, headers={"Content-Type": header})) as url:
        assert (await fetched(fetcher(Names(**SITE)), url))["text"] == text


@pytest.mark.parametrize(
    ("body", "header", "problem"),
    [
        (b"\x89PNG", "image/png", "is image/png"),
        (b"PK", "application/zip", "is application/zip"),
        (b"%PDF", "application/octet-stream", "is application/octet-stream"),
        (b"ab\0cd", "text/plain", "it is not text"),
    ],
)
async def test_what_is_no_text_is_refused(body: bytes, header: str, problem: str) -> None:
    """Only text is returned, whatever the server calls it."""
    async with page(lambda: web.Response(body=body, headers={"Content-Type": header})) as url:
        with pytest.raises(ToolFailed, match=problem):
            await fetched(fetcher(Names(**SITE)), url)


async def test_redirects_are_followed_and_each_is_judged() -> None:
    """Each hop is shown to the rules before it is asked for; a hop that they refuse is never asked for."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(f"{request.host.partition(':')[0]}{request.path_qs}")
        match request.path:
            case "/start":
                raise web.HTTPFound("/middle?x=1")
            case "/middle":
                raise web.HTTPMovedPermanently(f"//other:{request.url.port}/end")
            case _:
                return web.Response(text="arrived")

    judged: list[str] = []

    async def judge(url: str) -> None:
        judged.append(url)
        if "other" in url and not allowed:
            raise ToolRefused("no rule allows other")

    async with serving(handler) as port:
        tool = fetcher(Names(site=["127.0.0.1"], other=["127.0.0.1"]))
        allowed = True
        outcome = await tool.call({"url": f"http://site:{port}/start"}, context_of_call(allow_url=judge))
        assert isinstance(outcome, dict)
        assert (outcome["text"], outcome["url"]) == ("arrived", f"http://other:{port}/end")
        assert judged == [f"http://site:{port}/middle?x=1", f"http://other:{port}/end"]
        assert seen == ["site/start", "site/middle?x=1", "other/end"]
        allowed = False
        with pytest.raises(ToolRefused, match="no rule allows other"):
            await tool.call({"url": f"http://site:{port}/start"}, context_of_call(allow_url=judge))
        assert seen[3:] == ["site/start", "site/middle?x=1"]


async def test_redirects_end() -> None:
    """A circle of redirects is given up."""

    async def handler(_: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/again")

    async with serving(handler) as port:
        with pytest.raises(ToolFailed, match="6 redirects"):
            await fetched(fetcher(Names(**SITE)), f"http://site:{port}/")


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://site/x",
        "javascript:alert(1)",
        "http://user:pass@site/",
        "http://evil\\@site/",
        "http://127.0.0.1.:99999/",
        "http://site:0/",
        "http://%31%32%37.0.0.1/",
        "http:///x",
    ],
)
async def test_redirects_to_what_is_no_plain_url_are_refused(location: str) -> None:
    """Other schemes, user names, and what parsers could read in two ways lead nowhere."""
    async with page(lambda: web.Response(status=302, headers={"Location": location})) as url:
        with pytest.raises(ToolFailed):
            await fetched(fetcher(Names(**SITE)), url)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "127.1",
        "0",
        "10.0.0.1",
        "169.254.169.254",
    ],
)
async def test_redirect_chains_to_private_addresses_are_refused(target: str) -> None:
    """A public page that leads to a private address, however it is written, gets no further; nothing connects there."""
    hits: list[str] = []

    async def private(request: web.Request) -> web.StreamResponse:
        hits.append(request.path)
        return web.Response(text="internal")

    async with serving(private) as inner:
        redirect = web.Response(status=307, headers={"Location": f"http://{target}:{inner}/admin"})
        async with serving(always(lambda: redirect), host="127.0.0.2") as outer:
            # 127.0.0.2 stands for the public internet; every name but ``site`` is resolved by the system.
            real = Web(WebTools(private=("127.0.0.2/32",)))
            with pytest.raises(ToolFailed, match=r"not on the public internet|has no address"):
                await fetched(tool_of(real.fetch), f"http://127.0.0.2:{outer}/")
    assert hits == []


async def test_a_name_that_changes_its_address_leads_nowhere() -> None:
    """The address that was checked is the one connected to: a second answer for the same name is never asked for."""
    hits: list[str] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        hits.append(request.host)
        return web.Response(text="public")

    async with serving(handler, host="127.0.0.2") as port:
        names = Names(site=[["127.0.0.2"], ["127.0.0.1"]])
        tool = fetcher(names, private=("127.0.0.2/32",))
        assert (await fetched(tool, f"http://site:{port}/"))["text"] == "public"
        assert names.asked == ["site"]
        assert hits == [f"site:{port}"]
        with pytest.raises(ToolFailed, match=r"site.*127\.0\.0\.1.*not on the public internet"):
            await fetched(tool, f"http://site:{port}/")
        assert len(hits) == 1


async def test_one_private_address_among_public_ones_is_refused() -> None:
    """A name with a private address is not used at all."""
    async with page(lambda: web.Response(text="x")) as url:
        tool = fetcher(Names(site=["127.0.0.2", "192.168.1.1"]), private=("127.0.0.2/32",))
        with pytest.raises(ToolFailed, match=r"192\.168\.1\.1"):
            await fetched(tool, url)


async def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    """An address that refuses the connection does not end the fetch."""
    async with page(lambda: web.Response(text="second")) as url:
        tool = fetcher(Names(site=["127.0.0.3", "127.0.0.1"]))
        assert (await fetched(tool, url))["text"] == "second"
        with pytest.raises(ToolFailed, match="cannot be reached"):
            await fetched(fetcher(Names(site=["127.0.0.3"])), url)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "0.0.0.0",  # noqa: S104 -- nothing is bound
            "127.8.8.8",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "100.64.0.1",
            "169.254.169.254",
            "192.0.0.8",
        ),
        *(
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "192.0.2.1",
            "::",
            "::1",
            "::7f00:1",
        ),
        *(
            "fe80::1",
            "fe80::1%eth0",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "2001:db8::1",
        ),
        *("64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:7f00:1::", "nonsense", ""),
    ],
)
async def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """No private, local, shared, reserved or wrapped address is reached."""
    with pytest.raises(ToolFailed, match="not on the public internet"):
        await Reach((), Names(host=[address])).addresses("host", 80)


async def test_public_addresses_and_opened_networks_are_reached() -> None:
    """What is public is open, and of what is not the networks that the team file names, also where wrapped."""
    public = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"]
    assert await Reach((), Names(host=public)).addresses("host", 80) == tuple(public)
    opened = ["10.1.2.3", "::ffff:10.1.9.9"]
    assert await Reach(networks(["10.1.0.0/16"], "x"), Names(host=opened)).addresses("host", 80) == tuple(opened)
    with pytest.raises(ToolSettingsInvalid, match=r"tools\.web\.private.*like 10\.1\.0\.0/16"):
        Web(WebTools(private=("10.0.0.1/8",)))


@pytest.mark.parametrize(
    "url", ["", "site", "http://", "file:///x", "http://a b/", "http://x\n/", "https://:80/", "http://u@h/"]
)
async def test_what_is_no_url_is_refused(url: str) -> None:
    """Nothing is resolved for it."""
    names = Names(**SITE)
    with pytest.raises(ToolFailed):
        await fetched(fetcher(names), url)
    assert names.asked == []


async def dripping(request: web.Request) -> web.StreamResponse:
    """Send a byte now and then, for ever."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    while True:
        await response.write(b".")
        await anyio.sleep(0.02)


async def endless(request: web.Request) -> web.StreamResponse:
    """Send as fast as it goes, for ever."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    while True:
        await response.write(b"x" * 65_536)


async def silent(_: web.Request) -> web.StreamResponse:
    """Never answer."""
    await anyio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize("handler", [dripping, silent])
async def test_a_fetch_ends_in_time(handler: Handler) -> None:
    """A server that is slow, or says nothing at all, is given up after the team's seconds."""
    async with serving(handler) as port:
        began = time.monotonic()
        with pytest.raises(ToolFailed, match=r"longer than the 0\.5 s of tools\.web\.seconds"):
            await fetched(fetcher(Names(**SITE), seconds=0.5), f"http://site:{port}/")
        assert 0.5 <= time.monotonic() - began < 5


async def test_an_endless_body_is_cut() -> None:
    """No more than the team's bytes are read, and it is said that there was more."""
    async with serving(endless) as port:
        outcome = await fetched(fetcher(Names(**SITE), size=50_000), f"http://site:{port}/")
    assert (len(str(outcome["text"])), outcome["cut"]) == (50_000, True)


async def test_a_gzip_bomb_does_not_swell() -> None:
    """What unpacks to very much is cut like what is sent as very much, also where it is packed twice."""
    once = gzip.compress(b"\0" * 1_000_000 + b"x" * 200_000_000)
    for body, coding in ((once, "gzip"), (gzip.compress(once), "gzip, gzip")):
        headers = {"Content-Type": "text/plain", "Content-Encoding": coding}
        async with page(lambda body=body, headers=headers: web.Response(body=body, headers=headers)) as url:  # type: ignore[misc]
            before = time.monotonic()
            with pytest.raises(ToolFailed, match="it is not text"):
                await fetched(fetcher(Names(**SITE), size=100_000), url)
            assert time.monotonic() - before < 5


async def test_packing_that_was_not_asked_for_is_refused() -> None:
    """A body that cannot be unpacked safely is not taken for text."""
    for coding in ("br", "zstd", "compress", "gzip, br"):
        headers = {"Content-Type": "text/plain", "Content-Encoding": coding}
        async with page(lambda headers=headers: web.Response(body=b"abc", headers=headers)) as url:  # type: ignore[misc]
            with pytest.raises(ToolFailed, match="was not asked for"):
                await fetched(fetcher(Names(**SITE)), url)
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    async with page(lambda: web.Response(body=b"no gzip", headers=headers)) as url:
        with pytest.raises(ToolFailed, match="it broke off"):
            await fetched(fetcher(Names(**SITE)), url)


async def test_nothing_of_this_machine_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cookie, no credential and no proxy of the environment is used; a cookie that a page sets is not sent back."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    seen: list[dict[str, str]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append(dict(request.headers))
        if request.path == "/":
            raise web.HTTPFound("/next", headers={"Set-Cookie": "a=b"})
        return web.Response(text="x")

    async with serving(handler) as port:
        await fetched(fetcher(Names(**SITE)), f"http://site:{port}/")
    assert len(seen) == 2
    for headers in seen:
        assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding", "Connection"}
        assert headers["User-Agent"].startswith("interlock/")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a certificate for the name ``site.test`` that signs itself; return it with its key in one file."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
            ),
            *(
                "-subj",
                "/CN=site.test",
                "-addext",
                "subjectAltName=DNS:site.test",
                "-keyout",
                str(key),
                "-out",
                str(cert),
            ),
        ],
        check=True,
        capture_output=True,
    )
    cert.write_text(cert.read_text() + key.read_text())
    return cert


async def test_certificates_are_checked_for_the_name(certificate: Path) -> None:
    """The connection goes to an address, and still name and certificate have to fit the URL."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    named: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: named.append(name)
    runner = web.AppRunner(_app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
    port = runner.addresses[0][1]
    try:
        trust = ssl.create_default_context(cafile=str(certificate))
        names = Names(site_test=["127.0.0.1"], other_test=["127.0.0.1"])
        tool = tool_of(Web(WebTools(private=(LOOPBACK,)), resolve=names, trust=trust).fetch)
        assert (await fetched(tool, f"https://site.test:{port}/"))["text"] == "safe"
        with pytest.raises(ToolFailed, match=r"other\.test.*certificate"):
            await fetched(tool, f"https://other.test:{port}/")
        with pytest.raises(ToolFailed, match="certificate"):
            await fetched(fetcher(names), f"https://site.test:{port}/")
    finally:
        await runner.cleanup()
    assert named == ["site.test", "other.test", "site.test"]


def _app() -> web.Application:
    app = web.Application()
    app.router.add_get("/", always(lambda: web.Response(text="safe")))
    return app
