"""What people start: above the processes, and nothing of them imports it.

`cli` is the command, `project` reads odradek.toml, `session` runs what it names under a
`supervisor`, `local_kafka` brings a broker, `demo` and `bench` show and measure.
"""
