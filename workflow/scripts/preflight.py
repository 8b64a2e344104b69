"""Before the first job: notes, lexicon and models checked, or one sentence and exit code 1.

Reads from standard input, as JSON, the calls to make: ``notes`` (arguments of
``prepare_notes``), ``lexicon`` (of ``prepare_lexicon``), ``gold_senses`` (a path), ``spans``
(paths), ``ner_notes`` (of ``read_notes``), ``models`` (of ``check_inputs``) and ``imaging`` (of
``check_imaging``); those that are absent are not made. Nothing is written but, to standard
output, what is wrong.
"""

import json
import sys
import traceback

from medsae.io import UserError

if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    try:
        if "lexicon" in wanted:
            from medsae.polysemy.lexicon import prepare_lexicon

            lexicon = prepare_lexicon(**wanted["lexicon"])
            if "gold_senses" in wanted:
                from medsae.polysemy.occurrences import read_gold_senses

                read_gold_senses(wanted["gold_senses"], lexicon)
        if "notes" in wanted:
            from medsae.notes import NoteColumns, prepare_notes

            columns = NoteColumns(**wanted["notes"].pop("columns"))
            prepare_notes(columns=columns, **wanted["notes"])
        if wanted.get("spans"):
            from medsae.ner import read_spans

            for path in wanted["spans"]:
                read_spans(path)
        if "ner_notes" in wanted:
            from medsae.notes import NoteColumns, read_notes

            columns = NoteColumns(**wanted["ner_notes"]["columns"], patient_id=None)
            read_notes(wanted["ner_notes"]["path"], columns)
        if "models" in wanted:
            from medsae.activations.check import check_inputs

            check_inputs(**wanted["models"])
        if "imaging" in wanted:
            from medsae.imaging.check import check_imaging

            check_imaging(**wanted["imaging"])
    except UserError as error:
        print(error)
        sys.exit(1)
    except Exception as error:
        # Its message may quote a cell, and with it a patient's text.
        print(f"{type(error).__name__} in preflight, at")
        print("".join(traceback.format_tb(error.__traceback__)))
        sys.exit(1)
