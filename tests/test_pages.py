"""The built documentation and the inspector's page in a headless Chromium."""

import re
from pathlib import Path

import numpy as np
import pytest
from tests import browser

import prioritized_replay as per
from prioritized_replay.cli import main

DOCS = Path(__file__).parent.parent / "docs"
HTML = DOCS / "_build" / "html"
FIGURE = re.compile(r"^ *\.\. (?:measured-figure|figure|image):: (\S+)", re.MULTILINE)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium"),
]

# Draw a thousand with the tree, change the law, and read what the widget says.
PLAY = """
const tree = page.getElementById("sum-tree");
const buttons = [...tree.querySelectorAll("button")], law = tree.querySelector("select");
const numbers = () => [...tree.querySelectorAll("svg text")].map((t) => Number(t.textContent));
const state = () => ({
  said: tree.querySelector("p").textContent,
  numbers: numbers(),
  lit: tree.querySelectorAll("rect.found").length,
});
const first = state();
buttons[1].click();
const drawn = state();
law.value = "rank-based";
law.dispatchEvent(new Event("change"));
const ranked = state();
const alpha = tree.querySelector("input");
alpha.value = 0;
alpha.dispatchEvent(new Event("input"));
return {first, drawn, ranked, flat: state()};
"""


def judge(found, lines, *, dark=False):
    assert not lines
    for page, one in found.items():
        assert one["title"], page
        assert not one["broken"], page
        assert not one["wide"], f"{page} is wider than {browser.WIDE} pixels"
        assert not one["narrow"], f"{page} is wider than {browser.NARROW} pixels"
        assert one["dark"] == dark, page


def sums_are_right(numbers):
    """The tree shows a total, four sums and sixteen masses, then the names of the rows."""
    total, nodes, masses = numbers[0], numbers[1:5], numbers[5:21]
    assert numbers[21:] == list(range(16))
    # two decimals are shown
    assert total == pytest.approx(sum(nodes), abs=0.03)
    for k, node in enumerate(nodes):
        assert node == pytest.approx(sum(masses[4 * k : 4 * k + 4]), abs=0.03)
    return masses


@pytest.mark.skipif(not HTML.exists(), reason="the documentation is not built: make docs")
def test_every_page_of_the_documentation_wide_narrow_and_dark():
    pages = sorted(page.relative_to(HTML).as_posix() for page in HTML.rglob("*.html"))
    theory = "prioritized_experience_replay.html"

    found, lines = browser.look_at(HTML, pages, {theory: PLAY})

    assert set(found) == set(pages)
    judge(found, lines)
    assert all(one["dark_by_choice"] for one in found.values())
    for source in DOCS.glob("*.rst"):
        figures = FIGURE.findall(source.read_text(encoding="utf-8"))
        shown = found[f"{source.stem}.html"]["images"]
        # of a figure that was not measured yet, the page says so
        assert shown == sum((DOCS / figure).exists() for figure in figures), source.name
    played = found[theory]["act"]
    masses = sums_are_right(played["first"]["numbers"])
    assert masses[10] == pytest.approx(5**0.6, rel=0.005)
    assert (played["first"]["lit"], played["drawn"]["lit"]) == (0, 3)
    told = re.search(r"drawn (\d+) times of (\d+), expected ([\d.]+)", played["drawn"]["said"])
    count, times, expected = (float(number) for number in told.groups())
    assert times == 1000
    assert expected == pytest.approx(1000 * masses[10] / sum(masses), rel=0.01)
    assert abs(count - expected) < 5 * expected**0.5
    ranks = sums_are_right(played["ranked"]["numbers"])
    assert ranks[10] == 1.0  # the largest error has rank 1
    assert set(sums_are_right(played["flat"]["numbers"])) == {1.0}  # alpha = 0 is uniform


def test_the_page_of_the_inspector_wide_narrow_and_dark(tmp_path):
    replay = per.ReplayBuffer(
        200,
        {
            "obs": per.Field((4, 12, 12), "uint8"),
            "action": per.Field((), "int64"),
            "reward": per.Field(),
        },
        seed=0,
    )
    rng = np.random.default_rng(0)
    for step in range(200):
        obs = rng.integers(0, 256, (2, 4, 12, 12), np.uint8)
        replay.add(obs[0], step % 3, float(step), obs[1], step % 50 == 49)
    batch = replay.sample(64)
    replay.update_priorities(batch.ids, rng.exponential(size=64))
    replay.save(tmp_path / "saved")
    assert main(["inspect", str(tmp_path / "saved"), "--html", str(tmp_path / "page.html")]) == 0

    for dark in (False, True):
        found, lines = browser.look_at(tmp_path, ["page.html"], dark=dark)
        judge(found, lines, dark=dark)
        assert found["page.html"]["pictures"] >= 20  # charts, and the rows of highest priority
