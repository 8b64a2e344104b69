"""Entity recognition against GLiNER's own ``batch_predict_entities``, on the same notes.

Two tasks, both on the adapted model and the notes of the demo: ``short_notes`` are those that
GLiNER reads at once, where the spans of both must be the same (they are where overlapping spans
differ by more than 0.001 of a logit, to which the library rounds); ``all_notes`` are as many of any
length, of which GLiNER reads no more than its first words.

    python benchmarks/ner.py [--notes 100] [--model resources/ner/gliner-minilm]
"""

import argparse
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import common
import polars as pl

BATCH = 8
MIN_SCORE = 0.4


def read(notes: str, folder: Path) -> tuple[Any, list[tuple[str, str]]]:
    """The model, warmed up, and the notes (doc_id, text)."""
    import torch

    from medsae.config.ner_section import NER_LABELS
    from medsae.ner.model import load_gliner

    torch.set_num_threads(common.THREADS)
    model = load_gliner((folder / "model").read_text())
    texts = pl.read_parquet(folder / f"{notes}.parquet").rows()
    warnings.simplefilter("ignore", FutureWarning)
    model.batch_predict_entities([texts[0][1]], list(NER_LABELS), threshold=MIN_SCORE)
    return model, texts


def gliner(data: tuple[Any, list[tuple[str, str]]]) -> dict[str, Any]:
    """GLiNER's own batches, in the order of the notes."""
    from medsae.config.ner_section import NER_LABELS

    model, notes = data
    found = model.batch_predict_entities(
        [text for _, text in notes], list(NER_LABELS), threshold=MIN_SCORE, batch_size=BATCH
    )
    spans = [
        (doc_id, span["start"], span["end"], span["label"])
        for (doc_id, _), here in zip(notes, found, strict=True)
        for span in here
    ]
    return _done(model, notes, spans)


def library(data: tuple[Any, list[tuple[str, str]]]) -> dict[str, Any]:
    """Chunks sorted by length, span scores factored, chunks merged."""
    from medsae.config.ner_section import NER_LABELS
    from medsae.ner.recognise import recognise_entities

    model, notes = data
    spans = [
        (span["doc_id"], span["start"], span["end"], span["entity_group"])
        for span in recognise_entities(notes, model, NER_LABELS, MIN_SCORE, 384, 64, BATCH)
    ]
    return _done(model, notes, spans)


def _done(model: Any, notes: list[tuple[str, str]], spans: list[tuple]) -> dict[str, Any]:
    return {"tokens": sum(_words(model, text) for _, text in notes), "spans": spans}


def _words(model: Any, text: str) -> int:
    return sum(1 for _ in model.data_processor.words_splitter(text))


def choose(source: str, model_source: str, n: int, folder: Path) -> None:
    """Write short_notes.parquet and all_notes.parquet, n notes each, and the model's place."""
    from medsae.config.ner_section import NER_LABELS
    from medsae.ner.model import load_gliner
    from medsae.ner.recognise import _Finder
    from medsae.ner.words import chunk_bounds, split_words

    model = load_gliner(model_source)
    finder = _Finder(model, list(NER_LABELS), MIN_SCORE, 384, 64, BATCH)
    notes = pl.read_csv(source, columns=["doc_id", "text"]).select("doc_id", "text")
    short = []
    for doc_id, text in notes.iter_rows():
        words = split_words(text, model.data_processor.words_splitter)
        bounds = chunk_bounds(
            len(words), finder.max_words, finder.overlap, *finder._tokens(text, words)
        )
        if len(bounds) == 1:
            short.append(doc_id)
    (folder / "model").write_text(model_source)
    notes.filter(pl.col("doc_id").is_in(short)).head(n).write_parquet(
        folder / "short_notes.parquet"
    )
    notes.head(n).write_parquet(folder / "all_notes.parquet")


def main() -> None:
    """Run both tasks, compare the spans, print and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=100)
    parser.add_argument("--corpus", default=str(common.ROOT / "resources/demo/notes.csv"))
    parser.add_argument("--model", default=str(common.ROOT / "resources/ner/gliner-minilm"))
    arguments = parser.parse_args()
    if not Path(arguments.model).is_dir() or not Path(arguments.corpus).is_file():
        raise SystemExit("The demo's notes and NER model are not there yet: run `make demo` first.")
    with common.folder() as folder:
        choose(arguments.corpus, arguments.model, arguments.notes, folder)
        print(common.HEADER)
        for task in ("short_notes", "all_notes"):
            reader = partial(read, task)
            entry = common.compare(
                task, common.Side(reader, gliner), common.Side(reader, library), folder
            )
            ours, theirs = (set(entry[side].pop("spans")) for side in common.SIDES)
            both = len(ours & theirs)
            if task == "short_notes" and ours != theirs:
                raise SystemExit("of notes that GLiNER reads at once, spans differ")
            entry |= {"spans": len(ours), "spans_gliner": len(theirs), "spans_equal": both}
            for side in common.SIDES:
                entry[side]["tokens_per_s"] = entry[side]["tokens"] / entry[side]["seconds"]
            common.save("polysemy", {f"entities_{task}": entry})
            print(
                f"{'':24}tokens/s {entry['straightforward']['tokens_per_s']:.0f} and "
                f"{entry['library']['tokens_per_s']:.0f}; spans {len(theirs)} and {len(ours)}, "
                f"{both} equal",
                flush=True,
            )


if __name__ == "__main__":
    main()
