"""What a host knows of its agent's tasks, partition by partition.

A `partition` is owned with everything under way on it; its `index` says what snapshots tell about
its requests, `offsets` where topics begin and end. `queries` answers what is asked about tasks,
`ids` makes the SDK use ids that follow from the request.
"""
