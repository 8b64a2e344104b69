import base64
import json
import subprocess
import sys
import textwrap
import urllib.request
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from medsae.imaging.interpret.ask import (
    CachedModel,
    EndpointModel,
    TransformersModel,
    data_url,
    is_loopback,
)
from medsae.io import UserError

IMAGES = [np.full((20, 20), 40 * i, np.uint8) for i in range(3)]

SERVER = textwrap.dedent(
    """
    import json, sys
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        seen = []

        def do_GET(self):
            self.reply(200, self.seen)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path == "/moved/chat/completions":
                self.send_response(302)
                self.send_header("Location", "http://192.0.2.1/")
                self.end_headers()
                return
            if self.path != "/v1/chat/completions":
                return self.reply(404, {})
            self.seen.append({"body": body, "key": self.headers.get("Authorization")})
            text = [part["text"] for part in body["messages"][0]["content"] if "text" in part][0]
            answer = {"concept": "x", "description": f"{len(self.seen)}: {text}"}
            self.reply(200, {"choices": [{"message": {"content": json.dumps(answer)}}]})

        def reply(self, code, value):
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
    """
)


@pytest.fixture
def server():
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


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


@pytest.fixture(scope="module")
def tiny_gemma(tmp_path_factory):
    """A Gemma 3 of random weights, with a processor made here."""
    import torch
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessor,
        Gemma3Processor,
        Gemma3TextConfig,
        PreTrainedTokenizerFast,
        SiglipVisionConfig,
    )

    folder = tmp_path_factory.mktemp("gemma")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_image>", "<end_of_image>"]
    special += ["<image_soft_token>", "<start_of_turn>", "<end_of_turn>"]
    words = [*special, *"abcdefghijklmnopqrstuvwxyz?!.,:;0123456789{}[]\"'\n "]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>",
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )  # fmt: skip
    template = (
        "{{ bos_token }}{% for message in messages %}<start_of_turn>{% for part in "
        "message['content'] %}{% if part['type'] == 'image' %}<start_of_image>{% else %}"
        "{{ part['text'] }}{% endif %}{% endfor %}<end_of_turn>{% endfor %}"
    )
    images = Gemma3ImageProcessor(size={"height": 28, "width": 28})
    Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4).save_pretrained(
        folder
    )
    torch.manual_seed(0)
    text = Gemma3TextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, initializer_range=0.5,
        pad_token_id=0, eos_token_id=1, bos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        image_size=28, patch_size=7, initializer_range=0.5,
    )  # fmt: skip
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4,
        boi_token_index=4, eoi_token_index=5, image_token_index=6, tie_word_embeddings=False,
    )  # fmt: skip
    model = Gemma3ForConditionalGeneration(config)
    # the weights it begins with are so small that it would hardly look at the images
    for weight in model.parameters():
        weight.data.normal_(std=0.5)
    model.save_pretrained(folder)
    return folder


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
