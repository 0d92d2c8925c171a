"""Ours beside the paper's: every verdict can be reached, nothing that was not run looks as if it had been."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from m2kd_lite.config import RunConfig
from m2kd_lite.errors import BadInput
from m2kd_lite.results import bank, paper

FOLDER = Path(__file__).parents[2] / "data" / "paper"
REPORTED = paper.numbers(FOLDER)
TABLE_1 = {ratio: REPORTED[(REPORTED.pruning_ratio == ratio) & (REPORTED.measure == "top1")].paper.tolist() for ratio in (0.6, 0.7, 0.8, 0.9)}


def rows(config, top1, added=0, **changes):
    """A run as a bank holds it; two classes in the confusion matrix are enough."""
    steps = len(top1)
    return [{"variant": "", **config.model_dump(), "step": step, "classes_seen": step * config.class_batch, "top1": value, "top5": 0.0,
             "accuracy_by_step": [value] * step, "average_incremental_accuracy": float(np.mean(top1)), "forgetting": 0.0,
             "bytes_total": 1000 + added * (step > 1), "bytes_exemplars": 0, "top1_network": "", "device": "", "threads": 1, "revision": "", "data_sha256": "abc",
             "confusion": "0:3 1:1;1:4" if step == steps else ""} | changes for step, value in enumerate(top1, 1)]


def table(*runs):
    return pd.DataFrame([row for run in runs for row in run], columns=list(bank.COLUMNS))


def verdicts(bank_table, **asked):
    compared = paper.compare(bank_table, REPORTED, **asked)
    assert len(compared) == len(REPORTED) and compared.paper.tolist() == REPORTED.paper.tolist()
    return compared


def of(compared, what):
    found = compared[compared.what.str.startswith(what)]
    assert len(found)
    return found


def test_every_number_of_the_paper_has_a_row_and_nothing_is_hidden_where_nothing_was_run():
    lines = sum(len(path.read_text().splitlines()) - 1 for path in FOLDER.glob("*.csv"))
    compared = verdicts(table())
    assert len(compared) == lines
    assert set(compared.verdict) == {"not run", "by definition"} <= paper.VERDICTS.keys()
    assert compared.ours.isna().all() and (compared.runs == 0).all()
    other = REPORTED.iloc[:1].assign(method="lucir")
    assert paper.compare(table(), other).verdict.tolist() == ["not implemented"]


def test_what_icarl_s_network_says_alone_is_hybrid1():
    run = rows(paper.paper_run("cifar100", "icarl", 20), [80.0, 70, 60, 50, 40])
    for row, alone in zip(run, (79.0, 72, 66, 60, 51), strict=True):
        row["top1_network"] = alone
    compared = verdicts(table(run))
    assert of(compared, "hybrid1 (iCaRL, network alone), CIFAR-100 by 20").ours.tolist() == [pytest.approx(65.6)]
    assert of(compared, "hybrid1 (iCaRL, network alone), CIFAR-100 by 20").verdict.tolist() == ["reproduced"]
    assert of(compared, "iCaRL, CIFAR-100 by 20: average").ours.tolist() == [60.0]


@pytest.mark.parametrize("measure, ours, verdict", [
    ("top1", 42.0, "reproduced"), ("top1", 43.0, "reproduced"), ("top1", 41.0, "reproduced"), ("top1", 43.01, "within 1.1"),
    ("top1", 39.6, "within 2.4"), ("top1", 45.0, "within 3.0"), ("top1", 38.9, "not reached"), ("top1", 45.1, "above"),
    ("top1", float("nan"), "not run"), ("average_incremental_accuracy", 20.0, "not reached"),
    ("megabytes_added", 44.1, "reproduced"), ("megabytes_added", 44.2, "not reached"), ("megabytes_added", 39.9, "reproduced"),
    ("megabytes_added", 20.0, "above")])
def test_the_verdict_says_on_which_side_and_how_far(measure, ours, verdict):
    assert paper.judge(measure, 42.0, ours) == verdict and verdict.split()[0] in {word.split()[0] for word in paper.VERDICTS}


def test_a_row_holds_the_mean_over_the_seeds_and_how_many_there_are():
    config = paper.paper_run("cifar100", "m2kd", 20, 0.8)
    other = config.model_copy(update={"seed": 1})
    run, again = rows(config, TABLE_1[0.8]), rows(other, [value + 1 for value in TABLE_1[0.8]])
    compared = of(verdicts(table(run, again)), "M²KD, ratio 0.8")
    assert compared.verdict.tolist() == ["reproduced"] * 5 and compared.runs.tolist() == [2] * 5
    assert compared.difference.tolist() == pytest.approx([0.5] * 5)


def test_a_run_counts_only_for_its_own_numbers():
    low = rows(paper.paper_run("cifar100", "m2kd", 20, 0.6), [value - 10 for value in TABLE_1[0.6]])
    compared = verdicts(table(low))
    assert set(of(compared, "M²KD, ratio 0.6").verdict) == {"not reached"}
    assert (compared.runs > 0).sum() == 5


@pytest.mark.parametrize("changes", [{"profile": "quick"}, {"dataset": "glyphs"}, {"dataset": "imagefolder"}, {"epochs": 2}, {"variant": "no head"},
                                     {"train_per_class": 100}, {"class_order": "seed1993"}, {"backbone": "resnet8"}])
def test_a_run_with_other_settings_or_images_is_none_of_the_papers(changes):
    run = rows(paper.paper_run("cifar100", "lwf-mc", 10), [44.4] * 10)
    assert (verdicts(table(run)).runs > 0).any()
    assert not (verdicts(table([row | changes for row in run])).runs > 0).any()


def test_every_arithmetic_counts_unless_one_is_asked_for():
    what = "LwF-MC, CIFAR-100 by 10: average"
    exact, rounded = (rows(paper.paper_run("cifar100", "lwf-mc", 10, precision=precision), [top1] * 10)
                      for precision, top1 in (("fp32", 44.4), ("bf16", 40.4)))
    asked = {precision: of(verdicts(table(exact, rounded), precision=precision), what) for precision in ("auto", "bf16", "fp32", "tf32")}
    assert [compared.ours.item() for compared in asked.values()] == pytest.approx([42.4, 40.4, 44.4, np.nan], nan_ok=True)
    assert [compared.runs.item() for compared in asked.values()] == [2, 1, 1, 0]        # two runs, although their seed is one
    assert asked["fp32"].verdict.item() == "reproduced"


def test_runs_of_another_recipe_count_where_it_is_asked_for():
    run = rows(paper.paper_run("cifar100", "lwf-mc", 10, profile="icarl-recipe"), [44.4] * 10)
    assert not (verdicts(table(run)).runs > 0).any()
    assert (verdicts(table(run), profile="icarl-recipe").runs > 0).any()


@pytest.mark.parametrize("changed, said", [({"augment": "crop"}, ", crops"), ({"finetune_schedule": "whole"}, ", whole schedule"),
                                           ({"augment": "crop", "finetune_schedule": "whole"}, ", crops, whole schedule")])
def test_runs_with_a_changed_setting_count_where_it_is_asked_for_and_say_so(changed, said):
    config = paper.paper_run("cifar100", "m2kd", 20, 0.8, **changed)
    run = rows(config, TABLE_1[0.8])
    assert not (verdicts(table(run)).runs > 0).any()
    assert (of(verdicts(table(run), **changed), "M²KD, ratio 0.8").runs == 1).all()
    assert paper.title(config) == "M²KD, ratio 0.8" + said


def test_a_method_that_prunes_nothing_has_no_rate_after_a_prune():
    unpruned = paper.paper_run("cifar100", "lwf-mc", 10, finetune_schedule="whole")
    assert paper.title(unpruned) == "LwF-MC" and (verdicts(table(rows(unpruned, [44.4] * 10))).runs > 0).any()


def test_the_paper_s_images_count_from_a_folder_too():
    known = next(sha for sha, name in paper.KNOWN_IMAGES.items() if name == "cifar100")
    run = rows(paper.paper_run("cifar100", "lwf-mc", 5), [32.6] * 20, dataset="imagefolder", data_root="elsewhere", data_sha256=known)
    assert (verdicts(table(run)).runs > 0).sum() == 1
    assert not (verdicts(table(run), images={"cifar100": "fedc"}).runs > 0).any()


def test_bytes_are_those_added_since_the_first_step_and_fewer_are_better():
    config = paper.paper_run("cifar100", "m2kd", 10)
    assert config.pruning_ratio == 0.75
    compared = of(verdicts(table(rows(config, [50.0] * 10, added=400_000))), "M²KD, CIFAR-100 by 10: MB added")
    assert compared.ours.tolist() == [0.4] and compared.verdict.tolist() == ["above"]


def test_images_of_a_folder_count_when_they_are_named_by_their_hash():
    config = paper.paper_run("ilsvrc-small", "m2kd", 10)
    assert (config.backbone, config.epochs, config.milestones) == ("resnet18", 60, (20, 40))
    bank_table = table(rows(config, [50.0] * 10, added=9_800_000, data_sha256="0123456789abcdef"))
    what = "M²KD, iILSVRC-small by 10"
    assert of(verdicts(bank_table), what).verdict.tolist() == ["not run"]
    assert of(verdicts(bank_table, images={"ilsvrc-small": "0123456789abcdef"}), what).verdict.tolist() == ["reproduced"]
    cifar = rows(paper.paper_run("cifar100", "lwf-mc", 5), [32.6] * 20, dataset="imagefolder", data_sha256="fedc")
    assert (verdicts(table(cifar), images={"cifar100": "fedc"}).runs > 0).sum() == 1


@pytest.mark.parametrize("images, complaint", [({"imagenet": "x"}, "give one of cifar100, ilsvrc-small"), ({"cifar100": "imagefolder"}, "data_sha256")])
def test_images_that_are_not_named_clearly_are_refused(images, complaint):
    with pytest.raises(BadInput, match=complaint):
        verdicts(table(), images=images)


def test_a_run_is_found_again_after_a_bank_was_written_and_read(tmp_path):
    config = paper.paper_run("ilsvrc-small", "lwf-mc", 10)
    bank.save(rows(config, [50.0] * 10), tmp_path / "bank.csv")
    assert len(paper.runs(bank.load_all(tmp_path / "bank.csv"), config)) == 1


# ---- what the figures show ------------------------------------------------------------------------------------------


def test_curves_have_our_runs_the_papers_marks_and_the_names_of_what_is_lacking():
    configs = [paper.paper_run("cifar100", method, 20) for method in ("finetune", "m2kd")]
    shown, lacking = paper.curves(table(rows(configs[0], [80.0, 40, 30, 20, 10])), configs, None, REPORTED, "cifar100")
    assert lacking == ["M²KD, ratio 0.8"] and list(shown) == ["FT", "M²KD, ratio 0.8"]
    assert shown["FT"].top1.tolist() == [[80, 40, 30, 20, 10]] and not shown["FT"].paper
    assert len(shown["M²KD, ratio 0.8"].top1) == 0
    assert shown["M²KD, ratio 0.8"].paper == list(zip((20, 40, 60, 80, 100), TABLE_1[0.8], strict=True))


def test_top_5_stands_where_top_1_stood_run_by_run_and_what_is_left_of_a_step_stays():
    config = paper.paper_run("ilsvrc-small", "lwf-mc", 20)
    both = [rows(config.model_copy(update={"seed": seed}), [50.0, 30.0]) for seed in (0, 1)]
    for run, five in zip(both, ([90.0, 70.0], [80.0, 50.0]), strict=True):
        for row, value in zip(run, five, strict=True):
            row["top5"] = value
    shown, _ = paper.curves(paper.top5(table(*both)), [config], "abc")
    assert shown["LwF-MC"].top1.tolist() == [[90, 70], [80, 50]]
    assert [run[-1]["average_incremental_accuracy"] for run in paper.runs(paper.top5(table(*both)), config, "abc")] == [80, 65]
    assert paper.runs(paper.top5(table(*both)), config, "abc")[0][1]["accuracy_by_step"] == [30, 30]
    assert paper.runs(table(*both), config, "abc")[0][0]["top1"] == 50


def test_confusion_matrices_are_summed_over_the_seeds():
    config = RunConfig.make(dict(method="lwf-mc", class_batch=1))
    bank_table = table(rows(config, [50.0, 50]), rows(config.model_copy(update={"seed": 1}), [50.0, 50]))
    counted, lacking = paper.confusions(bank_table, [config, RunConfig.make(dict(method="m2kd", class_batch=1))])
    assert counted["LwF-MC"].tolist() == [[6, 2], [0, 8]] and lacking == ["M²KD, ratio 0.75"]


def test_table_1_has_a_row_for_each_run():
    configs = [RunConfig.make(dict(method="m2kd", class_batch=20, pruning_ratio=ratio)) for ratio in (0.6, 0.9)]
    ours = paper.by_ratio(table(rows(configs[0], [80.0, 40]), rows(configs[1].model_copy(update={"seed": 2}), [70.0, 30])), configs)
    assert ours.index.tolist() == [("M²KD, ratio 0.6", 0), ("M²KD, ratio 0.9", 2)] and ours[40].tolist() == [40, 30] and ours.average.tolist() == [60, 50]
    assert paper.by_ratio(table(), configs).empty


def test_ratios_are_compared_within_a_seed_that_has_them_all():
    def made(ratio, seed, top1):
        return rows(RunConfig.make(dict(method="m2kd", class_batch=20, pruning_ratio=ratio, seed=seed)), top1)

    configs = [RunConfig.make(dict(method="m2kd", class_batch=20, pruning_ratio=ratio)) for ratio in (0.6, 0.9)]
    ours = paper.by_ratio(table(made(0.6, 0, [80.0, 40]), made(0.9, 0, [70.0, 46]), made(0.6, 1, [20.0, 20])), configs)
    apart = paper.apart(ours, ["M²KD, ratio 0.6", "M²KD, ratio 0.9"])
    assert apart.index.tolist() == [0] and apart.points.tolist() == [2]
    assert (apart.best[0], apart.worst[0]) == ("M²KD, ratio 0.6", "M²KD, ratio 0.9")
    assert paper.apart(ours, ["M²KD, ratio 0.6", "M²KD, ratio 0.7"]).empty and paper.apart(paper.by_ratio(table(), configs), ["M²KD, ratio 0.6"]).empty


def test_all_exemplars_count_as_added_for_they_are_there_from_step_1_on():
    config = paper.paper_run("cifar100", "icarl", 10)
    assert config.exemplars == 2000
    images = 2000 * 3 * 32 * 32
    compared = of(verdicts(table([row | {"bytes_exemplars": images} for row in rows(config, [64.1] * 10, added=500_000)])), "iCaRL, CIFAR-100 by 10: MB")
    assert compared.ours.tolist() == pytest.approx([(images + 500_000) / 1e6])


def test_methods_side_by_side_with_what_was_not_run():
    chain, icarl, never = (paper.paper_run("cifar100", method, 20) for method in ("lwf-mc", "icarl", "ewc"))
    seen = table(rows(chain, [80, 40], added=2_000_000, seed=0, forgetting=10.0), rows(chain, [82, 44], added=2_000_000, seed=1),
                 rows(icarl, [80, 60], top1_network=50.5, bytes_exemplars=500_000))
    said = paper.summary(seen, {"LwF-MC": chain, "iCaRL": icarl, "EWC": never})
    assert said.loc["LwF-MC"].tolist() == [2, "61.5 ± 2.1", "42.0 ± 2.8", "42.0 ± 2.8", "5.0 ± 7.1", "", "2.00"]
    assert said.loc["iCaRL"].tolist() == [1, "70.0", "60.0", "60.0", "0.0", "50.5", "0.50"]
    assert said.loc["EWC"].tolist() == [0, "", "", "", "", "", ""]
