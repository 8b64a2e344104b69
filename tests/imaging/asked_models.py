"""Models to ask that are made on the spot: an endpoint in another process, a tiny Gemma 3."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = textwrap.dedent(
    """
    import json, re, sys
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        seen = []

        def do_GET(self):
            self.reply(401 if REFUSE else 200, self.seen)

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
            if '"ranking"' in text:
                answer = {"ranking": [2, 1, 3, 4, 5]}
            if '"features"' in text:
                # the first features of the catalogue, as many as are asked for
                n = int(re.search("Choose the ([0-9]+)", text)[1])
                answer = {"features": [int(f) for f in re.findall("^([0-9]+):", text, re.M)[:n]]}
            self.reply(200, {"choices": [{"message": {"content": json.dumps(answer)}}]})

        def reply(self, code, value):
            data = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments):
            pass

    REFUSE = len(sys.argv) > 1
    server = HTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()
    """
)


@contextmanager
def endpoint(refuse: bool = False) -> Iterator[str]:
    """The address of an OpenAI-compatible server; a GET tells what it was asked.

    With ``refuse`` it knows no key.
    """
    command = [sys.executable, "-c", SERVER, *(["refuse"] if refuse else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def write_tiny_gemma(folder: Path) -> Path:
    """A Gemma 3 of random weights with a processor made here, in ``folder``, which is returned."""
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
