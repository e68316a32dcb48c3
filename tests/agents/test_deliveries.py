"""What is posted when, and what is given up: properties of the pure core, and signatures."""

import base64
import hmac
import time
from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from odradek.agents.push.deliveries import (
    FAILURES,
    LATEST_S,
    LONGEST_S,
    Delivery,
    DeliveryLimits,
    DeliveryQueue,
)
from odradek.agents.push.sender import wait_of
from odradek.agents.push.signatures import is_signed, secret_of, signature_headers
from tests.support.agents.example_subscribers import blocks

LIMITS = DeliveryLimits(tries=4, first_s=1.0, concurrency=2, give_up_s=500.0, waiting=40)


def delivery(number, task="t", hook="a"):
    return Delivery(lane=f"{hook}/{task}", webhook=hook, host=hook[0], work=number)


class World:
    """Webhooks that answer as they are told, and a clock that is moved by hand."""

    def __init__(self, limits=LIMITS, draw=lambda: 0.0):
        self.queue = DeliveryQueue(limits, draw)
        self.limits = limits
        self.now = 0.0
        self.busy = []
        self.tried = defaultdict(list)
        self.over = defaultdict(list)
        self.posts = Counter()

    def begin(self):
        for each in self.queue.start(self.now):
            self.busy.append(each)
            self.tried[each.work].append(self.now)
            assert max(Counter(one.host for one in self.busy).values()) <= self.limits.concurrency
            assert 1 == sum(one.lane == each.lane for one in self.busy)

    def end(self, each, took, **how):
        self.busy.remove(each)
        if took:
            self.queue.delivered(each)
            self.over[each.lane].append(("taken", each.work))
        elif self.queue.failed(each, self.now, **how):
            self.over[each.lane].append(("letter", each.work))

    def give_up(self):
        for each in self.queue.hopeless(self.now):
            self.over[each.lane].append(("letter", each.work))


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("xyz"), st.sampled_from(["a1", "a2", "b"])),
        st.tuples(st.just("end"), st.integers(0, 9), st.sampled_from(["taken", "failed", "final"])),
        st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 20.0, 700.0]), st.just("")),
        st.tuples(st.just("withdraw"), st.integers(0, 9), st.just("")),
    ),
    max_size=80,
)


@given(STEPS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_each_delivery_is_over_once_in_the_order_of_its_lane(steps, draw):
    """Whatever webhooks do: none is lost, none is over twice, and no host gets too many at once."""
    world, added, withdrawn = World(draw=draw.random), defaultdict(list), set()
    for number, (step, what, how) in enumerate(steps):
        if step == "add":
            added[f"{how}/{what}"].append(number)
            world.queue.add(delivery(number, what, how), world.now)
        elif step == "wait":
            world.now += what
            world.give_up()
        elif world.busy:
            each = world.busy[what % len(world.busy)]
            if step == "withdraw":
                world.busy.remove(each)
                world.queue.withdraw(each)
                withdrawn.add(each.work)
            else:
                world.end(each, how == "taken", final=how == "final")
        world.begin()
    for _ in range(1000):
        while world.busy:
            world.end(world.busy[0], False)
        wake = world.queue.wake_at()
        if not world.queue.waiting:
            break
        world.now = max(world.now, wake or 0.0)
        world.begin()
        world.give_up()
    assert 0 == world.queue.waiting
    kept = {lane: [n for n in numbers if n not in withdrawn] for lane, numbers in added.items()}
    ended = {lane: [number for _, number in over] for lane, over in world.over.items()}
    assert {lane: numbers for lane, numbers in kept.items() if numbers} == ended
    assert all(len(times) <= LIMITS.tries for times in world.tried.values())


def test_pauses_grow_fourfold_to_ten_minutes_and_are_drawn():
    """At most half of one is taken away."""
    pauses = [DeliveryLimits().pause_s(n, 0.0) for n in range(1, 8)]
    assert [1, 4, 16, 64, 256, LONGEST_S, LONGEST_S] == pauses
    assert 0.5 < DeliveryLimits().pause_s(1, 0.999) < 0.51
    world = World()
    world.queue.add(delivery(0), 0.0)
    while world.queue.waiting:
        world.begin()
        while world.busy:
            world.end(world.busy[0], False)
        world.now = world.queue.wake_at() or world.now
    assert [0.0, 1.0, 5.0, 21.0] == world.tried[0]
    assert [("letter", 0)] == world.over["a/t"]


def test_a_pause_holds_although_more_events_come():
    """They stand behind the one that failed."""
    world = World()
    world.queue.add(delivery(0), 0.0)
    world.begin()
    world.end(world.busy[0], False)
    world.queue.add(delivery(1), 0.1)
    world.now = 0.9
    world.begin()
    assert [] == world.busy
    world.now = 1.0
    world.begin()
    assert [0] == [each.work for each in world.busy]


def test_a_webhook_that_fails_again_and_again_is_tried_with_one_delivery():
    """Its lanes wait; one success lets them all go. Others are not held up."""
    world = World(DeliveryLimits(concurrency=20))
    for number in range(FAILURES + 5):
        world.queue.add(delivery(number, f"t{number}"), 0.0)
    world.begin()
    for each in list(world.busy):
        world.end(each, False)
    world.queue.add(delivery("b", hook="b"), 0.0)
    world.queue.add(delivery("late", "late"), 0.0)
    world.begin()
    assert ["b"] == [each.work for each in world.busy]
    world.end(world.busy[0], True)
    world.now = 10_000.0
    world.begin()
    assert 1 == len(world.busy)
    world.end(world.busy[0], True)
    world.begin()
    assert FAILURES + 5 == len(world.busy)


def test_retry_after_holds_all_of_a_webhook():
    """Up to an hour; a number of seconds, or a date."""
    for asked, waits in ((120.0, 120.0), (10 * LATEST_S, LATEST_S)):
        world = World()
        world.queue.add(delivery(0), 0.0)
        world.begin()
        world.end(world.busy[0], False, retry_after=asked)
        world.queue.add(delivery(1, "other"), 0.0)
        world.begin()
        assert ([], waits) == (world.busy, world.queue.wake_at())
    assert 7.0 == wait_of(" 7 ", now=0.0)
    assert 5.0 == wait_of("Thu, 01 Jan 1970 00:00:15 GMT", now=10.0)
    assert {0.0} == {
        wait_of(text, now=99.0)
        for text in ("", "soon", "-1", "1e9", "9" * 20, "Thu, 01 Jan 1970 00:00:15 GMT")
    }


def test_what_waits_for_a_dead_webhook_is_given_up_in_time_and_at_once_where_all_wait():
    """So that a dead webhook holds up no other one."""
    world = World()
    for number in range(6):
        world.queue.add(delivery(number, f"t{number}"), 0.0)
    for _ in range(3):
        world.begin()
        for each in list(world.busy):
            world.end(each, False)
    assert [] == world.queue.hopeless(1.0)
    world.now = 501.0
    assert 6 == len(world.queue.hopeless(world.now))
    world.queue.add(delivery("new"), world.now)
    assert [] == world.queue.hopeless(world.now)
    for number in range(LIMITS.waiting):
        world.queue.add(delivery(number, "b", "b"), world.now)
    assert world.queue.full
    assert ["new"] == [each.work for each in world.queue.hopeless(world.now)]


def test_another_members_lanes_are_forgotten():
    """Also while one of their deliveries is under way."""
    world = World()
    for number in range(3):
        world.queue.add(delivery(number), 0.0)
    world.queue.add(delivery("b", hook="b"), 0.0)
    world.begin()
    world.queue.drop(lambda each: each.webhook == "a")
    world.queue.delivered(world.busy[0])
    assert (1, "b") == (world.queue.waiting, world.busy[1].work)


def test_a_post_is_signed_as_standard_webhooks_has_it():
    """By the receiver's own secret; of an old post, another body or another id nothing is believed."""
    secret, other = secret_of("k" * 32, "http://a/"), secret_of("k" * 32, "http://b/")
    assert secret != other
    headers = signature_headers(b"{}", delivery_id="t.1", now=1000.4, secrets=[other, secret])
    key = base64.b64decode(secret.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.digest(key, b"t.1.1000.{}", "sha256")).decode()
    assert f"v1,{expected}" == headers["webhook-signature"].split()[1]
    assert is_signed(b"{}", headers, secret, now=1200.0)
    assert not is_signed(b"{}", headers, secret, now=1301.0)
    assert not is_signed(b"{} ", headers, secret, now=1200.0)
    assert not is_signed(b"{}", headers | {"webhook-id": "t.2"}, secret, now=1200.0)
    assert not is_signed(b"{}", headers, secret_of("x" * 32, "http://a/"), now=1200.0)
    for stamp in ("", "x", "²", "9" * 30):
        assert not is_signed(b"{}", headers | {"webhook-timestamp": stamp}, secret, now=1200.0)


def test_the_receiver_of_the_page_believes_what_we_sign():
    """And nothing else: it is run as it stands."""
    (code,) = [block for block in blocks("python") if "def verified" in block]
    space: dict = {}
    exec(compile(code, "receiver", "exec"), space)
    secret = secret_of("k" * 32, "http://a/")
    now = time.time()
    headers = signature_headers(b"{}", delivery_id="t.1", now=now, secrets=["whsec_AAAA", secret])
    assert space["verified"](b"{}", headers, secret)
    assert not space["verified"](b"{ }", headers, secret)
    old = signature_headers(b"{}", delivery_id="t.1", now=now - 400, secrets=[secret])
    assert not space["verified"](b"{}", old, secret)
