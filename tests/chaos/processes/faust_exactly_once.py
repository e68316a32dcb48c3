"""What a reader of Faust's documentation would write: turns into episodes, exactly once, a table.

A worker of `tests.chaos.scenarios.faust_comparison`, which kills it. Nothing of Odradek is in it.

`python -m tests.chaos.processes.faust_exactly_once SERVERS PREFIX PARTITIONS FOLDER INSTANCE`
"""

import sys
from typing import Any

import faust


def app_of(servers: str, prefix: str, partitions: int, folder: str, instance: str) -> Any:
    """The application: one stream, one table, one topic of results."""
    app = faust.App(
        f"{prefix}app",
        broker=[f"kafka://{server}" for server in servers.split(",")],
        processing_guarantee="exactly_once",
        store="memory://",
        topic_partitions=partitions,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        consumer_group_instance_id=instance or None,
        stream_wait_empty=False,
        web_enabled=False,
        datadir=folder,
        autodiscover=False,
    )
    turns = app.topic(f"{prefix}turns", key_type=str, value_type=str, value_serializer="json")
    episodes = app.topic(f"{prefix}episodes", key_type=str, value_serializer="json")
    table = app.Table(f"{prefix}conversations", default=list, partitions=partitions)

    @app.agent(turns, name=f"{prefix}assemble")
    async def assemble(stream: Any) -> None:
        async for key, event in stream.items():
            if event["kind"] == "sealed":
                await episodes.send(key=key, value=table.pop(key, []))
            else:
                table[key] = [*table[key], event["turn"]]

    @app.on_partitions_assigned.connect
    async def owned(*_: Any, **__: Any) -> None:
        print("ready: faust", flush=True)

    return app


if __name__ == "__main__":
    servers, prefix, partitions, folder, instance = sys.argv[1:]
    found = app_of(servers, prefix, int(partitions), folder, instance)
    faust.Worker(found, loglevel="info").execute_from_commandline()
