"""Named crash points: where chaos tests kill a process, on both sides of every commit and ack.

`ODRADEK_CRASH_AT=name` kills the process with SIGKILL as it first passes the point, and
`ODRADEK_CRASH_AT=name:n` as it passes it for the nth time. Without the variable a point costs one
comparison.
"""

import os
import signal
import threading
from collections import Counter
from typing import Final

TRANSACTION: Final = (
    "after_begin",
    "after_produce_before_offsets",
    "after_offsets_before_commit",
    "after_commit",
)
"""Of a transaction, in their order. The first three are within it; where it commits no offsets, as
a host's, the second and the third are one place."""

POINTS: Final[dict[str, tuple[str, ...]]] = {
    "proxy": (
        "turn_before_send",
        "turn_sent_before_ack",
        "turn_acked_before_release",
        "turn_released",
        "seal_before_sealed",
        "sealed_before_answer",
    ),
    "agent": (
        *TRANSACTION,
        "opened_before_run",
        "run_before_rewards",
        "rewards_before_ending",
        "ending_before_seal",
        "sealed_before_status",
        "status_before_finish",
        "offsets_before_commit",
        "offsets_committed",
    ),
    "dispatch": TRANSACTION,
    "sample": TRANSACTION,
    "push": ("posted_before_settled",),
    "archive": ("object_before_rename", "object_written"),
    "rescore": ("rescored_before_commit", "rescored_committed"),
    "train": (
        "optimizer_before_checkpoint",
        "snapshot_before_durable",
        "between_files",
        "files_before_manifest",
        "manifest_before_rename",
        "renamed_before_durable",
        "renamed_before_rotate",
        "durable_before_told",
        "checkpoint_told",
        "checkpoint_before_engine",
        "version_before_weights",
        "weights_before_engine",
        "reloaded_before_version",
        "engine_before_policy",
        "policy_before_step",
        "step_told",
    ),
}
"""Per console verb, in the order in which one piece of work passes them; those of the stages are
`streams.stages.STAGE_POINTS`."""

ADAPTER_POINTS: Final = ("adapter_before_unload",)
"""Of `train` besides, where a LoRA adapter is trained, which never passes
`reloaded_before_version`."""

_passed: Counter[str] = Counter()
_armed: dict[str, int] = {}


def arm(spec: str) -> None:
    """Die at `name` or `name:n`; nothing is armed by an empty text."""
    _armed.clear()
    _passed.clear()
    if spec:
        name, _, nth = spec.partition(":")
        _armed[name] = int(nth or 1)


def crash_point(name: str, *, in_s: float = 0.0) -> None:
    """Kill this process with SIGKILL if this is the point, and the passing, that was armed.

    Args:
        name: One of `POINTS`.
        in_s: Die so many seconds later, while what follows is under way: between a send and its
            ack stands no line of ours.
    """
    if name not in _armed:
        return
    _passed[name] += 1
    if _passed[name] == _armed[name]:
        if in_s:
            threading.Timer(in_s, os.kill, (os.getpid(), signal.SIGKILL)).start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get("ODRADEK_CRASH_AT", ""))
