"""Everything that users start: above the processes, which never import it.

`cli` is the command, `project` reads odradek.toml, `session` runs what it names under a
`supervisor`, `local_kafka` brings a broker, `demo` and `bench` show and measure.
"""
