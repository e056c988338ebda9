"""The live page at /ui, on the operator's listener: what /admin/state says, for the eye."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files

Page = Callable[[], tuple[str, bytes]]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may do on these pages: names of clients are text, and could do nothing even if they were not."""

_FILES = {
    "/ui": ("page.html", "text/html; charset=utf-8"),
    "/ui/page.css": ("page.css", "text/css; charset=utf-8"),
    "/ui/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/ui/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
}


def pages() -> Mapping[str, Page]:
    """Return the page's parts by path."""
    return {path: _page(name, kind) for path, (name, kind) in _FILES.items()}


def _page(name: str, kind: str) -> Page:
    body = files(__package__).joinpath(name).read_bytes()
    return lambda: (kind, body)
