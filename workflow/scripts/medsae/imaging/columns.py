"""Names that the tables of the imaging study share."""

SLICE_KEY = "slice_key"  # modality/image_id/plane/slice, unique
SCAN = "scan"  # modality-image_id
MODALITY = "modality"
IMAGE_ID = "image_id"
PLANE = "plane"
SLICE_INDEX = "slice_index"
PATIENT_ID = "patient_id"
INSTITUTE = "institute"
SEX = "sex"
AGE = "age"
STUDY_TYPE = "study_type"
ORGANS = "organs"  # structures with a mask voxel in the crop; null where the scan has no mask
SPLIT = "split"

STRUCTURES = "structures"  # of a scan: every structure that its masks could have shown
SOURCE = "source"
REASON = "reason"

OWN = {SLICE_KEY, SCAN, MODALITY, IMAGE_ID, PLANE, SLICE_INDEX, PATIENT_ID, INSTITUTE, SEX, AGE}
OWN |= {STUDY_TYPE, ORGANS, SPLIT, STRUCTURES, SOURCE, REASON, "n_slices", "spacing", "shape"}
OWN |= {"shown", "fingerprint"}
"""Columns that a study writes itself: a data set's column of such a name is kept as meta_<name>."""

MODALITIES = ("ct", "mr")
PLANES = ("sagittal", "coronal", "axial")  # perpendicular to axis 0, 1, 2 of a RAS volume
SPLITS = ("train", "val", "test")
"""Splits of the scans: SAEs learn from train, val chooses among them, test is for the results."""
CHOOSING, HELD_OUT = "val", "test"
