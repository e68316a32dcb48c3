"""Drivers of stages behind one face, and members of consumer groups."""
