"""Sphinx's settings for the book. `python docs/book` (make book) lays out its sources in a folder of their own and calls Sphinx."""
import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import m2kd_lite

MATHJAX = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"

project = "m2kd-lite"
html_title = f"m2kd-lite {m2kd_lite.__version__}"
copyright = "its authors; MIT licence"
version = release = m2kd_lite.__version__
language = "en"

extensions = ["myst_nb", "sphinx.ext.mathjax", "sphinx.ext.autodoc", "docstrings"]
exclude_patterns = []
html_use_index = html_domain_indices = False        # the reference has a page of names, and the search finds the rest

# ---- pages and lessons ----------------------------------------------------------------------------------------------

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"                           # lessons are shown as they are committed
nb_ipywidgets_js = {}                               # nothing from another machine; __main__.py puts a note in a panel's place
nb_mime_priority_overrides = [("html", "text/markdown", 0), ("html", "text/html", 1), ("html", "image/png", 2), ("html", "text/plain", 3)]
mathjax_path = "tex-svg.js"                          # one file, with its fonts inside
mathjax3_config = {"options": {"enableMenu": False}}

# ---- the library ----------------------------------------------------------------------------------------------------

default_role = "code"                               # docstrings put code into single quotes, as Markdown does
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "ignore-module-all": True, "exclude-members": "model_config,model_post_init"}
autodoc_preserve_defaults = True
add_module_names = False

# ---- how it looks ---------------------------------------------------------------------------------------------------

html_theme = "furo"
html_static_path = [str(Path(__file__).parent / "static"), str(MATHJAX)]
html_favicon = str(Path(__file__).parent / "static" / "icon.svg")
html_css_files = ["book.css"]
html_js_files = ["book.js"]
html_copy_source = html_show_sourcelink = False
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
html_theme_options = {"navigation_with_keys": False}


def setup(app):
    # After the theme's own: its captions are headings without a level, which screen readers have to know.
    app.connect("html-page-context", _levels, priority=900)


def _levels(app, pagename, templatename, context, doctree):
    tree = context.get("furo_navigation_tree", "")
    context["furo_navigation_tree"] = tree.replace('role="heading"', 'role="heading" aria-level="2"')
