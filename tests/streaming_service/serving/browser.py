"""A real browser without a window, for tests of the page."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE_S, until

# Where screenshots are kept; the test's own directory by default.
ARTEFACTS = "DASHBOARD_SCREENSHOTS"
WAIT_MS = 1_000 * PATIENCE_S


def chromium() -> str:
    """The browser, or a skip that names what is missing."""
    pytest.importorskip("playwright.async_api", reason="needs the package playwright")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs the system package chromium")
    return found


@dataclass
class Tab:
    """A page, and everything it complained about."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    async def text(self, selector: str) -> str:
        """Text of the first element that matches."""
        return str(await self.page.locator(selector).first.inner_text())

    async def shows(self, selector: str, wanted: str | Callable[[str], bool]) -> None:
        """Wait until the first element that matches has this text, or one that is wanted."""
        shown = ""

        async def holds() -> bool:
            nonlocal shown
            shown = await self.text(selector)
            return shown == wanted if isinstance(wanted, str) else wanted(shown)

        await until(holds, lambda: f"{selector} shows {shown!r}")

    async def until(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true, looked at each time the page is drawn.

        The page's own policy forbids what Playwright would do for that.
        """
        await self.page.evaluate(
            f"""() => new Promise((done, fail) => {{
                const end = performance.now() + {WAIT_MS};
                const look = () => {{
                    if ({expression}) done();
                    else if (performance.now() > end) fail(new Error("in vain: " + {json.dumps(expression)}));
                    else requestAnimationFrame(look);
                }};
                look();
            }})"""
        )

    async def quality(self, name: str) -> int:
        """Candles on the chart that have a quality."""
        return int(await self.text(f'#legend [data-quality="{name}"] b'))

    async def until_quality(self, name: str, least: int, most: int = 10_000) -> None:
        """Wait for a number of candles of a quality on the chart."""
        count = f"Number(document.querySelector('#legend [data-quality=\"{name}\"] b')?.textContent ?? 'x')"
        await self.until(f"{count} >= {least} && {count} <= {most}")

    async def screenshot(self, path: Path) -> Path:
        """The whole page as an image, where the environment says, else at `path`."""
        kept = os.environ.get(ARTEFACTS)
        if kept:
            path = Path(kept) / path.name
            path.parent.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=str(path), full_page=True)
        return path


@asynccontextmanager
async def tab(url: str, *, width: int = 1440, height: int = 900, scheme: str = "dark") -> AsyncIterator[Tab]:
    """The page at `url` in a browser of its own. Narrow ones have fingers and a fine screen."""
    executable = chromium()
    from playwright.async_api import async_playwright

    phone = width < 600
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"], timeout=WAIT_MS)
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            device_scale_factor=2 if phone else 1,
            has_touch=phone,
            is_mobile=phone,
        )
        page = await context.new_page()
        page.set_default_timeout(WAIT_MS)
        opened = Tab(page)
        page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
        page.on(
            "console",
            lambda message: opened.complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        page.on("dialog", lambda dialog: opened.complaints.append(f"dialog: {dialog.message}"))
        await page.goto(url)
        try:
            yield opened
        finally:
            await browser.close()
