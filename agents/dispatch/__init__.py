"""The dispatcher: tasks become requests, as many as the trainer keeps up with.

`dispatcher` owns `partition`s of tasks; `validation` refuses what no agent could play, `requests`
are the records of one task, `progress` remembers which went out, and `credit` (pure) says how many
more may, fed by `feedback` from batches and steps. `repeats` (pure) says which tasks are published
once more.
"""
