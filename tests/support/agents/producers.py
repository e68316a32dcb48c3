"""Keys of producers for tests."""

import msgspec

from odradek.agents.trust import keys


def written(folder, name, *principals, samples=False, public="public"):
    """A producer's key in files, as `odradek keys new` leaves it; the private one's path."""
    key = keys.new_key(name, (name, *principals), samples=samples)
    (folder / public).mkdir(exist_ok=True)
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(key))
    (folder / public / f"{name}.json").write_bytes(msgspec.json.encode(key.public()))
    return folder / f"{name}.json"
