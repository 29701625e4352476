"""How Sphinx builds these pages: ``make docs``, warnings are errors, nothing is fetched."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE / "extensions"), str(_HERE.parent)]  # and the package benchmarks/

project = "prioritized-replay"
author = "The prioritized-replay developers"
project_copyright = f"2026, {author}"
release = version_of(project)

extensions = [
    "sphinx.ext.autodoc",
    "architecture",
    "benchmark_tables",
    "conformance_tables",
    "docstrings",
    "measured",
    "native_math",
    "settings",
]
exclude_patterns = ["_build"]
default_role = "code"
html_math_renderer = "mathml"

# Docstrings name shapes and dtypes ("float32[B]"), which say more than annotations can.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}

nitpicky = True
nitpick_ignore_regex = [
    # Other projects' pages cannot be looked up without the net, so nothing links to them.
    (r"py:.*", r"(np|numpy|torch|gymnasium|collections\.abc|typing)\..*"),
]

html_theme = "furo"
html_title = project
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["pages.css"]
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "monokai"
