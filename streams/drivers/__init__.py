"""What carries a stage: Kafka transactions (default), Faust, or memory. Decides nothing."""
