"""The archive: closed ranges of topics as Parquet, in a folder or an S3 store, and reading them.

`range` is the algebra of offset ranges (what is archived, missing, lost) and `names` are those of
objects: both are pure. `objects` turns records into the bytes of an object and back. A `store`
holds objects: `directory` in a folder, `s3` in a bucket. `writer` copies from the log to a store,
`follow` does so again and again, and `validation` reads a store through. `reader` finds records in
a store, and `lookup` lets them and the log appear as one.
"""

from odradek.infra.archive.lookup import archive_of, looking_back
from odradek.infra.archive.reader import Archive
from odradek.infra.archive.settings import ArchiveSettings

__all__ = ["Archive", "ArchiveSettings", "archive_of", "looking_back"]
