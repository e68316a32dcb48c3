"""Everything but the loop itself, in two storeys.

Below the processes: `runtime` (telemetry, tokens, environment), `bus` (Kafka), `archive` (what
Kafka no longer has) and `client` (for programs outside). Above them: `app` (command line, projects,
demo, benchmarks).
"""
