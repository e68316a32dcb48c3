"""Benchmarks, as ratios within one run: `odradek bench proxy | waiting | streams | trainer`.

Each module here measures one thing with what `harness` has; `peers` measures other proxies beside
ours, `tables` prints.
"""
