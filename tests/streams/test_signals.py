"""Signals that are for everybody cost no conversation: workers end when their service hangs up."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from odradek.infra.bus import Record
from odradek.infra.runtime.reward_signatures import JudgeSettings
from odradek.schemas import codec
from odradek.schemas.events import Conversation
from odradek.schemas.topics import CONVERSATIONS, DLQ, REWARDS
from odradek.streams.errors import NoWorker, RewardFailed, RewardRefused, Undecided
from odradek.streams.judges.named import NamedJudge
from odradek.streams.judges.process import Worker
from odradek.streams.judges.verdicts import ConversationFilter, Verdicts
from tests.support.suite.process_state import alive

pytestmark = pytest.mark.processes

MODULE = '''
"""Judges that a signal meets; which one is the conversation's item."""
import _thread, multiprocessing, os, signal, subprocess, sys, threading, time
from pathlib import Path

with Path("imports").open("a") as file:
    file.write(f"{os.getpid()}\\n")


def wait():
    """Until the signal has come, if this is the first time that anybody is asked."""
    first = not Path("asked").exists()
    with Path("asked").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    for _ in range(200 if first else 1):
        time.sleep(0.05)
        if Path("sent").exists():
            break
    time.sleep(0.2)


def naps(_):
    wait()
    return 0.5


def dies_of_it(_):
    """As programs do that want their own children to hear of it."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    wait()
    return 0.5


def raises(_):
    """As where a grader cannot go on."""
    wait()
    if os.getpid() == int(Path("asked").read_text().split()[0]):
        raise ConnectionError
    return 0.5


def child(_):
    """What it makes of its child's end is a number, and a wrong one."""
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.6)"])
    wait()
    return 0.5 if sleeper.wait() == 0 else -1.0


def ignores(_):
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    return 0.25


def counts(_):
    return len(set(Path("imports").read_text().split()))


def terminates(_):
    """Ends its own children as any program does: they must not have learnt to be deaf."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    program.terminate()
    forked = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
    forked.start()
    forked.terminate()
    pid = os.fork()
    if pid == 0:
        time.sleep(3600)
    os.kill(pid, signal.SIGHUP)
    _, status = os.waitpid(pid, 0)
    forked.join()
    return -(program.wait() + forked.exitcode) + os.WTERMSIG(status)


def interrupted(_):
    """Bounds its own time as some graders do."""
    timer = threading.Timer(0.05, _thread.interrupt_main)
    timer.start()
    try:
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        return 0.75


def interrupts(_):
    """Forgets to catch it."""
    _thread.interrupt_main()
    time.sleep(60)


def herself(_):
    """Is for ever the one who sends it."""
    os.kill(os.getpid(), signal.SIGTERM)
    return 0.5


def leaves_a_bomb(_):
    """Answers, and takes the process down when the next conversation is judged."""
    threading.Timer(0.3, os._exit, (9,)).start()
    return 0.5


def bomb(_):
    os._exit(9)


def any_of(conversation):
    return globals()[conversation.item](conversation)
'''
ALL = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A project's folder with a module of judges."""
    (tmp_path / "deaf.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    # Under nohup it is ignored, and what is ignored stays so in a worker.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
async def judge():
    """Asks one worker at a time."""
    made = NamedJudge("deaf:any_of", 1, 30.0)
    await made.start()
    yield made
    await made.aclose()


def conversation(item: str) -> Conversation:
    return Conversation(
        episode_id="e1",
        task_id="t1",
        agent="hilo",
        sample=0,
        item=item,
        reward_components=("brief",),
    )


async def said(judge, item: str) -> float:
    asked = conversation(item)
    return await judge.judge(asked, codec.encode(asked))


def asked() -> list[int]:
    return [int(pid) for pid in Path("asked").read_text().split()]


async def once_asked() -> int:
    async with asyncio.timeout(60):
        while not Path("asked").exists() or not asked():
            await asyncio.sleep(0.02)
    return asked()[0]


def send(pid: int, number: signal.Signals) -> None:
    os.killpg(pid, number)
    Path("sent").touch()


@pytest.mark.parametrize("number", ALL)
async def test_a_worker_with_nothing_to_do_does_not_end(judge, number):
    """It hears of the end from its service."""
    assert 0.25 == await said(judge, "ignores")
    (one,) = judge._judge.workers
    for _ in range(3):
        os.kill(one.pid, number)
    assert 1.0 == await said(judge, "counts")
    send(one.pid, number)
    assert 0.5 == await said(judge, "naps")
    assert {one} == judge._judge.workers


HIT = ["naps", "dies_of_it", "raises", "child"]


@pytest.mark.parametrize("item", HIT)
@pytest.mark.parametrize("number", ALL)
async def test_a_verdict_that_a_signal_met_is_given_anew(judge, item, number):
    """Where the service goes on; whatever the function made of it."""
    verdict = asyncio.create_task(said(judge, item))
    send(await once_asked(), number)
    assert 0.5 == await verdict


@pytest.mark.parametrize(
    ("item", "worth"), [("terminates", 31.0), ("interrupted", 0.75)]
)  # 15 + 15 + 1
async def test_signals_of_the_functions_own_do_what_they_do_in_a_program(judge, item, worth):
    """To itself and to what it starts."""
    assert worth == await said(judge, item)
    assert worth == await said(judge, item)


@pytest.mark.parametrize(
    ("item", "why"),
    [("herself", "SIGTERM reached its worker"), ("interrupts", "SIGINT reached its worker")],
)
async def test_who_signals_herself_again_is_one_error(judge, item, why):
    """Nobody else would be meant each time."""
    with pytest.raises(RewardFailed, match=why):
        await said(judge, item)
    assert 0.25 == await said(judge, "ignores")


async def test_a_worker_that_dies_of_an_earlier_conversation_is_not_this_ones_error(judge):
    """It is asked of a new worker, in which nothing is left of others."""
    assert 0.5 == await said(judge, "leaves_a_bomb")
    assert 0.5 == await said(judge, "naps")
    assert 2 == len(set(Path("imports").read_text().split()))


async def test_who_takes_down_a_new_worker_is_asked_no_more(judge):
    """Twice is enough, and the second time nobody else can have been it."""
    assert 0.25 == await said(judge, "ignores")
    with pytest.raises(RewardFailed, match="exit code 9"):
        await said(judge, "bomb")
    assert 2 == len(set(Path("imports").read_text().split()))


class Log:
    """Takes records into a list."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    async def append(self, topic: str, **_: object) -> None:
        self.topics.append(topic)


class Says:
    """A judge that says this."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def judge(self, *_: object) -> float:
        if self._error is not None:
            raise self._error
        return 0.5


ENDS = [
    (None, False, [REWARDS.name]),
    (None, True, [REWARDS.name]),
    (RewardFailed("raised"), False, [DLQ.name]),
    (RewardFailed("raised"), True, None),
    (RewardFailed("died", lost=True), False, [DLQ.name]),
    (RewardFailed("died", lost=True), True, None),
]
"""(what the judge raises, whether the service ends, topics written or None: undecided)."""


@pytest.mark.parametrize(("error", "ends", "topics"), ENDS)
async def test_an_error_while_the_service_ends_is_none(error, ends, topics):
    """The successor judges that conversation; a number counts all the same."""
    log = Log()

    async def ending(patient: bool) -> bool:
        assert patient is error.lost
        return ends

    verdicts = Verdicts(log, Says(error), ConversationFilter("brief"), JudgeSettings(), ending)
    record = Record(
        topic=CONVERSATIONS.name,
        partition=0,
        offset=0,
        key="e1",
        value=codec.encode(conversation("naps")),
    )
    if topics is None:
        with pytest.raises(Undecided):
            await verdicts.settle(record)
    else:
        await verdicts.settle(record)
    assert (topics or []) == log.topics


SIGNALLED_AT_START = "import os, signal, time\nos.kill(os.getpid(), signal.{})\ndef f(_): return 1"


@pytest.mark.parametrize("number", ALL)
async def test_a_signal_while_the_module_is_imported_changes_nothing(number):
    """Imports take minutes where they load a model."""
    Path("early.py").write_text(SIGNALLED_AT_START.format(number.name))
    judge = NamedJudge("early:f", 1)
    await judge.start()
    assert 1.0 == await said(judge, "")
    await judge.aclose()


async def test_workers_that_cannot_be_started_are_no_conversations_error(judge, monkeypatch):
    """No memory, no processes left: the service ends, and what it had stays uncommitted."""

    async def none(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    (one,) = judge._judge.workers
    os.kill(one.pid, signal.SIGKILL)
    await one._ended
    monkeypatch.setattr("asyncio.create_subprocess_exec", none)
    with pytest.raises(NoWorker, match=r"no worker can be started: .*unavailable"):
        await said(judge, "naps")
    assert not alive(one.pid)


async def test_workers_that_die_over_the_import_are_no_conversations_error(judge):
    """As where memory is enough for some, and not for one more."""
    (one,) = judge._judge.workers
    os.kill(one.pid, signal.SIGKILL)
    await one._ended
    Path("deaf.py").write_text("import os\nos.kill(os.getpid(), 9)")
    with pytest.raises(NoWorker, match=r"deaf:any_of .*died of SIGKILL.*--concurrency"):
        await said(judge, "naps")


async def test_at_the_start_it_is_one_line(monkeypatch):
    """And no traceback."""

    async def none(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("asyncio.create_subprocess_exec", none)
    with pytest.raises((RewardRefused, NoWorker), match="no worker can be started"):
        await NamedJudge("deaf:any_of", 1).start()
    with pytest.raises(NoWorker):
        await Worker.start("deaf:any_of")
