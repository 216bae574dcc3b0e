"""A whole page: its style, its script, and the rule that it loads nothing from anywhere."""

from collections.abc import Iterable
from pathlib import Path

from hi3d.files import atomic_path
from hi3d.pages.markup import Markup, element
from hi3d.pages.viewer import how_to_get_viewer, viewer_script

HERE = Path(__file__).parent
POLICY = (
    "default-src 'none'; img-src data: blob:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'wasm-unsafe-eval' blob:; connect-src data: blob:; worker-src blob:"
)
"""What the browser may load: only what the page itself holds."""
MODEL_VIEWER_SETTINGS = (
    "self.ModelViewerElement = self.ModelViewerElement || {};"
    "self.ModelViewerElement.minimumRenderScale = 1;"
)


def write_page(path: str | Path, title: str, body: Iterable[str]) -> None:
    """Write a page, atomically.

    Args:
        path: ends in `.html`.
        title: of the page.
        body: its parts. Where it holds meshes the viewer is put into it, or a line that says how
            to get it.
    """
    with atomic_path(path) as partial:
        partial.write_text(page(title, body), encoding="utf-8")


def page(title: str, body: Iterable[str]) -> str:
    """A page that is one file and needs no network."""
    parts = list(body)
    has_meshes = any("<model-viewer" in part for part in parts if isinstance(part, Markup))
    script = viewer_script() if has_meshes else None
    scripts = []
    if has_meshes and script is None:
        parts.insert(0, element("p", how_to_get_viewer(), class_="note"))
    elif script is not None:
        scripts = [
            element("script", Markup(MODEL_VIEWER_SETTINGS)),
            element("script", Markup(inline(script)), type="module"),
            element("script", Markup(inline((HERE / "meshes.js").read_text())), type="module"),
        ]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Markup((HERE / "page.css").read_text())),
    )
    main = element("main", element("h1", title), *parts)
    state = "with-viewer" if scripts else "without-viewer"
    shown = element("body", main, *scripts, class_=state)
    return f"<!doctype html>\n{element('html', head, shown, lang='en')}\n"


def inline(script: str) -> str:
    """JavaScript as the content of an element, which `</script` would end."""
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")
