"""The report in a real browser: it opens without a network, without errors, and its tables sort."""

import json
import re
import shutil
import subprocess
from html import unescape

import pytest

from sim.claims import CLAIMS
from sim.comparison import compared
from sim.experiment import World, replications
from sim.results import write_results
from sim.scenario import parse_scenario

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")

QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr",
    "--virtual-time-budget=4000",
]  # fmt: skip

PROBE = """
<script>
const table = document.querySelector("#gates table");
const names = () => Array.from(table.tBodies[0].rows, row => row.cells[0].textContent).join(",");
const button = table.tHead.rows[0].cells[4].querySelector("button");
const seen = [names()];
const order = () => button.parentElement.getAttribute("aria-sort");
for (let turn = 0; turn < 3; turn++) { button.click(); seen.push(order() + " " + names()); }
const claims = document.querySelector("#claims table");
const verdicts = () => Array.from(claims.tBodies[0].rows, row => row.cells[1].textContent);
claims.tHead.rows[0].cells[1].querySelector("button").click();
const judged = verdicts();
button.focus();
const box = document.querySelector(".plot svg").getBoundingClientRect();
const color = getComputedStyle(document.body).backgroundColor;
document.body.dataset.probe = JSON.stringify(
  {seen, judged, focused: document.activeElement === button, width: box.width, height: box.height,
   wide: document.documentElement.scrollWidth, inner: innerWidth, color});
</script>
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    presets = ["accuracy_4", "throughput_24", "maximum_2"]
    content = {"name": "trial", "days": 3, "presets": presets}
    world = World(parse_scenario(content, "trial"))
    folder = tmp_path_factory.mktemp("report")
    write_results(compared(world, 2, list(replications(world, 2, 1))), folder)
    return folder / "report.html"


def opened(path, profile, *options):
    """The DOM after scripts ran, and what the console said."""
    chosen = [*(options or ["--window-size=1280,900"]), f"--user-data-dir={profile}"]
    done = subprocess.run(
        [BROWSER, *QUIET, *chosen, "--dump-dom", path.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def probed(report, tmp_path, *options):
    path = tmp_path / "probed.html"
    content = report.read_text(encoding="utf-8")
    path.write_text(content.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    dom, console = opened(path, tmp_path / "profile", *options)
    assert console == []
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, "the page's script did not get to its end"
    return json.loads(unescape(found[1]))


def test_the_page_opens_without_console_errors(report, tmp_path):
    dom, console = opened(report, tmp_path / "profile")
    assert console == []
    assert "The answer" in dom
    assert dom.count("<svg") == 7
    assert '<th scope="col" aria-sort="none"><button type="button">preset</button></th>' in dom


def test_console_errors_would_be_seen(tmp_path):
    path = tmp_path / "broken.html"
    path.write_text("<script>missing()</script>", encoding="utf-8")
    assert opened(path, tmp_path / "profile")[1]


def test_tables_sort_by_their_heads(report, tmp_path):
    found = probed(report, tmp_path)
    written = "accuracy_4,throughput_24,maximum_2"
    assert found["seen"] == [
        written,
        "ascending throughput_24,accuracy_4,maximum_2",
        "descending maximum_2,accuracy_4,throughput_24",
        f"none {written}",
    ]
    order = ["✓ holds", "✗ fails", "= assumed", "? cannot judge"]
    assert found["judged"] == sorted(found["judged"], key=order.index)
    assert len(found["judged"]) == len(CLAIMS)
    assert found["focused"], "a keyboard cannot reach the head"


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_plots_and_themes_are_laid_out(report, tmp_path, scheme):
    wanted = {"dark": 0, "light": 1}[scheme]
    found = probed(
        report,
        tmp_path,
        "--window-size=1280,900",
        f"--blink-settings=preferredColorScheme={wanted}",
    )
    assert found["width"] > 500
    assert found["height"] > 100
    assert found["wide"] <= found["inner"], "the page itself scrolls sideways"
    lightness = int(re.findall(r"\d+", found["color"])[0])
    assert (lightness < 60) == (scheme == "dark")


def test_a_narrow_window_scrolls_tables_and_not_the_page(report, tmp_path):
    found = probed(report, tmp_path, "--window-size=400,800")
    assert found["inner"] <= 500
    assert found["wide"] <= found["inner"]
