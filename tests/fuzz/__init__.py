"""Fuzzing the proxy: mutated requests over HTTP, and through its pure parts in process."""
