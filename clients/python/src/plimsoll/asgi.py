"""Counts the requests of an ASGI application (FastAPI, Starlette, Quart), and answers 503 while the model is gone."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Collection, Mapping
from typing import Any, Callable, Optional

from .base import Base
from .errors import Unloaded
from .gate import WhenClosed

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Middleware:
    """``app.add_middleware(plimsoll.asgi.Middleware, client=client, outside={"/healthz"})``.

    ``outside`` are paths that need no model. With ``when_closed="wait"`` a request waits for the model, ``timeout``
    seconds at most.
    """

    def __init__(
        self,
        app: App,
        client: Base,
        *,
        outside: Collection[str] = (),
        when_closed: WhenClosed = "raise",
        timeout: Optional[float] = None,
    ) -> None:
        self._app = app
        self._client = client
        self._outside = frozenset(outside)
        self._when_closed = when_closed
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope.get("path") in self._outside:
            await self._app(scope, receive, send)
            return
        request = self._client.inflight(self._when_closed, self._timeout)
        try:
            await request.__aenter__()
        except Unloaded as unloaded:
            await _unavailable(send, unloaded)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            await request.__aexit__()


async def _unavailable(send: Send, unloaded: Unloaded) -> None:
    body = f"{unloaded}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"retry-after", str(math.ceil(unloaded.retry_after)).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
