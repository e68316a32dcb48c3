"""The client's side of A2A on Kafka: any agent on the bus is reached as over HTTP.

`transport` is the SDK's ClientTransport, one for each agent. Those of a process share one
`connection`, which sends requests and hears replies on a partition of its own. `event_tail` reads
an agent's events once, however many streams of tasks are open. `ask` is for an agent's own code: a
message, and the answer as Python values.
"""

from odradek.agents.client.ask import ask, ask_all
from odradek.agents.client.connection import KafkaConnection
from odradek.agents.client.transport import KafkaTransport

__all__ = ["KafkaConnection", "KafkaTransport", "ask", "ask_all"]
