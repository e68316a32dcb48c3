"""Shared by translated dialects: a reply in parts, opaque values, and a history."""
