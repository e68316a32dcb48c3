"""The gateway: agents on Kafka behind plain HTTP, as any A2A client expects them.

`app` routes by the agent's name to the A2A SDK's own JSON-RPC and REST endpoints, whose requests
`bus_handler` puts on the bus. `cards` follows the agents' cards. `server` is the process.
"""
