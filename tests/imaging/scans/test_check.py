"""Sources and encoders are refused before the first job, in one sentence."""

import pytest
from transformers import Dinov2Config, Dinov2Model

from medsae.imaging.check import check_imaging
from medsae.io import UserError


@pytest.fixture
def manifest(tmp_path):
    def written(row="a,ct,a.nii,m.nii,labels.csv", labels="value,name\n1,liver\n"):
        (tmp_path / "labels.csv").write_text(labels)
        (tmp_path / "m.csv").write_text(f"image_id,modality,volume,masks,labels\n{row}\n")
        return [{"format": "manifest", "path": str(tmp_path / "m.csv"), "modality": None}]

    return written


def encoder(source, layer=None, pooling="mean"):
    return [{"name": "e", "source": source, "layer": layer, "pooling": pooling}]


def test_good_input_passes(manifest, tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**small)).save_pretrained(tmp_path / "model")
    check_imaging(manifest(), encoder(str(tmp_path / "model"), 1) + encoder("pixels"))
    with pytest.raises(UserError, match=r"encoders: e: .*2 blocks, 0 to 1"):
        check_imaging(manifest(), encoder(str(tmp_path / "model"), 2))


def test_bad_input_is_refused(manifest):
    with pytest.raises(UserError, match="modality must be ct or mr"):
        check_imaging(manifest("a,us,a.nii,,"), [])
    with pytest.raises(UserError, match=r"labels.csv: needs the columns"):
        check_imaging(manifest(labels="1,liver\n2,heart\n"), [])
    with pytest.raises(UserError, match=r"encoders: e: .*no Python package 'nothing'"):
        check_imaging(manifest(), encoder("package:nothing/weights.onnx"))
    with pytest.raises(UserError, match=r"encoders: e: .*does not exist"):
        check_imaging(manifest(), encoder("./weights.pth"))
