"""Engines: stubs with vLLM's surface, the shapes that real ones send, and a real vLLM."""
