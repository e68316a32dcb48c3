"""Events: one of each type, short ways to build them, and records and fields that are bad."""
