"""Before the first job: notes, lexicon and models checked, or one sentence and exit code 1.

Reads from standard input, as JSON, the calls to make: ``notes`` (arguments of
``prepare_notes``), ``lexicon`` (of ``prepare_lexicon``), ``gold_senses`` (a path) and ``models``
(of ``check_inputs``); those that are absent are not made. Nothing is written.
"""

import json
import sys

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
        if "models" in wanted:
            from medsae.activations.check import check_inputs

            check_inputs(**wanted["models"])
    except UserError as error:
        sys.exit(str(error))
