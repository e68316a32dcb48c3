"""Queries: SQL over topics, by DuckDB, without files and without a network.

`columns` derives the columns of an event type, and `tables` is the list of tables. `selection` says
which rows the filters take, and `statement` what a select names. These four are pure. `rows` makes
Arrow batches of records. `database` is DuckDB: it refuses what is no single select, holds rows in a
file of its own, and asks with all settings locked. `fill` reads the topics that a query names.
"""

from odradek.infra.app.queries.database import QueryAnswer, QueryDatabase
from odradek.infra.app.queries.fill import fill

__all__ = ["QueryAnswer", "QueryDatabase", "fill"]
