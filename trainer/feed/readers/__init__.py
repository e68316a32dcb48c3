"""What reads the log for the feed.

`batch_reader` reads batches in their order and hands each on with its episodes, which
`episode_reader` finds by their pointers. `revisions` lays late rewards over the batch, where the
settings ask for that.
"""
