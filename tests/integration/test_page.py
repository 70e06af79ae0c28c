"""The page in a real browser: Chromium, with a real pull running. Debian's ``chromium`` and ``chromium-driver``."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import transferkit as tk
from tests.functional.models import Model, digest_of, host, links
from tests.integration.conftest import missing, program
from transferkit.server import Application, serving
from transferkit.server.passwords import Passwords
from transferkit.testing import running_registry

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("chromium")]

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
HALF = len(WEIGHTS) // 2


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium = program("chromium", package="chromium")
    driver = program("chromedriver", package="chromium-driver")
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium is missing", "pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield running
    finally:
        running.quit()


# What a browser says of a server that a test has ended.
GONE = re.compile(r"net::ERR_(CONNECTION|SOCKET|EMPTY)")


@pytest.fixture(autouse=True)
def _no_complaint(browser: Any) -> Iterator[None]:
    """The browser has nothing to complain about: no policy is broken, no script fails, nothing is missing."""
    browser.set_window_size(1000, 900)
    browser.get_log("browser")
    yield
    browser.get("about:blank")
    complaints = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [] == [text for text in complaints if not GONE.search(text)], complaints


@pytest.fixture
def upstream() -> Iterator[tuple[str, threading.Event]]:
    """A registry that sends half of the weights, and the rest when the event is set."""
    released = threading.Event()

    def held(app: Any) -> Any:
        def middle(environ: Any, start_response: Any) -> Any:
            body = app(environ, start_response)
            is_weights = environ["REQUEST_METHOD"] == "GET" and digest_of(WEIGHTS) in environ["PATH_INFO"]
            return halves(body) if is_weights else body

        def halves(body: Any) -> Iterator[bytes]:
            content = b"".join(body)
            body.close()
            yield content[:HALF]
            released.wait(30)
            yield content[HALF:]

        return middle

    with running_registry(middleware=held) as registry:
        Model([WEIGHTS, b"do as you like"]).put(registry.url, "library/smol", "latest")
        try:
            yield registry.url, released
        finally:
            released.set()


@contextmanager
def served(folder: Path, **keywords: Any) -> Iterator[str]:
    with tk.Registry(cache=folder) as registry, Application(registry=registry, **keywords) as application:
        with serving(application, grace=2) as url:
            yield url


def text(browser: Any, selector: str) -> str:
    return browser.execute_script("return document.querySelector(arguments[0])?.textContent ?? ''", selector)


def wait(what: Any, seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return found


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def focused(browser: Any) -> str:
    return browser.execute_script("const e = document.activeElement; return e.ariaLabel || e.id || e.textContent")


def test_a_pull_and_a_delete_by_keyboard_alone(browser, upstream, tmp_path):
    from selenium.webdriver.common.keys import Keys

    url, released = upstream
    name = f"{host(url)}/library/smol:latest"
    with served(tmp_path) as page:
        browser.get(page)
        wait(lambda: browser.execute_script("return !document.querySelector('#pulling').hidden"))
        assert "There are no models yet." in text(browser, "#no-models")
        press(browser, Keys.TAB)
        assert "name" == focused(browser)
        press(browser, f"{url}/library/smol", Keys.ENTER)

        # It runs, and the page says how far it is while it does.
        wait(lambda: "512.0 KiB of 1.0 MiB" in text(browser, "#transfers .more"))
        bar = browser.execute_script(
            "const b = document.querySelector('#transfers progress'); return [b.value, b.ariaLabel]"
        )
        assert f"Pull of {name}" == bar[1]
        assert HALF <= bar[0] < len(WEIGHTS)
        assert [] == links(tmp_path)

        released.set()
        wait(lambda: name == text(browser, "#models .name"))
        wait(lambda: f"{url}/library/smol is here" == text(browser, "#said"))
        wait(lambda: text(browser, "#transfers") == "")
        assert "1.0 MiB, just now" in text(browser, "#models .more")
        wait(lambda: "1.0 MiB in 4 blobs" == text(browser, "#size"))

        # Enter on the first choice of the question keeps it; the second one deletes.
        browser.execute_script("document.querySelector('#name').focus()")
        press(browser, Keys.TAB, Keys.TAB)
        assert f"Delete {name}" == focused(browser)
        press(browser, Keys.ENTER)
        assert "Keep it" == focused(browser)
        press(browser, Keys.ENTER)
        wait(lambda: focused(browser) != "Keep it")
        assert 1 == len(links(tmp_path))
        browser.execute_script("document.querySelector('#models button').focus()")
        press(browser, Keys.ENTER, Keys.TAB)
        assert "Delete it" == focused(browser)
        press(browser, Keys.ENTER)
        wait(lambda: links(tmp_path) == [])
        wait(lambda: f"{name} was deleted" == text(browser, "#said"))
        wait(lambda: text(browser, "#models") == "")


def test_the_answer_to_a_question_is_not_that_to_the_one_before(browser, tmp_path):
    """A dialog tells late that it was closed: when the next question may have been asked already."""
    tk.DiskCache(tmp_path).link("smol", b'{"schemaVersion": 2, "layers": []}')
    with served(tmp_path) as page:
        browser.get(page)
        wait(lambda: text(browser, "#models .name"))
        browser.execute_async_script(
            """
            const answer = (value) => document.querySelector(`dialog[open] [value=${value}]`).click();
            const ask = () => document.querySelector("#models button").click();
            ask();
            answer("no");
            ask();
            setTimeout(() => { answer("yes"); arguments[0](); }, 100);
            """
        )
        wait(lambda: links(tmp_path) == [])


def test_what_goes_wrong_is_said(browser, upstream, tmp_path):
    url, _ = upstream
    with served(tmp_path) as page:
        browser.get(page)
        wait(lambda: browser.execute_script("return !document.querySelector('#pulling').hidden"))
        browser.execute_script("document.querySelector('#name').value = arguments[0]", f"{url}/library/none")
        browser.execute_script("document.querySelector('#pull').requestSubmit()")
        said = wait(lambda: text(browser, "#failed"))
        assert f'{url}/library/none was not pulled: model "{url}/library/none" not found' == said
    wait(lambda: "the server does not answer" in text(browser, "#failed"))


def test_a_check_says_which_blobs_are_wrong(browser, tmp_path):
    cache = tk.DiskCache(tmp_path)
    bad = cache.put(b"bad bytes")
    Path(cache.path(bad.digest)).write_bytes(b"BAD bytes")
    with served(tmp_path) as page:
        browser.get(page)
        wait(lambda: text(browser, "#checked") == "never")
        browser.execute_script("document.querySelector('#verify').click()")
        wait(lambda: text(browser, "#checked").startswith("1 blobs are wrong"))
        assert text(browser, "#wrong li").startswith(str(bad.digest))


def test_a_name_is_text_and_never_markup(browser, tmp_path):
    tk.DiskCache(tmp_path).link("smol", b'{"schemaVersion": 2, "layers": []}')
    evil = "<img src=x onerror=document.title='taken'>"
    with served(tmp_path) as page:
        browser.get(page)
        wait(lambda: text(browser, "#models .name") == "smol:latest")
        browser.execute_script("document.querySelector('#name').value = arguments[0]", evil)
        browser.execute_script("document.querySelector('#pull').requestSubmit()")
        assert evil in wait(lambda: text(browser, "#failed"))
        assert "Models on this server" == browser.title


def test_where_nothing_may_be_changed_nothing_is_offered(browser, tmp_path):
    tk.DiskCache(tmp_path).link("smol", b'{"schemaVersion": 2, "layers": []}')
    with served(tmp_path, read_only=True) as page:
        browser.get(page)
        wait(lambda: text(browser, "#models .name") == "smol:latest")
        shown = "return [...document.querySelectorAll('button, input, #read-only')].filter(e => e.checkVisibility())"
        assert ["read-only"] == browser.execute_script(f"{shown}.map(e => e.id)")


TOO_FAINT = """
const linear = (part) => part <= .04045 ? part / 12.92 : ((part + .055) / 1.055) ** 2.4;
const light = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => linear(part / 255));
  return .2126 * r + .7152 * g + .0722 * b + .05;
};
const ratio = (a, b) => Math.max(light(a), light(b)) / Math.min(light(a), light(b));
const back = (element) => {
  const colour = getComputedStyle(element).backgroundColor;
  return colour !== "rgba(0, 0, 0, 0)" ? colour : back(element.parentElement);
};
return [...document.querySelectorAll("h1, h2, p, dt, dd, label, button, input, .name, .more")]
  .filter((element) => element.checkVisibility())
  .map((element) => [ratio(getComputedStyle(element).color, back(element)), element.outerHTML.slice(0, 80)])
  .filter(([found]) => found < 4.5);
"""  # WCAG 2.2, criterion 1.4.3


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_whole_in_both_schemes_with_contrast(browser, tmp_path, scheme):
    long = (
        "registry.example.com/a-team-with-a-long-name/a-model-with-a-name-that-is-longer-still:v1.0.0-instruct-q4_K_M"
    )
    tk.DiskCache(tmp_path).link(long, b'{"schemaVersion": 2, "layers": []}')
    emulate = browser.execute_cdp_cmd
    emulate("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    emulate("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
    try:
        with served(tmp_path) as page:
            browser.get(page)
            wait(lambda: long == text(browser, "#models .name"))
            widths = "return [document.documentElement.scrollWidth, innerWidth]"
            assert [360, 360] == browser.execute_script(widths)
            background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
            assert {"light": "rgb(250, 250, 250)", "dark": "rgb(22, 24, 28)"}[scheme] == background
            assert [] == browser.execute_script(TOO_FAINT)
            targets = "return [...document.querySelectorAll('button, input')].filter(e => e.checkVisibility())"
            heights = browser.execute_script(f"{targets}.map(e => e.getBoundingClientRect().height)")
            assert min(heights) >= 44, "a finger misses it"
    finally:
        emulate("Emulation.clearDeviceMetricsOverride", {})
        emulate("Emulation.setEmulatedMedia", {"features": []})


def test_a_password_in_the_address_is_enough_for_all_of_it(browser: Any, tmp_path: Path) -> None:
    tk.DiskCache(tmp_path).link("smol", b'{"schemaVersion": 2, "layers": []}')
    with served(tmp_path, passwords=Passwords.plain({"ann": "secret"})) as page:
        browser.get(page.replace("://", "://ann:secret@"))
        wait(lambda: text(browser, "#models .name") == "smol:latest")
        browser.execute_script("document.querySelector('#name').value = '://'")
        browser.execute_script("document.querySelector('#pull').requestSubmit()")
        wait(lambda: text(browser, "#failed"))
        assert "invalid or missing name" in text(browser, "#failed")
