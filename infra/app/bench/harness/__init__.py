"""Tools of the benchmarks: processes on fixed cores, raw HTTP, load, and a mock engine.

`site` puts a log, the mock engine and our proxy together; `baseline` is the least that any
capturing proxy must do; `cpu_profile` says where a process' CPU goes.
"""
