"""The results folder: what stands in it agrees with the comparison, and the page is safe."""

import json
import re
from html.parser import HTMLParser
from io import StringIO
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import sim.report.drawing
from shared.decisions import Gate
from shared.inputs import GpuChanged, OperatorAsked, StorageChanged
from shared.layout import slot_layout
from sim.comparison import compared
from sim.experiment import World, replications
from sim.measures import METRICS
from sim.output_analysis import Estimate
from sim.report.drawing import label_of
from sim.report.findings import findings_of
from sim.report.occupancy import closures, mean_held, slot_outages
from sim.report.page import sections_of
from sim.report.time_plots import FATES, OUT
from sim.report.words import fewer_or_more, gap_interval_of, gap_of, verdict_of
from sim.results import write_results
from sim.scenario import parse_scenario

NASTY = '<script>alert(1)</script> & "x" $a_1$ {b}'
FILES = {
    "summary.json",
    "replications.csv",
    "decisions.parquet",
    "measures.png",
    "income.png",
    "ranks.png",
    "break_even.png",
    "gates.png",
    "occupancy.png",
    "slots_in_use.png",
    "report.html",
}


def comparison_of(count=3, **content):
    content = {"name": "trial", "days": 3, "replications": count, **content}
    world = World(parse_scenario(content, "trial"))
    return compared(world, count, list(replications(world, count, 1)))


@pytest.fixture(scope="module")
def comparison():
    return comparison_of(
        name=NASTY,
        description=NASTY,
        presets=["accuracy_4", {"base": "throughput_24", "name": NASTY}, "universal_24"],
        gpu_failures={"mean_hours_between": 30.0, "mean_repair_hours": 6.0},
        drains=[{"from_hours": 30, "hours": 4}],
        storage_full=[{"from_hours": 40, "hours": 4}],
    )


@pytest.fixture(scope="module")
def out(comparison, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    write_results(comparison, folder)
    return folder


@pytest.fixture(scope="module")
def html(out):
    return (out / "report.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """Tags with their attributes, and the text outside scripts and styles."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open[-1:]):
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_file_is_there_and_nothing_beside_them(out):
    assert {path.name for path in out.iterdir()} == FILES
    assert all(path.stat().st_size for path in out.iterdir())


def test_plots_are_png(out):
    for path in out.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG\r\n")


def test_summary_is_the_document(out, comparison):
    assert json.loads((out / "summary.json").read_text()) == json.loads(
        json.dumps(comparison.document())
    )


def test_replications_csv_holds_every_measure_and_gate(out, comparison):
    frame = pd.read_csv(StringIO((out / "replications.csv").read_text()))
    gates = [f"gate_{gate.label}" for gate in Gate]
    assert list(frame.columns) == ["replication", "quality_model", "preset", *METRICS, *gates]
    assert len(frame) == len(comparison.done) * len(comparison.names) * len(comparison.models)
    frame = frame[frame["quality_model"] == comparison.models[0]]
    for name in comparison.names:
        rows = frame[frame["preset"] == name]
        assert rows["accepted"].tolist() == comparison.values(name, "accepted")
        assert rows["gate_accepted"].tolist() == [
            run.gates[name]["accepted"] for run in comparison.done
        ]


def test_decisions_are_those_of_the_first_replication(out, comparison):
    frame = pq.read_table(out / "decisions.parquet").to_pandas()
    first = findings_of(comparison).first
    assert set(frame["preset"]) == set(comparison.names)
    for name in comparison.names:
        rows = frame[frame["preset"] == name]
        assert rows["at_ms"].tolist() == first.workload.stream.at_ms.tolist()
        assert rows["accepted"].tolist() == (first.decisions[name].gate == 0).tolist()


def test_the_page_names_no_address_to_fetch_from(html, page):
    assert "http://" not in html
    assert "https://" not in html
    links = [value for _, attrs in page.tags for key, value in attrs.items()
             if key in ("src", "href", "xlink:href", "srcset", "data")]  # fmt: skip
    assert links
    assert all(link.startswith("#") for link in links)


def test_links_and_labels_point_at_ids_that_stand_once(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, attrs in page.tags for key, value in attrs.items()
               if key in ("href", "xlink:href")}  # fmt: skip
    assert targets <= set(ids)


def test_what_comes_from_the_scenario_is_escaped(html, page):
    assert "<script>alert" not in html
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert NASTY in page.text


def test_headings_are_in_order_and_the_language_is_said(page):
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert ("html", {"lang": "en"}) in page.tags


def test_every_plot_is_drawn_and_described(page):
    told = [attrs["aria-label"] for _, attrs in page.tags if attrs.get("role") == "img"]
    assert len(told) == 7
    assert all("accuracy_4" in each for each in told)
    assert [tag for tag, _ in page.tags].count("svg") == 7


def test_plots_take_the_colours_of_the_theme(html):
    assert "currentColor" in html
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert "#1b1c1d" not in drawn
    assert "#fefdfc" not in drawn


def test_the_gantt_tells_of_failures(comparison):
    section = next(made for made in sections_of(findings_of(comparison)) if made.key == "time")
    legend = {text.get_text() for text in section.plots[0].figure.legends[0].get_texts()}
    assert {OUT, "draining: nothing accepted", "storage full: nothing accepted"} <= legend
    assert {label for _, label in FATES.values()} & legend


def test_a_gate_that_never_decided_is_named(page):
    assert "time (every preset): no offer was longer than allowed (48 and 72 hours)" in page.text
    assert "priority (accuracy_4" in page.text


def test_every_parameter_is_shown_and_the_assumed_ones_are_marked(html):
    rows = dict(re.findall(r'<tr><th scope="row">([^<]*)</th>(.*?)</tr>', html))
    for key in (
        "days",
        "seed",
        "arrivals.offered_share",
        "service.low",
        "gpu_failures.mean_repair_hours",
    ):
        assert key in rows
    assert ">assumed</td>" in rows["arrivals.offered_share"]
    assert ">assumed</td>" not in rows["days"]
    assert "set here" in rows["days"]
    assert "as shipped" in rows["seed"]


def test_a_sweep_is_a_curve_and_names_the_caps():
    presets = [{"base": "accuracy_4", "cap": cap} for cap in (1, 4, 8, 12, 16, 24)]
    findings = findings_of(comparison_of(2, presets=presets))
    assert findings.caps == [1, 4, 8, 12, 16, 24]
    assert findings.drawn == [findings.names[place] for place in (0, 2, 3, 5)]
    sections = {made.key: made for made in sections_of(findings)}
    panel = sections["comparison"].plots[0].figure.axes[0]
    assert panel.lines[0].get_xdata().tolist() == [1, 4, 8, 12, 16, 24]


@pytest.mark.parametrize(
    "presets",
    [
        ["accuracy_4", "throughput_24", "maximum_2"],
        ["accuracy_4", {"base": "accuracy_4", "cap": 8}],
        ["accuracy_4", {"base": "accuracy_4", "cap": 8}, {"base": "accuracy_4", "name": "again"}],
    ],
)
def test_presets_that_differ_in_more_than_the_cap_are_no_sweep(presets):
    assert findings_of(comparison_of(1, presets=presets)).caps is None


def test_one_preset_and_one_replication_have_a_page_too(tmp_path):
    write_results(comparison_of(1, presets=["accuracy_4"]), tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "one replication says nothing of how sure" in page.text
    assert "there is nothing to compare accuracy_4 with" in page.text
    assert "Break-even" not in page.text


def test_no_offers_at_all_have_a_page_too(tmp_path):
    quiet = {"kind": "poisson", "offers_per_hour": 1e-9}
    write_results(comparison_of(2, arrivals=quiet), tmp_path)
    assert "not known" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_same_comparison_gives_the_same_page(comparison, html, tmp_path):
    write_results(comparison, tmp_path)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == html


def test_a_write_that_breaks_off_leaves_nothing_half(comparison, tmp_path, monkeypatch):
    def breaks(plot, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(sim.report.drawing, "save_png", breaks)
    (tmp_path / "measures.png").write_bytes(b"the old one")
    with pytest.raises(KeyboardInterrupt):
        write_results(comparison, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"summary.json", "replications.csv", "decisions.parquet", "measures.png"}
    assert (tmp_path / "measures.png").read_bytes() == b"the old one"


def test_slots_held_are_averaged_over_time():
    held = mean_held(np.array([0, 5, 18]), np.array([10, 15, 40]), np.array([0, 10, 20, 30]))
    assert held.tolist() == pytest.approx([1.5, 0.7, 1.0])


def test_one_gpu_takes_its_slots_out():
    timeline = [
        (10, GpuChanged(3, False)), (15, GpuChanged(2, False)), (20, GpuChanged(3, True)),
        (30, GpuChanged(2, True)), (50, GpuChanged(0, False)),
    ]  # fmt: skip
    assert slot_outages(timeline, slot_layout(4)) == [(1, (10, 30))]
    assert slot_outages(timeline, slot_layout(24)) == [
        (slot, span) for slot, span in [(2, (15, 30)), (3, (10, 20)), (10, (15, 30)),
                                        (11, (10, 20)), (18, (15, 30)), (19, (10, 20))]
    ]  # fmt: skip


def test_closures_are_drains_and_full_storage():
    timeline = [
        (10, OperatorAsked("drain")), (12, StorageChanged(False)), (20, StorageChanged(True)),
        (30, OperatorAsked("resume")),
    ]  # fmt: skip
    assert closures(timeline) == {"draining": [(10, 30)], "storage": [(12, 20)]}


@pytest.mark.parametrize(
    ("found", "verdict", "gap", "interval", "told"),
    [
        (Estimate(0.1, 0.05, 0.15), "more", "+10.0 points", "+5.0 to +15.0 points",
         "10.0 points more [5.0 to 15.0]"),
        (Estimate(-0.1, -0.15, -0.05), "less", "\u221210.0 points",
         "\u221215.0 to \u22125.0 points",
         "10.0 points less [5.0 to 15.0]"),
        (Estimate(0.0, -0.1, 0.1), "no sure difference", "0.0 points", "\u221210.0 to +10.0 points",
         "no sure difference [\u221210.0 to +10.0 points]"),
        (Estimate(0.1, -0.1, 0.3), "no sure difference", "+10.0 points",
         "\u221210.0 to +30.0 points", "no sure difference [\u221210.0 to +30.0 points]"),
        (Estimate(0.0, 0.0, 0.0), "the same", "0.0 points", "0.0 to 0.0 points", "the same"),
        (Estimate(0.1, None, None), "cannot be told", "+10.0 points", "",
         "a difference of +10.0 points"),
        (None, "cannot be told", "not known", "", "a difference of not known"),
    ],
)  # fmt: skip
def test_differences_in_words(found, verdict, gap, interval, told):
    metric = "acceptance_rate"
    assert verdict_of(found) == verdict
    assert gap_of(found, metric) == gap
    assert gap_interval_of(found, metric) == interval
    assert fewer_or_more(found, metric) == told


def test_labels_fit_a_plot():
    assert label_of("accuracy_4") == "accuracy_4"
    assert label_of("a\n\u4e2db") == "a??b"
    assert len(label_of("x" * 80)) <= 28
