"""How Sphinx makes a site of these pages (`make docs`). Nothing is fetched, unless INTERSPHINX=1 is set."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import annfeed
from annfeed.cli import main as annfeed_command

ROOT = Path(__file__).resolve().parents[1]

project = "annfeed"
author = copyright = "The annfeed developers"
version = release = annfeed.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_static"]
nitpicky = True
smartquotes_action = "De"  # quotes in docstrings are Python's
toc_object_entries_show_parents = "hide"

# --- pages: Markdown, and notebooks in Markdown (tutorials/), which are run when they have changed --------------------

myst_heading_anchors = 4
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "target" / "notebooks")
nb_execution_in_temp = True
nb_execution_timeout = 900
nb_merge_streams = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# --- the API, from docstrings -----------------------------------------------------------------------------------------

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True  # users import from annfeed, not from the modules of the classes
autosummary_generate = False
maximum_signature_line_length = 80
napoleon_google_docstring = False
napoleon_use_rtype = False
default_role = "py:obj"
# Names in docstrings that belong to other packages, or to no page; with INTERSPHINX=1 the former become links.
nitpick_ignore_regex = [("py:.*", r"(torch|numpy|pandas|anndata|scvi|lightning|collections|typing)\..*")]

if os.environ.get("INTERSPHINX") == "1":
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "lightning": ("https://lightning.ai/docs/pytorch/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3", None),
        "scvi": ("https://docs.scvi-tools.org/en/stable/", None),
        "torch": ("https://docs.pytorch.org/docs/stable/", None),
    }

# --- how it looks -----------------------------------------------------------------------------------------------------

html_theme = "sphinx_book_theme"
html_title = f"annfeed {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "show_toc_level": 2,
}
linkcheck_anchors = False
linkcheck_timeout = 20

# --- pages that lie above this folder, and what the command line says ------------------------------------------------

#: On the site these pages have the text of a file of the repository; here they only point to it.
OF_REPOSITORY = {
    "changelog": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "releasing": "RELEASE.md",
    "security": "SECURITY.md",
}


def _to_pages(text: str, docname: str) -> str:
    """Turn links to files of the repository into links to their pages."""
    up = "../" * (docname.count("/") + 1)
    above = "../" * docname.count("/")
    for page, file in OF_REPOSITORY.items():
        text = text.replace(f"]({up}{file}", f"]({above}{page}.md")
    return text.replace(f"]({up}README.md", f"]({above}index.md")


def _help(arguments: str) -> str:
    """Return what ``annfeed … --help`` prints."""
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):
        annfeed_command([*arguments.split(), "--help"])
    return f"```text\n$ annfeed {arguments} --help\n{told.getvalue()}```"


def read_source(app: Any, docname: str, source: list[str]) -> None:
    """Change the text of a page before it is parsed."""
    text = source[0]
    if file := OF_REPOSITORY.get(docname):
        app.env.note_dependency(str(ROOT / file))
        text = (ROOT / file).read_text()
        # From the repository's top to this folder, where links of its pages to pages lose their "docs/".
        text = re.sub(r"\]\((?!https?:|#)", "](../", text).replace("](../docs/", "](")
    text = _to_pages(text, docname)
    source[0] = re.sub(r"^<!-- annfeed (.*?) ?--help -->$", lambda found: _help(found[1]), text, flags=re.MULTILINE)


def find_public_name(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Resolve names in docstrings that are of another public module than the docstring."""
    if node.get("refdomain") != "py":
        return None
    for module in ("annfeed", "annfeed.inspection"):
        where, kind = node.get("refdoc"), node["reftype"]
        found = env.domains.python_domain.resolve_xref(
            env, where, app.builder, kind, f"{module}.{node['reftarget']}", node, content
        )
        if found is not None:
            return found
    return None


def setup(app: Any) -> None:
    """Sphinx calls it."""
    os.environ.setdefault("COLUMNS", "76")  # of the command line's help
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the notebooks' models are small: torch's threads would only wait
    os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # numba, which UMAP uses, sets the number of torch's threads, too
    app.connect("source-read", read_source)
    app.connect("missing-reference", find_public_name)
