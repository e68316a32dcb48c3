"""Plain reward functions judge in processes of their own, which hang and die alone."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from odradek.schemas import codec
from odradek.schemas.events import Conversation
from odradek.schemas.events.conversations import ConversationTurn
from odradek.streams.errors import RewardFailed, RewardRefused
from odradek.streams.judges import process, worker
from odradek.streams.judges.named import NamedJudge
from odradek.streams.judges.workers import Workers
from tests.support.schemas.number_inputs import NO_NUMBERS, NOT_FINITE, NUMBERS
from tests.support.suite.child_processes import python_path
from tests.support.suite.process_state import alive

pytestmark = pytest.mark.processes

MODULE = '''
"""Judges of every kind; which one is the conversation's item."""
import os, signal, sys, time
from pathlib import Path

with Path("imports").open("a") as file:
    file.write(f"{os.getpid()}\\n")
count = 0


def alarm(_):
    """Sets an alarm, as graders that bound their own time do."""
    def late(*_):
        raise TimeoutError
    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        while True:
            time.sleep(10)
    except TimeoutError:
        return 0.25


def forgets(_):
    """Leaves an alarm behind that would kill whoever comes next."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return 0.25


def naps(_):
    time.sleep(0.2)
    return 0.5


def sleeps(_):
    Path("hangs").touch()
    time.sleep(3600)


def spins(_):
    while True:
        pass


def stubborn(_):
    """Ignores what asks it to end."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while True:
        try:
            time.sleep(3600)
        except BaseException:
            pass


def regex(_):
    """Never comes back from C, where no signal handler of Python's runs."""
    import re
    return bool(re.match(r"(a+)+$", "a" * 64 + "b"))


def parent(_):
    """Waits for a child that never ends."""
    import subprocess
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    Path("child").write_text(str(child.pid))
    child.wait()


def gone(_):
    os._exit(3)


def crashed(_):
    os.kill(os.getpid(), signal.SIGSEGV)


def killed(_):
    """What the kernel does where memory is short."""
    os.kill(os.getpid(), signal.SIGKILL)


def forked(_):
    """Dies while a child of its own holds all that it had open."""
    if os.fork() == 0:
        time.sleep(3600)
    os._exit(4)


def children(_):
    """None of the processes that it forks speaks in its place, however they end."""
    for how in ("raises", "leaves", "returns"):
        child = os.fork()
        if child == 0:
            if how == "raises":
                raise ValueError(how)
            if how == "leaves":
                sys.exit()
            return 99.0
        os.waitpid(child, 0)
    return 0.5


def hangs_up(_):
    os.closerange(3, 256)
    return 0.5


def exits(_):
    sys.exit("no")


def interrupts(_):
    raise KeyboardInterrupt


def recurses(_):
    return recurses(_)


def raises(_):
    class Odd(Exception):
        def __init__(self, a, b):
            super().__init__(a)
    raise Odd(1, 2)


def prints(_):
    print("a line")
    os.write(1, b"bytes\\n")
    sys.stderr.write("more\\n")
    os.system("echo a program")
    return 0.5


def reads(_):
    return 1.0 if sys.stdin.read() == "" else 0.0


def main_thread(_):
    import threading
    return threading.current_thread() is threading.main_thread()


def multiprocess(_):
    """Starts processes of its own, as graders that run code do."""
    import multiprocessing
    asked = multiprocessing.get_context("spawn").Queue()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(asked,))
    process.start()
    found = asked.get()
    process.join()
    return found


def child(asked):
    asked.put(0.75)


def pid(_):
    return os.getpid()


def length(conversation):
    return len(conversation.replies[0].text)


def awaits(_):
    import asyncio
    return asyncio.sleep(0, 0.5)


def value(conversation):
    from tests.support.schemas.number_inputs import NO_NUMBERS, NOT_FINITE, NUMBERS
    everything = [given for given, _ in NUMBERS] + NO_NUMBERS + NOT_FINITE
    return everything[int(conversation.error)]


class Judge:
    def __call__(self, _):
        return 0.5


thing = Judge()


def any_of(conversation):
    return globals()[conversation.item](conversation)


async def later(_):
    return os.getpid()
'''


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A project's folder with a module of judges."""
    (tmp_path / "all_judges.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", python_path())
    return tmp_path


def conversation(item="", **more) -> Conversation:
    fields = {
        "episode_id": "e1",
        "task_id": "t1",
        "agent": "hilo",
        "sample": 0,
        "item": item,
    } | more
    return Conversation(**fields)


async def said(judge, item="", **more) -> float:
    asked = conversation(item, **more)
    return await judge.judge(asked, codec.encode(asked))


@pytest.fixture
async def judging():
    """Makes judges, and lets go of them."""
    made = []

    async def make(name="any_of", most=1, timeout_s=30.0, **more):
        judge = NamedJudge(f"all_judges:{name}", most, timeout_s, **more)
        made.append(judge)
        await judge.start()
        return judge

    yield make
    for judge in made:
        pids = [one.pid for one in pool(judge).workers] if isinstance(judge._judge, Workers) else []
        await judge.aclose()
        assert [] == [pid for pid in pids if alive(pid)]


def pool(judge) -> Workers:
    assert isinstance(judge._judge, Workers)
    return judge._judge


def imports() -> list[str]:
    return Path("imports").read_text().split()


WORK = {
    "alarm": 0.25,
    "awaits": 0.5,
    "children": 0.5,
    "main_thread": 1.0,
    "multiprocess": 0.75,
    "prints": 0.5,
    "reads": 1.0,
    "thing": 0.5,
}
RAISE = {
    "exits": "SystemExit at all_judges.py:",
    "interrupts": "KeyboardInterrupt at all_judges.py:",
    "recurses": "RecursionError at all_judges.py:",
    "raises": "Odd at all_judges.py:",
    "no_such_judge": "KeyError at all_judges.py:",
}
DIE = {
    "gone": "its worker ended with exit code 3",
    "crashed": "its worker died of SIGSEGV",
    "killed": "its worker died of SIGKILL",
    "forked": "its worker ended with exit code 4",
    "hangs_up": "its worker ended with exit code 1",
}
HANG = ["sleeps", "spins", "stubborn", "regex", "parent"]


@pytest.mark.parametrize(("item", "worth"), WORK.items())
async def test_what_works_in_a_program_works_in_a_worker(judging, item, worth):
    """Alarms, processes, what is printed, what is read: whatever a grader does."""
    judge = await judging()
    (one,) = pool(judge).workers
    assert worth == await said(judge, item)
    assert worth == await said(judge, item)
    assert {one} == pool(judge).workers


@pytest.mark.parametrize(("item", "why"), RAISE.items())
async def test_whatever_a_function_raises_is_one_error(judging, item, why):
    """Also what ends a program; the worker goes on."""
    judge = await judging()
    with pytest.raises(RewardFailed, match=why):
        await said(judge, item)
    assert 0.5 == await said(judge, "thing")
    assert 1 == len(imports())


@pytest.mark.parametrize(("item", "how"), DIE.items())
async def test_a_worker_that_dies_is_one_error(judging, item, how):
    """The next conversation gets another worker."""
    judge = await judging(timeout_s=3600.0)
    async with asyncio.timeout(60):
        with pytest.raises(RewardFailed, match=how):
            await said(judge, item)
    assert 0.5 == await said(judge, "thing")
    assert 2 == len(set(imports()))


@pytest.mark.parametrize("item", HANG)
async def test_a_function_that_hangs_is_killed(judging, item):
    """With all that it started, whatever it does about signals; its place is free again."""
    judge = await judging(timeout_s=1.0)
    (pid,) = (one.pid for one in pool(judge).workers)
    with pytest.raises(RewardFailed, match="took longer than 1 s"):
        await said(judge, item)
    assert not alive(pid)
    if item == "parent":
        child = int(Path("child").read_text())
        async with asyncio.timeout(60):
            while alive(child):
                await asyncio.sleep(0.02)
    assert 0.5 == await said(judge, "thing")


async def test_neighbours_of_what_hangs_or_dies_hear_nothing_of_it(judging):
    """Each conversation has a worker to itself."""
    judge = await judging(most=4, timeout_s=5.0)
    answers = await asyncio.gather(
        *(said(judge, item) for item in ("sleeps", "crashed", "gone", "alarm")),
        *(said(judge, "thing") for _ in range(8)),
        return_exceptions=True,
    )
    assert [RewardFailed] * 3 == [type(answer) for answer in answers[:3]]
    assert [0.25, *[0.5] * 8] == answers[3:]


async def test_an_alarm_that_was_left_behind_hits_nobody(judging):
    """The timers are stopped before anybody else is judged."""
    judge = await judging()
    assert 0.25 == await said(judge, "forgets")
    assert 0.5 == await said(judge, "naps")
    assert 1 == len(imports())


@pytest.mark.parametrize("index", range(len(NUMBERS)), ids=lambda index: repr(NUMBERS[index][0]))
async def test_numbers_of_any_library_cross_as_floats(judging, index):
    """The worker makes them plain, so that no object of another library crosses."""
    judge = await judging("value")
    assert NUMBERS[index][1] == await said(judge, error=str(index))


async def test_what_is_no_number_is_an_error_event(judging):
    """Each by its type."""
    judge = await judging("value")
    for index in range(len(NUMBERS), len(NUMBERS) + len(NO_NUMBERS) + len(NOT_FINITE)):
        with pytest.raises(RewardFailed, match="what it returned is "):
            await said(judge, error=str(index))
    assert 1 == len(imports())


async def test_no_more_workers_than_places_and_none_before_it_is_needed(judging):
    """They are asked again and again, and import the function once each."""
    judge = await judging(most=3)
    assert 1 == len(pool(judge).workers)
    pids = await asyncio.gather(*(said(judge, "pid") for _ in range(30)))
    assert 3 == len(pool(judge).workers)
    assert len(imports()) == len(set(imports())) == 3
    assert {float(one) for one in imports()} >= set(pids)
    assert float(os.getpid()) not in pids


async def test_a_worker_is_replaced_after_so_many_verdicts(judging):
    """So that what a function leaks is given back."""
    judge = await judging(verdicts=3)
    pids = [await said(judge, "pid") for _ in range(7)]
    assert [3, 3, 1] == [pids.count(pid) for pid in dict.fromkeys(pids)]
    assert [pids[-1]] == [one.pid for one in pool(judge).workers]
    assert not any(alive(int(pid)) for pid in pids[:6])


async def test_a_conversation_of_any_size_crosses(judging):
    """As the bytes of its record."""
    judge = await judging("length")
    text = "ä" * 4_000_000
    turn = ConversationTurn(turn_id="1", reply={"content": text})
    assert len(text) == await said(judge, turns=(turn,))


async def test_a_worker_that_died_with_nothing_to_do_is_nobodys_error(judging):
    """The kernel may have killed it; another is started."""
    judge = await judging()
    (one,) = pool(judge).workers
    os.kill(one.pid, signal.SIGKILL)
    await one._ended
    assert 0.5 == await said(judge, "thing")


async def test_a_verdict_that_is_called_off_ends_its_worker(judging):
    """At once, not after its time."""
    judge = await judging(timeout_s=3600.0)
    (one,) = pool(judge).workers
    verdict = asyncio.create_task(said(judge, "sleeps"))
    while not Path("hangs").exists():
        await asyncio.sleep(0.02)
    verdict.cancel()
    with pytest.raises(asyncio.CancelledError):
        await verdict
    assert not alive(one.pid)
    assert 0.5 == await said(judge, "thing")


async def test_closing_does_not_wait_for_what_hangs(judging):
    """Nor for what is idle."""
    judge = await judging(most=2, timeout_s=3600.0)
    verdict = asyncio.create_task(said(judge, "stubborn"))
    while not any(one.verdicts for one in pool(judge).workers):
        await asyncio.sleep(0.02)
    pids = [one.pid for one in pool(judge).workers]
    async with asyncio.timeout(60):
        await judge.aclose()
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(RewardFailed, match="died of SIGKILL"):
        await verdict


async def test_async_functions_stay_in_the_process(judging):
    """Only they are imported there."""
    judge = await judging("later")
    assert os.getpid() == await said(judge)
    assert "all_judges" in sys.modules
    del sys.modules["all_judges"]


async def test_plain_functions_are_not_imported_here(judging):
    """What their modules do as they are imported, they do elsewhere."""
    await judging("thing")
    assert "all_judges" not in sys.modules


BAD = {
    "no_such_module_of_ours:f": "there is no module 'no_such_module_of_ours' here",
    "all_judges:any_off": "did you mean 'any_of'",
    "all_judges:count": "is not a function",
    "all_judges": "is not of the form module:function",
    "broken:f": "broken:f cannot be imported: SyntaxError",
    "needy:f": "needy:f cannot be imported: ModuleNotFoundError at needy.py:1: No module named 'nix'",
    "raising:f": "raising:f cannot be imported: ValueError at raising.py:2: two lines",
    "exiting:f": "exiting:f cannot be imported: SystemExit at exiting.py:2: 5",
    "dying:f": "dying:f cannot be imported: its worker ended with exit code 7",
    "crashing:f": "crashing:f cannot be imported: its worker died of SIGABRT",
}
FILES = {
    "broken": "def f(:",
    "needy": "import nix",
    "raising": "\nraise ValueError('two\\nlines')",
    "exiting": "import sys\nsys.exit(5)",
    "dying": "import os\nos._exit(7)",
    "crashing": "import os\nos.abort()",
}


@pytest.mark.parametrize(("path", "why"), BAD.items())
async def test_a_function_that_cannot_be_imported_is_one_clear_line(here, path, why):
    """At the start."""
    for name, code in FILES.items():
        (here / f"{name}.py").write_text(code)
    judge = NamedJudge(path, 1)
    with pytest.raises(RewardRefused) as refused:
        await judge.start()
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


async def test_a_function_that_can_be_imported_no_more_ends_the_service(here, judging):
    """Its module was changed meanwhile: every conversation would fail."""
    judge = await judging()
    (here / "all_judges.py").write_text("def f(:")
    with pytest.raises(RewardFailed):
        await said(judge, "gone")
    with pytest.raises(RewardRefused, match="SyntaxError"):
        await said(judge, "thing")


async def test_a_module_of_the_folder_does_not_stand_in_for_ours(here, judging):
    """A project may have a `socket.py`."""
    (here / "socket.py").write_text("raise RuntimeError('not this one')")
    judge = await judging()
    assert 0.5 == await said(judge, "thing")


async def test_an_answer_that_is_none_costs_its_conversation_only(judging, monkeypatch):
    """Whoever writes to the line of a worker is a judge of ours, and still breaks nothing."""
    judge = await judging()
    monkeypatch.setattr(process, "LARGEST", 3)
    with pytest.raises(RewardFailed, match="its worker"):
        await said(judge, "thing")
    monkeypatch.undo()


def test_frames_end_where_the_other_side_hangs_up():
    """In the middle of one, too."""
    import socket

    for sent in (b"", b"\0\0", b"\0\0\0\5abc"):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(sent)
            theirs.shutdown(socket.SHUT_WR)
            assert worker.receive(ours) is None
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"\0\0\0\3abc")
        assert b"abc" == worker.receive(ours)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of it")
async def test_workers_do_not_outlive_a_service_that_is_killed(here):
    """Not even one that hangs."""
    code = """
import asyncio, os, signal
from odradek.schemas import codec
from odradek.schemas.events import Conversation
from odradek.streams.judges.named import NamedJudge

async def main():
    judge = NamedJudge("all_judges:sleeps", 1)
    await judge.start()
    asked = Conversation(episode_id="e", task_id="t", agent="a", sample=0)
    await judge.judge(asked, codec.encode(asked))

asyncio.run(main())
"""
    service = subprocess.Popen([sys.executable, "-c", code])
    async with asyncio.timeout(60):
        while not Path("hangs").exists():
            await asyncio.sleep(0.02)
        (pid,) = map(int, imports())
        service.kill()
        service.wait()
        while alive(pid):
            await asyncio.sleep(0.02)
