"""The live page in a real, headless Chromium, over a real gateway with real traffic."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from playwright.sync_api import Request as PageRequest

from tests.gateway.rig import Running, gateway, mock

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
EVIL = "<img src=x onerror=document.title='broken'>"
PICTURE = Path(__file__).parents[2] / "docs" / "gateway-ui.png"


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A gateway in front of two workers."""
    settings = {"weights": {"gold": 4}, "quantum": 500, "gateway": {"trusted": ["127.0.0.1"]}}
    with (
        mock(step_ms=4, slots=2) as one,
        mock(step_ms=4, slots=2) as two,
        gateway(
            *(f"{worker.url},window=2" for worker in (one, two)),
            settings=settings,
            folder=tmp_path_factory.mktemp("ui"),
        ) as running,
    ):
        yield running


def refused(request: PageRequest) -> list[str]:
    """Return what failed; not what was under way when the page was left."""
    return [] if request.failure == "net::ERR_ABORTED" else [request.url]


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a browser; an error of its own or a refused request fails the test."""
    assert CHROMIUM, "no Chromium here: make services installs it"
    problems: list[str] = []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 860})
        page.on("pageerror", lambda problem: problems.append(str(problem)))
        page.on("requestfailed", lambda request: problems.extend(refused(request)))
        yield page
        seen = list(problems)  # what is under way when it closes is no problem
        browser.close()
    assert not seen


def ask(front: Running, client: str, times: int = 1, tokens: int = 8) -> None:
    """Send requests one after the other."""
    body = {"model": "mock", "prompt": " ".join([re.sub(r"\W", "", client)] * 64), "max_tokens": tokens}
    for _ in range(times):
        answer = httpx.post(f"{front.url}/v1/completions", json=body, headers={"x-tenant-id": client}, timeout=60)
        assert answer.status_code == httpx.codes.OK


def row(page: Page, client: str) -> Any:  # noqa: ANN401
    """Return the cells of a client's row."""
    return page.locator("#clients tr", has=page.get_by_text(client, exact=True)).locator("td").all_inner_texts()


def test_it_shows_clients_and_workers_and_updates_by_itself(front: Running, page: Page) -> None:
    """Requests that come while the page is open appear on it, without a reload."""
    ask(front, "gold", 3)
    page.goto(f"{front.admin}/ui")
    page.wait_for_selector("#live.on")
    expect(page.locator("#workers .card")).to_have_count(2)
    first = row(page, "gold")
    assert (first[0], first[1], first[-2]) == ("gold", "4", "3")
    ask(front, "gold", 2)
    requests = page.locator("#clients tr", has=page.get_by_text("gold", exact=True)).locator("td").nth(8)
    expect(requests).to_have_text("5")
    expect(page.locator("#gap path.gap")).to_have_attribute("d", re.compile("L"))
    assert page.locator("#tiles .tile").count() == 7
    assert "2 of 2" in page.locator("#tiles").inner_text()


def test_names_of_clients_are_text(front: Running, page: Page) -> None:
    """A name that is markup is shown as it is, and does nothing."""
    ask(front, EVIL)
    page.goto(f"{front.admin}/ui")
    page.get_by_text(EVIL, exact=True).wait_for()
    assert page.locator("#clients img").count() == 0
    assert page.title() == "fairprefix gateway"


def test_it_loads_nothing_from_elsewhere(front: Running, page: Page) -> None:
    """All parts come from the gateway, and the browser is told to refuse anything else."""
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    answer = page.goto(f"{front.admin}/ui")
    page.wait_for_selector("#live.on")
    assert answer
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert all(url.startswith((front.admin, "data:")) for url in seen)


def test_many_clients_stay_readable(front: Running, page: Page) -> None:
    """Fifty rows at most; the others are counted."""
    for number in range(60):
        ask(front, f"tenant-{number}", tokens=1)
    page.goto(f"{front.admin}/ui")
    expect(page.locator("#clients tr")).to_have_count(50)
    expect(page.locator("#clients-note")).to_have_text(re.compile(r"and \d+ more"))


def test_a_gateway_that_is_gone_is_said_so(tmp_path: Path, page: Page) -> None:
    """The page says that the gateway does not answer, and takes up again when it does."""
    with mock(step_ms=1) as worker, gateway(worker.url, settings={}, folder=tmp_path) as front:
        page.goto(f"{front.admin}/ui")
        page.wait_for_selector("#live.on")
        page.route("**/admin/state", lambda route: route.fulfill(status=503))
        page.wait_for_selector("#live.off")
        assert "status 503" in page.locator("#live").inner_text()
        page.unroute("**/admin/state")
        page.wait_for_selector("#live.on")
        page.goto("about:blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_follows_the_system_into_the_dark(front: Running, page: Page, scheme: Literal["light", "dark"]) -> None:
    """Both schemes have their own colours, and text that stands out from the page."""
    page.emulate_media(color_scheme=scheme)
    page.goto(f"{front.admin}/ui")
    page.wait_for_selector("#live.on")
    ink, ground = (
        sum(
            map(
                int,
                re.findall(r"\d+", page.locator("body").evaluate(f"body => getComputedStyle(body).{what}"))[:3],
            )
        )
        for what in ("color", "backgroundColor")
    )
    assert (ink > ground) is (scheme == "dark")
    assert abs(ink - ground) > 500


def test_the_docs_show_the_page_as_it_is() -> None:
    """The picture in the docs is a small PNG; tests/gateway/take_picture.py makes it."""
    data = PICTURE.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert 20_000 < len(data) < 200_000
