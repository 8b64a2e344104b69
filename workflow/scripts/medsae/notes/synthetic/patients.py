"""Patients: one kind of illness, a second one beside it, and facts that never change."""

import random
import re
from collections import Counter
from dataclasses import dataclass, field

from medsae.notes.synthetic.banks import Role
from medsae.notes.synthetic.profiles import PROFILES, Profile

EVERYBODY = "discharge/administrative"
COMORBIDITIES: dict[str, re.Pattern[str]] = {
    "hypertension": re.compile(r"hypertension", re.I),
    "diabetes": re.compile(r"diabetes|insulin|hba1c", re.I),
    "anemia": re.compile(r"anemia|ferrous", re.I),
}
"""Common illnesses, and what in a sentence says that the patient has one."""
PATIENT_PREFIX: dict[Role, str] = {"study": "patient", "ner_training": "training-patient"}


@dataclass
class Patient:
    """A patient and what has been said so far: ``facts`` fixed, templates ``used``."""

    patient_id: str
    sex: str
    main: Profile
    second: Profile
    subjects: tuple[str, ...]  # "term/sense" pairs that this patient's notes speak of
    comorbidities: frozenset[str]
    facts: dict[str, str]
    rng: random.Random
    used: set[str] = field(default_factory=set)


_NORMAL, _RAISED = ("0.7", "0.8", "0.9", "1.0", "1.1"), ("1.4", "1.7", "1.9", "2.2", "2.6")
"""Creatinine, mg/dL."""


def make_patient(index: int, seed: int, role: Role, told: Counter[str]) -> Patient:
    """Patient ``index`` of ``role``; ``told`` counts how many patients have each subject.

    Subjects told less often so far are preferred, so that even small corpora cover all.
    """
    rng = random.Random(f"medsae/synthetic/{role}/{seed}/{index}")
    main = PROFILES[index % len(PROFILES)]
    sex = rng.choice(main.sexes)
    age = rng.randint(*main.ages)
    fitting = [
        profile
        for profile in PROFILES
        if profile is not main
        and sex in profile.sexes
        and profile.specialty != "obstetrics"
        and profile.ages[0] <= age <= profile.ages[1]
    ]
    second = rng.choice(fitting)
    own, other = _rarest(main.pairs, 4, told, rng), _rarest(second.pairs, 2, told, rng)
    subjects = tuple(dict.fromkeys([*own, *other]))
    told.update(subjects)
    comorbidities = frozenset(rng.sample(list(COMORBIDITIES), rng.randint(1, 2)))
    facts = {
        "age": str(age),
        "he": "she" if sex == "F" else "he",
        "his": "her" if sex == "F" else "his",
        "him": "her" if sex == "F" else "him",
        "himself": "herself" if sex == "F" else "himself",
        "man": "woman" if sex == "F" else "man",
        "diagnosis": rng.choice(main.diagnoses),
        "second_diagnosis": rng.choice(second.diagnoses),
        "complaint": rng.choice(main.complaints),
        "cr": rng.choice(_RAISED if any("renal" in s for s in subjects) else _NORMAL),
        "spouse": rng.choice(("husband", "partner") if sex == "F" else ("wife", "partner")),
    }
    facts["He"] = facts["he"].capitalize()
    if main.specialty == "obstetrics":  # the usual drugs harm the fetus
        facts["bp_drug"] = rng.choice(("labetalol", "methyldopa"))
        facts["diabetes_drug"] = "insulin"
    return Patient(
        f"{PATIENT_PREFIX[role]}-{index:05d}",
        sex,
        main,
        second,
        subjects,
        comorbidities,
        facts,
        rng,
    )


def may_have(patient: Patient, marked: str) -> bool:
    """Whether a sentence only ascribes to the patient common illnesses that are theirs."""
    return all(
        name in patient.comorbidities or not pattern.search(marked)
        for name, pattern in COMORBIDITIES.items()
    )


def _rarest(
    pairs: tuple[str, ...], count: int, told: Counter[str], rng: random.Random
) -> list[str]:
    return sorted(pairs, key=lambda pair: told[pair] + 4 * rng.random())[:count]
