"""Takes the picture of the live page in the docs: python -m tests.gateway.take_picture docs/gateway-ui.png."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
from playwright.sync_api import sync_playwright

from tests.gateway.rig import gateway, mock

TRAFFIC = {
    "batch-eval": (14, 600, 60),
    "chat-frontend": (4, 120, 40),
    "research": (6, 300, 60),
    "trial": (2, 80, 20),
}
"""By client: streams, words of a prompt, tokens of an answer."""
SECONDS = 100


def main(target: str) -> None:
    """Let four clients crowd two workers for a while, and look."""
    settings = {
        "weights": {"chat-frontend": 2, "research": 2},
        "quantum": 400,
        "slack": 400,
        "gateway": {"trusted": ["127.0.0.1"]},
        "workers": [],
    }
    folder = Path(tempfile.mkdtemp())
    stop = threading.Event()
    with mock(step_ms=12, slots=4) as one, mock(step_ms=12, slots=4) as two:
        settings["workers"] = [
            {"url": worker.url, "name": name, "window": 4} for worker, name in ((one, "gpu-0"), (two, "gpu-1"))
        ]
        with gateway(settings=settings, folder=folder) as front, sync_playwright() as player:

            def flood(client: str, words: int, tokens: int) -> None:
                body = {"model": "mock", "prompt": " ".join([client] * words), "max_tokens": tokens}
                with httpx.Client(headers={"x-tenant-id": client}, timeout=120) as http:
                    while not stop.is_set():
                        http.post(f"{front.url}/v1/completions", json=body)

            threads = [
                threading.Thread(target=flood, args=(client, words, tokens))
                for client, (streams, words, tokens) in TRAFFIC.items()
                for _ in range(streams)
            ]
            for thread in threads:
                thread.start()
            browser = player.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1180, "height": 640})
            page.goto(f"{front.admin}/ui")
            time.sleep(SECONDS)
            page.screenshot(path=target)
            browser.close()
            stop.set()
            for thread in threads:
                thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
