"""The report as a file: what it says, that it is whole, and that no name in a model can do harm."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import itertools
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from plotly.offline import get_plotlyjs_version
from report_samples import HOSTILE, MEASURED, PREDICTED, transformer
from scene_samples import with_graph

from explorer.advise import Finding, Fix
from explorer.errors import ExportError
from explorer.formats import Census
from explorer.report import ModelLatency, WeightFacts, render, write_report
from explorer.report.latency_figure import latency_by_op
from explorer.report.layers import Layers
from explorer.report.story import findings, verdict, worst_layers
from explorer.report.table import script_json
from explorer.report.tiles import tiles

MEGABYTE = 1_000_000
RESNET50_LAYERS = 126  # nodes of torchvision's resnet50 as exported with constants folded


class Page(HTMLParser):
    """Everything that a browser would see of a page: elements with attributes, text, scripts."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.scripts, self.data, self.words = [], [], {}, []
        self.inside, self.open = None, {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style"):
            self.inside, self.open = tag, dict(attributes)

    def handle_endtag(self, tag):
        if tag == self.inside:
            self.inside = None

    def handle_data(self, data):
        if self.inside is None:
            self.words.append(data)
        elif self.inside == "script":
            if self.open.get("type") == "application/json":
                self.data[self.open["id"]] = data
            else:
                self.scripts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


def table_of(page):
    return json.loads(Page(page).data["data-layers"])


def column(frame, name):
    return frame[name].to_numpy(dtype=float)


class TestStory:
    def test_findings_of_the_session_are_drawn_in_their_order_with_what_mends_them(self):
        fix = Fix(label="Keep it", block=("*norm*/Pow",))
        told = [
            Finding(id="breaks", tone="stop", title="fp16 breaks <b>this</b>", text="At '<i>Pow</i>'.", fix=fix),
            Finding(id="bf16", tone="note", title="bf16 would hold", text="It has the range.", evidence="7e7"),
        ]
        data = transformer(5, findings=told)
        drawn = findings(data, Layers.of(data))
        assert [each.icon for each in drawn] == ["stop", "note"]
        assert drawn[0].command == "--block '*norm*/Pow'"
        assert "7e7" in drawn[1].body
        page = render(data)
        assert "fp16 breaks &lt;b&gt;this" in page
        assert "<i>Pow" not in page

    def test_a_model_with_nan_outputs_is_said_to_break_with_its_accuracy_before_and_after(self):
        data = transformer()
        found = verdict(data, Layers.of(data))
        assert (found.icon, found.title) == ("stop", "fp16 breaks this model")
        assert "98.6\N{NO-BREAK SPACE}% to 10.0\N{NO-BREAK SPACE}%" in found.body

    def test_a_plan_without_harm_is_said_to_hold(self):
        data = transformer(broken=False)
        found = verdict(data, Layers.of(data))
        assert found.icon == "good"
        assert "Every layer stays finite" in found.body

    def test_lost_accuracy_is_told_although_everything_is_finite(self):
        data = transformer(broken=False)
        data = dataclasses.replace(data, accuracy=dataclasses.replace(data.accuracy, after=0.5))
        assert verdict(data, Layers.of(data)).icon == "stop"

    def test_a_plan_that_keeps_all_in_fp32_is_not_praised(self):
        data = transformer(20, broken=False)
        data = dataclasses.replace(data, errors=data.errors.assign(format="fp32"))
        assert verdict(data, Layers.of(data)).title == "Nothing runs in fp16 under this plan"

    def test_layers_that_break_by_themselves_are_told_from_those_that_pass_it_on(self):
        data = transformer()
        layers = Layers.of(data)
        assert layers.broken_alone.sum() == (data.errors["overflow"] > 0).sum()
        assert layers.broken.sum() > layers.broken_alone.sum()
        assert all(row.local.text == "not finite" for row in worst_layers(layers))

    def test_a_nan_error_is_broken_where_it_was_measured_and_unknown_where_it_was_not(self):
        data = transformer(3, broken=False)
        errors = data.errors.assign(acc_sqnr_db=[math.nan, math.nan, 50.0], local_sqnr_db=[math.nan, 60.0, 60.0])
        layers = Layers.of(dataclasses.replace(data, errors=errors))
        assert layers.broken.tolist() == [False, True, False]
        assert layers.unmeasured.tolist() == [True, False, False]

    def test_a_low_layer_that_makes_nan_from_exact_inputs_breaks_by_itself(self):
        data = transformer(3, broken=False)
        errors = data.errors.assign(acc_sqnr_db=math.nan, local_sqnr_db=[60.0, math.nan, 60.0], nan=[0, 5, 9])
        layers = Layers.of(dataclasses.replace(data, errors=errors))
        assert layers.broken_alone.tolist() == [False, True, False]

    def test_every_warning_of_the_session_is_shown_escaped(self):
        page = render(transformer(5, broken=False, warnings=["shape of <b>x</b> unknown", "second"]))
        assert "shape of &lt;b&gt;x&lt;/b&gt; unknown" in page
        assert "second" in page

    def test_weights_that_overflow_are_named(self):
        harmed = WeightFacts(
            total=Census(elements=10, overflow=2, max_abs=1e5), worst={"bad.weight": Census(elements=10, overflow=2)}
        )
        data = transformer(5, broken=False, weights=harmed)
        assert "bad.weight" in render(data)


class TestHeadline:
    def test_every_error_and_latency_carries_its_provenance(self):
        data = transformer()
        shown = {tile.key: tile for tile in tiles(data, Layers.of(data))}
        assert shown["output-error"].provenance == "emulated"
        assert shown["latency"].provenance == PREDICTED
        assert shown["accuracy"].provenance == "emulated"
        assert shown["output-error"].value == "not finite"
        assert shown["casts"].value == "24"

    def test_the_share_counts_only_layers_that_carry_floats(self):
        data = transformer(18, broken=False)
        formats = ["none", "fp32", *["fp16"] * 16]
        data = dataclasses.replace(data, errors=data.errors.assign(format=formats))
        shown = tiles(data, Layers.of(data))
        assert shown[1].detail == "16 of 17 layers with float tensors"

    def test_a_cpu_latency_never_becomes_a_speed_up(self):
        latency = ModelLatency(
            provenance="measured on Xeon, ONNX Runtime 1.31 CPU, 2 threads", fp32_us=2000, plan_us=1000
        )
        data = transformer(40, broken=False, model_latency=[latency])
        shown = next(tile for tile in tiles(data, Layers.of(data)) if tile.key == "latency")
        assert (shown.before, shown.value) == ("", "2\N{NO-BREAK SPACE}ms")
        assert "tells nothing of fp16" in shown.detail
        charts = latency_by_op(data.latency.assign(provenance=latency.provenance), "fp16")
        assert [trace.name for trace in charts[0].figure.data] == ["all in fp32"]
        timed = dataclasses.replace(data, latency=data.latency.assign(provenance=latency.provenance))
        assert "low" not in table_of(render(timed))["figures"]

    def test_predicted_latency_is_hatched_and_called_so(self):
        data = transformer(40, broken=False)
        (chart,) = latency_by_op(data.latency, "fp16")
        assert all(trace.marker.pattern.shape == "/" for trace in chart.figure.data)
        assert all("predicted" in trace.name for trace in chart.figure.data)
        assert "predicted" in chart.title
        assert render(data).count(PREDICTED) >= 3

    def test_the_bars_of_the_plan_add_up_to_its_time(self):
        data = transformer(40, broken=False)
        (chart,) = latency_by_op(data.latency, "fp16")
        low, wide, _ = chart.figure.data
        assert sum(low.x) + sum(wide.x) == pytest.approx(data.model_latency[0].plan_us)

    def test_every_device_has_a_chart_of_its_own(self):
        data = transformer(20, broken=False)
        both = pd.concat([data.latency, data.latency.assign(provenance=MEASURED, fp16_us=np.nan)])
        charts = latency_by_op(both, "fp16")
        assert [chart.provenance for chart in charts] == [(PREDICTED,), (MEASURED,)]

    def test_times_of_zero_have_no_shares(self):
        data = transformer(20, broken=False)
        (chart,) = latency_by_op(data.latency.assign(fp32_us=0.0, fp16_us=0.0), "fp16")
        assert "Most of the" not in chart.summary

    def test_random_inputs_are_distrusted_in_every_view(self):
        page = render(transformer(random=True))
        assert page.count("Random inputs: do not trust these ranges") >= 6
        assert "Random inputs" not in render(transformer())


class TestTable:
    def test_has_a_row_for_every_layer_with_its_figures(self):
        data = transformer(215)
        table = table_of(render(data))
        assert table["names"] == data.errors["name"].tolist()
        reasons = table["words"]["reason"]
        assert [reasons["list"][row] for row in reasons["rows"]] == data.errors["reason"].tolist()
        shown = [-math.inf if x == "-inf" else math.inf if x == "inf" else x for x in table["figures"]["local"]]
        assert shown == pytest.approx(data.errors["local_sqnr_db"].tolist(), rel=1e-4)
        assert table["figures"]["overflow"] == data.errors["overflow"].tolist()
        assert table["figures"]["max"] == pytest.approx(data.ranges["max_abs"].tolist(), rel=1e-4)
        assert table["timing"] == PREDICTED

    def test_rows_are_joined_by_id_and_not_by_position(self):
        data = transformer(20, broken=False)
        shuffled = dataclasses.replace(
            data, ranges=data.ranges.iloc[::-1], latency=data.latency.sample(frac=1, random_state=1)
        )
        assert table_of(render(shuffled)) == table_of(render(data))

    def test_what_was_not_measured_has_no_column(self):
        table = table_of(render(transformer(10, broken=False, ranges=None, latency=None)))
        assert not {"max", "rms", "fp32", "low"} & {column["key"] for column in table["columns"]}

    def test_json_for_a_script_holds_no_markup_and_reads_back(self):
        value = {"name": "</script><!--\u2028\u2029&amp;"}
        written = script_json(value)
        assert not set("<>&\u2028\u2029") & set(written)
        assert json.loads(written) == value


class TestHostileNames:
    @pytest.fixture
    def page(self):
        return render(transformer(60, names=HOSTILE, title=HOSTILE[0], warnings=list(HOSTILE)))

    def test_names_add_no_element_and_no_attribute(self, page):
        plain = Page(render(transformer(60, title="title", warnings=["warning"] * len(HOSTILE))))
        hostile = Page(page)

        def kinds(seen):
            return {(tag, name) for tag, attributes in seen.elements for name in attributes}

        assert kinds(hostile) == kinds(plain)
        assert hostile.scripts == plain.scripts
        assert len(hostile.elements) == len(plain.elements)

    def test_names_arrive_whole_in_the_table(self, page):
        names = json.loads(Page(page).data["data-layers"])["names"]
        assert names[0] == HOSTILE[0]
        assert names[12] == HOSTILE[12]
        assert names[7] == HOSTILE[7]

    def test_control_and_direction_characters_are_made_visible(self, page):
        names = json.loads(Page(page).data["data-layers"])["names"]
        assert names[4].startswith("line one\N{SYMBOL FOR LINE FEED}line two")
        assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2028\u2029]", page)

    def test_charts_show_markup_in_names_as_text(self, page):
        figure = json.loads(Page(page).data["data-errors"])
        label = figure["data"][0]["text"][1]
        assert label.startswith("&lt;img src=x")
        assert len(figure["data"][0]["text"][12]) < 200

    def test_any_string_of_the_report_is_escaped(self):
        evil = "<script>alert(1)</script>"
        data = transformer(8, broken=False, title=evil, command=evil, python=evil, created=evil, versions={evil: evil})
        errors = data.errors.assign(op=evil, scope=evil, reason=evil, note=evil, provenance=evil)
        output = data.output_error.assign(output=evil, provenance=evil)
        data = dataclasses.replace(
            data, errors=errors, output_error=output, model=dataclasses.replace(data.model, path=evil, producer=evil),
            plan=dataclasses.replace(data.plan, rules=[evil], json=evil), latency=data.latency.assign(op=evil),
            samples=dataclasses.replace(data.samples, description=evil),
        )  # fmt: skip
        page = render(data)
        assert evil not in page
        assert len(Page(page).scripts) == 3


def unpacked(text):
    """Returns data of the page as its scripts read them."""
    found = json.loads(text)
    return json.loads(gzip.decompress(base64.b64decode(found["gzip"]))) if "gzip" in found else found


class TestGraph:
    def test_the_page_carries_the_scene_unchanged(self):
        data = with_graph(60)
        assert unpacked(Page(render(data)).data["pe-scene"]) == json.loads(data.scene)

    def test_its_script_is_allowed_by_hash_and_ends_where_it_should(self):
        page = Page(render(with_graph(20)))
        assert len(page.scripts) == 4
        policy = next(a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        for script in page.scripts:
            assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy

    def test_it_stands_before_the_findings_and_the_charts(self):
        page = render(with_graph(20))
        assert page.index('id="pe-root"') < page.index('id="story"') < page.index('id="charts"')
        assert page.count('href="#graph"') == 1

    def test_without_a_scene_there_is_no_trace_of_it(self):
        page = render(transformer(20))
        assert not [word for word in ('id="pe-root"', "pe-scene", "#graph", ".pe-panel") if word in page]

    def test_random_inputs_are_distrusted_there_too(self):
        page = render(with_graph(20, random=True))
        section = page[page.index('<section id="graph"') :]
        assert "Random inputs" in section[: section.index("</section>")]

    def test_hostile_names_stay_inside_the_data(self):
        page = render(with_graph(60, names=HOSTILE))
        assert Page(page).scripts == Page(render(with_graph(60))).scripts
        assert unpacked(Page(page).data["pe-scene"])["structure"]["layers"]["id"][0] == HOSTILE[0]

    def test_the_same_data_give_the_same_bytes(self):
        assert render(with_graph(30)) == render(with_graph(30))

    def test_the_third_party_licences_lie_beside_the_bundle(self):
        text = files("explorer.scene").joinpath("static", "THIRD-PARTY.txt").read_text(encoding="utf-8")
        assert "@dagrejs/dagre" in text
        assert "Permission is hereby granted" in text


class TestFile:
    def test_loads_nothing_and_runs_only_its_own_scripts(self):
        page = Page(render(transformer()))
        for tag, attributes in page.elements:
            for name in ("src", "href", "action", "data", "srcset", "poster", "xlink:href"):
                assert attributes.get(name, "#").startswith("#"), (tag, attributes)
            assert not any(name.startswith("on") for name in attributes)
        policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
        assert "default-src 'none'" in policy
        for script in page.scripts:
            assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy

    def test_the_charts_are_written_for_the_bundled_plotly(self):
        scripts = Page(render(transformer(5, broken=False))).scripts
        assert f"plotly.js (basic - minified) v{get_plotlyjs_version().partition('.')[0]}." in scripts[0]

    def test_is_small(self):
        assert len(render(transformer(RESNET50_LAYERS)).encode()) < 1.5 * MEGABYTE
        assert len(render(with_graph(RESNET50_LAYERS)).encode()) < 2 * MEGABYTE
        assert len(render(with_graph(10_000, detailed=False)).encode()) < 5 * MEGABYTE

    def test_a_chart_of_many_layers_is_packed_and_reads_back(self):
        names = [f"layer/{number}" for number in range(6000)]
        figure = unpacked(Page(render(transformer(6000, names=names))).data["data-errors"])
        assert figure["data"][0]["text"][5999].startswith("layer/5999<br>")

    def test_charts_have_a_summary_for_those_who_do_not_see_them(self):
        page = Page(render(transformer()))
        plots = [a for _, a in page.elements if a.get("class") == "plot"]
        assert len(plots) == 3
        for attributes in plots:
            assert attributes["role"] == "img"
            assert len(attributes["aria-label"]) > 80

    def test_headings_descend_without_a_gap_and_every_field_has_a_label(self):
        page = render(transformer())
        levels = [int(level) for level in re.findall(r"<h([1-6])\b", page)]
        assert levels[0] == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        assert re.findall(r"<(?:input|select)\b", page) == re.findall(r"<label[^>]*>[^<]*(<(?:input|select)\b)", page)

    def test_a_report_with_only_the_errors_is_whole(self):
        page = render(transformer(
            12, broken=False, ranges=None, latency=None, model_latency=(), accuracy=None, weights=None, versions={},
            command="", python="", created="",
        ))  # fmt: skip
        assert "Error along the network" in page
        assert "Latency by op type" not in page

    def test_a_model_without_layers_has_a_report(self):
        data = transformer(3, broken=False)
        empty = dataclasses.replace(
            data, errors=data.errors.iloc[:0], ranges=data.ranges.iloc[:0], latency=data.latency.iloc[:0]
        )
        assert "Nothing runs in fp16" in render(empty)

    @pytest.mark.parametrize("fmt", ["bf16", "fp8e4m3", "int8"])
    def test_other_formats_have_reports(self, fmt):
        data = transformer(20, broken=False)
        changed = dataclasses.replace(
            data, plan=dataclasses.replace(data.plan, format=fmt),
            errors=data.errors.replace({"format": {"fp16": fmt}}),
            latency=data.latency.rename(columns={"fp16_us": f"{fmt}_us"}).replace({"format": {"fp16": fmt}}),
        )  # fmt: skip
        assert f"Layers in {fmt}" in Page(render(changed)).text

    def test_the_same_data_give_the_same_bytes(self):
        assert render(transformer(30)) == render(transformer(30))

    def test_is_written_whole(self, tmp_path):
        path = write_report(transformer(10, broken=False), tmp_path / "report.html")
        assert path.read_text(encoding="utf-8").endswith("</html>\n")
        assert [item.name for item in tmp_path.iterdir()] == ["report.html"]

    def test_an_unwritable_place_is_a_clear_error_and_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "report.html"
        path.write_text("old")
        with monkeypatch.context() as patch:
            patch.setattr(
                "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
            )
            with pytest.raises(ExportError, match="No space left"):
                write_report(transformer(5, broken=False), path)
        assert path.read_text() == "old"
        assert [item.name for item in tmp_path.iterdir()] == ["report.html"]
        with pytest.raises(ExportError, match="cannot be written"):
            write_report(transformer(5, broken=False), tmp_path / "nowhere" / "report.html")

    def test_a_table_without_a_needed_column_is_refused_by_name(self):
        data = transformer(5, broken=False)
        with pytest.raises(ExportError, match="'errors' lacks reason"):
            dataclasses.replace(data, errors=data.errors.drop(columns="reason"))

    def test_importing_the_room_does_not_import_plotly(self):
        code = "import sys, explorer.report; sys.exit('plotly' in sys.modules or 'jinja2' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
