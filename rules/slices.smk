# Volumes in: found, cut into slices, bad ones named; all slices in one index with splits.
localrules:
    fetch_demo_packages,
    make_demo_scans,
    find_scans,
    write_slice_metadata,


rule fetch_demo_packages:
    input:
        requirements=workflow.source_path("../requirements-scans.txt"),
    output:
        packages=directory(L.demo_packages()),
    log:
        L.image_log("fetch_demo_packages"),
    benchmark:
        L.image_benchmark("fetch_demo_packages")
    conda:
        "../envs/imaging.yaml"
    message:
        "Fetching the packages that hold the scans"
    script:
        "../workflow/scripts/fetch_demo_packages.py"


rule make_demo_scans:
    input:
        packages=rules.fetch_demo_packages.output.packages,
    output:
        scans=directory(L.demo_scans("").rstrip("/")),
    log:
        L.image_log("make_demo_scans"),
    benchmark:
        L.image_benchmark("make_demo_scans")
    conda:
        "../envs/imaging.yaml"
    message:
        "Unpacking the scans"
    script:
        "../workflow/scripts/make_demo_scans.py"


rule find_scans:
    input:
        image_source_files(),
    output:
        scans=L.image("slices/scans.json"),
    log:
        L.image_log("find_scans"),
    benchmark:
        L.image_benchmark("find_scans")
    conda:
        "../envs/imaging.yaml"
    params:
        sources=[source.model_dump() for source in IMAGING.sources],
    message:
        "Listing the scans"
    script:
        "../workflow/scripts/find_scans.py"


rule slice_scans:
    input:
        scans=rules.find_scans.output.scans,
    output:
        scans=L.image("slices/{batch}.parquet"),
    log:
        L.image_log("slice_scans", "batch"),
    benchmark:
        L.image_benchmark("slice_scans", "batch")
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=R.slicing_memory_mb,
    params:
        slicing=IMAGING.slicing.model_dump(),
        n_batches=IMAGING.batches,
    message:
        "Cutting the scans of {wildcards.batch} into slices"
    script:
        "../workflow/scripts/slice_scans.py"


rule join_slices:
    input:
        scans=batches(rules.slice_scans.output.scans),
    output:
        slices=L.image("slices.parquet"),
        scans=L.image("scans.parquet"),
        quarantine=L.image("quarantine.csv"),
        split_index=L.image("totalseg_split_index.csv"),
        summary=L.image("slices_summary.json"),
    log:
        L.image_log("join_slices"),
    benchmark:
        L.image_benchmark("join_slices")
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        splits=IMAGING.splits.model_dump(),
        seed=C.seed,
    message:
        "Joining the slices and dividing the scans into train, val and test"
    script:
        "../workflow/scripts/join_slices.py"


rule write_slice_metadata:
    input:
        slices=rules.join_slices.output.slices,
        scans=rules.join_slices.output.scans,
    output:
        metadata=L.image("metadata.csv"),
    log:
        L.image_log("write_slice_metadata"),
    benchmark:
        L.image_benchmark("write_slice_metadata")
    conda:
        "../envs/imaging.yaml"
    resources:
        mem_mb=R.table_memory_mb,
    params:
        png=IMAGING.slicing.png,
    message:
        "Writing what each slice shows, structure by structure"
    script:
        "../workflow/scripts/write_slice_metadata.py"


IMAGING_RESULTS += [*rules.join_slices.output, *rules.write_slice_metadata.output]
