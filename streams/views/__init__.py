"""Live views: counters over the topics, hosted by Faust. Nothing depends on them."""
