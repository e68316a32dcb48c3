"""A project: odradek.toml, and the processes that it configures."""

from odradek.infra.app.project.load import FILE, load
from odradek.infra.app.project.project import Project, ProjectSection, SettingValue

__all__ = ["FILE", "Project", "ProjectSection", "SettingValue", "load"]
