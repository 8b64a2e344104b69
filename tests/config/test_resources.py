"""What jobs ask for grows with the problem and with every attempt."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from medsae.config import Layout, parse_config
from medsae.config.resources import Requests, as_mb, as_minutes

ROOT = Path(__file__).parents[2]
WILDCARDS = SimpleNamespace(model="medgemma-27b", layer="52", sae="topk-65536", shard="train-00000")


CONFIG = parse_config(yaml.safe_load((ROOT / "config/medgemma-27b.yaml").read_text()))
SAE = CONFIG.sae(WILDCARDS.sae)


def requests(**changes) -> Requests:
    raw = yaml.safe_load((ROOT / "config/medgemma-27b.yaml").read_text())
    raw["models"][0] |= changes
    return Requests(parse_config(raw))


class Input(list):
    """Snakemake's input: a list whose items also have names."""


@pytest.fixture
def files(tmp_path):
    def make(**sizes: int) -> Input:
        made = Input()
        for name, size in sizes.items():
            path = tmp_path / name
            with path.open("wb") as handle:
                handle.truncate(size)
            made.append(str(path))
            setattr(made, name, str(path))
        return made

    return make


def test_memory_is_whole_half_gigabytes_and_grows_with_the_attempt():
    assert as_mb(1) == 500
    assert as_mb(500e6) == 500
    assert as_mb(500e6 + 1) == 1000
    assert as_mb(3e9, attempt=3) == 9000


def test_time_has_a_margin_and_grows_with_the_attempt():
    assert as_minutes(0) > 0
    assert as_minutes(3600) > 60
    assert as_minutes(3600, attempt=2) == 2 * as_minutes(3600)


MEMORY = [
    "extraction_memory_mb",
    "sae_training_memory_mb",
    "sae_encoding_memory_mb",
    "ner_memory_mb",
]


@pytest.mark.parametrize("name", MEMORY)
def test_every_memory_request_grows_with_the_attempt(name):
    ask = getattr(requests(), name)
    assert ask(WILDCARDS, attempt=2) > 1.5 * ask(WILDCARDS, attempt=1) > 0


def test_extraction_holds_the_weights_in_host_memory():
    assert requests().extraction_memory_mb(WILDCARDS) >= 54_000
    half = requests(size={"parameters_b": 13.5, "n_layers": 62, "d_model": 5376})
    assert half.extraction_memory_mb(WILDCARDS) < 40_000


def test_extraction_time_follows_the_tokens_of_the_shard(files):
    ask = requests().extraction_runtime_min

    def tokens(size: int) -> SimpleNamespace:
        (shard,) = files(**{f"{WILDCARDS.shard}.parquet": size})
        return SimpleNamespace(tokens=str(Path(shard).parent))

    short, long = ask(WILDCARDS, tokens(1_000_000)), ask(WILDCARDS, tokens(100_000_000))
    assert long > 10 * short / 2
    assert ask(WILDCARDS, tokens(100_000_000), attempt=2) == 2 * long


def test_a_folder_counts_as_its_largest_file(files):
    ask = requests().table_memory_mb
    (small, _) = files(a=1_000_000, b=2_000_000_000)
    assert ask(WILDCARDS, [str(Path(small).parent)]) == ask(WILDCARDS, files(c=2_000_000_000))


def test_tokenization_time_follows_the_notes(files):
    ask = requests().tokenization_runtime_min
    assert ask(WILDCARDS, files(notes=2_000_000_000)) > 5 * ask(WILDCARDS, files(notes=10_000_000))


def test_a_streamed_table_asks_by_its_largest_file_not_by_their_sum(files):
    ask = requests().table_memory_mb
    one = ask(WILDCARDS, files(a=2_000_000_000))
    many = ask(WILDCARDS, files(a=2_000_000_000, b=2_000_000_000, c=1_000_000_000))
    assert one == many > ask(WILDCARDS, files(a=1_000_000))
    assert ask(WILDCARDS, []) > 0


def test_training_memory_covers_the_state_and_the_buffer():
    state_mb = 16 * 2 * 65_536 * 5376 / 1e6
    assert requests().sae_training_memory_mb(WILDCARDS) > state_mb


def saes(*changes: dict) -> list:
    return [SAE.model_copy(update=each) for each in changes]


def test_saes_trained_in_one_job_share_a_buffer_and_have_a_state_each():
    ask = requests().saes_training_memory_mb
    one, two = ask(saes({}), WILDCARDS), ask(saes({}, {}), WILDCARDS)
    state_mb = 16 * 2 * 65_536 * 5376 / 1e6
    assert one + state_mb < two < 2 * one
    assert one == requests().sae_training_memory_mb(WILDCARDS)
    time = requests().saes_training_runtime_min
    assert time(saes({}, {}), WILDCARDS) > 1.8 * time(saes({}), WILDCARDS)


def test_every_process_has_its_buffer_and_on_the_cpu_its_state():
    ask = requests().saes_training_memory_mb
    on_cpu = [ask(saes({"gpus": 0, "processes": n}), WILDCARDS) for n in (1, 4)]
    assert on_cpu[1] == pytest.approx(4 * on_cpu[0], rel=0.01)
    on_gpus = [ask(saes({"gpus": n, "processes": None}), WILDCARDS) for n in (1, 4)]
    assert on_gpus[0] < on_gpus[1] < 4 * on_gpus[0]


@pytest.fixture
def described(tmp_path):
    """Activations of so many tokens in every shard, as a rule's input."""

    def make(n_tokens: int) -> SimpleNamespace:
        shards = {name: {"tokens": n_tokens} for name in Layout(CONFIG).shards}
        path = tmp_path / f"{n_tokens}.json"
        path.write_text(json.dumps({"shards": shards}))
        return SimpleNamespace(activations=str(path))

    return make


def test_encoding_time_follows_the_activations_that_are_read(described):
    ask = requests()
    learned_from, held_out = ask.calibration_runtime_min, ask.validation_runtime_min
    for of in (learned_from, held_out):
        assert of(WILDCARDS, described(10**9)) > of(WILDCARDS, described(10**5))
    assert learned_from(WILDCARDS, described(10**8)) > held_out(WILDCARDS, described(10**8))


def test_export_time_is_of_one_part_and_counts_the_writing(described):
    def asked(n_tokens: int, part: str = "part-0000") -> int:
        place = SimpleNamespace(**vars(WILDCARDS), part=part)
        return requests().topk_runtime_min(place, described(n_tokens))

    assert asked(10**8) > asked(10**5)
    parts = Layout(CONFIG).parts
    of_all = sum(asked(10**8, part) for part in parts)
    assert of_all > requests().calibration_runtime_min(WILDCARDS, described(10**8))
    assert len(parts) > 1 and asked(10**8) < of_all


def test_shards_that_an_earlier_description_lacks_do_not_count(described):
    raw = yaml.safe_load((ROOT / "config/medgemma-27b.yaml").read_text())
    raw["corpus"]["shards"] *= 2
    more = parse_config(raw)
    added = [
        name for name, part in Layout(more).parts.items() if part[0] not in Layout(CONFIG).shards
    ]
    place = SimpleNamespace(**vars(WILDCARDS), part=added[0])
    assert Requests(more).topk_runtime_min(place, described(10**8)) == as_minutes(0)


def test_ner_time_follows_the_share_of_one_shard(files):
    raw = yaml.safe_load((ROOT / "config/medgemma-27b.yaml").read_text())
    ask = Requests(parse_config(raw)).ner_runtime_min
    raw["corpus"]["shards"] = 4
    ask_of_few = Requests(parse_config(raw)).ner_runtime_min
    notes = files(notes=2_000_000_000)
    assert ask_of_few(WILDCARDS, notes) > ask(WILDCARDS, notes)


def test_a_missing_input_is_told_to_snakemake_as_such():
    with pytest.raises(FileNotFoundError):
        requests().table_memory_mb(WILDCARDS, ["not-there.parquet"])
    with pytest.raises(FileNotFoundError) as raised:
        requests().extraction_runtime_min(WILDCARDS, SimpleNamespace(tokens="not-there"))
    assert str(raised.value.filename) == "not-there"
