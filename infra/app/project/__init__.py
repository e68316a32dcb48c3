"""A project: odradek.toml, and what it makes of the processes."""

from odradek.infra.app.project.load import FILE, load
from odradek.infra.app.project.project import Entry, Project, Value

__all__ = ["FILE", "Entry", "Project", "Value", "load"]
