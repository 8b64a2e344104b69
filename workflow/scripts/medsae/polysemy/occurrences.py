"""Every occurrence of every term, by character offsets, with the evidence for its sense.

Documents stream through one row group at a time; all forms of all terms are found by one
expression. A form is found as a whole word in any case, with any run of whitespace where it
has a blank; of the forms that begin at one place the longest counts.
"""

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from medsae.io import UserError, progress
from medsae.polysemy.columns import OCCURRENCES
from medsae.polysemy.lexicon import split_list
from medsae.polysemy.senses import CueLabeller, cue_labeller, label_votes, resolve

# A combining mark belongs to the letter before it, so it must not end a word.
WORD = r"\w\u0300-\u036f"

FOUND_SCHEMA = {
    "doc_id": pl.String,
    "patient_id": pl.String,
    "split": pl.String,
    "lemma": pl.String,
    "surface": pl.String,
    "char_start": pl.UInt32,
    "char_end": pl.UInt32,
    "cue_sense": pl.String,
}

logger = logging.getLogger("medsae")


def form_finder(forms: dict[str, str]) -> Callable[[str], Iterator[tuple[int, int, str]]]:
    """A function text -> (start, end, lemma) of every form; ``forms`` maps form to lemma."""
    lemma_of = {_normal(form): lemma for form, lemma in forms.items()}
    longest_first = sorted(lemma_of, key=lambda form: (-len(form), form))
    alternatives = "|".join(r"\s+".join(map(re.escape, form.split())) for form in longest_first)
    expression = re.compile(f"(?<![{WORD}])(?:{alternatives})(?![{WORD}])", re.IGNORECASE)

    def find(text: str) -> Iterator[tuple[int, int, str]]:
        for match in expression.finditer(text):
            lemma = lemma_of.get(_normal(match.group()))
            if lemma is not None:
                yield match.start(), match.end(), lemma

    return find


def find_occurrences(
    notes: str | Path,
    lexicon: pl.DataFrame,
    spans: str | Path,
    gold: pl.DataFrame | None,
    sense_source: str,
) -> pl.DataFrame:
    """Table of occurrences in order of doc_id and char_start.

    ``notes``: Parquet with doc_id, patient_id, split, text; ``spans``: Parquet with doc_id,
    start, end, entity_group, score; ``gold``: doc_id, start, end, term, sense, or None.
    Columns: ``medsae.polysemy.columns.OCCURRENCES`` and resolved_sense. Offsets are Python
    string indices, end exclusive.
    """
    kinds = lexicon.group_by("term").agg(pl.col("kind").first()).rename({"term": "lemma"})
    forms = {
        form: row["term"]
        for row in lexicon.iter_rows(named=True)
        for form in split_list(row["forms"])
    }
    find, cue = form_finder(forms), cue_labeller(lexicon)
    source = pq.ParquetFile(notes)
    parts = []
    for group in progress(range(source.num_row_groups), "searching notes"):
        rows = source.read_row_group(group, ["doc_id", "patient_id", "split", "text"])
        found = pl.DataFrame(
            [row for batch in rows.to_batches() for row in _search(batch, find, cue)],
            schema=FOUND_SCHEMA,
            orient="row",
        )
        documents = pl.Series(rows["doc_id"].to_pylist()).cast(pl.String).implode()
        entities = pl.scan_parquet(spans).filter(pl.col("doc_id").cast(pl.String).is_in(documents))
        parts.append(_with_entity(found, entities.collect()))
    table = pl.concat(parts).join(kinds, on="lemma", how="left")
    table = table.join(label_votes(lexicon), on=["lemma", "ner_label"], how="left")
    table = _with_gold(table, gold).with_columns(resolve(sense_source)[0])
    table = table.with_columns(resolve(sense_source)[1]).sort("doc_id", "char_start")
    return table.with_row_index("occurrence_id").select(*OCCURRENCES, "resolved_sense")


def read_gold_senses(path: str | Path, lexicon: pl.DataFrame) -> pl.DataFrame:
    """Gold senses doc_id, start, end, term, sense; raises ``UserError`` for what cannot be used."""
    needed = {
        "doc_id": pl.String,
        "start": pl.Int64,
        "end": pl.Int64,
        "term": pl.String,
        "sense": pl.String,
    }
    if not Path(path).is_file():
        raise UserError(f"{path} does not exist: set corpus.gold_senses to your file or remove it")
    try:
        table = pl.read_csv(path, infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path} is no readable CSV file ({type(error).__name__})") from None
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise UserError(
            f"{path} has no column '{missing[0]}' (it has {', '.join(table.columns)}): add it"
        )
    gold = table.select(pl.col(name).cast(kind, strict=False) for name, kind in needed.items())
    gold = gold.with_row_index("row", offset=1)
    wrong = gold.filter(
        pl.any_horizontal(pl.col(list(needed)).is_null()) | (pl.col("end") <= pl.col("start"))
    )
    if len(wrong):
        raise UserError(
            f"{path}: row {wrong['row'][0]} needs doc_id, start < end (numbers), term and sense: "
            "correct it"
        )
    known = lexicon.select("term", "sense").unique()
    strangers = gold.join(known, on=["term", "sense"], how="anti").sort("row")
    if len(strangers):
        row = strangers.row(0, named=True)
        raise UserError(
            f"{path}: row {row['row']}: the lexicon has no sense '{row['sense']}' of "
            f"'{row['term']}': correct the row or extend the lexicon"
        )
    return gold.drop("row")


def _search(batch, find: Callable, cue: CueLabeller) -> Iterator[tuple]:
    columns = (batch.column(name).to_pylist() for name in ("doc_id", "patient_id", "split", "text"))
    for doc_id, patient_id, split, text in zip(*columns, strict=True):
        for start, end, lemma in find(text):
            sense = cue(text, start, end, lemma)
            yield doc_id, patient_id, split, lemma, text[start:end], start, end, sense


def _with_entity(found: pl.DataFrame, entities: pl.DataFrame) -> pl.DataFrame:
    """Add the label of the entity that covers most of the term, the best scored among equals."""
    entities = entities.select(
        pl.col("doc_id").cast(pl.String),
        "start",
        "end",
        pl.col("entity_group").cast(pl.String).alias("ner_label"),
        pl.col("score").cast(pl.Float64).alias("ner_score"),
    )
    order = ["ner_score", "start", "end", "ner_label"]
    best = _best_overlap(found, entities, order, [True, False, False, False])
    return found.join(
        best.select("doc_id", "char_start", "ner_label", "ner_score"),
        on=["doc_id", "char_start"],
        how="left",
    )


def _with_gold(table: pl.DataFrame, gold: pl.DataFrame | None) -> pl.DataFrame:
    if gold is None:
        return table.with_columns(pl.lit(None, pl.String).alias("gold_sense"))
    candidates = gold.rename({"term": "gold_term", "sense": "gold_sense"})
    best = _best_overlap(
        table.select("doc_id", "char_start", "char_end", "lemma"),
        candidates,
        ["start", "end", "gold_sense"],
        [False, False, False],
        pl.col("gold_term") == pl.col("lemma"),
    )
    n_placed = best.select("doc_id", "start", "end", "gold_term").n_unique()
    if table.height and gold.height and not n_placed:
        raise UserError(
            "None of the gold senses lies on an occurrence of its term: check doc_id, start and "
            "end (characters of the note, from 0) of the file in corpus.gold_senses"
        )
    if n_placed < gold.height:
        logger.warning(
            "%d of %d gold senses are not used: no occurrence of their term is there, or another "
            "row speaks for it", gold.height - n_placed, gold.height,
        )  # fmt: skip
    return table.join(
        best.select("doc_id", "char_start", "gold_sense"), on=["doc_id", "char_start"], how="left"
    )


def _best_overlap(
    found: pl.DataFrame,
    spans: pl.DataFrame,
    then_by: list[str],
    descending: list[bool],
    condition: pl.Expr | None = None,
) -> pl.DataFrame:
    """The span with the largest overlap of each occurrence; ties by ``then_by``."""
    start, end = pl.col("char_start").cast(pl.Int64), pl.col("char_end").cast(pl.Int64)
    overlap = pl.min_horizontal(end, pl.col("end").cast(pl.Int64)) - pl.max_horizontal(
        start, pl.col("start").cast(pl.Int64)
    )
    pairs = found.join(spans, on="doc_id", how="inner").with_columns(overlap.alias("overlap"))
    pairs = pairs.filter(pl.col("overlap") > 0)
    if condition is not None:
        pairs = pairs.filter(condition)
    return pairs.sort(
        "doc_id",
        "char_start",
        "overlap",
        *then_by,
        descending=[False, False, True, *descending],
    ).unique(["doc_id", "char_start"], keep="first", maintain_order=True)


def _normal(form: str) -> str:
    return " ".join(form.split()).casefold()
