"""How new outputs should begin in lessons: the rule of docs/start.md as code, over its bank: `python -m benchmarks.start`.

Prints the tables of that page and what the rule says. Trains nothing; the bank is filled by `python -m benchmarks.fill start`.
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.fill import CANDIDATES, DECIDING, JUDGES, PRIOR, SEEDS
from m2kd_lite.config import METHOD_NAMES, PROFILES, RunConfig
from m2kd_lite.method.table import METHODS, title_of
from m2kd_lite.pictures import plots
from m2kd_lite.pictures.explorer import Curve, explored
from m2kd_lite.results import bank, paper

RESULTS = Path(__file__).parents[1] / "data" / "results"
NAMES = ("today's: one half", "a prior of 0.05", "a prior of 0.01", "`--normaliser seen`", "rate warmed up over two epochs",
         "a fifth of the rate for the heads")
SIMPLER_WITHIN, ENOUGH, TOO_MUCH = 1.0, 1.0, -1.0       # points of the first step; of the average: gained, lost
SHOWN = ("finetune", *JUDGES)                          # by the demonstration


def runs() -> pd.DataFrame:
    """One row a run, the last step's, with `left`, `step1` and the candidate's name as `begin`; those of the grid beside the bank's own."""
    table = bank.load_all(RESULTS / "glyphs_grid.csv", RESULTS / "start.csv")
    table = table.assign(steps=table.steps.astype(str))
    ratio = table.class_batch.map(lambda batch: 0.8 if batch >= 20 else 0.75)           # of section 4.1
    usual = ((table.method != "m2kd") | (table.pruning_ratio == ratio)) & table.exemplars.isin([0, PROFILES["quick"]["exemplars"]])
    table = table[(table.dataset == "glyphs") & (table.precision == "fp32") & usual]
    return pd.concat([of_run(rows) for _, rows in table.groupby([table.apply(bank.key, axis=1)])], ignore_index=True)


def of_run(rows: pd.DataFrame) -> pd.DataFrame:
    """The last row of a run, with what is wanted of its first."""
    rows = rows.sort_values("step")
    end = rows.iloc[[-1]]
    return end.assign(begin=_name(end.iloc[0]), step1=rows.top1.iloc[0], left=end.accuracy_by_step.str[0],
                      average=end.average_incremental_accuracy, added=end.bytes_total - rows.bytes_total.iloc[0])


def _name(row: pd.Series) -> str:
    for name, (variant, change) in zip(NAMES, CANDIDATES, strict=True):
        usual = {"prior": 0.5, "normaliser": "all"} | change
        if row.variant == variant and all(row[setting] == value for setting, value in usual.items()):
            return name
    return ""


def first_steps(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy after step 1, a row a candidate, a column a method and seed."""
    rows = table[(table.steps == "1") & table.seed.isin(DECIDING)]
    return rows.pivot_table(index="begin", columns=["method", "seed"], values="step1").reindex(NAMES)


def gains(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Points over today's start, a row a candidate, a column a method: means over the seeds."""
    return (accuracies - accuracies.loc[NAMES[0]]).T.groupby(level="method").mean().T[list(JUDGES)]


def chosen(table: pd.DataFrame) -> str:
    """The candidate that the first step chooses: of those within a point of the best, the simplest."""
    gain = gains(first_steps(table)).mean(axis=1)
    return next(name for name in NAMES if gain[name] > gain.max() - SIMPLER_WITHIN)


def streams(table: pd.DataFrame, class_batch: int) -> pd.DataFrame:
    """The average incremental accuracy, as `first_steps` has it, of whole streams today's start and the chosen one, of seeds that have all."""
    rows = table[(table.steps == "") & table.seed.isin(DECIDING) & (table.class_batch == class_batch)]
    starts = [NAMES[0], chosen(table)]
    averages = rows.pivot_table(index="begin", columns=["method", "seed"], values="average").reindex(starts)
    whole = [seed for seed in DECIDING if all((method, seed) in averages and averages[method, seed].notna().all() for method in JUDGES)]
    return averages.loc[:, averages.columns.get_level_values("seed").isin(whole)] if whole else averages.iloc[:, :0]


def table_of_first_steps(table: pd.DataFrame) -> list[str]:
    """What the page says of the first step."""
    accuracies = first_steps(table)
    gain, each = gains(accuracies).mean(axis=1), {name: [bank.spread(accuracies.loc[name, method]) for method in JUDGES] for name in NAMES}
    return [f"| {name} | {' | '.join(each[name])} | {gain[name]:+.1f} |" for name in NAMES]


def table_of_streams(table: pd.DataFrame, class_batch: int) -> list[str]:
    """What the page says of all steps, on the deciding seeds: a row a method."""
    averages, taken = streams(table, class_batch), chosen(table)
    gain = gains(averages).loc[taken]
    return [f"| {class_batch} | `{method}` | {bank.spread(averages.loc[NAMES[0], method])} | {bank.spread(averages.loc[taken, method])} | "
            f"{gain[method]:+.1f} |" for method in JUDGES]


def table_before_and_after(table: pd.DataFrame) -> list[str]:
    """What the page says of the reported seeds: a row a class batch and method for which both are there."""
    taken, lines = chosen(table), []
    rows = table[(table.steps == "") & table.seed.isin(SEEDS)]
    for (batch, method), both in rows.groupby(["class_batch", "method"]):
        before, after = (both[both.begin == name] for name in (NAMES[0], taken))
        if len(before) == len(after) == len(SEEDS):
            cells = [f"{before[what].mean():.1f} → {bank.spread(after[what])}" for what in ("step1", "average", "top1", "left")]
            lines.append((batch, METHOD_NAMES.index(method), f"| {batch} | `{method}` | {' | '.join(cells)} |"))
    return [line for _, _, line in sorted(lines, key=lambda line: (-line[0], line[1]))]


def table_of_the_readme(table: pd.DataFrame) -> list[str]:
    """What the README says of the demonstration's setting: a row a method, the reported seeds."""
    rows = table[(table.steps == "") & table.seed.isin(SEEDS) & (table.begin == chosen(table)) & (table.class_batch == 20)]
    each = {method: rows[rows.method == method] for method in SHOWN}
    columns = ("average", "top1", "left", "forgetting")
    said = {method: [bank.spread(own[what]) for what in columns] for method, own in each.items() if len(own)}
    return [f"| `{method}` | {' | '.join(numbers)} | {each[method].added.mean():,.0f} |" for method, numbers in said.items()]


def figure() -> Figure:
    """The README's: the reported seeds with the start that was taken, as the explorer draws them."""
    measured = bank.load(RESULTS / "glyphs_grid.csv")
    curves, counts = {}, {}
    for method in SHOWN:
        each = paper.runs(measured, RunConfig.make(PRIOR | {"method": method, "class_batch": 20}))
        curves[title_of(method, 0.8)] = Curve.of_runs(METHOD_NAMES.index(method), each)
        counts[METHODS[method].title] = sum(bank.confusion_matrix(run[-1]["confusion"]) for run in each)
    return explored(curves, counts, 20, "glyphs, 20 new classes a step: means of three seeds, ± standard deviation")


def main() -> None:
    """Print it all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--figure", type=Path, help="draw the README's figure into this file")
    asked = parser.parse_args()
    table = runs()
    if asked.figure:
        asked.figure.write_bytes(plots.png(figure()))
    print(*table_of_first_steps(table), f"chosen: {chosen(table)}", sep="\n")
    for batch in (20, 10):
        averages = streams(table, batch)
        if averages.size:
            gain = gains(averages).loc[chosen(table)]
            fine = gain.mean() >= TOO_MUCH if batch == 10 else gain.mean() >= ENOUGH and gain.min() >= TOO_MUCH
            print(*table_of_streams(table, batch), sep="\n")
            verdict = 'holds' if fine else 'fails'
            print(f"by {batch}, seeds {sorted(set(averages.columns.get_level_values('seed')))}: mean {gain.mean():+.2f}, least {gain.min():+.2f}; {verdict}")
    print(*table_before_and_after(table), sep="\n")


if __name__ == "__main__":
    sys.exit(main())
