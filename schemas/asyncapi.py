"""An AsyncAPI 3 document and JSON Schemas, made from the topic table and the event types."""

from typing import Any, Final

import msgspec

from odradek.schemas import events
from odradek.schemas.topics import AGENT_TOPICS, CLIENT_TOPICS, TOPICS, Topic

HEADERS: Final = {
    "type": "object",
    "description": "CloudEvents 1.0, binary mode, and W3C trace context.",
    "properties": {
        name: {"type": "string"}
        for name in (
            "ce_specversion",
            "ce_type",
            "ce_source",
            "ce_id",
            "ce_time",
            "ce_subject",
            "content-type",
            "traceparent",
        )
    },
    "required": ["ce_specversion", "ce_type", "ce_source", "ce_id"],
}


def _json_schemas() -> dict[str, Any]:
    """JSON Schemas of every event type, by type name, as one `$defs`-like mapping.

    `bytes` fields are base64 of little-endian uint32 or float32 (see `odradek.schemas.arrays`).
    """
    kinds = [kind for row in TOPICS for kind in row.types]
    _, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    return dict(sorted(components.items()))


def document(*, version: str, server: str = "localhost:9092", prefix: str = "") -> dict[str, Any]:
    """The AsyncAPI 3.0 document of all topics.

    Args:
        version: Of the software.
        server: host:port of a broker, for the `servers` section.
        prefix: Goes before every topic's name.
    """
    table = (*TOPICS, *AGENT_TOPICS, *CLIENT_TOPICS)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Odradek",
            "version": version,
            "description": "Reinforcement learning for agents with Kafka as the training loop.",
            "license": {"name": "Apache-2.0"},
        },
        "servers": {"kafka": {"host": server, "protocol": "kafka"}},
        "defaultContentType": "application/json",
        "channels": {_slug(row): _channel(row, prefix) for row in table},
        "operations": _operations(table),
        "components": {
            "messages": {
                kind.__name__: _message(kind)
                for kind in dict.fromkeys(kind for row in TOPICS for kind in row.types)
            },
            "schemas": _json_schemas(),
        },
    }


def _slug(row: Topic) -> str:
    return row.name.replace(".", "-").replace("{", "").replace("}", "")


def _channel(row: Topic, prefix: str) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": prefix + row.name,
        "description": row.about,
        "bindings": {
            "kafka": {
                "partitions": row.partitions,
                "topicConfiguration": {
                    "cleanup.policy": list(row.cleanup),
                    "retention.ms": row.retention_ms,
                    "max.message.bytes": int(row.config["max.message.bytes"]),
                },
            }
        },
        "x-key": row.key,
        "x-timestamp": row.config["message.timestamp.type"],
        "messages": {
            kind.__name__: {"$ref": f"#/components/messages/{kind.__name__}"} for kind in row.types
        },
    }
    if "{" in row.name:
        parameter = row.name[row.name.index("{") + 1 : row.name.index("}")]
        channel["parameters"] = {parameter: {"description": f"The {parameter}'s name."}}
    return channel


def _operations(table: tuple[Topic, ...]) -> dict[str, Any]:
    operations = {}
    for row in table:
        channel = {"$ref": f"#/channels/{_slug(row)}"}
        operations[f"send-{_slug(row)}"] = {
            "action": "send",
            "channel": channel,
            "summary": "by " + ", ".join(row.writers),
        }
        operations[f"receive-{_slug(row)}"] = {
            "action": "receive",
            "channel": channel,
            "summary": "by " + ", ".join(row.readers),
        }
    return operations


def _message(kind: type[events.Event]) -> dict[str, Any]:
    tag = kind.__struct_config__.tag
    return {
        "name": f"odradek.{tag}.v1",
        "title": kind.__name__,
        "summary": (kind.__doc__ or "").strip().split("\n")[0],
        "contentType": "application/json",
        "headers": HEADERS,
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }
