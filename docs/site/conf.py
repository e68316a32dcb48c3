"""How Sphinx builds the site; `scripts/docs` runs it with warnings as errors."""

import sys
import tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from docstrings import as_rst  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
HOST = "https://github.com/odradek-rl/odradek"

project = "Odradek"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
copyright = "The authors of Odradek. Apache-2.0"  # noqa: A001 - Sphinx' name
extensions = [
    "autoapi.extension", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
    "sphinx_copybutton",
]  # fmt: skip

myst_enable_extensions = ["attrs_inline"]
myst_heading_anchors = 4
suppress_warnings = [
    "misc.highlighting_failure",  # a shell block may hold an ellipsis
    "ref.python",  # a type's bare name may be several classes': it is text then, and no link
]

# The reference is read from the source, nothing is imported: no torch, no broker.
autoapi_dirs = [str(ROOT / ".view" / "odradek")]
autoapi_follow_symlinks = True
autoapi_python_use_implicit_namespaces = True
autoapi_ignore = ["*/app/demo/project/*", "*/app/demo/pairs/*", "*/__main__.py"]
autoapi_options = ["members", "undoc-members", "show-module-summary"]
autoapi_add_toctree_entry = False
napoleon_use_ivar = True  # attributes of a class docstring stand once, as fields

html_theme = "furo"
html_title = "Odradek"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_show_sphinx = False
html_theme_options = {
    "source_repository": HOST,
    "source_branch": "main",
    "source_directory": "docs/",
    "top_of_page_buttons": [],
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def setup(app):
    """Connect what turns docstrings, before napoleon reads their sections."""

    def process(_app, _what, _name, _obj, _options, lines):
        lines[:] = as_rst(lines)

    app.connect("autodoc-process-docstring", process, priority=400)
