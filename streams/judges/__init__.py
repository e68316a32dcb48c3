"""Judges give rewards to conversations and put them on the log.

`judge` has the seam: a Judge says a number or raises RewardFailed. `named` makes one of
`module:function`: async functions are asked in this process, others in `workers`, each a `process`
that runs `worker`. `verdicts` decides which conversations are judged and publishes what is said;
`odradek.streams.reward_service` feeds it from a consumer group.

Nothing is imported here: a worker needs little of all this.
"""
