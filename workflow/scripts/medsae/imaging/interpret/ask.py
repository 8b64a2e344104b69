"""Asking a model about images: one protocol, two back ends, and a cache in front of both.

Nothing leaves the machine unless the configuration names an endpoint elsewhere *and* opts in
(``allow_remote``): an endpoint on this machine needs no opt-in, any other is refused without.
"""

import base64
import hashlib
import ipaddress
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from medsae.io import UserError, write_json
from medsae.weights import resolve_source

Image = NDArray[np.uint8]

TIMEOUT_S = 600.0
CHECK_TIMEOUT_S = 20.0
REFUSED = (401, 403)
PROCESSORS = ("processor_config.json", "preprocessor_config.json")


class Model(Protocol):
    """Something that answers a prompt about images."""

    identity: str
    """Names the model and whatever else its answers depend on."""

    def ask(self, prompt: str, images: Sequence[Image]) -> str:
        """The answer to ``prompt`` about grayscale ``images`` uint8 [h, w]."""
        ...


class TransformersModel:
    """An image-text-to-text model from a hub id or a folder, greedy decoding."""

    def __init__(self, source: str, max_new_tokens: int, dtype: str = "bfloat16") -> None:
        import torch
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from medsae.device import best_device

        self.identity = f"transformers:{source}:{dtype}:{max_new_tokens}"
        self._max_new_tokens = max_new_tokens
        self._device = best_device()
        try:
            self._processor = AutoProcessor.from_pretrained(source)
            model = AutoModelForImageTextToText.from_pretrained(source, dtype=getattr(torch, dtype))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{source}: cannot be loaded as an image-text-to-text model with its processor "
                f"({type(error).__name__}); give a hub id or a folder that holds both."
            ) from None
        self._model: Any = model.eval()
        self._model.to(self._device)

    def ask(self, prompt: str, images: Sequence[Image]) -> str:
        """The answer to ``prompt``, the images before the text."""
        import torch
        from PIL import Image as Pillow

        content: list[dict[str, Any]] = [
            {"type": "image", "image": Pillow.fromarray(image).convert("RGB")} for image in images
        ]
        content.append({"type": "text", "text": prompt})
        inputs = self._processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        ).to(self._device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with torch.inference_mode():
            tokens = self._model.generate(
                **inputs, max_new_tokens=self._max_new_tokens, do_sample=False
            )
        answer = tokens[0, inputs["input_ids"].shape[1] :]
        return self._processor.decode(answer, skip_special_tokens=True)


class EndpointModel:
    """A chat endpoint that speaks OpenAI's ``/chat/completions``.

    ``url``: its base, as ``http://127.0.0.1:8000/v1``. ``api_key_variable``: the environment
    variable that holds the key, if it needs one. Raises ``UserError`` for a host that is not
    this machine unless ``allow_remote``.
    """

    def __init__(
        self,
        url: str,
        model: str,
        max_new_tokens: int,
        allow_remote: bool = False,
        api_key_variable: str | None = None,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UserError(f"the endpoint '{url}' is no http or https address; correct it.")
        if not allow_remote and not is_loopback(parts.hostname):
            raise UserError(
                f"the endpoint on '{parts.hostname}' is another machine and images would leave "
                "this one; set interpretation.allow_remote to true if that is permitted."
            )
        self.identity = f"endpoint:{url}:{model}:{max_new_tokens}"
        self._base = url.rstrip("/")
        self._url = f"{self._base}/chat/completions"
        self._body = {"model": model, "max_tokens": max_new_tokens, "temperature": 0}
        self._key_variable = api_key_variable
        # a proxy would be another machine, and a redirect could lead to one
        self._opener = urllib.request.build_opener(_NoRedirect)
        if is_loopback(parts.hostname):
            self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)

    def ask(self, prompt: str, images: Sequence[Image]) -> str:
        """The answer of the endpoint; raises ``UserError`` if it does not give one."""
        content: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(image)}} for image in images
        ]
        content.append({"type": "text", "text": prompt})
        body = self._body | {"messages": [{"role": "user", "content": content}]}
        request = urllib.request.Request(
            self._url, json.dumps(body).encode(), headers=self._headers(), method="POST"
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as reply:
                answer = json.load(reply)["choices"][0]["message"]["content"]
        except urllib.error.HTTPError as error:
            raise UserError(
                f"the endpoint {self._url} answered {error.code}; check its model and key."
            ) from None
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            raise UserError(
                f"the endpoint {self._url} gave no chat completion; check that it is running."
            ) from None
        return answer if isinstance(answer, str) else ""

    def check(self) -> None:
        """Raise ``UserError`` if nothing answers at the address, or not with this key."""
        request = urllib.request.Request(f"{self._base}/models", headers=self._headers())
        try:
            with self._opener.open(request, timeout=CHECK_TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            if error.code in REFUSED:
                raise UserError(
                    f"the endpoint {self._base} answered {error.code}; check its key."
                ) from None
            return  # it is there, and need not list its models
        except OSError:
            raise UserError(
                f"nothing answers at the endpoint {self._base}; start it, or correct the address."
            ) from None

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if self._key_variable:
            headers["Authorization"] = f"Bearer {os.environ.get(self._key_variable, '')}"
        return headers


def check_asked(settings: Mapping[str, Any]) -> None:
    """Raise ``UserError`` if the model that ``settings`` (an AskedModel's keys) name cannot answer.

    A model of transformers: its configuration is of an image-text-to-text model and its
    processor is there; weights are not read. An endpoint: permitted, its key set, and something
    answers at its address. Nothing is asked and no image is sent.
    """
    if settings["endpoint"] is None:
        _check_transformers(settings["source"])
        return
    key = settings["api_key_variable"]
    if key and not os.environ.get(key):
        raise UserError(f"the environment variable {key} (`api_key_variable`) is not set.")
    EndpointModel(
        settings["endpoint"],
        settings["model"],
        settings["max_new_tokens"],
        settings["allow_remote"],
        key,
    ).check()


def _check_transformers(source: str) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as ANSWERING,
    )

    found = resolve_source(source)
    if found.file("config.json") is None:
        raise UserError(f"{source} has no config.json: give a hub id or a folder with a model.")
    try:
        kind = AutoConfig.from_pretrained(found.name, **found.arguments).model_type
    except (ValueError, KeyError, OSError) as error:
        raise UserError(
            f"The configuration of {source} cannot be read ({type(error).__name__})."
        ) from None
    if kind not in ANSWERING:
        raise UserError(f"{source} ({kind}) answers no questions about images: name another model.")
    if all(found.file(name) is None for name in PROCESSORS):
        raise UserError(f"{source} has no processor ({' or '.join(PROCESSORS)}).")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **keywords: Any) -> None:
        return None


class CachedModel:
    """A model whose answers are kept in ``path`` (JSON), so that none is asked for twice.

    The key is a digest of the model's identity, the prompt's version, the prompt and the
    pixels. Every new answer is written before the next question.
    """

    def __init__(self, model: Model, path: str | Path) -> None:
        self.model = model
        self.identity = model.identity
        self.path = Path(path)
        self.n_asked = 0
        self.used: dict[str, dict[str, str]] = {}
        self._answers: dict[str, dict[str, str]] = {}
        if self.path.exists():
            self._answers = json.loads(self.path.read_text(encoding="utf-8"))

    def ask(self, prompt: str, images: Sequence[Image], version: str) -> str:
        """The kept answer, or the model's."""
        key = question_key(self.identity, version, prompt, images)
        if key not in self._answers:
            self.n_asked += 1
            answer = self.model.ask(prompt, images)
            self._answers[key] = {"model": self.identity, "prompt": version, "answer": answer}
            write_json(self.path, self._answers)
        self.used[key] = self._answers[key]
        return self._answers[key]["answer"]


def question_key(identity: str, version: str, prompt: str, images: Sequence[Image]) -> str:
    """SHA-256 of everything an answer depends on."""
    digest = hashlib.sha256("\0".join((identity, version, prompt)).encode())
    for image in images:
        digest.update(f"\0{image.shape}\0".encode() + np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine by its literal address, or is named localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def data_url(image: Image) -> str:
    """``image`` uint8 [h, w] as a PNG data URL."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def png(image: Image) -> bytes:
    """A grayscale PNG of ``image`` uint8 [h, w]."""
    from PIL import Image as Pillow

    out = BytesIO()
    Pillow.fromarray(image).save(out, format="PNG")
    return out.getvalue()
