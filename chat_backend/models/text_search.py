"""Search in a column for what reads the same, on both databases."""

from __future__ import annotations

from functools import reduce
from typing import Any

from sqlalchemy import Boolean, SQLColumnExpression
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from chat_backend.domain.text import IGNORED, REPLACED

# The first PostgreSQL with `casefold` and a collation that knows all letters whatever the database's locale.
_CASEFOLD_SINCE = (18,)


class contains_folded(FunctionElement[bool]):
    """`contains_folded(column, term)`: true if the column holds the term, both compared as `domain.text.fold` does.

    The term is taken literally: it is no pattern. PostgreSQL folds by its own tables, the column and the term alike.
    Before version 18 it lowers letters outside ASCII only if `LC_CTYPE` of the database is a UTF-8 locale.
    """

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: SQLColumnExpression[Any], term: str) -> None:
        super().__init__(column, term)


@compiles(contains_folded, "sqlite")
def _in_sqlite(element: contains_folded, compiler: SQLCompiler, **options: Any) -> str:
    # The connection has `fold` (models/engine.py).
    column, term = (compiler.process(clause, **options) for clause in element.clauses)
    return f"instr(fold({column}), fold({term})) > 0"


@compiles(contains_folded, "postgresql")
def _in_postgresql(element: contains_folded, compiler: SQLCompiler, **options: Any) -> str:
    can_fold = (compiler.dialect.server_version_info or (0,)) >= _CASEFOLD_SINCE
    column, term = (_folded(compiler.process(clause, **options), can_fold) for clause in element.clauses)
    return f"strpos({column}, {term}) > 0"


def _folded(text: str, can_fold: bool) -> str:
    normal = f"normalize({text}, NFKC)"
    small = f'casefold({normal} COLLATE "pg_unicode_fast")' if can_fold else f"lower({normal})"
    replaced = reduce(
        lambda done, pair: f"replace({done}, '{pair[0]}', '{pair[1]}')", REPLACED, f"normalize({small}, NFKC)"
    )
    return f"translate({replaced}, '{IGNORED}', '')"
