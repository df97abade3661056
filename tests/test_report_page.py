"""The report in headless Chromium: quiet console, no requests, filters, stepping, deep links, wide and narrow, dark."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.pipeline.report.gather import Wanted
from avvp_pipe.pipeline.report.write import make_report, write_page
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Artifact, Store
from tests.report_browser import Browser, lacking
from tests.report_world import HOSTILE, Shape, world

SHAPE = Shape(clips=9, failed=frozenset({4}))
IDS = SHAPE.names()
HEADING = "return document.querySelector('#clip h3')?.textContent ?? ''"
WHERE = "return document.getElementById('where').textContent"
HASH = "return location.hash"
WRONG = "\N{MULTIPLICATION SIGN}"
CHOOSE = """
const select = document.getElementById(arguments[0]);
select.value = [...select.options].find((one) => one.text === arguments[1]).value;
select.dispatchEvent(new Event('input', {bubbles: true}));
"""
ORDER = """
const seen = [], ended = (name) => document.getElementById(name).getAttribute('aria-disabled') === 'true';
while (!ended('previous')) document.getElementById('previous').click();
for (;;) {
  seen.push(document.querySelector('#clip h3').textContent);
  if (ended('next')) return seen;
  document.getElementById('next').click();
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests; skipped without one, an error on CI."""
    if reason := lacking():
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with Browser() as found:
        yield found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Artifact]]:
    folder = tmp_path_factory.mktemp("page")
    store = Store(folder / "artifacts")
    found = world(store, SHAPE)
    return written(store, folder / "report.html"), found


def written(store: Store, page: Path) -> Path:
    write_page(page, make_report(store, Wanted(("dataset/world",)), made="now", progress=Silent()))
    return page


@pytest.fixture
def page(browser: Browser, made: tuple[Path, dict[str, Artifact]]) -> Browser:
    browser.emulate(width=1280)
    browser.open(made[0])
    return browser


def hard(artifact: Artifact) -> Any:
    """(N, 2, T, C)"""
    names = ("audio", "visual") if artifact.kind == "dataset" else ("audio_hard", "visual_hard")
    return np.stack([artifact.array(name) for name in names], axis=1)


def test_the_console_is_quiet_and_nothing_is_requested(page: Browser, made: tuple[Path, Any]) -> None:
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for key in "jjk":
        page.press(key)
    assert page.run(WHERE) == "clip 2 of 9"
    assert page.logged() == []
    requested = page.requested()
    assert requested[0] == made[0].resolve().as_uri()
    assert {url.partition(":")[0] for url in requested[1:]} <= {"data"}


def test_a_script_from_elsewhere_would_not_run_and_a_picture_would_not_be_fetched(page: Browser) -> None:
    page.run(
        "const one = document.createElement('script'); one.textContent = 'window.intruder = 1';"
        "const two = document.createElement('img'); two.src = 'https://example.invalid/a.png';"
        "document.body.append(one, two);"
    )
    assert page.run("return window.intruder === undefined") is True
    said = " ".join(page.logged())
    assert said.count("Content Security Policy") >= 2
    assert not [url for url in page.requested() if url.startswith("http")]


def test_keys_and_buttons_step_through_the_clips_and_stop_at_the_ends(page: Browser) -> None:
    from selenium.webdriver.common.keys import Keys

    assert page.run(HEADING) == IDS[0]
    page.press("k")
    assert page.run(HEADING) == IDS[0]
    for key, place in (("j", 1), (Keys.ARROW_RIGHT, 2), (Keys.ARROW_LEFT, 1), ("k", 0)):
        page.press(key)
        assert page.run(HEADING) == IDS[place]
    page.run("document.getElementById('next').click()")
    assert page.run(HEADING) == IDS[1]
    page.run("document.getElementById('next').focus()")
    page.press(Keys.END)
    assert page.run(HEADING) == IDS[-1]
    assert page.run("return document.getElementById('next').getAttribute('aria-disabled')") == "true"
    page.press(Keys.HOME)
    assert page.run(HEADING) == IDS[0]
    page.run("document.getElementById('by-id').focus()")
    page.press("j")
    assert page.run("return document.getElementById('by-id').value") == "j"
    assert page.run(WHERE) == "no clip"


def test_the_labels_of_a_clip_stand_in_the_table_as_they_are_stored(
    page: Browser, made: tuple[Path, dict[str, Artifact]]
) -> None:
    page.run("document.getElementById('more')?.click()")
    read = """
    const found = {};
    for (const body of document.querySelectorAll('table.clip tbody')) {
      const name = body.querySelector('b').textContent;
      for (const row of body.querySelectorAll('tr:not(.class)')) {
        const cells = [...row.querySelectorAll('td.second')];
        const letters = [0, 1].map((modality) => cells.map((one) => one.children[modality].textContent));
        found[name + ' ' + row.querySelector('th').textContent] = letters;
      }
    }
    return found;
    """
    found, dataset = page.run(read), made[1]["dataset"]
    true, classes = hard(dataset), dataset.attrs["classes"]
    assert found
    for title, labels in (("truth", dataset), ("first", made[1]["first"]), ("parser pupil", made[1]["parser"])):
        cells = hard(labels)
        for column, name in enumerate(classes):
            if f"{name} {title}" not in found:
                assert not cells[0, :, :, column].any()
                continue
            for modality, letter in enumerate("AV"):
                wanted = [
                    (letter if real or title == "truth" else f"{letter}{WRONG}") if one else "○" if real else ""
                    for one, real in zip(cells[0, modality, :, column], true[0, modality, :, column], strict=True)
                ]
                assert found[f"{name} {title}"][modality] == wanted, (name, title, letter)


def test_filters_leave_the_clips_that_they_name(page: Browser, made: tuple[Path, dict[str, Artifact]]) -> None:
    dataset = made[1]["dataset"]
    truth, splits = hard(dataset), dataset.strings("splits")
    page.run(CHOOSE, "by-split", "val")
    assert page.run(ORDER) == [one for one, split in zip(IDS, splits, strict=True) if split == "val"]
    page.run(CHOOSE, "by-split", "all")
    page.run(CHOOSE, "by-events", "audio only: heard, not seen")
    alone = (truth[:, 0] & ~truth[:, 1]).any(axis=(1, 2))
    assert 0 < alone.sum() < 9
    assert page.run(ORDER) == [one for one, fits in zip(IDS, alone, strict=True) if fits]
    page.run(CHOOSE, "by-class", "Dog")
    dogs = (truth[:, 0, :, 1] & ~truth[:, 1, :, 1]).any(axis=1)
    assert page.run(ORDER) == [one for one, fits in zip(IDS, dogs, strict=True) if fits]
    page.run(CHOOSE, "by-set", "second")
    second = hard(made[1]["second"])
    called = (second[:, 0, :, 1] & ~second[:, 1, :, 1]).any(axis=1)
    if called.any():
        assert page.run(ORDER) == [one for one, fits in zip(IDS, called, strict=True) if fits]
    page.run(CHOOSE, "by-events", "all")
    page.run(CHOOSE, "by-class", "all")
    page.run(
        "const one = document.getElementById('by-id'); one.value = '0000003';"
        "one.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    assert page.run(ORDER) == [IDS[3]]
    page.run("document.getElementById('by-id').value = ''")


def test_the_worst_come_first_and_unknown_ones_last(page: Browser, made: tuple[Path, dict[str, Artifact]]) -> None:
    dataset = made[1]["dataset"]
    truth, labels = hard(dataset), hard(made[1]["second"])
    page.run(CHOOSE, "by-order", "worst first: second")
    order = page.run(ORDER)
    known = [row for row in range(9) if dataset.array("dense")[row] and row != 4]
    wrong = {row: 1 - (truth[row] & labels[row]).sum() / (truth[row] | labels[row]).sum() for row in known}
    assert len(set(wrong.values())) > 2
    assert order[: len(known)] == [IDS[row] for row in sorted(known, key=lambda row: (-round(200 * wrong[row]), row))]
    assert order[len(known) :] == [one for row, one in enumerate(IDS) if row not in known]


def test_a_link_leads_to_its_clip_filters_and_second_and_stepping_keeps_it_up_to_date(
    browser: Browser, made: tuple[Path, dict[str, Artifact]]
) -> None:
    browser.open(made[0], f"#clip={IDS[3]}&split=val&order=worst+first&second=4")
    assert browser.run(HEADING) == IDS[3]
    assert browser.run("return document.getElementById('by-split').selectedOptions[0].text") == "val"
    assert browser.run("return document.querySelector('.why caption').textContent").startswith("Second 4 (3 to 4 s)")
    browser.press("j")
    assert browser.run(HASH) == f"#clip={IDS[6]}&split=val&second=4"
    browser.run("location.hash = arguments[0]", f"#clip={IDS[8]}")
    browser.wait(f"return document.querySelector('#clip h3').textContent === '{IDS[8]}'")
    browser.open(made[0], f"#clip={IDS[1]}&split=val")  # which is of another split: the clip counts
    assert browser.run(HEADING) == IDS[1]
    browser.open(made[0], "#clip=nobody&class=None&second=99&order=truth")
    assert browser.run(HEADING) == IDS[0]
    assert browser.run("return document.getElementById('by-order').value") == "file"
    assert browser.logged() == []


def test_a_second_tells_why_its_labels_are_what_they_are(page: Browser, made: tuple[Path, dict[str, Artifact]]) -> None:
    page.run("document.getElementById('more')?.click(); document.querySelector('[data-second=\"3\"]').click()")
    rows = page.run(
        "return [...document.querySelectorAll('.why tbody tr')]"
        ".map((row) => [...row.children].map((one) => one.textContent))"
    )
    first, classes = made[1]["first"], made[1]["dataset"].attrs["classes"]
    shown = {(row[0], row[1]): row[2:] for row in rows}
    for (name, title), cells in shown.items():
        if title != "first":
            continue
        column = classes.index(name)
        for modality, came in zip(("audio", "visual"), (cells[:4], cells[4:]), strict=True):
            logit = float(first.array(f"{modality}_logits")[0, 3, column])
            assert came[0] == ("yes" if first.array(f"{modality}_hard")[0, 3, column] else "no")
            assert float(came[1]) == pytest.approx(first.array(f"{modality}_soft")[0, 3, column], abs=0.011)
            assert float(came[2]) == pytest.approx(logit, abs=0.01)
            assert came[3] == ("0.00", "never", "always")[column]
    assert any(title == "first" for _, title in shown)
    assert page.run("return document.activeElement.dataset.second") == "3"


def test_pictures_have_words_and_a_clip_without_says_why(page: Browser) -> None:
    alt, size = page.run(
        "const one = document.querySelector('table.clip img');"
        "return one.decode().then(() => [one.alt, one.naturalWidth])"
    )
    assert alt.startswith(f"Clip {IDS[0]}: one frame of each of its 10 seconds")
    assert size >= 320
    for _ in range(4):
        page.press("j")
    said = page.run(
        "return document.querySelector('tr.none').textContent + document.querySelector('table.clip').textContent"
    )
    assert "No pictures: it could not be decoded (corrupt)" in said
    assert "this clip failed here" in said


def test_sets_can_be_hidden(page: Browser) -> None:
    titles = (
        "return [...document.querySelectorAll('table.clip tbody:first-of-type tr:not(.class) th')]"
        ".map((one) => one.textContent)"
    )
    assert page.run(titles) == ["truth", "first", "second", "parser pupil"]
    page.run("document.querySelector('#sets input[value=\"2\"]').click()")
    assert page.run(titles) == ["truth", "first", "parser pupil"]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_and_text_is_legible(
    browser: Browser, made: tuple[Path, dict[str, Artifact]], width: int, dark: bool
) -> None:
    browser.emulate(width=width, dark=dark)
    browser.open(made[0], f"#clip={IDS[1]}&second=2")
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    contrast = """
    const luminance = (text) => {
      const parts = text.match(/[\\d.]+/g).map((one) => Number(one) / 255);
      const [r, g, b] = parts.map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = luminance(getComputedStyle(document.body).backgroundColor);
    return ['body', '.small', 'a', 'td', 'summary'].map((one) => {
      const text = luminance(getComputedStyle(document.querySelector(one)).color);
      return (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    }).concat(ground);
    """
    *ratios, ground = browser.run(contrast)
    assert min(ratios) >= 4.5
    assert (ground < 0.1) == dark


def test_names_of_strangers_stay_text(browser: Browser, tmp_path: Path) -> None:
    store = Store(tmp_path / "artifacts")
    names = tuple(f"{HOSTILE}{row}" for row in range(6))
    world(store, Shape(classes=(HOSTILE, "<!--", "]]>"), ids=names, failed=frozenset({1})))
    browser.emulate(width=1280)
    browser.open(written(store, tmp_path / "report.html"))
    browser.run("document.querySelector('[data-second=\"1\"]').click()")
    browser.press("j")
    assert browser.run(HEADING) == names[1]
    assert browser.run("return [...document.images].filter((one) => !one.src.startsWith('data:')).length") == 0
    assert browser.run("return document.querySelectorAll('script').length") == 4
    link = browser.run(HASH)
    browser.open(tmp_path / "report.html", link)
    assert browser.run(HEADING) == names[1]
    assert browser.logged() == []
