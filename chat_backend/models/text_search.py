"""Search in a column for what reads the same, on both databases."""

from __future__ import annotations

from functools import reduce
from typing import Any

from sqlalchemy import Boolean, SQLColumnExpression
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from chat_backend.domain.text import IGNORED, REPLACED


class reads(FunctionElement[bool]):
    """`reads(column, term)`: true if the column holds the term, both compared as `domain.text.fold` does.

    The term is taken literally: it is no pattern. PostgreSQL folds by its own tables, for the column and the term
    alike; letters outside ASCII need a database whose `LC_CTYPE` is a UTF-8 locale.
    """

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: SQLColumnExpression[Any], term: str) -> None:
        super().__init__(column, term)


@compiles(reads, "sqlite")
def _in_sqlite(element: reads, compiler: SQLCompiler, **options: Any) -> str:
    # The connection has `fold` (models/engine.py).
    column, term = (compiler.process(clause, **options) for clause in element.clauses)
    return f"instr(fold({column}), fold({term})) > 0"


@compiles(reads, "postgresql")
def _in_postgresql(element: reads, compiler: SQLCompiler, **options: Any) -> str:
    column, term = (_folded(compiler.process(clause, **options)) for clause in element.clauses)
    return f"strpos({column}, {term}) > 0"


def _folded(text: str) -> str:
    lowered = f"normalize(lower(normalize({text}, NFKC)), NFKC)"
    replaced = reduce(lambda done, pair: f"replace({done}, '{pair[0]}', '{pair[1]}')", REPLACED, lowered)
    return f"translate({replaced}, '{IGNORED}', '')"
