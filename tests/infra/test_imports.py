"""Imports of much: nothing of it is looked at by a collection, and collections go on afterwards."""

import gc
import importlib.metadata

import pytest

from odradek.infra.runtime.imports import large_imports


def test_no_collection_looks_at_what_is_imported_and_later_ones_do_again():
    """Also where the import fails."""
    before = gc.get_freeze_count()
    with large_imports():
        assert not gc.isenabled()
        held = [[n] for n in range(10)]
    assert gc.isenabled()
    assert gc.get_freeze_count() > before
    assert all(not any(entry is seen for seen in gc.get_objects()) for entry in held)
    with pytest.raises(ImportError), large_imports():
        raise ImportError
    assert gc.isenabled()


def test_what_is_installed_is_looked_up_once(monkeypatch):
    """Within the block; behind it everybody reads again, also where an import failed."""
    calls = []
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: calls.append(1) or {"a": ["b"]}
    )
    with pytest.raises(ImportError), large_imports():
        assert {"a": ["b"]} == importlib.metadata.packages_distributions()
        assert {"a": ["b"]} == importlib.metadata.packages_distributions()
        raise ImportError
    assert 1 == len(calls)
    importlib.metadata.packages_distributions()
    assert 2 == len(calls)
