"""streams/stages."""
