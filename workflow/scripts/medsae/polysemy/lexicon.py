"""The lexicon: ambiguous terms, their senses, and the NER labels that speak for each sense.

All checks happen here, before any model is loaded, so that the rest of the study may rely
on: every term has two senses or more, every sense can be told from the others by at least
one NER label that is requested, every expression compiles, no form belongs to two terms.
"""

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import polars as pl
import yaml

from medsae.io import UserError
from medsae.polysemy.columns import CONTROL, LEXICON, POLYSEMOUS

SEPARATOR = "|"
LEXICON_COLUMNS = ("term", "sense", "forms", "domain_regexes", "exclude_regexes")


SenseLabels = Callable[[str, str], list[str]]
"""(term, sense) -> NER labels, empty if there are none."""


def prepare_lexicon(
    lexicon: str | Path, controls: str | Path, sense_labels: str | Path, ner_labels: list[str]
) -> pl.DataFrame:
    """The checked lexicon, one row per (term, sense) and one per control term.

    Columns: ``medsae.polysemy.columns.LEXICON``; lists are joined by ``|``. Raises
    ``UserError`` naming file, row and column for anything that would mislead the study.
    """
    rows = _read_senses(Path(lexicon))
    labels = read_sense_labels(sense_labels)
    for number, row in rows:
        own = labels(row["term"], row["sense"])
        unknown = [label for label in own if label not in ner_labels]
        where = f"{lexicon}: row {number}: the sense '{row['sense']}' of '{row['term']}'"
        if not own:
            raise UserError(f"{where} has no NER label: give it one in {sense_labels}")
        if unknown:
            raise UserError(
                f"{where} needs the NER label '{unknown[0]}' ({sense_labels}), which is not "
                "requested: add it to ner.labels or take another label"
            )
        row["ner_labels"] = SEPARATOR.join(own)
    _check_terms(Path(lexicon), Path(sense_labels), rows)
    prepared = [row | {"kind": POLYSEMOUS} for _, row in rows]
    prepared += _read_controls(Path(controls), [row for _, row in rows])
    return pl.DataFrame(prepared, schema=dict.fromkeys(LEXICON, pl.String))


def read_lexicon(path: str | Path) -> pl.DataFrame:
    """The prepared lexicon, every column a string (empty, never null)."""
    table = pl.read_csv(path, schema=dict.fromkeys(LEXICON, pl.String))
    return table.with_columns(pl.all().fill_null(""))


def split_list(cell: str) -> list[str]:
    """The items of a ``|`` list, blanks dropped."""
    return [item.strip() for item in cell.split(SEPARATOR) if item.strip()]


def read_sense_labels(path: str | Path) -> SenseLabels:
    """The map (term, sense) -> NER labels; raises ``UserError`` if the file has another shape."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist: set polysemy.sense_labels to your file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path} is not readable YAML: correct it") from None
    content = content if isinstance(content, dict) else {}
    senses, terms = content.get("senses") or {}, content.get("terms") or {}
    unknown = set(content) - {"senses", "terms"}
    maps = [senses, *terms.values()] if isinstance(terms, dict) else [None]
    if unknown or not all(_maps_to_labels(entry) for entry in maps):
        raise UserError(
            f"{path} must hold `senses` (sense: list of labels) and may hold `terms` "
            "(term: sense: list of labels), nothing else: correct it"
        )
    return lambda term, sense: list(terms.get(term, {}).get(sense, senses.get(sense, [])))


def plural(term: str) -> str:
    """The regular English plural of a term's last word."""
    if re.search(r"[^aeiou]y$", term, re.IGNORECASE):
        return term[:-1] + "ies"
    if re.search(r"(s|x|z|ch|sh)$", term, re.IGNORECASE):
        return term + "es"
    return term + "s"


def _csv_rows(path: Path, needed: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    if not path.is_file():
        raise UserError(f"{path} does not exist: name an existing file in the configuration")
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            found = reader.fieldnames or []
            for column in needed:
                if column not in found:
                    raise UserError(
                        f"{path} has no column '{column}' (it has {', '.join(found) or 'none'}): "
                        "add it"
                    )
            rows = []
            for number, row in enumerate(reader, start=1):
                if None in row or None in row.values():
                    raise UserError(
                        f"{path}: row {number} does not have {len(found)} cells: quote cells that "
                        "hold commas"
                    )
                rows.append((number, row))
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as UTF-8") from None
    except csv.Error as error:
        raise UserError(f"{path} is not a readable CSV file ({error}): correct it") from None
    if not rows:
        raise UserError(f"{path} has no rows: give it at least one term")
    return rows


def _read_senses(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their numbers; forms include the term, expressions compile."""
    rows = []
    for number, row in _csv_rows(path, LEXICON_COLUMNS):
        kept = {column: row[column].strip() for column in LEXICON_COLUMNS}
        for column in ("term", "sense"):
            if not kept[column]:
                raise UserError(f"{path}: row {number}: the column {column} is empty: fill it in")
        for column in ("domain_regexes", "exclude_regexes"):
            _check_expression(path, number, column, kept[column])
        forms = dict.fromkeys([kept["term"], *split_list(kept["forms"])])
        rows.append((number, kept | {"forms": SEPARATOR.join(forms)}))
    return rows


def _check_expression(path: Path, number: int, column: str, expression: str) -> None:
    where = f"{path}: row {number}: column {column}"
    try:
        compiled = re.compile(expression, re.IGNORECASE)
    except re.error as error:
        raise UserError(f"{where} is not a regular expression ({error}): correct it") from None
    if expression and compiled.search(""):
        raise UserError(
            f"{where} matches the empty text, so it would match everywhere: remove the empty "
            "alternative"
        )


def _check_terms(path: Path, sense_labels: Path, rows: list[tuple[int, dict[str, str]]]) -> None:
    senses: dict[str, dict[str, set[str]]] = {}
    owner: dict[str, str] = {}
    for number, row in rows:
        term, sense = row["term"], row["sense"]
        if sense in senses.setdefault(term, {}):
            raise UserError(
                f"{path}: row {number}: the sense '{sense}' of '{term}' is there twice: keep one"
            )
        senses[term][sense] = set(split_list(row["ner_labels"]))
        for form in split_list(row["forms"]):
            if owner.setdefault(form.casefold(), term) != term:
                raise UserError(
                    f"{path}: row {number}: column forms: '{form}' already belongs to "
                    f"'{owner[form.casefold()]}': a form can belong to one term only"
                )
    for number, row in rows:
        term, sense = row["term"], row["sense"]
        if len(senses[term]) < 2:
            raise UserError(
                f"{path}: row {number}: '{term}' has one sense: add another or move it to the "
                "controls"
            )
        others = set().union(*(labels for name, labels in senses[term].items() if name != sense))
        if not senses[term][sense] - others:
            raise UserError(
                f"{path}: row {number}: the sense '{sense}' of '{term}' shares all its NER labels "
                f"with other senses, so no entity can speak for it: give it its own in "
                f"{sense_labels}, under terms"
            )


def _read_controls(path: Path, terms: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    owner = {form.casefold(): row["term"] for row in terms for form in split_list(row["forms"])}
    controls = []
    for number, row in _csv_rows(path, ("term",)):
        term = row["term"].strip()
        if not term:
            raise UserError(f"{path}: row {number}: the column term is empty: name a term")
        forms = [term, plural(term)]
        for form in forms:
            if form.casefold() in owner:
                raise UserError(
                    f"{path}: row {number}: the control '{term}' is already a term or a form of "
                    f"'{owner[form.casefold()]}': a control must have one meaning, remove it"
                )
        owner.update((form.casefold(), term) for form in forms)
        empty = dict.fromkeys(LEXICON, "")
        controls.append(empty | {"term": term, "forms": SEPARATOR.join(forms), "kind": CONTROL})
    return controls


def _maps_to_labels(entry: object) -> bool:
    return isinstance(entry, dict) and all(
        isinstance(labels, list) and all(isinstance(label, str) for label in labels)
        for labels in entry.values()
    )
