"""`/chat` and `/dashboard` in a browser: Debian's Chromium, with the real CLI behind the page."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from chatting import Relay
from conversing import Model
from playwright.async_api import BrowserContext, Page, async_playwright, expect
from shared import ServiceThread, shared_service
from shimming import Shim, shim_to
from tenancies import tenant

pytestmark = [pytest.mark.real_cli, pytest.mark.shared_service]

ACME, KEY = tenant("acme")
# Milliseconds, on a machine that has much else to do.
PATIENCE = 60_000
SLOW = "::pace 25ms\n::text 80"
WRITE = '::tool Write {"file_path":"f.txt","content":"x"}\n::say done'


@pytest.fixture(scope="module")
def thread() -> Iterator[ServiceThread]:
    """The service that this module shares."""
    with shared_service(Model(), tenants=[ACME]) as thread:
        yield thread


@pytest.fixture
async def shim(thread: ServiceThread) -> AsyncIterator[Shim]:
    """A shim before it."""
    async with shim_to(f"127.0.0.1:{thread.port}", heartbeat=0.5) as shim:
        yield shim


@pytest.fixture
async def browser() -> AsyncIterator[BrowserContext]:
    """A browser that nobody has used yet."""
    chromium = shutil.which("chromium")
    assert chromium, "Chromium is missing: `make servers`"
    expect.set_options(timeout=PATIENCE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium)
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE)
        yield context
        await browser.close()


@pytest.fixture
async def stranger(browser: BrowserContext) -> AsyncIterator[Page]:
    """A page without a key; what it does against its own policy, and what it fails with, fails the test."""
    page = await browser.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Policy" in said.text else None)
    yield page
    assert faults == []


@pytest.fixture
async def page(stranger: Page) -> Page:
    """A page that has its key already."""
    await stranger.add_init_script(f"sessionStorage.setItem('warmline.key', '{KEY}')")
    return stranger


async def _say(page: Page, text: str) -> None:
    await page.get_by_label("Message").fill(text)
    await page.keyboard.press("Enter")


async def _answers(page: Page, count: int) -> None:
    """Wait until so many turns have ended."""
    ended = page.locator(".turn > .state", has_text="tokens")
    await expect(ended).to_have_count(count)


async def test_a_conversation(shim: Shim, page: Page) -> None:
    """Text is Markdown, never HTML; thinking and tools are folded; it is all there when loaded anew."""
    answer = await page.goto(f"{shim.url}/chat")
    assert answer is not None
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    await _say(
        page, f'::think 4\n::say {_MARKDOWN}\n::tool Bash {{"command":"echo hi"}}\n::say done'
    )
    await _answers(page, 1)
    await page.reload()
    await _answers(page, 1)
    text = page.locator(".text").first
    await expect(text.locator("strong")).to_have_text("bold")
    await expect(text).to_contain_text("<img src=x onerror=alert(1)>")
    assert await page.locator("#log img").count() == 0
    links = await text.locator("a").evaluate_all("all => all.map((each) => each.href)")
    assert links == ["https://example.org/a"]
    for summary in ("Thinking", "Bash echo hi done"):
        folded = page.locator("details", has=page.get_by_text(summary.split()[0], exact=True))
        assert await folded.first.evaluate("each => each.open") is False
    await page.locator("summary", has_text="Bash").click()
    await expect(page.locator("details.tool .code pre")).to_have_text("hi")
    await expect(page.locator("#announcer")).to_contain_text("done")
    await expect(page.locator("#state")).to_have_text("Connected")


_MARKDOWN = (
    "**bold** <img src=x onerror=alert(1)> [a](https://example.org/a) [b](javascript:alert(1))"
)


async def test_approvals_are_buttons(shim: Shim, page: Page) -> None:
    """Denied, allowed, and allowed always: then it is not asked for any more."""
    await page.goto(f"{shim.url}/chat")
    for number, (button, outcome) in enumerate(
        [("Deny", "Denied"), ("Allow", "Allowed"), ("Allow always", "Allowed")], 1
    ):
        await _say(page, WRITE.replace("f.txt", f"{number}.txt"))
        card = page.locator(".approval").nth(number - 1)
        await expect(card).to_have_accessible_name("Allow Write?")
        await card.get_by_role("button", name=button, exact=True).click()
        await expect(card.locator(".buttons")).to_have_text(outcome)
        await _answers(page, number)
    await _say(page, WRITE.replace("f.txt", "4.txt"))
    await _answers(page, 4)
    assert await page.locator(".approval").count() == 3


async def test_questions_of_the_model_are_answered(shim: Shim, page: Page) -> None:
    """By a choice, or in own words."""
    question = {
        "question": "Which colour?",
        "header": "Colour",
        "multiSelect": False,
        "options": [
            {"label": "Red", "description": "warm"},
            {"label": "Blue", "description": "cold"},
        ],
    }
    await page.goto(f"{shim.url}/chat")
    await _say(page, f"::tool AskUserQuestion {json.dumps({'questions': [question]})}\n::say done")
    await page.get_by_role("group", name="Which colour?").get_by_label("Blue").check()
    await page.get_by_role("button", name="Answer", exact=True).click()
    await _answers(page, 1)
    await page.locator("summary", has_text="AskUserQuestion").click()
    await expect(page.locator("details.tool .code pre")).to_contain_text("Blue")


async def test_a_turn_is_stopped(shim: Shim, page: Page) -> None:
    """By a button that can be used only while there is something to stop."""
    await page.goto(f"{shim.url}/chat")
    stop = page.get_by_role("button", name="Stop")
    await expect(stop).to_be_disabled()
    await _say(page, "::pace 25ms\n::text 5000")
    await expect(page.locator(".text")).not_to_be_empty()
    await stop.click()
    await expect(page.locator(".turn > .state")).to_contain_text("stopped")
    await expect(stop).to_be_disabled()


@pytest.mark.parametrize("how", ["cut", "silence"])
async def test_nothing_is_lost_when_the_network_drops(shim: Shim, page: Page, how: str) -> None:
    """In the middle of a turn, loudly or silently: what was told then, and said then, arrives once."""
    async with Relay(int(shim.url.rpartition(":")[2])).running() as relay:
        await page.goto(f"http://127.0.0.1:{relay.port}/chat")
        await _say(page, f"::delay 1s\n{SLOW}")
        await expect(page.locator(".text")).not_to_be_empty()
        if how == "cut":
            relay.cut()
        else:
            relay.silence()
        state = page.locator("#state")
        await expect(state).to_contain_text("Not connected")
        await _say(page, "::say said while it was away")
        await expect(page.locator(".said")).to_have_count(2)
        relay.mend()
        await expect(state).to_have_text("Connected")
        await _answers(page, 2)
        first, second = await page.locator(".text").all_text_contents()
        assert second == "said while it was away"
        assert await page.locator(".turn").count() == 2
        # As the page shows it when it is told everything at once.
        await page.reload()
        await _answers(page, 2)
        assert await page.locator(".text").all_text_contents() == [first, second]
        assert len(first.split()) == 80


async def test_a_key_is_asked_for_and_kept_in_the_tab_alone(shim: Shim, stranger: Page) -> None:
    """What could not be sent is there to be sent again."""
    await stranger.goto(f"{shim.url}/chat")
    await _say(stranger, "::say let in")
    field = stranger.get_by_label("API key")
    await expect(field).to_be_visible()
    await expect(stranger.get_by_label("Message")).to_have_value("::say let in")
    await field.fill(KEY)
    await field.press("Tab")
    await stranger.get_by_role("button", name="Send").click()
    await _answers(stranger, 1)
    kept = await stranger.evaluate("[{...sessionStorage}, {...localStorage}, document.cookie]")
    assert kept == [{"warmline.key": KEY}, {}, ""]
    assert KEY not in stranger.url


async def test_chats_are_listed_and_gone_back_to(shim: Shim, page: Page) -> None:
    """By the list that `/v1/sessions` gives; without it the page does without."""
    sessions: list[dict[str, Any]] = []
    known = True

    async def listed(route: Any) -> None:
        status = 200 if known else 404
        await route.fulfill(status=status, json={"sessions": sessions})

    await page.route("**/v1/sessions?*", listed)
    await page.goto(f"{shim.url}/chat")
    await _say(page, "::say the first chat")
    await _answers(page, 1)
    sessions.append({"id": page.url.rpartition("#")[2], "title": "An old chat"})
    await page.get_by_role("button", name="New chat").click()
    await expect(page.locator(".turn")).to_have_count(0)
    await page.get_by_role("button", name="An old chat").click()
    await expect(page.locator(".text")).to_have_text("the first chat")
    current = page.get_by_role("button", name="An old chat")
    await expect(current).to_have_attribute("aria-current", "page")
    known = False
    await page.get_by_role("button", name="New chat").click()
    await expect(page.locator("#sessions")).to_be_hidden()


async def test_everything_can_be_done_without_a_mouse(shim: Shim, page: Page) -> None:
    """Each field has a label, each button a name, and the keyboard reaches them all."""
    for path in ("/chat", "/dashboard"):
        await page.goto(shim.url + path)
        assert await page.evaluate(
            "[...document.querySelectorAll('input, textarea')].every((each) => each.labels.length)"
        )
        assert await page.evaluate(
            "[...document.querySelectorAll('button')].every((each) => each.textContent.trim())"
        )
    await page.goto(f"{shim.url}/chat")
    await expect(page.get_by_label("Message")).to_be_focused()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("button", name="Send")).to_be_focused()


RENDERED = {
    "# One\ntwo\n\nthree": "<h3>One</h3><p>two</p><p>three</p>",
    "*a* __b__ ~~c~~ `d*e*` \\*f\\*": (
        "<p><em>a</em> <strong>b</strong> <del>c</del> <code>d*e*</code> *f*</p>"
    ),
    "- a\n- b\n  - c\n\n3. d\n4. e": (
        '<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><ol start="3"><li>d</li><li>e</li></ol>'
    ),
    "- a\n\n- b": "<ul><li>a</li><li>b</li></ul>",
    "> a\n> b": "<blockquote><p>a\nb</p></blockquote>",
    "---": "<hr>",
    "<b>x</b> &amp;": "<p>&lt;b&gt;x&lt;/b&gt; &amp;amp;</p>",
    "snake_case_name 2*3*4": "<p>snake_case_name 2<em>3</em>4</p>",
    "**open and `open": "<p>**open and `open</p>",
    "[x](data:text/html,y) [z](//evil)": "<p>[x](data:text/html,y) [z](//evil)</p>",
}


async def test_markdown_becomes_elements(shim: Shim, page: Page) -> None:
    """And nothing that a text says becomes anything else; what has no end takes no time."""
    await page.goto(f"{shim.url}/chat")
    for text, expected in RENDERED.items():
        assert await _html(page, text) == expected
    table = await _html(page, "| a | b |\n|---|:-:|\n| 1 | **2** |")
    assert "<td>1</td><td><strong>2</strong></td>" in table
    code = await _html(page, "```python\nx = '<b>'\n```\nafter")
    assert "<span>python</span>" in code
    assert "<code>x = '&lt;b&gt;'</code>" in code
    assert code.endswith("<p>after</p>")
    link = await _html(page, "see https://example.org/a_(b).")
    assert 'href="https://example.org/a_(b"' in link
    assert 'rel="noopener noreferrer nofollow"' in link
    for piece in ("[", "*a ", "`", "> ", "- ", "_", "**", "[a](", "# ", "| ", " #", "http://"):
        took = await page.evaluate(_TIMED, piece * 20_000)
        assert took < 3000, f"{piece!r} takes {took} ms"


_RENDER = """async (text) => {
  const { markdown, element } = await import("/pages/markdown.js");
  return element("div", {}, markdown(text)).innerHTML;
}"""
_TIMED = """async (text) => {
  const { markdown } = await import("/pages/markdown.js");
  const before = performance.now();
  markdown(text);
  return performance.now() - before;
}"""


async def _html(page: Page, text: str) -> str:
    return str(await page.evaluate(_RENDER, text))


async def test_the_dashboard_shows_how_it_is(shim: Shim, page: Page) -> None:
    """And goes on where a part of it is not served."""
    await page.goto(f"{shim.url}/dashboard")
    await expect(page.locator("#state")).to_contain_text("As of")
    await expect(page.locator("#health > *")).to_have_count(1)


async def test_pages_come_from_here_alone(shim: Shim) -> None:
    """They are as strict as can be, cached by what they hold, and no other file is served."""
    for path in ("/chat", "/dashboard", "/pages/chat.js", "/pages/style.css"):
        answer = await shim.http.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text.replace("http://", "", answer.text.count("/^https?:"))
    tag = (await shim.http.get("/pages/chat.js")).headers["etag"]
    again = await shim.http.get("/pages/chat.js", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("/pages/../_app.py", "/pages/%2e%2e%2f_app.py", "/pages/", "/pages/x.js"):
        assert (await shim.http.get(path)).status_code == 404
