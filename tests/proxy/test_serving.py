"""Which version an engine serves: the log's word, its own, and which of them holds."""

from types import SimpleNamespace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from odradek.proxy.engines.versions import UNKNOWN, EngineVersion
from odradek.schemas.events import VersionSpan

URL = "http://a:1"


def spans(*versions):
    return tuple(VersionSpan(version, n, n + 1) for n, version in enumerate(versions))


def test_nobody_knows_at_first():
    """No log, no word: the salt is that of version 0, and nothing is inferred."""
    serving = EngineVersion(URL, UNKNOWN)
    sent = serving.sent()
    assert (None, 0, None, False) == (serving.version, sent.salt, sent.inferred, serving.lags)


@pytest.mark.parametrize(
    ("current", "engines", "version", "lags"),
    [
        (7, {}, 7, False),
        (7, {"http://another:1": 6}, 7, False),
        (7, {URL: 7}, 7, False),
        (7, {URL: 5}, 5, True),
        (7, {URL: 0, "http://b:1": 7}, 0, True),
        (None, {}, None, False),
    ],
)
def test_the_log_says_what_an_engine_serves(current, engines, version, lags):
    """Where it names the engine; else the announced version is believed, until the engine says."""
    serving = EngineVersion(URL, SimpleNamespace(current=current, engines=engines, adapter=""))
    assert (version, lags) == (serving.version, serving.lags)


def test_an_engines_own_word_holds_until_a_newer_policy_names_it():
    """Up and down; one that is not named keeps it, and is not held to lag for that."""
    log = SimpleNamespace(current=7, engines={URL: 7}, adapter="")
    serving = EngineVersion(URL, log)
    serving.answered(0)
    assert (0, True) == (serving.version, serving.lags)
    log.current, log.engines = 8, {}
    assert (0, False) == (serving.version, serving.lags)
    log.current, log.engines = 9, {URL: 9}
    assert (9, False) == (serving.version, serving.lags)


def test_a_reply_says_what_its_engine_serves_now():
    """The last version of its last choice: a swap may have come between."""
    serving = EngineVersion(URL, SimpleNamespace(current=7, engines={}, adapter=""))
    serving.sent().heard([spans(6, 7), spans(7, 8), ()])
    assert 8 == serving.version
    serving.sent().heard([(), ()])
    assert 8 == serving.version


def test_a_reply_that_comes_late_changes_nothing():
    """It was sent before the newer version was known, so it proves nothing about now."""
    log = SimpleNamespace(current=7, engines={}, adapter="")
    serving = EngineVersion(URL, log)
    late, later = serving.sent(), serving.sent()
    serving.sent().heard([spans(8)])
    late.heard([spans(7)])
    assert 8 == serving.version
    log.current, log.engines = 9, {URL: 9}
    serving.sent().heard([spans(9)])
    later.heard([spans(8)])
    assert (9, False) == (serving.version, serving.lags)


def test_an_older_version_than_was_believed_is_the_truth():
    """The engine was started anew, and nobody noticed."""
    log = SimpleNamespace(current=7, engines={URL: 7}, adapter="")
    serving = EngineVersion(URL, log)
    serving.sent().heard([spans(7)])
    serving.sent().heard([spans(0)])
    assert (0, True) == (serving.version, serving.lags)


def test_what_was_known_of_an_engine_that_went_away_holds_no_longer():
    """Nor does a reply that it gave before."""
    serving = EngineVersion(URL, SimpleNamespace(current=7, engines={}, adapter=""))
    before = serving.sent()
    before.heard([spans(8)])
    serving.lost()
    assert serving.unsure
    before.heard([spans(9)])
    assert 7 == serving.version
    serving.answered(0)
    assert (0, False) == (serving.version, serving.unsure)
    serving.lost()
    serving.answered(None)
    assert (7, False) == (serving.version, serving.unsure)


def test_tokens_without_spans_are_of_the_older_of_two_versions():
    """Of that when the call was sent, and that when it was over."""
    log = SimpleNamespace(current=7, engines={}, adapter="")
    serving = EngineVersion(URL, log)
    sent = serving.sent()
    log.current = 9
    assert 7 == sent.inferred
    log.current = 5
    assert 5 == sent.inferred
    log.current = None
    assert sent.inferred is None


class AnEngine(RuleBasedStateMachine):
    """Swaps, announcements, restarts and replies in any order."""

    calls = Bundle("calls")

    def __init__(self):
        super().__init__()
        self.log = SimpleNamespace(current=None, engines={}, adapter="")
        self.serving = EngineVersion(URL, self.log)
        self.serves, self.newest, self.life = 0, 0, 0

    @rule()
    def swap(self):
        """The trainer loads new weights into it."""
        self.newest += 1
        self.serves = self.newest

    @rule()
    def miss(self):
        """The trainer loads new weights into others."""
        self.newest += 1

    @rule(named=st.booleans())
    def announce(self, named):
        """The log has what the trainer did; older trainers name nobody, and all have it."""
        if not self.newest or not (named or self.serves == self.newest):
            return
        self.log.current = self.newest
        self.log.engines = {URL: self.serves} if named else {}

    @rule(tells=st.booleans())
    def restart(self, tells):
        """It comes back with the newest weights, or with its first ones, and is asked."""
        self.life += 1
        self.serves = self.newest if not tells else 0
        self.serving.lost()
        self.serving.answered(self.serves)

    @rule(target=calls)
    def call(self):
        return self.serving.sent(), self.serves, self.life

    @rule(call=calls, halfway=st.booleans())
    def reply(self, call, halfway):
        """It ends with what is served by then, or was while it was under way."""
        sent, began, life = call
        if life == self.life:
            sent.heard([spans(began, began if halfway else self.serves)])

    @invariant()
    def the_salt_is_never_newer_than_the_weights(self):
        """Else what old weights compute would be read as a newer version's."""
        assert self.serving.sent().salt <= self.serves


TestAnEngine = AnEngine.TestCase
