"""Who asked: requests are signed by their producers, and verified by the hosts.

A consumer of Kafka cannot see who wrote a record. So each producer signs an `assertion` of every
request with its own key (`keys`), which names the principal it speaks for; `verifier` holds a
record against it. `settings` says where keys are, and where unsigned requests are accepted.
"""
