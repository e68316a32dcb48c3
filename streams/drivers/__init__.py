"""Drivers run stages: on Kafka transactions (default), Faust, or memory. They decide nothing.

Each reads a partition's records into `odradek.streams.partition.StagePartition` and writes what
that gives back, so that position and results stand together.
"""
