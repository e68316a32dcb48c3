"""Verbs that judge how agents play: by rules over their records, or by a person."""
