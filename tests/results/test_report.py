"""The report and its figures: self-contained, told apart, and described in words."""
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from conftest import small_config

from m2kd_lite.config import RunConfig
from m2kd_lite.pictures import plots
from m2kd_lite.pictures.paper import accuracy_panels
from m2kd_lite.results import bank, report
from m2kd_lite.training import train
from m2kd_lite.training.rundir import read_run


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "report.html"
    report.write_report([finished(method)[0] for method in ("finetune", "lwf-mc", "m2kd")], out)
    return out.read_text()


def test_the_runs_are_in_the_table_beside_the_page_once(finished, tmp_path):
    for methods in (["finetune"], ["finetune", "m2kd"]):
        report.write_report([finished(method)[0] for method in methods], tmp_path / "report.html")
    table = bank.load(tmp_path / "results.csv")
    assert table.groupby("method").size().to_dict() == {"finetune": 3, "m2kd": 3}
    assert table[table.method == "m2kd"].top1.tolist() == pytest.approx([step["top1"] for step in finished("m2kd")[1]["steps"]], abs=6e-4)


def test_the_page_begins_with_what_it_is_given_and_draws_the_spread_of_runs_measured_before(finished, tmp_path, monkeypatch):
    folder, metrics = finished("lwf-mc")
    others = [[row | {"seed": seed, "top1": row["top1"] + seed} for row in bank.rows(metrics)] for seed in (1, 2)]
    bank.save([row for run in others for row in run], tmp_path / "before.csv")
    drawn = []
    monkeypatch.setattr(report, "accuracy_panels", lambda panels, title: drawn.append(panels) or accuracy_panels(panels, title))
    runs = [read_run(folder), read_run(finished("finetune")[0])]
    page = report.render(runs, ["A & B.", "Second."], bank.load(tmp_path / "before.csv"))
    assert '<p class="lead">A &amp; B.</p>\n<p>Second.</p>' in page
    assert "LwF-MC: 2 runs measured before" in page and "The band behind a curve" in page
    assert "2 runs of LwF-MC measured before end at" in page and "runs of FT" not in page
    curves = {name: curve for panel, _ in drawn[0].values() for name, curve in panel.items()}
    assert curves["LwF-MC"].before == [[row["top1"] for row in run] for run in others] and curves["FT"].before == []
    band, = accuracy_panels(drawn[0], "again").axes[0].collections
    end = metrics["steps"][-1]
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(max(row["top1"] for row in others[1]), abs=1e-6)
    assert f"{round(end['top1'], 3) + 1:.1f} to {round(end['top1'], 3) + 2:.1f} %" in page
    alone = report.render(runs, before=bank.load(tmp_path / "before.csv").query("seed == 1"))
    assert "measured before" not in alone           # one run has no spread


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.images, self.links, self.cells = [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        self.links += [value for key, value in attributes.items() if key in ("src", "href")]


def test_it_is_self_contained_and_every_picture_has_words(written):
    reader = Reader()
    reader.feed(written)
    assert all(link.startswith("data:image/png;base64,") for link in reader.links) and "<script" not in written
    assert len(reader.images) == 4                          # curves, what is left, matrices, ledgers
    assert all(len(image["alt"].split()) > 8 for image in reader.images)


def test_numbers_are_those_of_the_runs(written, finished):
    for method in ("finetune", "lwf-mc", "m2kd"):
        _, metrics = finished(method)
        row = re.search(rf'<th scope="row">{re.escape(report.METHODS[method].title)}</th>(.*?)</tr>', written, re.S).group(1)
        shown = re.findall(r"<td>([\d.,-]+)</td>", row)
        assert shown[:4] == [f"{metrics['average_incremental_accuracy']:.1f}", f"{metrics['final_accuracy']:.1f}",
                             f"{metrics['steps'][-1]['accuracy_by_step'][0]:.1f}", f"{metrics['forgetting']:.1f}"]
        assert f"{metrics['bytes']['total']:,}" in written


def test_the_ledger_is_split_by_step_beside_the_papers_table(written, finished):
    per_step = finished("m2kd")[1]["bytes"]["per_step"]
    rows = re.findall(r'<tr><th scope="row">M²KD</th><td>(\d+|all)</td>(.*?)</tr>', written, re.S)
    assert [step for step, _ in rows] == ["2", "3", "all"]
    for (_, cells), before, after in zip(rows, (per_step[0], per_step[1], per_step[0]), (per_step[1], per_step[2], per_step[2]), strict=True):
        shown = [int(cell.replace(",", "")) for cell in re.findall(r"<td>([\d,-]+)</td>", cells)]
        assert shown == [after[part] - before[part] for part in (*plots.COMPONENTS, "total")]
    assert "840,000" in written and "9,400,000" in written


def test_names_from_a_file_cannot_write_into_the_page(finished, monkeypatch):
    run = read_run(finished("finetune")[0])
    run.metrics["environment"]["device"] = "<script>alert(1)</script>"
    assert "<script>" not in report.render([run])


def test_runs_of_one_method_are_told_apart_by_what_differs():
    make = RunConfig.make
    assert report.labels([make({"method": "m2kd"}), make({"method": "lwf-mc"})]) == ["M²KD", "LwF-MC"]
    assert report.labels([make({"seed": 0}), make({"seed": 1})]) == ["M²KD, seed 0", "M²KD, seed 1"]
    assert report.labels([make({"alpha": 0.1}), make({"alpha": 0.9})]) == ["M²KD, alpha 0.1", "M²KD, alpha 0.9"]
    assert report.labels([make({}), make({})]) == ["M²KD", "M²KD (2)"]


def with_seeds(run, *seeds):
    return [replace(run, config=run.config.model_copy(update={"seed": seed})) for seed in seeds]


def test_a_setting_at_which_a_method_does_not_look_is_not_in_its_name():
    make = RunConfig.make
    assert report.labels([make({"method": "lwf-mc", "class_batch": batch}) for batch in (10, 20)]) == [
        "LwF-MC, class batch 10", "LwF-MC, class batch 20"]             # their pruning ratios differ too, by default
    assert report.labels([make({"class_batch": batch}) for batch in (10, 20)]) == [
        "M²KD, class batch 10, pruning ratio 0.75", "M²KD, class batch 20, pruning ratio 0.8"]


def test_seeds_are_one_line_and_a_mean_in_the_table(finished):
    tuned, pruned = (read_run(finished(method)[0]) for method in ("finetune", "m2kd"))
    page, reader = report.render([*with_seeds(pruned, 2, 0, 1), *with_seeds(tuned, 1, 0)]), Reader()
    reader.feed(page)
    assert len(reader.images) == 4
    names = re.findall(r'<th scope="row">(.*?)</th>', page)
    assert names[:7] == ["FT, seed 0", "FT, seed 1", "M²KD, seed 0", "M²KD, seed 1", "M²KD, seed 2", "FT: 2 runs", "M²KD: 3 runs"]
    row = re.search(r'<th scope="row">M²KD: 3 runs</th><td>(.*?)</td>', page)[1]
    assert row == f"{pruned.metrics['average_incremental_accuracy']:.1f} ± 0.0"


def test_runs_that_differ_where_their_method_does_not_look_are_one_setting(finished):
    run = read_run(finished("finetune")[0])
    other = replace(run, config=run.config.model_copy(update={"pruning_ratio": 0.6, "finetune_epochs": 9, "seed": 1}))
    assert {name: len(group) for name, group in report.by_setting([run, other]).items()} == {"FT": 2}
    elsewhere = replace(run, metrics=run.metrics | {"data_sha256": "other images"}, config=run.config.model_copy(
        update={"dataset": "imagefolder"}))
    assert len(report.by_setting([run, elsewhere])) == 2


def test_a_sweep_of_many_runs_has_room_for_its_pictures(finished, recwarn):
    run = read_run(finished("m2kd")[0])
    many = [replace(run, config=run.config.model_copy(update={"pruning_ratio": i / 40})) for i in range(1, 33)]
    curves = next(report._figures(many, {}))
    plots.png(curves)
    assert not [warning for warning in recwarn if "collapsed" in str(warning.message)]
    assert sum(len(axis.get_lines()) for axis in curves.axes) == 32
    assert len(curves.axes) == 3 and all(axis.get_position().height > 0.3 for axis in curves.axes)


def test_parts_are_as_equal_as_can_be():
    assert [len(part) for part in report._chunks(list(range(4)), 3)] == [2, 2]
    assert [len(part) for part in report._chunks(list(range(7)), 3)] == [2, 3, 2] and report._chunks([1, 2, 3], 3) == [[1, 2, 3]]
    assert sum(report._chunks(list(range(32)), 3), []) == list(range(32))


def test_a_figure_without_words_is_refused():
    with pytest.raises(ValueError, match="alternative text"):
        plots.new_figure("a chart")


def test_no_two_lines_share_colour_dash_or_mark():
    assert len(set(plots.COLOURS)) == len(set(map(str, plots.DASHES))) == len(set(plots.MARKS)) == 7
    figure = plots.accuracy_curves({f"m{i}": ([20, 40], [50.0 + i, 30.0]) for i in range(5)}, "t")
    lines = figure.axes[0].get_lines()
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == 5
    assert lines[2].get_ydata().tolist() == [52.0, 30.0] and "m4 ends at 30.0 %" in figure.alt_text


def test_the_confusion_figure_says_how_much_the_last_step_takes():
    counts = [[5, 5, 0, 10], [0, 10, 10, 0], [0, 0, 20, 0], [0, 0, 0, 20]]
    figure = plots.confusion_matrices({"x": counts}, 2, "t")
    assert "x puts 50 % of old images into the last step's classes" in figure.alt_text
    assert plots.png(figure).startswith(b"\x89PNG")


def test_a_larger_first_step_has_a_panel_of_its_own_and_lines_where_its_steps_end(tmp_path):
    runs = []
    for first in (None, 6):
        train.run(small_config("finetune", first_class_batch=first), tmp_path / str(first))
        runs.append(read_run(tmp_path / str(first)))
    page = report.render(runs)
    assert "classes a step, 6 in the first" in page
    assert plots.step_edges(10, [6, 10]) == [0, 6] and plots.step_edges(10, 4) == [0, 4, 8]
    assert [row["classes_seen"] for row in bank.rows(runs[1].metrics)] == [6, 10] and bank.rows(runs[1].metrics)[0]["first_class_batch"] == 6
