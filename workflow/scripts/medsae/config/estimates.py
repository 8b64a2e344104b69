"""What each kind of job needs, from the configuration alone: bytes, operations and seconds.

``resources`` turns these into requests to the scheduler, ``plan`` into a table for people.
Sizes are decimal (1 MB = 10^6 bytes). Everything errs upwards: a request that is too large
waits a little longer, one that is too small fails after hours.
"""

from medsae.config.sae_section import Sae
from medsae.config.schema import Config, LanguageModel

ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# A quantised weight with its share of the scales, and of the embeddings, which stay whole.
WEIGHT_BYTES = {"8bit": 1.2, "4bit": 0.8}

# Operations per second that jobs reach, not what the data sheet says: half of what a dense
# product alone reaches on an A100 (bf16, and TF32 for float32), and of two CPU cores.
GPU_FLOPS = {"bfloat16": 100e12, "float16": 100e12, "float32": 40e12}
CPU_FLOPS = 50e9

# Words GLiNER reads per second with a large encoder on one GPU, and on two CPU cores.
NER_WORDS_PER_S_GPU = 10_000
NER_WORDS_PER_S_CPU = 100

# An interpreter with torch loaded, before any data (0.6 GB measured), and the host side of CUDA.
PROCESS_BYTES = 1e9
CUDA_BYTES = 3e9
# Characters that a fast tokenizer reads per second on two CPU cores, its tables written.
TOKENIZED_CHARS_PER_S = 0.5e6
# Weights come from a shared file system.
LOAD_BYTES_PER_S = 0.5e9
# Hidden states and the intermediates of one block, as multiples of tokens × d_model.
BLOCK_INTERMEDIATES = 32
# Weight, gradient and two moments of Adam, float32.
TRAINING_BYTES_PER_PARAMETER = 16
# Pre-activations, their selection and one temporary, float32.
DENSE_CODES = 3 * 4
# Clinical English, as measured on the demo's notes: in tokens of a 49,152-entry vocabulary
# (larger vocabularies make fewer) and in words.
CHARS_PER_TOKEN = 3.7
CHARS_PER_WORD = 6.8
CHARS_OF_A_LONG_NOTE = 10_000
# A character of notes.parquet, a row of a token table and one entry of the top latents (a
# number and two values) as compressed on disk, measured on the demo.
NOTE_CHAR_BYTES = 0.37
TOKEN_ROW_BYTES = 6.0
TOPK_ENTRY_BYTES = 12
# Entries of the top latents that one process compresses and writes per second.
TOPK_ENTRIES_PER_S = 10e6
# Entity spans, in JSON lines and Parquet together.
SPANS_PER_WORD = 0.1
SPAN_BYTES = 200
# A large GLiNER with the intermediates of a batch.
NER_MODEL_BYTES = 4e9
# Senses of a lexicon like the shipped one.
LEXICON_SENSES = 30

# Windows scored for faithfulness (medsae.polysemy.faithfulness.N_WINDOWS).
FAITHFULNESS_WINDOWS = 24


def process_bytes(gpus: int) -> float:
    """Host memory of a job before it has loaded anything."""
    return PROCESS_BYTES + (CUDA_BYTES if gpus else 0)


def n_parameters(model: LanguageModel) -> float:
    """Parameters of a language model."""
    return model.size.parameters_b * 1e9


def weights_bytes(model: LanguageModel) -> float:
    """All weights in the precision they are held in."""
    return n_parameters(model) * WEIGHT_BYTES.get(model.quantization, ITEM_BYTES[model.dtype])


def forward_bytes(model: LanguageModel) -> float:
    """Intermediates of one forward pass, the hidden states of its batch included."""
    per_token = BLOCK_INTERMEDIATES * model.size.d_model * ITEM_BYTES[model.dtype]
    return model.tokens_per_batch * per_token


def extraction_device_bytes(model: LanguageModel) -> float:
    """Memory of the fullest GPU (or, without GPUs, on top of the process)."""
    return weights_bytes(model) / max(1, model.gpus) + forward_bytes(model)


def extraction_flops(model: LanguageModel, layer: int, n_tokens: float) -> float:
    """Operations of a forward pass that stops after block ``layer``: 2 per weight and token."""
    share = min(1.0, (layer + 1) / model.size.n_layers)
    return 2 * n_parameters(model) * share * n_tokens


def extraction_seconds(model: LanguageModel, layer: int, n_tokens: float) -> float:
    """Time of an extraction job. Blocks run one after the other, so GPUs add memory, not speed."""
    flops = GPU_FLOPS[model.dtype] if model.gpus else CPU_FLOPS
    return load_seconds(model) + extraction_flops(model, layer, n_tokens) / flops


def load_seconds(model: LanguageModel) -> float:
    """Time to read a model's weights."""
    return weights_bytes(model) / LOAD_BYTES_PER_S


def window_overhead(model: LanguageModel) -> float:
    """Tokens computed per token stored: above 1 where windows overlap."""
    return model.ctx_len / (model.stride or model.ctx_len)


def activation_row_bytes(model: LanguageModel) -> float:
    """The stored hidden state of one token."""
    return model.size.d_model * ITEM_BYTES[model.store_dtype]


def topk_bytes(sae: Sae, n_tokens: float) -> float:
    """The top latents of ``n_tokens`` tokens on disk."""
    return TOPK_ENTRY_BYTES * sae.k * n_tokens


def sae_parameters(sae: Sae, d_model: int) -> float:
    """Weights of encoder and decoder; biases do not matter."""
    return 2.0 * sae.n_latents * d_model


def sae_checkpoint_bytes(sae: Sae, d_model: int) -> float:
    """One exported SAE, float32."""
    return 4 * sae_parameters(sae, d_model)


def sae_state_bytes(sae: Sae, d_model: int) -> float:
    """One training state: weights and two moments of Adam, float32."""
    return 12 * sae_parameters(sae, d_model)


def sae_training_device_bytes(sae: Sae, d_model: int) -> float:
    """Weights, gradients, optimiser state and the dense codes of one batch."""
    state = TRAINING_BYTES_PER_PARAMETER * sae_parameters(sae, d_model)
    return state + DENSE_CODES * sae.training.batch_size * sae.n_latents


def shuffle_buffer_bytes(sae: Sae, model: LanguageModel) -> float:
    """Activations held in memory while training: the buffer, and one copy of it on the way."""
    return 2 * sae.training.buffer_rows * activation_row_bytes(model)


def sae_encoding_device_bytes(sae: Sae, d_model: int) -> float:
    """Weights and the dense codes of one batch."""
    return (
        sae_checkpoint_bytes(sae, d_model) + DENSE_CODES * sae.training.batch_size * sae.n_latents
    )


def sae_training_seconds(sae: Sae, d_model: int) -> float:
    """Three dense encoder products per token: forward, and as much again twice for the rest."""
    return 3 * sae_encoding_seconds(sae, d_model, sae.training.n_tokens)


def sae_encoding_seconds(sae: Sae, d_model: int, n_tokens: float) -> float:
    """One dense encoder product per token; the rest touches k latents only."""
    flops = GPU_FLOPS[sae.training.compute] if sae.gpus else CPU_FLOPS
    return 2.0 * sae.n_latents * d_model * n_tokens / flops


def topk_seconds(sae: Sae, d_model: int, n_tokens: float) -> float:
    """An encoder product and the writing of the top latents, one after the other."""
    return sae_encoding_seconds(sae, d_model, n_tokens) + sae.k * n_tokens / TOPK_ENTRIES_PER_S


def ner_seconds(config: Config, n_words: float) -> float:
    """Time of GLiNER over ``n_words``, the overlap of its chunks included."""
    ner = config.ner
    speed = NER_WORDS_PER_S_GPU if ner.gpus else NER_WORDS_PER_S_CPU
    return n_words * ner.chunk_words / (ner.chunk_words - ner.overlap_words) / speed


def faithfulness_tokens(model: LanguageModel) -> float:
    """Tokens scored for the faithfulness of one SAE: a few windows under five conditions."""
    return 5.0 * FAITHFULNESS_WINDOWS * model.ctx_len


def ablation_tokens(config: Config, model: LanguageModel) -> float:
    """Tokens re-scored by the ablation of one SAE: every latent, its control, on and off sense."""
    ablation = config.polysemy.ablation
    passes = 4 * ablation.max_latents_per_sense * ablation.max_occurrences_per_sense
    return float(LEXICON_SENSES * passes * model.ctx_len)
