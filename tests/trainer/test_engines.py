"""Loading weights into engines over HTTP: which calls they get, and what if one of two is ill."""

import socket
import time
from contextlib import contextmanager

import pytest

from odradek.trainer.commit.durable_files import sha256_of
from odradek.trainer.commit.tensor_files import WEIGHTS
from odradek.trainer.errors import EngineDown, EngineRefused
from odradek.trainer.weights.engines import Engines
from tests.support.engines.weight_engine import WeightServer

pytestmark = pytest.mark.usefixtures("quick_fleet")
ROUTES = ("/pause", "/collective_rpc", "/update_weight_version", "/reset_prefix_cache", "/resume")


@contextmanager
def engines(*urls, timeout_s=30.0):
    """Both, and what is said of them."""
    told = []
    made = Engines(urls, timeout_s=timeout_s, tell=told.append)
    made.told = told
    try:
        yield made
    finally:
        made.close()


@contextmanager
def silent():
    """An engine that takes connections and never answers; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def dead():
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def test_an_engine_is_paused_until_its_cache_is_reset_under_all_requests(weights):
    """A reset without `reset_running_requests` does nothing while anybody samples, and says 200."""
    with WeightServer() as server, engines(server.url) as found:
        assert {server.url: 3} == found.swap(weights(3), 3)
        assert [
            "/pause?mode=keep",
            "/collective_rpc",
            "/update_weight_version",
            "/reset_prefix_cache?reset_running_requests=true&reset_external=true",
            "/resume",
        ] == server.asked


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        ({"success": False}, 1),
        ({"success": False, "reason": "blocks are held"}, 1),
        ({"success": True}, 0),
        ({"success": None}, 0),
        ({}, 0),
        (None, 0),
        ("success", 0),
        ([{"success": False}], 0),
    ],
    ids=str,
)
def test_an_engine_that_says_that_it_kept_its_cache_is_named_once(weights, caplog, said, lines):
    """It goes on with the new weights: whatever is salted does not read what is kept."""
    with WeightServer() as server, engines(server.url) as found:
        server.answers["/reset_prefix_cache"] = said
        for version in (1, 2):
            assert {server.url: version} == found.swap(weights(version), version)
        assert not server.engine.paused
    named = [line for line in caplog.messages if "has not reset its prefix cache" in line]
    assert lines == len(named)
    assert all(server.url in line for line in named)


def test_a_dead_engine_of_two_is_gone_on_without(weights):
    """At once, however patient the trainer is with an engine that is alone."""
    with WeightServer() as server, engines(dead(), server.url, timeout_s=1000) as found:
        for version in (1, 2):
            found.reach()
            assert [0, version] == list(found.swap(weights(version), version).values())
        assert (2, sha256_of(weights(2) / WEIGHTS)) == server.engine.served[-1]
        assert 1 == len(found.told)


def test_an_engine_that_never_answers_is_gone_on_without_after_the_timeout(weights):
    """The other one has the weights long before, and samples."""
    with WeightServer() as server, silent() as url, engines(url, server.url, timeout_s=8) as found:
        assert [0, 1] == list(found.swap(weights(1), 1).values())
        assert not server.engine.paused
        found._fleet._timeout_s = 1000  # for which it is not waited a second time
        assert [0, 2] == list(found.swap(weights(2), 2).values())


@pytest.mark.parametrize("how", ["dies", "hangs", "refuses"])
@pytest.mark.parametrize("route", ROUTES)
def test_an_engine_that_is_lost_in_the_middle_of_a_swap_is_gone_on_without(weights, route, how):
    """At whichever call: it keeps no name that its weights do not have, and the other one goes on."""
    with WeightServer() as first, WeightServer() as second:
        with engines(first.url, second.url) as found:
            assert [1, 1] == list(found.swap(weights(1), 1).values())
            first.behaves[route] = how
            found._fleet._timeout_s = 2
            assert [0, 2] == list(found.swap(weights(2), 2).values())
        before, after = sha256_of(weights(1) / WEIGHTS), sha256_of(weights(2) / WEIGHTS)
        assert [(1, before), (2, after)] == second.engine.served[1:]
        assert first.engine.served[1:] in ([(1, before)], [(1, before), (2, after)])


@pytest.mark.parametrize("tells", [True, False])
def test_an_engine_that_comes_back_between_two_swaps_is_loaded(weights, tells):
    """A plain vLLM has its first weights then, and nobody but us to tell it of others."""
    with WeightServer() as well, WeightServer(tells=tells) as lost:
        with engines(lost.url, well.url) as found:
            assert [1, 1] == list(found.swap(weights(1), 1).values())
            lost.die()
            assert [0, 2] == list(found.swap(weights(2), 2).values())
            with WeightServer(port=lost.port, tells=tells) as back:
                until(lambda: back.engine.served[-1][0] == 2 and not back.engine.paused)
                assert [(2, sha256_of(weights(2) / WEIGHTS))] == back.engine.served[1:]
                assert [3, 3] == list(found.swap(weights(3), 3).values())
        assert f"engine {lost.url} is back, and has version 2" in found.told


def test_an_engine_that_was_away_and_came_back_unseen_is_loaded_again(weights):
    """It says that it serves its first weights."""
    with WeightServer() as server, engines(server.url) as found:
        found.swap(weights(4), 4)
        server.engine.version = 0
        until(lambda: server.engine.version == 4)


def test_two_dead_engines_are_one_clear_line(weights):
    """For whoever waits for one of them, and for the swap itself."""
    urls = dead(), dead()
    with engines(*urls, timeout_s=0.2) as found:
        with pytest.raises(EngineDown, match=r"no engine answers at .*, .*: start it"):
            found.reach()
        with pytest.raises(EngineDown, match="no engine answers at"):
            found.swap(weights(1), 1)


@pytest.mark.parametrize("other", ["dead", "silent"])
def test_a_refusal_is_told_if_no_engine_has_the_weights(weights, other):
    """Its words say what is wrong; the other one only that it is away."""
    with WeightServer() as server, silent() as url:
        server.behaves["/collective_rpc"] = "refuses"
        urls = server.url, url if other == "silent" else dead()
        with engines(*urls, timeout_s=8) as found:
            with pytest.raises(EngineRefused, match="answered 500 to /collective_rpc"):
                found.swap(weights(1), 1)
        assert server.engine.paused


def test_any_answer_shows_that_an_engine_is_there(weights):
    """An error as well; silence does not."""
    with WeightServer(tells=False) as server, silent() as url:
        with engines(url, server.url, timeout_s=1000) as found:
            found.reach()
        with engines(url, timeout_s=0.2) as found, pytest.raises(EngineDown):
            found.reach()


def test_no_engines_are_no_thread():
    """A replay has none."""
    found = Engines([])
    found.reach()
    assert {} == found.swap(None, 1)
    found.close()
