"""The eleven operations of A2A 1.0 (spec section 3.1): what each asks for and gets."""

from typing import Any, Final

from a2a.types import (
    AgentCard,
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetExtendedAgentCardRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTaskPushNotificationConfigsResponse,
    ListTasksRequest,
    ListTasksResponse,
    SendMessageRequest,
    SendMessageResponse,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
)
from google.protobuf.empty_pb2 import Empty
from msgspec import Struct

SEND: Final = "SendMessage"
STREAM: Final = "SendStreamingMessage"
GET: Final = "GetTask"
LIST: Final = "ListTasks"
CANCEL: Final = "CancelTask"
SUBSCRIBE: Final = "SubscribeToTask"
CREATE_PUSH: Final = "CreateTaskPushNotificationConfig"
GET_PUSH: Final = "GetTaskPushNotificationConfig"
LIST_PUSH: Final = "ListTaskPushNotificationConfigs"
DELETE_PUSH: Final = "DeleteTaskPushNotificationConfig"
CARD: Final = "GetExtendedAgentCard"


class Operation(Struct, frozen=True):
    """One operation.

    Attributes:
        name: The value of the header `a2a-operation`.
        request: Protobuf type of the request's value.
        response: Protobuf type of the reply's value; of a stream, of each of its events.
        task: The request's field with the task id, by which it reaches the task's host; "" if any
            host can serve it.
        streams: Whether the reply is the head of a stream: its events follow on the events topic.
    """

    name: str
    request: Any
    response: Any
    task: str = ""
    streams: bool = False


OPERATIONS: Final[dict[str, Operation]] = {
    row.name: row
    for row in (
        Operation(SEND, SendMessageRequest, SendMessageResponse, task="message.task_id"),
        Operation(STREAM, SendMessageRequest, StreamResponse, task="message.task_id", streams=True),
        Operation(GET, GetTaskRequest, Task, task="id"),
        Operation(LIST, ListTasksRequest, ListTasksResponse),
        Operation(CANCEL, CancelTaskRequest, Task, task="id"),
        Operation(SUBSCRIBE, SubscribeToTaskRequest, StreamResponse, task="id", streams=True),
        Operation(
            CREATE_PUSH,
            TaskPushNotificationConfig,
            TaskPushNotificationConfig,
            task="task_id",
        ),
        Operation(
            GET_PUSH,
            GetTaskPushNotificationConfigRequest,
            TaskPushNotificationConfig,
            task="task_id",
        ),
        Operation(
            LIST_PUSH,
            ListTaskPushNotificationConfigsRequest,
            ListTaskPushNotificationConfigsResponse,
            task="task_id",
        ),
        Operation(
            DELETE_PUSH,
            DeleteTaskPushNotificationConfigRequest,
            Empty,
            task="task_id",
        ),
        Operation(CARD, GetExtendedAgentCardRequest, AgentCard),
    )
}
"""All operations of A2A 1.0, by name."""
