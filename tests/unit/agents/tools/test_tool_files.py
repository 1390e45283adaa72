"""The file tools: inside their folders and nowhere else, whatever stands in them and whatever happens meanwhile."""

import ctypes
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.unit.agents.tools.calls import context_of_call, tool_of

from interlock.agents.tools.calling import Tool
from interlock.agents.tools.errors import ToolArgumentsInvalid, ToolFailed
from interlock.agents.tools.files import Files
from interlock.protocol.base import Json
from interlock.protocol.team import FilesTools

CANARY = "canary-outside"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a team's folder with ``docs`` to read, ``out`` to write to, and a secret beside them."""
    team = tmp_path.resolve() / "team"
    (team / "docs" / "sub").mkdir(parents=True)
    (team / "docs" / "a.txt").write_text("alpha")
    (team / "docs" / "sub" / "b.txt").write_text("beta")
    (team / "secret.txt").write_text(CANARY)
    return team


class Tools:
    """The three tools over ``base``."""

    def __init__(self, base: Path) -> None:
        files = Files(FilesTools(read=("docs",), write=("out",)), base)
        self.reading: Tool = tool_of(files.read)
        self.listing: Tool = tool_of(files.list)
        self.writing: Tool = tool_of(files.write)

    async def read(self, path: Path | str, **more: Json) -> dict[str, Json]:
        """Read a file."""
        outcome = await self.reading.call({"path": str(path), **more}, context_of_call())
        assert isinstance(outcome, dict)
        return outcome

    async def list(self, path: Path | str) -> dict[str, Json]:
        """List a folder."""
        outcome = await self.listing.call({"path": str(path)}, context_of_call())
        assert isinstance(outcome, dict)
        return outcome

    async def write(self, path: Path | str, text: str, key: str = "k-1") -> Json:
        """Write a file."""
        return await self.writing.call({"path": str(path), "text": text}, context_of_call(key=key))


@pytest.fixture
def tools(base: Path) -> Tools:
    """Return the tools of the team in ``base``."""
    return Tools(base)


def test_specs_say_what_they_do(tools: Tools) -> None:
    """Reading is outside text, writing is idempotent, and all go by their path."""
    specs = [tool.spec for tool in (tools.reading, tools.listing, tools.writing)]
    assert [spec.name for spec in specs] == ["files.read", "files.list", "files.write"]
    assert [spec.effect for spec in specs] == ["read", "read", "idempotent"]
    assert [spec.outside for spec in specs] == [True, True, False]
    for spec in specs:
        assert (spec.kinds, spec.primary) == ({"path": "path"}, "path")
        assert spec.destinations == (("path",) if spec.effect == "idempotent" else ())
        assert not spec.network
    assert "key" not in str(specs[2].parameters)


async def test_read_and_list_in_the_folder(tools: Tools, base: Path) -> None:
    """A file is read and a folder listed, by absolute paths and by paths relative to the team file."""
    assert await tools.read(base / "docs" / "a.txt") == {
        "path": str(base / "docs" / "a.txt"),
        "text": "alpha",
        "size": 5,
        "next": None,
    }
    assert (await tools.read("docs/sub/b.txt"))["text"] == "beta"
    listed = await tools.list(base / "docs")
    assert listed["entries"] == [{"name": "a.txt", "kind": "file", "size": 5}, {"name": "sub", "kind": "folder"}]
    assert listed["more"] == 0


async def test_long_files_are_read_in_parts(tools: Tools, base: Path) -> None:
    """Following ``next`` gives the whole text, no character cut in two, each part within its limit."""
    text = "aé漢😀" * 5_000
    (base / "docs" / "long.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    parts: list[str] = []
    at: Json = 0
    while at is not None:
        part = await tools.read("docs/long.txt", offset=at, limit=997)
        assert isinstance(part["text"], str)
        assert len(part["text"].encode()) <= 997
        parts.append(part["text"])
        at = part["next"]
    assert "".join(parts) == text


async def test_what_no_text_can_hold_is_replaced(tools: Tools, base: Path) -> None:
    """Bytes that are no UTF-8 come out as replacement characters, also a character cut off at the end of the file."""
    (base / "docs" / "latin.txt").write_bytes(b"caf\xe9 \xf0\x9f")
    assert await tools.read("docs/latin.txt") == {"path": "docs/latin.txt", "text": "caf� �", "size": 7, "next": None}
    assert (await tools.read("docs/latin.txt", offset=100))["text"] == ""


@pytest.mark.parametrize("limit", [0, -1, 10_000_000])
async def test_reading_is_bounded(tools: Tools, limit: int) -> None:
    """No more than a bounded part of a file is read at a time."""
    with pytest.raises(ToolArgumentsInvalid, match="limit"):
        await tools.read("docs/a.txt", limit=limit)


@pytest.mark.parametrize(
    "path",
    [
        "secret.txt",
        "docs/../secret.txt",
        "../team/secret.txt",
        "/etc/passwd",
        "",
        ".",
        "docs/\0",
        "docs-and-more/x",
        "~/x",
    ],
)
async def test_nothing_outside_is_read_or_listed(tools: Tools, base: Path, path: str) -> None:
    """A path that is not in an open folder, or takes detours, is refused."""
    (base / "docs-and-more").mkdir()
    (base / "docs-and-more" / "x").write_text(CANARY)
    for call in (tools.read, tools.list):
        with pytest.raises(ToolFailed) as refused:
            await call(path)
        assert CANARY not in str(refused.value)


async def test_links_are_not_followed(tools: Tools, base: Path) -> None:
    """A link is refused as a file, as a folder on the way and as the folder itself, wherever it leads."""
    (base / "docs" / "link.txt").symlink_to(base / "secret.txt")
    (base / "docs" / "inner.txt").symlink_to("a.txt")
    (base / "docs" / "up").symlink_to(base)
    for path in ("docs/link.txt", "docs/inner.txt", "docs/up/secret.txt"):
        with pytest.raises(ToolFailed, match="link"):
            await tools.read(path)
    with pytest.raises(ToolFailed, match="link"):
        await tools.list("docs/up")
    listed = (await tools.list("docs"))["entries"]
    assert isinstance(listed, list)
    assert {"name": "up", "kind": "link"} in listed


async def test_an_open_folder_that_becomes_a_link_leads_nowhere(tools: Tools, base: Path) -> None:
    """What is opened is the folder that was there when the tools were opened, not what is put in its place."""
    (base / "docs").rename(base / "moved")
    (base / "docs").symlink_to(base)
    with pytest.raises(ToolFailed, match="link"):
        await tools.read("docs/secret.txt")


async def test_an_open_folder_may_be_given_through_a_link(base: Path) -> None:
    """The team file may name a link; where it leads is settled when the tools are opened."""
    (base / "alias").symlink_to(base / "docs")
    read = tool_of(Files(FilesTools(read=("alias",)), base).read)
    outcome = await read.call({"path": str(base / "docs" / "a.txt")}, context_of_call())
    assert isinstance(outcome, dict)
    assert outcome["text"] == "alpha"


async def test_only_ordinary_files_are_read(tools: Tools, base: Path) -> None:
    """A pipe without a writer does not hang, and sockets, folders and binary files are refused."""
    os.mkfifo(base / "docs" / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(base / "docs", os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{folder}/socket")  # the path of a socket has to be short
        os.close(folder)
        for name, problem in [("pipe", "is a pipe"), ("socket", "is a socket"), ("sub", "is a folder")]:
            with pytest.raises(ToolFailed, match=problem):
                await tools.read(f"docs/{name}")
    (base / "docs" / "binary").write_bytes(b"ELF\0")
    with pytest.raises(ToolFailed, match="is not text"):
        await tools.read("docs/binary")
    with pytest.raises(ToolFailed, match="is not there"):
        await tools.read("docs/missing")
    with pytest.raises(ToolFailed, match="no folder"):
        await tools.list("docs/a.txt")


async def test_names_that_are_no_utf_8_are_listed(tools: Tools, base: Path) -> None:
    """A listing can always be sent."""
    os.close(os.open(bytes(base / "docs" / "sub") + b"/\xff\xfe", os.O_CREAT))
    entries = (await tools.list("docs/sub"))["entries"]
    assert isinstance(entries, list)
    assert {"name": "��", "kind": "file", "size": 0} in entries


async def test_long_listings_are_cut(tools: Tools, base: Path) -> None:
    """A folder with very many entries says how many are left out."""
    for number in range(1_010):
        (base / "docs" / "sub" / f"{number:05}").touch()
    listed = await tools.list("docs/sub")
    assert isinstance(listed["entries"], list)
    assert (len(listed["entries"]), listed["more"]) == (1_000, 11)


async def test_write_replaces_and_makes_folders(tools: Tools, base: Path) -> None:
    """A file is written whole, in place of the old one, with its permissions; nothing else is left beside it."""
    assert await tools.write("out/deep/er/x.txt", "one é") == {"path": "out/deep/er/x.txt", "bytes": 6}
    place = base / "out" / "deep" / "er" / "x.txt"
    place.chmod(0o640)
    await tools.write(place, "two")
    assert place.read_text() == "two"
    assert place.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in place.parent.iterdir()] == ["x.txt"]
    assert (await tools.read(place))["text"] == "two"


def interrupted_write(base: Path) -> None:
    """Write a file in a process that ends right before the rename."""
    if (child := os.fork()) == 0:
        os.replace = lambda *_, **__: os._exit(7)
        Files(FilesTools(write=("out",)), base).write("out/x.txt", "half", "k-1")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


async def test_write_again_after_a_crash_leaves_nothing_behind(tools: Tools, base: Path) -> None:
    """What a crash left of a write is gone when the same call is made again; until then it is not listed."""
    (base / "out").mkdir()
    interrupted_write(base)
    assert len(list((base / "out").iterdir())) == 1
    assert (await tools.list("out"))["entries"] == []
    await tools.write("out/x.txt", "whole", "k-1")
    assert [(entry.name, entry.read_text()) for entry in (base / "out").iterdir()] == [("x.txt", "whole")]


@pytest.mark.parametrize(
    "path", ["docs/a.txt", "secret.txt", "out/../secret.txt", "/etc/x", "out", "new.txt", "out/\0"]
)
async def test_nothing_outside_is_written(tools: Tools, base: Path, path: str) -> None:
    """A folder that is only to be read is not written to, and nothing else is."""
    with pytest.raises(ToolFailed):
        await tools.write(path, "overwritten")
    assert (base / "docs" / "a.txt").read_text() == "alpha"
    assert (base / "secret.txt").read_text() == CANARY
    assert not (base / "new.txt").exists()


async def test_write_goes_through_no_link(tools: Tools, base: Path) -> None:
    """A link in the place of the file, or of a folder on the way, is refused and what it leads to unchanged."""
    (base / "out").mkdir()
    (base / "out" / "link.txt").symlink_to(base / "secret.txt")
    (base / "out" / "up").symlink_to(base)
    (base / "out" / "folder").mkdir()
    for path in ("out/link.txt", "out/up/secret.txt", "out/up/made/x.txt", "out/folder"):
        with pytest.raises(ToolFailed):
            await tools.write(path, "overwritten")
    assert (base / "secret.txt").read_text() == CANARY
    assert not (base / "made").exists()


@contextmanager
def swapping(place: Path, link: Path, target: Path) -> Iterator[None]:
    """Exchange what is at ``place`` for a link to ``target``, and back, as fast as it goes, while the block runs."""
    stop = threading.Event()
    exchange = ctypes.CDLL(None, use_errno=True).renameat2
    here, both = -100, 2  # AT_FDCWD, RENAME_EXCHANGE

    def swap() -> None:
        while not stop.is_set():
            if not (place.is_symlink() or link.is_symlink()):  # a write has taken the link's place
                link.with_name("again").symlink_to(target)
                link.with_name("again").rename(link)
            exchange(here, bytes(place), here, bytes(link), both)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("swapped", ["folder", "file"])
async def test_links_swapped_in_meanwhile_lead_nowhere(tools: Tools, base: Path, swapped: str) -> None:
    """While somebody exchanges a folder or a file for a link, nothing outside is ever read, listed or written."""
    outside = base / "elsewhere"
    outside.mkdir()
    (outside / "x.txt").write_text(CANARY)
    inside = base / "out" / "in"
    inside.mkdir(parents=True)
    (inside / "x.txt").write_text("inside")
    if swapped == "folder":
        place, link, target = inside, base / "out" / "lnk", outside
    else:
        place, link, target = inside / "x.txt", inside / "lnk", outside / "x.txt"
    link.symlink_to(target)
    (outside / "only-outside").touch()
    succeeded = 0
    with swapping(place, link, target):
        for number in range(400):
            with suppress(ToolFailed):
                assert (await tools.read("out/in/x.txt"))["text"] in {"inside", "new"}
                succeeded += 1
            with suppress(ToolFailed):
                assert "only-outside" not in str((await tools.list("out/in"))["entries"])
            with suppress(ToolFailed):
                await tools.write("out/in/x.txt", "new", f"k-{number}")
    assert (outside / "x.txt").read_text() == CANARY
    assert sorted(entry.name for entry in outside.iterdir()) == ["only-outside", "x.txt"]
    assert succeeded > 0
