"""The experiments that come with the project: each can be read, and be run as far as can be said without its images."""
from pathlib import Path

import pandas as pd
import pytest

from m2kd_lite.config import EMBEDDED
from m2kd_lite.method import masks
from m2kd_lite.method.nets import convolution_sizes
from m2kd_lite.method.table import METHODS
from m2kd_lite.results import paper
from m2kd_lite.sweeps.spec import runs

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "experiments").glob("*.yaml"))
CLASSES = {"digits": 10, "glyphs": 100, "cifar100": 100, "imagefolder": 100}        # of the folders that these files name
CHANNELS = {"digits": 1, "glyphs": 3, "cifar100": 3, "imagefolder": 3}


def named(name):
    return runs(ROOT / "experiments" / f"{name}.yaml")


def without_folder(config):
    return config.model_copy(update={"data_root": None})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_can_be_run_and_says_what_it_is(path):
    for config in runs(path):
        steps = -(-CLASSES[config.dataset] // config.class_batch)
        if METHODS[config.method].prunes:
            masks.check_lasting(convolution_sizes(config.backbone, CHANNELS[config.dataset]), steps, config.pruning_ratio)
    lines = path.read_text().splitlines()
    comments = lines[:next(i for i, line in enumerate(lines) if not line.startswith("# "))]
    assert 1 <= len(comments) <= 3
    assert any(f"m2kd-lite sweep experiments/{path.name} --out runs/" in line for line in lines)
    assert path.stem == "example" or "§" in " ".join(comments)


@pytest.mark.parametrize("letter, class_batch", [("a", 5), ("b", 10), ("c", 20), ("d", 10), ("e", 20)])
def test_figure_4_has_every_method_with_the_settings_of_section_4_1(letter, class_batch):
    dataset = "cifar100" if letter in "abc" else "ilsvrc-small"
    assert {without_folder(config).model_copy(update={"pruning_ratio": 0, "finetune_epochs": 0}) for config in named(f"figure4{letter}")} == {
        without_folder(paper.paper_run(dataset, method, class_batch)).model_copy(update={"pruning_ratio": 0, "finetune_epochs": 0})
        for method in paper.FIGURE_4}


def test_table_1_has_the_rows_of_the_papers():
    rows = pd.read_csv(ROOT / "data" / "paper" / "table1.csv")
    wanted = {without_folder(paper.paper_run("cifar100", row.method, row.class_batch, row.pruning_ratio)) for row in rows.itertuples()}
    assert {without_folder(config) for config in named("table1")} == wanted


def test_the_recipe_runs_what_the_paper_runs_and_changes_the_recipe_alone():
    changed = [config.model_dump() | {"profile": "paper", "epochs": 80, "milestones": (40,), "weight_decay": 1e-5, "prior": 0.5}
               for config in named("recipe")]
    assert changed == [config.model_dump() for config in named("paper")]


def test_crops_are_all_that_differs_in_the_first_runs_of_the_recipe():
    cropped = named("crops")
    assert [config.model_copy(update={"augment": "flip"}) for config in cropped] == list(named("recipe"))[:len(cropped)]
    assert {config.augment for config in cropped} == {"crop"}


def test_figure_1_and_table_2_are_runs_of_figure_4():
    everything = {*named("figure4b"), *named("figure4d")}
    for name in ("figure1", "table2"):
        assert {config for config in named(name) if config.method not in paper.FIGURE_5} <= everything
        assert {config.method for config in named(name)} - {*paper.FIGURE_5} == {"lwf-mc", "m2kd"}
    assert {config.dataset for config in named("table2")} == {"cifar100", "imagefolder"}


def test_figure_5_has_icarl_in_all_three_ways_and_with_a_tenth_of_the_exemplars():
    runs = named("figure5")
    assert {(config.method, config.exemplars) for config in runs if config.dataset == "cifar100"} == {
        *((method, 2000) for method in paper.FIGURE_5), ("icarl", 200)}
    assert {without_folder(config) for config in runs if config.dataset == "imagefolder"} == {
        without_folder(paper.paper_run("ilsvrc-small", method, 10)) for method in paper.FIGURE_5}


def test_the_lab_needs_no_images_and_has_the_paper_s_questions_at_its_size():
    lab = named("lab")
    assert {config.dataset for config in lab} <= set(EMBEDDED) and {config.profile for config in lab} == {"quick"}
    ratios = {(config.pruning_ratio, config.seed) for config in lab if config.method == "m2kd" and config.class_batch == 20}
    assert ratios == {(ratio, seed) for ratio in (0.6, 0.7, 0.8, 0.9) for seed in (0, 1, 2)}
    for class_batch in (5, 10, 20):
        assert {config.method for config in lab if config.class_batch == class_batch} >= {"finetune", "lwf-mc", "m2kd-no-pruning", "m2kd"}
    assert {config.method for config in lab if config.class_batch == 20} == {*paper.FIGURE_4}
    assert {config.method for config in lab if config.class_batch == 10} >= {*paper.FIGURE_5}


def test_the_lab_on_cifar_100_has_every_method_with_every_seed_and_dgm_with_one():
    lab = named("cifar_lab")
    seeds = {method: (0,) if method == "dgm" else (0, 1, 2) for method in METHODS}
    assert {(config.method, config.seed) for config in lab} == {(method, seed) for method in METHODS for seed in seeds[method]}
    assert {config.exemplars for config in lab if config.method == "icarl"} == {800, 200}
    same = [config for config in lab if config.method not in ("dgm", "scaled")]          # Scaled's softmax looks at no prior
    one_setting = {config.model_copy(update={"method": "", "seed": 0, "exemplars": 0}) for config in same}
    assert len(one_setting) == 1 and len(lab) == 37
    drawing, tuned = (next(config for config in lab if config.method == method) for method in ("dgm", "finetune"))
    assert drawing == tuned.model_copy(update={"method": "dgm", "generator_epochs": 12})
