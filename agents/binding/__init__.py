"""A2A 1.0 on Kafka: operations, events and errors as records.

The operation is a header, the value is the RPC message as ProtoJSON, an error is the HTTP+JSON
error object. Requests and replies carry `a2a-*` headers; events carry CloudEvents headers too.
Here are SendMessage, CancelTask, events, snapshots and replies; the other operations of A2A get
their row in `OPERATIONS` when a host serves them.
"""

import os
from typing import Final

# Spans of every queue operation of the SDK cost more than a run of ours; ours tell what counts.
# Read when the SDK is imported, which happens below this package only.
os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")

__all__ = ["BINDING", "EXTENSION", "MODEL", "VERSION"]

VERSION: Final = "1.0"
BINDING: Final = "urn:odradek:a2a:kafka:v1"
"""The `protocolBinding` of an agent's interface on its card."""
EXTENSION: Final = "urn:odradek:a2a:rollout:v1"
"""The extension whose metadata makes a message a sample of a task."""
MODEL: Final = "urn:odradek:a2a:model:v1"
"""The extension whose metadata says to an agent behind HTTP where its model is."""
