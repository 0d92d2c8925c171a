"""The prose: spelled right, in the project's own words, and no measured number that nothing stands behind."""
import re
from pathlib import Path

import nbformat
import pytest
from spellchecker import SpellChecker

from m2kd_lite import bank

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = [*NOTEBOOKS, ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "data" / "README.md"]
# Words that no dictionary has: names, terms of the field, code. One a line, small letters, in order.
OUR_WORDS = (Path(__file__).parent / "words.txt").read_text().split()


def prose(path):
    """The text of a page without code, formulas, addresses and the insides of tags."""
    if path.suffix == ".ipynb":
        text = "\n\n".join(cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown")
    else:
        text = path.read_text()
    for code in (r"(?ms)^```.*?^```", r"(?m)^ {4,}\S.*$", r"(?s)\$\$.*?\$\$", r"\$[^$\n]+\$", r"`[^`\n]+`",
                 r"https?://\S+", r"\]\([^)]*\)", r"<[^>\n]+>"):
        text = re.sub(code, " ", text)
    return text


def words(text):
    return {word.strip("'’").removesuffix("’s").removesuffix("'s").lower()
            for word in re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*", text)}


def test_the_list_of_our_words_is_in_order_and_needed():
    assert OUR_WORDS == sorted(set(OUR_WORDS))
    used = set().union(*(words(prose(path)) for path in PAGES))
    assert not set(OUR_WORDS) - used
    assert not SpellChecker().known(OUR_WORDS)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_words_are_spelled_right(path):
    unknown = SpellChecker().unknown(words(prose(path))) - set(OUR_WORDS)
    assert not sorted(word for word in unknown if len(word) > 2)


def test_a_misspelt_word_is_found():
    assert SpellChecker().unknown(words("The tacher’s distilation"))  == {"tacher", "distilation"}


# ---- numbers --------------------------------------------------------------------------------------------------------

def bank_of(name):
    return bank.load(ROOT / "data" / "results" / name)


@pytest.mark.parametrize("method", ["finetune", "lwf-mc", "m2kd-no-pruning", "m2kd"])
def test_the_readme_has_the_numbers_of_the_bank(method):
    """Average, last accuracy, what is left of step 1, forgetting: three seeds; bytes added: their mean."""
    table = bank_of("glyphs_quick.csv")
    table = table[(table.method == method) & (table.precision == "fp32")]
    begin, end = (table[table.step == step].set_index("seed") for step in (1, 5))
    left = end.accuracy_by_step.str[0]
    row = re.search(rf"^\| `{method}` \| (.*± .*) \|$", (ROOT / "README.md").read_text(), re.M)[1].split(" | ")
    measured = (end.average_incremental_accuracy, end.top1, left, end.forgetting)
    for said, values in zip(row, measured, strict=False):
        assert [float(part) for part in said.split(" ± ")] == pytest.approx([values.mean(), values.std()], abs=0.051)
    added = end.bytes_total - begin.bytes_total
    assert abs(int(row[4].replace(",", "")) - added.mean()) <= 0.01 * added.mean()
