# What the rules of the imaging evaluation take in, where it is not one rule's output.
EVALUATION = IMAGING.evaluation
INTERPRETATION = IMAGING.interpretation


def embeddings_of(wildcards):
    """The folder of an encoder's embeddings, one per slice."""
    return L.encoder("embeddings").format(encoder=wildcards.encoder)


def chosen_image_saes(pattern):
    """An input function: `pattern` for the best SAE of each encoder, once they are ranked."""

    def paths(wildcards):
        ranked = checkpoints.rank_configurations.get().output.chosen
        chosen = json.loads(Path(ranked).read_text())
        return [
            pattern.format(encoder=encoder, sae=sae) for encoder, sae in chosen.items()
        ]

    return paths


def judge_encoder(wildcards):
    """The encoder that judges the names: never the one that is judged, if there is another."""
    if INTERPRETATION.judge_encoder is not None:
        return INTERPRETATION.judge_encoder
    others = [name for name in ENCODERS if name != wildcards.encoder]
    trained = [name for name in others if ENCODERS[name].control is None]
    return (trained or others or [wildcards.encoder])[0]


def judge_status(wildcards):
    """The embeddings of the judging encoder."""
    pattern = rules.embed_slices.output.status.replace(
        "{encoder}", judge_encoder(wildcards)
    )
    return batches(pattern)


def answers(wildcards):
    """Where the answers of asked models are kept: never an output, so never wiped."""
    return L.image_sae("checkpoints/answers").format(**wildcards)
