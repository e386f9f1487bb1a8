"""The pages in a real browser: they open quietly, sort, filter, keep a review and save tables that come back."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bids_cmb.bids.results import read_outcomes
from bids_cmb.bids.tables import read_table
from bids_cmb.group import write_group_tables
from bids_cmb.report.group import write_group_page
from bids_cmb.report.subject import write_subject_page

from .simulated_outputs import Case, write_dataset

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with its own profile; files that it saves land in `browser.downloads`."""
    selenium = pytest.importorskip("selenium.webdriver")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("there is no Chromium with its chromedriver")
    folder = tmp_path_factory.mktemp("browser")
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--disable-background-networking", f"--user-data-dir={folder / 'profile'}",
                     "--window-size=1300,1000"):  # fmt: skip
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder / "saved")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    page = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    page.downloads = folder / "saved"
    yield page
    page.quit()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("study")
    cases = {
        "01": [Case("swi", 3, acq="swi"), Case("qsm", 2)],
        "02": [Case("gre", 0)],
        "03": [Case("gre", 1)],
    }
    bids, out = write_dataset(root, cases)
    for subject in cases:
        write_subject_page(out, subject, bids_dir=bids)
    write_group_tables(out, list(read_outcomes(out)))
    write_group_page(out)
    return out


def _open(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


def _all(browser: Any, selector: str) -> list[Any]:
    found: list[Any] = browser.find_elements("css selector", selector)
    return found


def _one(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def _press(browser: Any, selector: str) -> None:
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", _one(browser, selector))
    browser.execute_script("arguments[0].click()", _one(browser, selector))


def _saved(browser: Any, name: str) -> Path:
    path: Path = browser.downloads / name
    for _ in range(100):
        if path.exists():
            return path
        time.sleep(0.1)
    raise AssertionError(f"The browser saved no {name}.")


def _column(browser: Any, number: int) -> list[str]:
    cells: list[str] = browser.execute_script(
        "return [...document.getElementById('table').tBodies[0].rows].filter(r => !r.hidden)"
        f".map(r => r.cells[{number}].textContent)"
    )
    return cells


def test_the_table_of_scans_sorts_filters_and_is_saved_as_shown(browser: Any, results: Path) -> None:
    _open(browser, results / "group_cmb.html")
    _press(browser, "#table thead th:nth-child(5) button")
    assert _column(browser, 4) == ["0", "1", "2", "3"]
    _press(browser, "#table thead th:nth-child(5) button")
    assert _column(browser, 4) == ["3", "2", "1", "0"]
    assert _one(browser, "#table thead th:nth-child(5)").get_attribute("aria-sort") == "descending"
    _one(browser, "#filter").send_keys("sub-01 swi")
    assert _column(browser, 0) == ["sub-01"]
    assert _one(browser, "#shown").text == "1 of 4"
    _press(browser, "#save-table")
    rows = read_table(_saved(browser, "group_cmb_shown.tsv"))
    assert [(row["Participant"], row["Microbleeds"]) for row in rows] == [("sub-01", "3")]


def test_every_row_and_dot_leads_to_its_participant(browser: Any, results: Path) -> None:
    _open(browser, results / "group_cmb.html")
    links = {a.get_attribute("href").rsplit("/", 1)[-1] for a in _all(browser, "#table a")}
    assert links == {"sub-01.html", "sub-02.html", "sub-03.html"}
    dots: set[str] = set(
        browser.execute_script(
            "return [...document.querySelectorAll('.lobar-deep a')].map(a => a.href.baseVal)"
        )
    )
    assert dots == links
    assert len(_all(browser, ".lobar-deep circle")) == 4


def test_outlines_can_be_switched_off(browser: Any, results: Path) -> None:
    _open(browser, results / "sub-01.html")
    displayed = "return getComputedStyle(document.querySelector('.card .outline.lesion')).display"
    assert browser.execute_script(displayed) != "none"
    _press(browser, "[data-toggle=outline]")
    assert browser.execute_script(displayed) == "none"
    _press(browser, "[data-toggle=outline]")
    assert browser.execute_script(displayed) != "none"


def test_cards_sort_by_size(browser: Any, results: Path) -> None:
    _open(browser, results / "sub-01.html")
    browser.execute_script(
        "const s = document.querySelector('[data-sort]'); s.value = 'size';"
        "s.dispatchEvent(new Event('change', {bubbles: true}))"
    )
    sizes = [
        float(card.get_attribute("data-size"))
        for card in _all(browser, f"#{_one(browser, '[data-cards]').get_attribute('data-cards')} > .card")
    ]
    assert len(sizes) == 3
    assert sizes == sorted(sizes, reverse=True)


def test_a_review_survives_a_reload_and_is_counted_by_group(browser: Any, results: Path) -> None:
    _open(browser, results / "sub-01.html")
    _press(browser, "#scan-1-cmb-1 input[value=cmb]")
    _press(browser, "#scan-1-cmb-2 input[value=not_cmb]")
    _one(browser, "#scan-1-cmb-2 textarea").send_keys("=a vessel <b>")
    for name, value in (("x", "1.5"), ("y", "-4"), ("z", "10")):
        _one(browser, f"#add-missed [name={name}]").send_keys(value)
    _press(browser, "#add-missed [type=submit]")
    _press(browser, "[data-read]")
    browser.refresh()
    assert _one(browser, "#progress").text == "2 of 5 reviewed"
    assert _one(browser, "#scan-1-cmb-2 textarea").get_attribute("value").startswith("=a vessel <b>")
    assert "1.5, -4, 10 mm" in _one(browser, "#missed-list").text
    _press(browser, "#review [data-save]")
    name = browser.execute_script("return JSON.parse(document.getElementById('page-data').textContent).file")
    saved = _saved(browser, name)
    (results / "review").mkdir(exist_ok=True)
    shutil.copy(saved, results / "review" / name)
    assert write_group_tables(results, list(read_outcomes(results))) == []
    (row,) = read_table(results / "group_review.tsv")
    assert row["participant_id"] == "sub-01"
    found = {
        key: row[key] for key in ("n_reviewed", "n_confirmed", "n_rejected", "n_added", "n_cmb_reviewed")
    }
    assert found == {
        "n_reviewed": "2",
        "n_confirmed": "1",
        "n_rejected": "1",
        "n_added": "1",
        "n_cmb_reviewed": "2",
    }
    assert row["scan_read"] == "yes"
    text = write_group_page(results).read_text(encoding="utf-8")
    assert "Readers judged 1 scan and counted 2 microbleeds there." in text


def test_keys_mark_the_card_at_hand(browser: Any, results: Path) -> None:
    _open(browser, results / "sub-03.html")
    card = _one(browser, "#scan-1-cmb-1")
    browser.execute_script("arguments[0].focus()", card)
    card.send_keys("3")
    assert card.get_attribute("data-verdict") == "unsure"
    card.send_keys("0")
    assert card.get_attribute("data-verdict") == ""


@pytest.mark.parametrize("count", [0, 60])
def test_pages_of_no_and_of_sixty_microbleeds_open(browser: Any, tmp_path: Path, count: int) -> None:
    bids, out = write_dataset(tmp_path, {"09": [Case("qsm", count)]})
    page = write_subject_page(out, "09", bids_dir=bids)
    assert page.stat().st_size < 12e6
    _open(browser, page)
    assert len(_all(browser, ".card[data-id]")) == count


def test_the_viewer_scrolls_and_hands_a_place_to_the_review(browser: Any, tmp_path: Path) -> None:
    bids, out = write_dataset(tmp_path, {"07": [Case("swi", 2)]})
    page = write_subject_page(out, "07", bids_dir=bids, viewer=True)
    _open(browser, page)
    _press(browser, ".viewer summary")
    canvas = _one(browser, ".viewer canvas[data-plane=axial]")
    for _ in range(50):
        if " " in (_one(browser, ".viewer").get_attribute("data-cross") or ""):
            break
        time.sleep(0.1)
    before = [int(n) for n in _one(browser, ".viewer").get_attribute("data-cross").split()]
    browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys("\ue013")  # arrow up
    after = [int(n) for n in _one(browser, ".viewer").get_attribute("data-cross").split()]
    assert after == [before[0], before[1], before[2] + 1]
    browser.execute_script(
        "const s = document.querySelector('[data-go]'); s.value = '0'; s.dispatchEvent(new Event('change'))"
    )
    rows = read_table(next(out.rglob("*_seg-CMB_dseg.tsv")))
    shown = [float(n) for n in _one(browser, "[data-place]").text.removesuffix(" mm").split(",")]
    assert all(abs(s - float(rows[0][axis])) <= 2.1 for s, axis in zip(shown, "xyz", strict=True))
    # The cross stands on the microbleed: its outline is drawn there.
    lit = browser.execute_script(
        "const c = arguments[0]; const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i] === 255 && d[i + 2] === 61; return n",
        canvas,
    )
    assert lit > 0
    _press(browser, "[data-here]")
    values = [float(_one(browser, f"#add-missed [name={n}]").get_attribute("value")) for n in "xyz"]
    assert values == shown
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


def test_pages_are_light_or_dark_as_the_reader_says(browser: Any, results: Path) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    _open(browser, results / "sub-03.html")
    seen = {}
    for theme in ("light", "dark"):
        _press(browser, f"[data-set=theme][data-value={theme}]")
        seen[theme] = browser.execute_script(background)
    assert sum(map(int, re.findall(r"\d+", seen["dark"])[:3])) < 150
    assert sum(map(int, re.findall(r"\d+", seen["light"])[:3])) > 600
    _press(browser, "[data-set=theme][data-value=auto]")
    for theme in ("light", "dark"):
        # What the system says, where the reader says nothing.
        system = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", system)
        for page in ("sub-03.html", "group_cmb.html"):
            _open(browser, results / page)
            assert browser.execute_script(background) == seen[theme]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_every_picture_is_marked_left_and_right_and_can_be_mirrored(browser: Any, results: Path) -> None:
    _open(browser, results / "sub-01.html")
    letters = (
        "return [...new Set([...document.querySelectorAll('.pic .frame')].map(f => f.closest('.pic').classList"
        ".contains('sagittal') + ' ' + ['::before', '::after'].map(s => getComputedStyle(f, s).content).join('')))].sort()"
    )
    assert browser.execute_script(letters) == ['false "R""L"', 'true "A""P"']
    mirrored = (
        "return new DOMMatrix(getComputedStyle(document.querySelector('.card .pic.axial .flip')).transform).a"
    )
    usual = browser.execute_script(mirrored)
    _press(browser, "[data-set=side][data-value=neurological]")
    assert browser.execute_script(letters) == ['false "L""R"', 'true "A""P"']
    assert browser.execute_script(mirrored) == -usual
    _press(browser, "[data-set=side][data-value=radiological]")


@pytest.mark.parametrize("order", ["probability", "region"])
def test_cards_sort_by_probability_and_by_region(browser: Any, results: Path, order: str) -> None:
    _open(browser, results / "sub-01.html")
    browser.execute_script(
        "const s = document.querySelector('[data-sort]'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('change', {bubbles: true}))",
        order,
    )
    values = [
        float(card.get_attribute(f"data-{order}"))
        for card in _all(browser, f"#{_one(browser, '[data-cards]').get_attribute('data-cards')} > .card")
    ]
    assert len(values) == 3
    assert values == sorted(values, reverse=order == "probability")
