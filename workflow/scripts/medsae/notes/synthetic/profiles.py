"""Kinds of patients: who they are, what they have, and which senses their notes speak of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """One kind of patient. ``pairs`` are "term/sense" subjects of the notes."""

    specialty: str
    ages: tuple[int, int]
    sexes: str
    diagnoses: tuple[str, ...]
    complaints: tuple[str, ...]
    pairs: tuple[str, ...]


def _profile(
    specialty: str, ages: tuple[int, int], sexes: str, diagnoses: str, complaints: str, pairs: str
) -> Profile:
    return Profile(
        specialty,
        ages,
        sexes,
        tuple(diagnoses.split("; ")),
        tuple(complaints.split("; ")),
        tuple(pairs.split()),
    )


PROFILES: tuple[Profile, ...] = (
    _profile(
        "cardiology", (52, 84), "FM",
        "[coronary artery disease|CV]; [atrial fibrillation|CV]; [cardiomyopathy|CV]",
        "[chest pain|FIND]; [dyspnea|FIND]; [palpitations|CV]; [syncope|CV]",
        "regurgitation/cardiac failure/cardiac pressure/cardiovascular shock/cardiovascular "
        "attack/cardiac arrest/cardiac syndrome/cardiac block/cardiac episode/cardiac",
    ),
    _profile(
        "pulmonology", (34, 82), "FM",
        "[COPD|RESP]; [asthma|RESP]; [bronchiectasis|RESP]",
        "[dyspnea|FIND]; [cough|FIND]; [wheezing|RESP]",
        "attack/respiratory arrest/respiratory syndrome/respiratory infiltrate/respiratory "
        "effusion/respiratory mass/radiological infiltrate/pathological",
    ),
    _profile(
        "critical care", (36, 84), "FM",
        "[sepsis|FIND]; [severe pneumonia|RESP]; [influenza|RESP]",
        "[hypotension|CV]; [hypoxia|RESP]; [fever|FIND]",
        "shock/cardiovascular arrest/respiratory syndrome/respiratory infiltrate/respiratory "
        "failure/renal arrest/cardiac pressure/cardiovascular insufficiency/endocrine",
    ),
    _profile(
        "nephrology", (44, 84), "FM",
        "[chronic kidney disease|REN]; [diabetic nephropathy|REN]; [IgA nephropathy|REN]",
        "[edema|FIND]; [fatigue|FIND]; [nausea|FIND]",
        "failure/renal insufficiency/renal effusion/respiratory pressure/cardiovascular "
        "failure/cardiac infiltrate/pathological insufficiency/endocrine",
    ),
    _profile(
        "neurology", (22, 80), "FM",
        "[epilepsy|NEU]; [multiple sclerosis|NEU]; [migraine|NEU]",
        "[headache|FIND]; [dizziness|FIND]; [weakness|NEU]",
        "episode/neurological lesion/neurological pressure/neurological block/neurological "
        "arrest/respiratory syndrome/respiratory lesion/dermatological",
    ),
    _profile(
        "rehabilitation", (20, 70), "FM",
        "[spinal cord injury|NEU]; [incomplete tetraplegia|NEU]",
        "[leg weakness|NEU]; [spasticity|NEU]; [pain|FIND]",
        "shock/neurological pressure/neurological block/neurological lesion/neurological "
        "mass/anatomical discharge/clinical effusion/orthopedic shock/cardiovascular",
    ),
    _profile(
        "gastroenterology", (28, 80), "FM",
        "[GERD|GI]; [cirrhosis|GI]; [ulcerative colitis|GI]",
        "[abdominal pain|FIND]; [heartburn|GI]; [weight loss|FIND]",
        "regurgitation/GI mass/anatomical mass/radiological infiltrate/pathological "
        "discharge/clinical effusion/respiratory regurgitation/cardiac",
    ),
    _profile(
        "surgery", (24, 80), "FM",
        "[inguinal hernia|GI]; [diverticulitis|GI]; [cholecystitis|GI]",
        "[abdominal pain|FIND]; [groin pain|FIND]; [nausea|FIND]",
        "discharge/clinical mass/anatomical block/neurological regurgitation/GI "
        "infiltrate/pathological block/cardiac shock/cardiovascular",
    ),
    _profile(
        "orthopedics", (20, 82), "FM",
        "[osteoarthritis|MSK]; [meniscal tear|MSK]; [rotator cuff tear|MSK]",
        "[joint pain|FIND]; [swelling|FIND]; [stiffness|MSK]",
        "effusion/orthopedic block/neurological mass/anatomical discharge/clinical "
        "block/cardiac effusion/respiratory",
    ),
    _profile(
        "dermatology", (21, 80), "FM",
        "[psoriasis|DERM]; [melanoma|DERM]; [eczema|DERM]",
        "[rash|DERM]; [itching|FIND]; a changing [mole|DERM]",
        "lesion/dermatological infiltrate/pathological discharge/clinical mass/anatomical "
        "lesion/neurological",
    ),
    _profile(
        "endocrinology", (24, 78), "FM",
        "[Addison disease|ENDO]; [type 1 diabetes|ENDO]; [hypothyroidism|ENDO]",
        "[fatigue|FIND]; [dizziness|FIND]; [weight loss|FIND]",
        "insufficiency/endocrine insufficiency/renal mass/radiological pressure/cardiovascular "
        "episode/neurological failure/renal",
    ),
    _profile(
        "oncology", (40, 82), "FM",
        "[lung adenocarcinoma|RESP]; [lymphoma|FIND]; [renal cell carcinoma|REN]",
        "[weight loss|FIND]; [cough|FIND]; [fatigue|FIND]",
        "mass/radiological effusion/respiratory infiltrate/respiratory infiltrate/pathological "
        "lesion/neurological lesion/dermatological insufficiency/renal",
    ),
    _profile(
        "obstetrics", (20, 41), "F",
        "[gestational hypertension|CV]; [gestational diabetes|ENDO]; [twin pregnancy|FIND]",
        "[contractions|FIND]; [nausea|FIND]; [headache|FIND]",
        "discharge/clinical block/neurological pressure/cardiovascular regurgitation/GI "
        "attack/respiratory pressure/neurological",
    ),
    _profile(
        "emergency medicine", (20, 84), "FM",
        "[asthma|RESP]; [hypertension|CV]; [migraine|NEU]",
        "[chest pain|FIND]; [dyspnea|FIND]; [dizziness|FIND]",
        "attack/cardiac attack/respiratory episode/neurological episode/cardiac "
        "shock/cardiovascular shock/neurological syndrome/cardiac",
    ),
    _profile(
        "infectious disease", (25, 82), "FM",
        "[osteomyelitis|MSK]; [cellulitis|DERM]; [endocarditis|CV]",
        "[fever|FIND]; [chills|FIND]; [pain|FIND]",
        "discharge/clinical infiltrate/respiratory effusion/orthopedic regurgitation/cardiac "
        "effusion/respiratory lesion/dermatological",
    ),
    _profile(
        "gynecology", (22, 68), "F",
        "[fibroids|FIND]; [endometriosis|FIND]; [ovarian cyst|FIND]",
        "[pelvic pain|FIND]; [heavy bleeding|FIND]; [cramps|FIND]",
        "discharge/clinical mass/anatomical mass/radiological regurgitation/GI "
        "insufficiency/endocrine",
    ),
    _profile(
        "rheumatology", (26, 79), "FM",
        "[rheumatoid arthritis|MSK]; [gout|MSK]; [lupus|MSK]",
        "[joint pain|FIND]; [fatigue|FIND]; [rash|DERM]",
        "effusion/orthopedic lesion/dermatological insufficiency/endocrine failure/renal "
        "insufficiency/renal regurgitation/GI",
    ),
)  # fmt: skip
