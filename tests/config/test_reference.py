"""The reference page is the schema's, word for word."""

from pathlib import Path

from pydantic import BaseModel

from medsae.config.reference import reference_page
from medsae.config.schema import Config

PAGE = Path(__file__).parents[2] / "config" / "README.md"


def test_the_committed_page_is_the_generated_one():
    assert PAGE.read_text(encoding="utf-8") == reference_page(), "run `make config-reference`"


def test_every_key_has_a_description():
    def keys(model: type[BaseModel]):
        for name, field in model.model_fields.items():
            yield model.__name__, name, field.description

    assert all(description for _, _, description in keys(Config))
    assert "`dead_after_tokens`" in reference_page()
    assert "`saes[]`" in reference_page()
