"""The page as a web server of its own: nothing is fetched from elsewhere, nothing is told to anybody."""

import os
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from alignxplore.demo.page import Demo, build
from alignxplore.demo.views import CSS

PRIVATE = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}


def application(demo: Demo) -> FastAPI:
    """The page at /. It is mounted and not launched, so that there is no way to share it."""
    os.environ.update(PRIVATE)
    no_docs: dict[str, Any] = {"docs_url": None, "redoc_url": None, "openapi_url": None}
    app = FastAPI(**no_docs)
    fonts = ["ui-sans-serif", "system-ui", "sans-serif"], ["ui-monospace", "Consolas", "monospace"]
    theme = gr.themes.Base(font=fonts[0], font_mono=fonts[1])
    page = build(demo)
    quiet: dict[str, Any] = {"footer_links": [], "run_history": False, "ssr_mode": False}
    return gr.mount_gradio_app(app, page, "/", app_kwargs=no_docs, theme=theme, css=CSS, **quiet)


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until Ctrl-C."""
    server = uvicorn.Server(uvicorn.Config(app, host, port, log_level="warning", timeout_graceful_shutdown=2))
    print(f"Open http://{host}:{port} in a browser; Ctrl-C ends it.", flush=True)
    await server.serve()
