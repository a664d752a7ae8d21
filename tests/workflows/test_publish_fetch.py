"""A run is published as a folder, and fetched from a server on this machine; a server that lies is refused."""

from __future__ import annotations

import http.server
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from monai.apps import download_url

from medseg.bundle.package import SUMS, package
from medseg.data.content import content_hash
from medseg.errors import ConfigError, ModelError, ResourceError
from medseg.networks import create_network
from medseg.shipped import find_bundle
from medseg.weights import read_state_dict
from medseg.workflows.fetch import fetch
from medseg.workflows.publish import publish

NAME = "hnoseg_xs_brats23_mri_segmentation"


class Server(http.server.SimpleHTTPRequestHandler):
    """Answers ranges, which Python's own does not."""

    ranges: list[str] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        if wanted is None:
            super().do_GET()
            return
        self.ranges.append(wanted)
        content = Path(self.translate_path(self.path)).read_bytes()[int(wanted[6:-1]) :]
        self.send_response(206)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the address that it is served at."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shipped bundle with weights."""
    root = tmp_path_factory.mktemp("trained") / "first"
    shutil.copytree(find_bundle(NAME), root, ignore=shutil.ignore_patterns("models", "eval"))
    (root / "models").mkdir()
    network = create_network("hnoseg_xs", spatial_dims=3, in_channels=4, out_channels=4)
    torch.save(network.state_dict(), root / "models" / "model.pt")
    return root


def published(folder: Path, files: dict[str, str]) -> str:
    """A repository of these files, written by hand; the hash of its sums."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    lines = [f"{content_hash(folder / name)}  {name}\n" for name in files]
    (folder / SUMS).write_text("".join(lines))
    return content_hash(folder / SUMS)


def test_a_zip_is_fetched_and_unpacked(trained: Path, served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    package(trained, output=folder / "first.zip")
    made = fetch(f"{address}/first.zip", sha256=content_hash(folder / "first.zip"), output=tmp_path / "out", yes=True)
    assert made == tmp_path / "out" / "first" and (made / "models" / "model.pt").is_file()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first"]
    with pytest.raises(ConfigError, match="exists"):
        fetch(f"{address}/first.zip", sha256="0" * 64, output=tmp_path / "out", yes=True)


def test_a_repository_is_resumed_where_it_stopped(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    digest = published(folder / "mine", {"configs/train.yaml": "a: 1\n", "models/model.pt": "x" * 1000})
    begun = tmp_path / "out" / f".partial_mine_{digest[:8]}" / "models"
    begun.mkdir(parents=True)
    (begun / "model.pt.part").write_text("x" * 300)
    Server.ranges.clear()
    made = fetch(f"{address}/mine", sha256=digest, output=tmp_path / "out", yes=True)
    assert Server.ranges == ["bytes=300-"]
    assert (made / "models" / "model.pt").read_text() == "x" * 1000
    assert (made / "configs" / "train.yaml").is_file() and not list(made.rglob("*.part"))


def test_what_is_not_as_its_hash_says_is_refused(served: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = served
    digest = published(folder / "mine", {"a.txt": "good"})
    (folder / "mine" / "a.txt").write_text("evil")
    with pytest.raises(ModelError, match="damaged or another file"):
        fetch(f"{address}/mine", sha256=digest, output=tmp_path / "out", yes=True)
    (folder / "mine" / SUMS).write_text(f"{'0' * 64}  ../outside\n")
    with pytest.raises(ModelError, match="not a SHA-256 and a file"):
        fetch(f"{address}/mine", sha256=content_hash(folder / "mine" / SUMS), output=tmp_path / "b", yes=True)
    with pytest.raises(ResourceError, match="answers 404"):
        fetch(f"{address}/none.zip", sha256=digest, output=tmp_path / "out", yes=True)
    assert not (tmp_path / "out" / "mine").exists()


def test_nothing_is_asked_of_the_network_before_the_user_agrees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"sha256": "0" * 64, "output": tmp_path}
    with pytest.raises(ConfigError, match="say --yes"):
        fetch("http://127.0.0.1:9/a.zip", **given)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: "n")
    with pytest.raises(ConfigError, match="Nothing was downloaded"):
        fetch("owner/name", **given)
    for source in ("file:///etc/passwd", "a/b/c", "http://"):
        with pytest.raises(ConfigError, match="not valid"):
            fetch(source, yes=True, **given)
    with pytest.raises(ConfigError, match="64 digits"):
        fetch("owner/name", sha256="abc", output=tmp_path)
    with pytest.raises(ResourceError, match="by other means"):
        fetch("http://127.0.0.1:9/a.zip", yes=True, **given)
    assert not list(tmp_path.iterdir())


def test_a_published_run_states_what_it_is(trained: Path, served: tuple[Path, str], tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    folder, address = served
    digest = publish(trained, output=folder / "mine", source=f"{address}/mine")
    card = (folder / "mine" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "monai" and head["license"] == "other"
    for part in ("## Intended use", "| 0 | background |", "## Training data and licence", "@article{wong2025hnoseg"):
        assert part in card
    made = fetch(f"{address}/mine", sha256=digest, output=tmp_path / "out", yes=True)
    stored, ours = (
        safetensors.load_file(made / "models" / "model.safetensors"),
        read_state_dict(made / "models/model.pt"),
    )
    assert stored.keys() == ours.keys() and all(torch.equal(stored[key], ours[key]) for key in ours)
    assert json.loads((made / "configs" / "metadata.json").read_text())["name"]
    for large in yaml.safe_load((made / "large_files.yml").read_text())["large_files"]:  # as the model zoo gets them
        given = {key: large[key] for key in ("url", "hash_val", "hash_type")}
        download_url(**given, filepath=tmp_path / "zoo" / large["path"], progress=False)
    assert sorted(path.name for path in (tmp_path / "zoo" / "models").iterdir()) == ["model.pt", "model.safetensors"]
