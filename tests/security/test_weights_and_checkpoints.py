"""Weights and checkpoints are loaded only whole, known and from where they may be (S10)."""

import json
import os
import stat

import pytest

from odradek.schemas.events import Policy
from odradek.trainer.commit import checkpoint, durable_files
from odradek.trainer.commit.tensor_files import WEIGHTS
from odradek.trainer.engine.policies import folder_of
from odradek.trainer.errors import BrokenCheckpoint, UnsupportedRequest

pytestmark = pytest.mark.torch


@pytest.fixture
def folder(tmp_path):
    """A whole checkpoint of one file."""
    root = tmp_path / "out"
    checkpoint.write(root, 1, {"a": [b"a"]}, keep=2, position={})
    return root / "checkpoint-1"


def test_a_manifest_that_does_not_match_is_refused(folder):
    """Other bytes, another size, a file that is gone, no manifest: each by name."""
    checkpoint.verify(folder)
    for text in ("b", "aa"):
        (folder / "a").write_text(text)
        with pytest.raises(BrokenCheckpoint):
            checkpoint.verify(folder)
    (folder / "a").unlink()
    with pytest.raises(BrokenCheckpoint):
        checkpoint.verify(folder)
    (folder / checkpoint.MANIFEST).write_text("{")
    with pytest.raises(BrokenCheckpoint, match="no readable manifest"):
        checkpoint.verify(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", "./a", ""])
def test_a_manifest_names_no_file_outside_its_folder(folder, name):
    """The MLflow series: a path of a model source that leads out of its root."""
    (folder.parent / "secret").write_text("s")
    told = json.loads((folder / checkpoint.MANIFEST).read_text())
    told["files"][name] = {"bytes": 1, "sha256": durable_files.sha256_of(folder.parent / "secret")}
    (folder / checkpoint.MANIFEST).write_text(json.dumps(told))
    with pytest.raises(BrokenCheckpoint, match="no file of it"):
        checkpoint.verify(folder)


def test_a_link_in_a_checkpoint_is_refused(folder):
    """It would be held against the sum once, and point elsewhere when it is loaded."""
    (folder.parent / "elsewhere").write_text("a")
    (folder / "a").unlink()
    (folder / "a").symlink_to(folder.parent / "elsewhere")
    with pytest.raises(BrokenCheckpoint):
        checkpoint.verify(folder)


@pytest.mark.parametrize("shared", ["root", "folder"])
def test_a_checkpoint_that_everybody_may_change_is_not_taken(folder, shared):
    """CVE-2026-4137: sums prove nothing where manifest and files can both be changed."""
    told = []
    assert folder == checkpoint.newest(folder.parent, warn=told.append)
    where = folder if shared == "folder" else folder.parent
    where.chmod(where.stat().st_mode | stat.S_IWOTH)
    assert None is checkpoint.newest(folder.parent, warn=told.append)
    assert "chmod o-w" in told[0]


def test_folders_of_ours_are_never_for_everybody_to_write(tmp_path):
    """Whatever the umask of who starts the trainer."""
    before = os.umask(0)
    try:
        root = tmp_path / "out"
        checkpoint.write(root, 1, {"a": [b"a"]}, keep=2, position={})
    finally:
        os.umask(before)
    assert [False, False] == [
        bool(where.stat().st_mode & stat.S_IWOTH) for where in (root, root / "checkpoint-1")
    ]


@pytest.fixture
def weights(tmp_path):
    """A folder of weights and their digest."""
    folder = tmp_path / "v1"
    folder.mkdir()
    file = folder / WEIGHTS
    file.write_bytes(b"weights")
    return folder, durable_files.sha256_of(file)


@pytest.mark.parametrize(
    "uri",
    [
        "file://{root}/v1/../v1",
        "file://{root}/x/%2e%2e/v1",
        "file://elsewhere{root}/v1",
        "file://{root}/v1%00",
        "file://{root}/v1?x=/etc",
        "file://{root}/v1#/etc",
        "http://127.0.0.1{root}/v1",
        "s3://bucket{root}/v1",
        "{relative}",
        "",
    ],
)
def test_a_policys_uri_is_a_plain_folder_or_refused(weights, uri, tmp_path, monkeypatch):
    """The MLflow series: traversal, hosts, queries and fragments in model sources."""
    folder, digest = weights
    monkeypatch.chdir(tmp_path)
    asked = uri.format(root=tmp_path, relative="v1")
    with pytest.raises(UnsupportedRequest):
        folder_of(Policy(name="p", version=1, uri=asked, digest=digest))
    assert folder == folder_of(Policy(name="p", version=1, uri=folder.as_uri(), digest=digest))


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_weights_without_their_digest_are_not_loaded(weights, digest):
    """A policy that does not say what it is could be anything."""
    folder, _ = weights
    with pytest.raises(UnsupportedRequest, match="digest"):
        folder_of(Policy(name="p", version=1, uri=folder.as_uri(), digest=digest))
