import base64
import json
import urllib.request
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from medsae.config.imaging_evaluation_section import AskedModel
from medsae.imaging.interpret.ask import (
    CachedModel,
    EndpointModel,
    TransformersModel,
    check_asked,
    data_url,
    is_loopback,
)
from medsae.io import UserError
from tests.imaging.asked_models import endpoint, write_tiny_gemma

IMAGES = [np.full((20, 20), 40 * i, np.uint8) for i in range(3)]


@pytest.fixture
def server():
    with endpoint() as address:
        yield address


@pytest.fixture(scope="module")
def tiny_gemma(tmp_path_factory):
    return write_tiny_gemma(tmp_path_factory.mktemp("gemma"))


def seen(server):
    with urllib.request.urlopen(server) as reply:
        return json.load(reply)


def test_an_endpoint_gets_the_images_and_the_prompt(server, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    model = EndpointModel(f"{server}/v1", "medgemma", 50, api_key_variable="SOME_KEY")
    answer = json.loads(model.ask("what is this?", IMAGES))
    assert answer["description"] == "1: what is this?"
    (request,) = seen(server)
    assert request["key"] == "Bearer secret"
    assert request["body"]["model"] == "medgemma" and request["body"]["temperature"] == 0
    content = request["body"]["messages"][0]["content"]
    urls = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
    for url, image in zip(urls, IMAGES, strict=True):
        pixels = Image.open(BytesIO(base64.b64decode(url.split(",")[1])))
        assert np.array_equal(np.asarray(pixels), image)


def test_a_rerun_asks_nothing_twice(server, tmp_path):
    path = tmp_path / "cache.json"
    for _ in range(2):
        model = CachedModel(EndpointModel(f"{server}/v1", "m", 50), path)
        first = model.ask("a", IMAGES, "v1")
        assert model.ask("a", IMAGES, "v1") == first
    assert model.n_asked == 0 and len(seen(server)) == 1
    # another prompt version, prompt, image or model is another question
    model.ask("a", IMAGES, "v2")
    model.ask("b", IMAGES, "v1")
    model.ask("a", IMAGES[:2], "v1")
    CachedModel(EndpointModel(f"{server}/v1", "n", 50), path).ask("a", IMAGES, "v1")
    assert len(seen(server)) == 5
    assert "data:image" not in path.read_text(encoding="utf-8")


def test_a_killed_run_keeps_the_answers_it_had(server, tmp_path):
    model = CachedModel(EndpointModel(f"{server}/v1", "m", 50), tmp_path / "cache.json")
    model.ask("a", IMAGES, "v1")
    del model
    again = CachedModel(EndpointModel(f"{server}/v1", "m", 50), tmp_path / "cache.json")
    again.ask("a", IMAGES, "v1")
    again.ask("b", IMAGES, "v1")
    assert again.n_asked == 1


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "http://10.0.0.3:8000/v1", "http://localhost.evil.org/v1"]
)
def test_images_leave_the_machine_only_by_opt_in(url):
    with pytest.raises(UserError, match="allow_remote"):
        EndpointModel(url, "m", 50)
    assert EndpointModel(url, "m", 50, allow_remote=True).identity.startswith("endpoint:")


def test_a_redirect_is_not_followed(server):
    with pytest.raises(UserError, match="answered 302"):
        EndpointModel(f"{server}/moved", "m", 50).ask("a", IMAGES)


def test_a_wrong_path_and_a_dead_server_are_named(server):
    with pytest.raises(UserError, match="answered 404"):
        EndpointModel(f"{server}/nothing", "m", 50).ask("a", IMAGES)
    with pytest.raises(UserError, match="check that it is running"):
        EndpointModel("http://127.0.0.1:9/v1", "m", 50).ask("a", IMAGES)
    with pytest.raises(UserError, match="no http or https address"):
        EndpointModel("file:///etc/passwd", "m", 50)


def test_loopback_is_decided_by_address_not_by_name():
    assert all(map(is_loopback, ("127.0.0.1", "127.3.2.1", "::1", "localhost")))
    assert not any(map(is_loopback, ("8.8.8.8", "localhost.org", "0.0.0.0", "myhost")))


def test_an_image_survives_its_data_url():
    image = np.random.default_rng(0).integers(0, 255, (7, 5), dtype=np.uint8)
    data = base64.b64decode(data_url(image).split(",")[1])
    assert np.array_equal(np.asarray(Image.open(BytesIO(data))), image)


def test_a_gemma_of_transformers_answers_about_images(tiny_gemma):
    model = TransformersModel(str(tiny_gemma), max_new_tokens=8, dtype="float32")
    answer = model.ask("what is this?", IMAGES)
    assert isinstance(answer, str) and answer == model.ask("what is this?", IMAGES)
    other = [np.random.default_rng(i).integers(0, 255, (20, 20), dtype=np.uint8) for i in range(3)]
    # what it says depends on the words and on the pixels
    assert model.ask("where is that?", IMAGES) != answer
    questions = [f"{word}?" for word in "abcdefgh"]
    assert [model.ask(q, IMAGES) for q in questions] != [model.ask(q, other) for q in questions]


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(UserError, match="image-text-to-text"):
        TransformersModel(str(tmp_path), 5)


def asked(**keys):
    return AskedModel(**keys).model_dump()


def test_a_model_that_can_be_asked_passes_before_anything_is_asked(server, tiny_gemma):
    check_asked(asked(endpoint=f"{server}/v1"))
    check_asked(asked(source=str(tiny_gemma)))
    assert seen(server) == []


def test_a_model_that_cannot_be_asked_is_named_before_the_first_job(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"nothing answers at the endpoint http://127.0.0.1:9/v1"):
        check_asked(asked(endpoint="http://127.0.0.1:9/v1"))
    with pytest.raises(UserError, match="allow_remote"):
        check_asked(asked(endpoint="https://models.example.org/v1"))
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UserError, match=r"NO_SUCH_KEY .* is not set"):
        check_asked(asked(endpoint="http://127.0.0.1:9/v1", api_key_variable="NO_SUCH_KEY"))
    with pytest.raises(UserError, match=r"no config\.json"):
        check_asked(asked(source=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "dinov2"}')
    with pytest.raises(UserError, match="answers no questions about images"):
        check_asked(asked(source=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "gemma3"}')
    with pytest.raises(UserError, match="has no processor"):
        check_asked(asked(source=str(tmp_path)))


def test_a_refused_key_is_told_before_the_first_job():
    with endpoint(refuse=True) as address, pytest.raises(UserError, match="answered 401"):
        check_asked(asked(endpoint=f"{address}/v1"))
