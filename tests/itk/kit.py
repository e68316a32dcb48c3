"""Drive A2A's integration kit by its own test library: it runs in the kit's environment.

    python kit.py KIT PORT RESULTS AGENT [AGENT...]

PORT is where the agent under test has its card, RESULTS a file for JSON, and each AGENT one of the
kit's own. Every pair of the agent under test and another one is a scenario: over each transport, in
each way to speak. Then come the star with all of them, and each way within it.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

TRANSPORTS = ("jsonrpc", "http_json", "grpc")
WAYS = {
    "send": ("send_message", False),
    "stream": ("send_message", True),
    "push": ("push_notification", False),
    "resubscribe": ("resubscribe", True),
}
"""The kit's behaviour, and whether it streams."""
UNABLE = {"go_v03": {"http_json"}, "ts_v03": {"http_json", "grpc"}}
"""Over which transports an agent of the kit understands nobody: docs/a2a-conformance.md says why."""
TESTED = "current"
"""The kit's name for the agent under test."""


def scenarios(agents):
    """All cases: (name of the row, agents, transport, way)."""
    for row in (*agents, "star"):
        for way in WAYS:
            for transport in TRANSPORTS:
                others = [
                    each
                    for each in (agents if row == "star" else [row])
                    if transport not in UNABLE.get(each, ())
                ]
                if others:
                    yield row, [TESTED, *others], transport, way


def edges(agents):
    """There and back between the first and each other one."""
    return [edge for number in range(1, len(agents)) for edge in (f"0->{number}", f"{number}->0")]


async def settled(read, url):
    """Notifications once no more of them come: they are on their way when an answer is there."""
    seen, now = None, await read(url)
    while now != seen:
        await asyncio.sleep(1)
        seen, now = now, await read(url)
    return now


async def run(testlib, test_suite, port, agents):
    """Run all; True, or what went wrong, by scenario."""
    read = testlib.read_push_notifications
    testlib.read_push_notifications = lambda url: settled(read, url)
    test_suite._AGENT_DEFS[TESTED].update(httpPort=port, grpcPort=0)
    processes, _, ports = await testlib.start_itk_cluster(agents)
    found = []
    try:
        for row, names, transport, way in scenarios(agents):
            behaviour, streams = WAYS[way]
            try:
                result = await testlib.execute_itk_test(
                    names,
                    behaviour,
                    edges(names),
                    f"{row}-{transport}-{way}",
                    [transport],
                    streaming=streams,
                )
                (passed,) = (each["passed"] for each in result.values())
                why = "" if passed else "a trace is missing"
            except Exception as error:  # a row of the table, not the end of the run
                passed, why = False, repr(error)
            found.append([row, transport, way, passed, why])
            print(f"itk: {row} {transport} {way}: {'passed' if passed else why}", flush=True)
    finally:
        testlib.stop_itk_cluster(processes, ports)
        for process in processes:
            ended(process)
    return found


def ended(process):
    """See a process end; one that waits for its streams to end is killed."""
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main():
    kit, port, results, *agents = sys.argv[1:]
    sys.path.insert(0, kit)
    import test_suite
    import testlib

    found = asyncio.run(run(testlib, test_suite, int(port), agents))
    Path(results).write_text(json.dumps(found))
    return not all(passed for _, _, _, passed, _ in found)


if __name__ == "__main__":
    sys.exit(main())
