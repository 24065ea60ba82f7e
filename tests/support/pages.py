"""Pages in Debian's Chromium, which tell what went wrong in them."""

import ipaddress
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

CHROMIUM: Final = "/usr/bin/chromium"
DESKTOP: Final = {"width": 1400, "height": 900}
PHONE: Final = {"width": 390, "height": 844}
PATIENCE: Final = 300_000  # milliseconds, for busy machines
# What is wider than the window: it would be cut, or make the page scroll to the side.
TOO_WIDE: Final = "document.documentElement.scrollWidth - window.innerWidth"
FIGURES: Final = """[...document.querySelectorAll('.js-plotly-plot')].map(one => ({
    id: one.id, data: one.data, width: one.querySelector('.main-svg')?.clientWidth ?? 0,
}))"""


class Visitor:
    """Opens pages, and keeps what they should not do.

    Attributes:
        faults: Errors in consoles, requests that failed, and requests to other machines.
        allowed: Texts of faults that a test expects.
        requests: All URLs that were asked for.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._faults: list[str] = []
        self.allowed: list[str] = []
        self.requests: list[str] = []

    def open(self, url: str, size: dict[str, int] = DESKTOP, *, is_dark: bool = False) -> Page:
        """Opens a URL in a browser that has seen nothing yet."""
        scheme: Any = "dark" if is_dark else "light"
        context = self._browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        self._contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: self._faults.append(f"{page.url}: {error}"))
        page.on("console", lambda one: self._note(page, one.type, one.text))
        page.on("request", lambda one: self._note_request(one.url))
        page.on("requestfailed", lambda one: self._faults.append(f"{one.url}: {one.failure}"))
        page.goto(url)
        return page

    @property
    def faults(self) -> list[str]:
        return [one for one in self._faults if not any(text in one for text in self.allowed)]

    def close(self) -> None:
        """Closes all pages; a server ends at once when nobody is connected any more."""
        while self._contexts:
            self._contexts.pop().close()

    def _note(self, page: Page, kind: str, text: str) -> None:
        if kind == "error":
            self._faults.append(f"{page.url}: {text}")

    def _note_request(self, url: str) -> None:
        self.requests.append(url)
        parts = urlsplit(url)
        if parts.scheme in {"http", "https", "ws", "wss"} and not _is_here(parts.hostname or ""):
            self._faults.append(f"{url}: asks another machine")


def _is_here(name: str) -> bool:
    return name == "localhost" or ipaddress.ip_address(name).is_loopback


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for the block; root needs it without its sandbox."""
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


def drawn_figures(page: Page) -> list[dict[str, Any]]:
    """Data and width of each figure of plotly, once the page has been scrolled to its end."""
    page.evaluate(
        """async () => { for (let y = 0; y < document.body.scrollHeight; y += 400) {
            scrollTo(0, y); await new Promise(done => setTimeout(done, 50)); } scrollTo(0, 0); }"""
    )
    page.wait_for_function(
        "[...document.querySelectorAll('.js-plotly-plot')].every(one => one.data)"
    )
    found: list[dict[str, Any]] = page.evaluate(FIGURES)
    return found


def too_wide(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    found: int = page.evaluate(TOO_WIDE)
    return max(0, found)
