"""The streams: turns become conversations and episodes, episodes become batches.

A stage (`stage`: a pure fold over one partition) is carried by a driver (`drivers`), which holds a
`partition` for each that it owns. `stages` are the folds, `judges` and `reward_service` put rewards
on the log, `history` looks into the past, and `replay` writes its batches again. `verify` counts
that nothing is lost or doubled, `dead_letters` lists and sends again what could not be used, and
`views` counts for people who watch. `process` starts a stage.
"""
