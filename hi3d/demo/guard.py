"""What the server answers to whom: nothing from elsewhere, in neither direction."""

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from hi3d.pages.viewer import viewer_script

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "frame-ancestors 'self'",
        "form-action 'self'",
    ]
)
"""Content-Security-Policy: the page loads nothing from other hosts, whatever its library wants."""
VIEWER = "/model-viewer.js"
"""Address of the web component that turns the mesh."""
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}


class Guard:
    """ASGI middleware: adds the policy and the mesh's viewer, and fetches nothing for visitors."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if fetches(scope["path"]):
            await answer(send, 403, b"text/plain", b"not here")
            return
        if scope["path"] == VIEWER:
            script = (viewer_script() or "").encode()
            await answer(send, 200 if script else 404, b"text/javascript", script)
            return

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].lower() not in HEADERS]
                message["headers"] = [*kept, *HEADERS.items()]
            await send(message)

        await self.app(scope, receive, send_with_policy)


async def answer(send: Send, status: int, kind: bytes, body: bytes) -> None:
    """A whole answer, with the policy."""
    headers = [(b"content-type", kind), *HEADERS.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def fetches(path: str) -> bool:
    """Whether a request asks the server to fetch an address of its choice."""
    after = path.rpartition("file=")[2] if "file=" in path else ""
    return "/proxy=" in path or after.lower().lstrip().startswith(("http:", "https:"))


def only_uploads(photo: Any) -> None:
    """Refuse addresses in place of a file, which Gradio would fetch for whoever asks."""
    move = photo.async_move_resource_to_block_cache

    async def moved(path: str | None) -> str | None:
        if path is not None and not Path(path).is_file():
            raise ValueError("only uploaded files are taken")
        return await move(path)

    photo.async_move_resource_to_block_cache = moved
