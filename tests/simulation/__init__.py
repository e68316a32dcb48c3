"""A deterministic simulation of Odradek on Kafka: real processes' code on a simulated cluster.

The drivers, the dispatcher, the folds and the trainer's position are the product's own. What is
simulated is below them: the event loop with its clock, the broker, aiokafka's clients, the disk.
One seed decides everything, so a failure is repeated by its seed.
"""
