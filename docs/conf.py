"""The site of the notebooks: `make book`. Sources are the stored notebooks; nothing is executed."""

import sys
from pathlib import Path

import nbformat
from docutils import nodes
from latex2mathml.converter import convert

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

project = "Structure via consensus"
author = "the project's authors"
copyright = "MIT licence"
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "notebooks/glossary.md"]
exclude_patterns = [".venv", ".git", "build", "runs", "data", "tests", "consensus_lib", "data_scripts"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]

html_theme = "furo"
html_title = project
html_extra_path = ["redirect"]  # index.html at the top leads to the book
html_static_path = ["static"]
html_css_files = ["book.css"]
html_show_sphinx = False

nb_execution_mode = "off"
nb_custom_formats = {".ipynb": "conf.read_notebook"}
nb_mime_priority_overrides = [("html", "image/png", 5), ("html", "image/svg+xml", 90)]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"  # which browsers draw by themselves, without a network

autodoc_typehints = "none"
napoleon_use_ivar = True
autodoc_member_order = "bysource"
napoleon_custom_sections = [("Shapes", "notes_style"), ("Yields", "notes_style")]


def read_notebook(text: str) -> nbformat.NotebookNode:
    """Return a notebook whose pictures take the alternative texts of their outputs, and no stills twice."""
    book = nbformat.reads(text, as_version=4)
    for cell in book.cells:
        texts = [
            about["alt"]
            for output in cell.get("outputs", ())
            for kind, about in output.get("metadata", {}).items()
            if kind.startswith("image/") and about.get("alt")
        ]
        if texts:  # one option for all pictures of a cell
            cell.metadata["mystnb"] = {"image": {"alt": " | ".join(dict.fromkeys(texts)).replace("\n", " ")}}
    return book


def setup(app) -> None:
    """Set formulas as MathML."""

    def drawn(display: str) -> tuple:
        def visit(page, node):
            formula = convert(node.astext(), display=display)
            page.body.append(f'<div class="formula">{formula}</div>' if display == "block" else formula)
            raise nodes.SkipNode

        return visit, None

    app.add_html_math_renderer("mathml", inline_renderers=drawn("inline"), block_renderers=drawn("block"))
