"""Configuration of the documentation."""

from transferkit import __version__

project = "transferkit"
author = "the transferkit developers"
copyright = "the transferkit developers, Apache-2.0"
release = version = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"transferkit {version}"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
nitpicky = False
