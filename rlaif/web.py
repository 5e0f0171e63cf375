"""What our servers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn


def server_config(app: Any, **more: Any) -> uvicorn.Config:
    """Options of uvicorn for an ASGI 3 application: HTTP/1.1 alone, no log, and nothing that tells what serves.

    What a proxy says of its client is not believed: there is none.

    Args:
        more: options of one server.
    """
    import uvicorn

    return uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        **more,
    )
