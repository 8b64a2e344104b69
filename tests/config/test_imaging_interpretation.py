import pytest
from pydantic import ValidationError

from medsae.config.imaging_evaluation_section import AskedModel, Interpretation
from medsae.imaging.interpret.run import model_of
from medsae.io import UserError


def test_nothing_is_asked_by_default():
    section = Interpretation()
    assert section.explainer is None and section.judge is None and section.picker is None


@pytest.mark.parametrize("keys", [{}, {"source": "a/b", "endpoint": "http://127.0.0.1:1/v1"}])
def test_an_asked_model_has_one_back_end(keys):
    with pytest.raises(ValidationError, match="either `source` or `endpoint`"):
        AskedModel(**keys)


def test_the_judge_is_not_the_model_that_wrote_the_descriptions():
    model = {"source": "google/medgemma-4b-it"}
    with pytest.raises(ValidationError, match="name another one"):
        Interpretation(explainer=model, judge=model)
    # the same weights with another length of answer are the same model
    with pytest.raises(ValidationError, match="name another one"):
        Interpretation(explainer=model, judge=model | {"max_new_tokens": 100})
    Interpretation(explainer=model, judge={"source": "google/medgemma-27b-it"})


def test_a_remote_endpoint_needs_the_opt_in_of_the_configuration(tmp_path):
    settings = {"endpoint": "https://models.example.org/v1", "model": "m"}
    with pytest.raises(UserError, match="allow_remote"):
        model_of(AskedModel(**settings).model_dump(), tmp_path / "c.json")
    permitted = AskedModel(**settings, allow_remote=True).model_dump()
    assert model_of(permitted, tmp_path / "c.json").n_asked == 0
