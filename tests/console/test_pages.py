"""Pages: of everything on a log, whoever wrote it."""

import asyncio
from html.parser import HTMLParser
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer

from odradek.infra.app.console.access import Access
from odradek.infra.app.console.addresses import SHOWN, PageAddress, parse
from odradek.infra.app.console.app import HEADERS, ConsoleApp
from odradek.infra.app.console.page import error_html, front_html, page_html, run_html
from odradek.infra.app.console.run.addresses import RunAddress
from odradek.infra.app.console.run.views import run_page, runs_table
from odradek.infra.app.console.views import page_view
from odradek.infra.app.console.windows import MOST
from odradek.infra.app.history.shading import SHADES
from odradek.infra.app.history.steps import LogHistory
from odradek.infra.errors import KafkaUnreachable
from odradek.streams.errors import HistoryGone
from odradek.streams.history.pointers import shown
from tests.console.conftest import RecordedViews
from tests.support.streams.hostile_log import HOSTILE, hostile_log

PLAIN = "plain words"
LOADING = {"script", "img", "iframe", "object", "embed", "style", "base", "video", "audio", "image"}


class ReadPage(HTMLParser):
    """What a page is made of."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.words = [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, *(name for name, _ in attrs)))
        self.links += [value for name, value in attrs if name in {"href", "action"}]

    def handle_endtag(self, tag):
        self.tags.append((f"/{tag}",))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


def page_of(views, what, name, **more):
    """The page of something, from a view of it or of what is shown in its place."""
    return led_to(views, PageAddress(what=what, name=name, **more))[1]


def led_to(views, address):
    """Where an address leads to, and the page there."""
    view = views.seen(address)
    if isinstance(view, PageAddress):
        return led_to(views, view)
    return address, page_html(page_view(view, address))


def test_records_of_a_run_have_pages(views, recorded):
    """By its place, which is where its episode, its batch or the record itself is shown."""
    bare = []
    for record in recorded[::5]:
        page = ReadPage(page_of(views, "record", shown(record.address)))
        if shown(record.address) not in page.text and record.topic != "rl.steps.v1":
            bare.append(shown(record.address))
    assert [] == bare


def test_links_of_pages_lead_to_pages(views):
    """Each can be read, and what it names is on the log."""
    ahead, met = ["/step?name=1"], {}
    while ahead and len(met) < 40:
        href = ahead.pop(0)
        if "?" not in href or href in met or href.startswith(("/task", "/run")):
            continue  # a recording has no tasks; runs are below
        parts = urlsplit(href)
        met[href], page = led_to(views, parse(parts.path[1:], dict(parse_qsl(parts.query))))
        ahead += ReadPage(page).links
    assert {*SHOWN} - {"task"} == {address.what for address in met.values()}


class SpeakingHistory(LogHistory):
    """A history whose tokenizer is somebody's, too."""

    words = ""

    def texts(self, rules):
        return lambda ids: (self.words,) * len(ids)


def hostile_pages(text, monkeypatch):
    """Every page of a log that is full of a text: its kind and its HTML."""
    records, names = hostile_log(text)
    monkeypatch.setattr("tests.console.conftest.LogHistory", SpeakingHistory)
    monkeypatch.setattr(SpeakingHistory, "words", text)
    views = RecordedViews(records)
    for what, name in names.items():
        yield what, page_of(views, what, name, run=text)
        yield f"{what} raw", page_of(views, what, name, run=text, raw=True)
    for shade in SHADES:
        yield f"row {shade}", page_of(views, "row", names["row"], run=text, shade=shade)
    curves = asyncio.run(views.runs())
    yield "run", run_html(run_page(curves, RunAddress(names=(text,))))
    yield "plot", run_html(run_page(curves, RunAddress(names=(text,), plot="loss", smooth=4)))
    yield "error", error_html(404, text)
    yield "front", front_html(list(runs_table(curves)), line=text)


def test_hostile_text_does_nothing(monkeypatch):
    """On no page: each has the tags that it has for plain words, and leads nowhere else."""
    plain = {kind: ReadPage(page) for kind, page in hostile_pages(PLAIN, monkeypatch)}
    assert {*SHOWN} <= {*plain}
    for text in HOSTILE:
        for kind, html in hostile_pages(text, monkeypatch):
            page = ReadPage(html)
            assert plain[kind].tags == page.tags, (kind, text)
            assert LOADING.isdisjoint(tag for tag, *_ in page.tags)
            for link in page.links:
                assert link.startswith(("/", "#")) and not link.startswith("//"), link
            assert not {"\x00", "\x1b", "\u202e", "\ufeff"} & set(page.text)


def test_no_answer_is_above_its_bound(monkeypatch):
    """However long the texts on the log are."""
    for text in ("<&\"'" * 30_000, "\u202e" * 60_000, "a/0/1 " * 20_000):
        for kind, html in hostile_pages(text[:250], monkeypatch):
            assert len(html.encode()) <= MOST, kind
        records, names = hostile_log("x")
        task = next(record for record in records if record.topic == "rl.tasks.v1")
        value = msgspec.json.decode(task.value) | {"input": {text: text}, "item": text}
        records[0] = msgspec.structs.replace(task, value=msgspec.json.encode(value))
        views = RecordedViews(records)
        for raw in (False, True):
            assert len(page_of(views, "task", names["task"], raw=raw).encode()) <= MOST


@pytest.fixture
async def client(views):
    """A browser at a console of a recorded run."""
    app = ConsoleApp(views, Access(frozenset({"127.0.0.1"})))
    async with TestClient(TestServer(app.application())) as browser:
        yield browser


async def test_each_answer_forbids_scripts_and_frames(client):
    """Pages, style, errors and redirects."""
    for path, status in (
        ("/", 200), ("/run?name=main", 200), ("/run?name=nobody", 404), ("/step?name=1", 200), ("/console.css", 200), ("/step?name=99", 404),
        ("/record?name=rl.batches.v1/0/0", 303), ("/nothing?name=1", 400), ("/a/b", 404),
        ("/look?what=step&name=1", 303), ("/step?name=-1", 400),
    ):  # fmt: skip
        answer = await client.get(path, allow_redirects=False)
        assert (path, status) == (path, answer.status)
        assert HEADERS == {name: answer.headers.get(name) for name in HEADERS}


async def test_who_is_not_let_in_gets_no_page(client):
    """Another host, another site or another method."""
    for headers, method, status in (
        ({"Host": "evil.example"}, "GET", 421),
        ({"Origin": "https://evil.example"}, "GET", 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, "GET", 403),
        ({}, "POST", 405),
    ):
        answer = await client.request(method, "/step?name=1", headers=headers)
        assert status == answer.status
        assert "batch" not in (await answer.text()).split("<main")[1]


async def test_an_error_is_a_page_that_says_what_to_do(client, views, monkeypatch):
    """A log that is away, and what retention has deleted."""
    for error, status in (
        (KafkaUnreachable("nobody answers at a:9092: start it"), 503),
        (HistoryGone("episode e is gone"), 410),
        (TimeoutError(), 504),
    ):
        monkeypatch.setattr(views, "fails", error)
        answer = await client.get("/step?name=1")
        assert status == answer.status
        assert (str(error) or "name it by its place") in await answer.text()
