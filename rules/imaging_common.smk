# What every stage of the imaging study shares.
IMAGING = C.imaging
ENCODERS = {encoder.name: encoder for encoder in IMAGING.encoders}
IMAGE_SAES = {sae.name: sae for sae in IMAGE_GRID}
# What `snakemake imaging` builds; each stage adds its own.
IMAGING_RESULTS = []


wildcard_constraints:
    encoder="|".join(map(re.escape, ENCODERS)),
    batch=r"batch-\d{5}",


def batches(pattern):
    """`pattern` for each batch of scans, the other wildcards left open."""
    return [pattern.replace("{batch}", name) for name in L.batches]


def every_image_sae(pattern):
    """`pattern` for every encoder and SAE of the imaging study."""
    return expand(pattern, encoder=ENCODERS, sae=IMAGE_SAES)


def image_source_files():
    """What the list of scans is read from: manifests, and the tables of data sets."""
    files = []
    for source in IMAGING.sources:
        if source.path.startswith(L.demo_scans("")):
            files.append(L.demo_scans("").rstrip("/"))
        elif not Path(source.path).exists():
            raise WorkflowError(
                f"{source.path} (imaging.sources) does not exist: correct the path."
            )
        elif source.format == "manifest":
            files.append(source.path)
        elif Path(source.path, "meta.csv").exists():
            files.append(f"{source.path}/meta.csv")
    return sorted(set(files))


def image_encoder(wildcards):
    """The folder of an image encoder as an input, where a rule makes it."""
    encoder = ENCODERS[wildcards.encoder]
    made_here = (
        encoder.source.endswith((".onnx", ".pth", ".pt")) or encoder.random_weights
    )
    return {"folder": L.prepared_encoder(encoder.name)} if made_here else {}


def control(encoder):
    """What kind of control an encoder is, and of which; nothing for one under study."""
    return {
        "control": ENCODERS[encoder].control,
        "control_of": ENCODERS[encoder].control_of,
    }


def image_encoder_settings(wildcards):
    """What the embeddings of the encoder at hand depend on."""
    encoder = ENCODERS[wildcards.encoder]
    settings = encoder.tracked(exclude={"name", "gpus", "random_weights", "control_of"})
    source = image_encoder(wildcards).get("folder", encoder.source)
    return settings | {"source": source}


def image_shards(wildcards):
    """The folder of the embeddings that the SAEs of an encoder read."""
    tokens = ENCODERS[wildcards.encoder].tokens
    name = "patches" if tokens == "patch" else "embeddings"
    return L.encoder(name).format(encoder=wildcards.encoder)


def image_sae_settings(wildcards):
    """What defines the weights of the SAE at hand, and nothing else."""
    return IMAGE_SAES[wildcards.sae].defining()


def image_checkpoints(wildcards):
    """Where a killed training job finds its checkpoints: never an output, so never wiped."""
    settings = [image_sae_settings(wildcards), IMAGING.saes.epochs, C.seed]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    place = L.image_sae(f"checkpoints/{digest.hexdigest()[:12]}")
    return place.format(**wildcards)
