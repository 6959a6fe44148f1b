"""An allow-list for SQL that comes from a page: one SELECT over the store's own tables, macros and plain functions.

A read-only transaction is not enough: it still reads files, settings and the environment. So the statement is parsed by
DuckDB itself, and every node of the tree must be known to be harmless; whatever is not listed here is refused. How long a
query runs and how much memory it takes is not judged: interrupt it, and set ``memory_limit``.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

import duckdb

from workbench.errors import SqlError
from workbench.store.query import failed
from workbench.store.schema import SCALAR_MACROS, TABLE_MACROS, TABLES, VIEWS

_REMEDY = "Send one SELECT over the tables and macros of the store."

_RELATIONS = frozenset(TABLES + VIEWS)
_TABLE_FUNCTIONS = frozenset(TABLE_MACROS) | {"range", "generate_series", "unnest", "json_each", "json_tree"}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EXPRESSIONS = _words(
    "BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION LAMBDA OPERATOR PARAMETER "
    "POSITIONAL_REFERENCE STAR SUBQUERY WINDOW"
)
_NODES = _words(
    "SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE "  # queries
    "BASE_TABLE EMPTY EXPRESSION_LIST JOIN PIVOT SHOW_REF SUBQUERY TABLE_FUNCTION "  # what stands in FROM
    "DISTINCT_MODIFIER LIMIT_MODIFIER LIMIT_PERCENT_MODIFIER ORDER_MODIFIER "
    "ORDER_DEFAULT ASCENDING DESCENDING"
)

_FUNCTIONS = frozenset(SCALAR_MACROS) | _words(
    # operators
    "! !~~ !~~* % & && * ** + - ->> -> / // <-> <=> <@ >> << @ @> ^ ^@ | || ~ ~~ ~~* ~~~ add subtract multiply divide mod "
    # aggregates
    "any_value approx_count_distinct approx_quantile approx_top_k arbitrary arg_max arg_min argmax argmin array_agg avg "
    "bit_and bit_or bit_xor bool_and bool_or corr count count_if count_star countif covar_pop covar_samp entropy favg first "
    "fsum geomean group_concat histogram kurtosis kurtosis_pop last list listagg mad max max_by mean median min min_by mode "
    "product quantile quantile_cont quantile_disc regr_intercept regr_r2 regr_slope sem skewness stddev stddev_pop "
    "stddev_samp string_agg sum var_pop var_samp variance wavg weighted_avg "
    # windows
    "cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense row_number "
    # numbers
    "abs acos asin atan atan2 cbrt ceil ceiling cos cot degrees even exp fdiv floor fmod gamma greatest isfinite isinf "
    "isnan least lgamma ln log log10 log2 nextafter pi pow power radians round round_even sign sin sqrt tan "
    "tanh sinh cosh trunc xor bit_count equi_width_bins random hash "
    # conditions
    "ifnull nullif coalesce typeof "
    # text
    "ascii bar chr concat concat_ws contains ends_with format instr lcase left len length lower ltrim md5 ord position "
    "prefix printf regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace "
    "regexp_split_to_array replace reverse right rtrim sha256 split split_part starts_with str_split string_split "
    "string_to_array strip_accents strlen strpos substr substring suffix translate trim ucase unicode upper hex unhex "
    "ilike_escape like_escape not_ilike_escape not_like_escape levenshtein jaccard hamming "
    # lists, structs and maps
    "aggregate apply array_aggregate array_concat array_contains array_distinct array_extract array_filter array_has "
    "array_has_all array_has_any array_indexof array_intersect array_length array_position array_slice array_sort "
    "array_to_string array_transform array_unique array_value cardinality element_at filter flatten generate_series "
    "list_aggregate list_any_value list_append list_apply list_avg list_cat list_concat list_contains list_count "
    "list_cosine_distance list_cosine_similarity list_distance list_distinct list_dot_product list_element list_entropy "
    "list_extract list_filter list_first list_grade_up list_has list_has_all list_has_any list_histogram list_indexof "
    "list_inner_product list_intersect list_last list_max list_mean list_median list_min list_mode list_pack list_position "
    "list_prepend list_product list_reduce list_reverse list_reverse_sort list_select list_slice list_sort list_stddev_pop "
    "list_stddev_samp list_string_agg list_sum list_transform list_unique list_value list_var_pop list_var_samp list_where "
    "list_zip map map_concat map_contains map_entries map_extract map_extract_value map_from_entries map_keys map_values "
    "range reduce row struct_concat struct_contains struct_extract struct_extract_at struct_insert struct_keys struct_pack "
    "struct_update struct_values unnest "
    # JSON values
    "json json_array json_array_length json_contains json_exists json_extract json_extract_path json_extract_path_text "
    "json_extract_string json_group_array json_group_object json_keys json_object json_pretty json_structure json_type "
    "json_valid json_value to_json from_json json_transform "
    # dates
    "age century current_timestamp date_add date_diff date_part date_sub date_trunc datediff datepart datetrunc day dayname "
    "dayofweek dayofyear epoch epoch_ms epoch_us hour last_day make_date make_time make_timestamp minute month monthname "
    "now quarter second strftime strptime time_bucket timezone to_days to_hours to_microseconds to_milliseconds to_minutes "
    "to_months to_seconds to_timestamp to_weeks to_years today week weekday year yearweek"
)


def check_select(cursor: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Return if ``sql`` is one SELECT that touches nothing but the store, else raise.

    Nothing is executed: parameters (``?``, ``$name``) are values and need no check. Run the query on the same cursor.

    Parameters
    ----------
    cursor
        A cursor of the store.
    sql
        Untrusted text.

    Raises
    ------
    SqlError
        The text does not parse, is not exactly one SELECT (``DESCRIBE`` and ``SUMMARIZE`` of one count as such), or uses a
        table, function or clause that is not on the list; the message names it.
    """
    try:
        statements = cursor.extract_statements(sql)
        kinds = [statement.type for statement in statements]
        if len(kinds) != 1 or kinds[0] != duckdb.StatementType.SELECT:
            _refuse(f"{len(kinds)} statements" if len(kinds) != 1 else f"a statement of type {kinds[0].name}")
        row = cursor.execute(
            "SELECT CAST(json_serialize_sql(?) AS VARCHAR), current_database()", [sql]
        ).fetchone()
        assert row is not None
        tree = json.loads(row[0])
        if tree["error"]:
            _refuse(f"a statement that is no plain SELECT ({tree['error_message']})")
        if len(tree["statements"]) != 1:
            _refuse(f"{len(tree['statements'])} statements")
        _Walk(str(row[1])).visit(tree["statements"][0], frozenset())
    except duckdb.Error as error:
        raise failed(error) from error
    except RecursionError:
        _refuse("a query nested too deeply")


def _refuse(what: str) -> NoReturn:
    raise SqlError(f"The query box does not run {what}.", _REMEDY)


class _Walk:
    """Visits every node of a serialised statement; ``scope`` holds the names of the CTEs visible there, in lower case."""

    def __init__(self, database: str) -> None:
        self._catalogs = {"", database.lower()}

    def visit(self, node: Any, scope: frozenset[str]) -> None:
        if isinstance(node, list):
            for child in node:
                self.visit(child, scope)
        elif isinstance(node, dict):
            self._check(node, scope)
            if "cte_map" in node:
                scope = self._ctes(node, scope)
            for key, child in node.items():
                if key == "function" and node.get("type") == "TABLE_FUNCTION":
                    self.visit(
                        child["children"], scope
                    )  # the function itself was checked as a table function
                elif key != "cte_map":
                    self.visit(child, scope)

    def _ctes(self, node: dict[str, Any], scope: frozenset[str]) -> frozenset[str]:
        for entry in node["cte_map"]["map"]:
            # A name counts from its own query on only if that is recursive; otherwise it still means an outer one.
            self.visit(entry["value"], scope)
            scope = scope | {entry["key"].lower()}
        if node["type"] == "RECURSIVE_CTE_NODE":
            scope = scope | {node["cte_name"].lower()}
        return scope

    def _check(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        kind = node.get("type")
        if "class" in node:
            if node["class"] not in _EXPRESSIONS:
                _refuse(f"an expression of kind {node['class']}")
            if node["class"] in ("FUNCTION", "WINDOW"):
                self._function(node, _FUNCTIONS, "function")
        elif isinstance(kind, str):
            if kind not in _NODES and not kind.endswith("_TYPE_INFO"):
                _refuse(f"a clause of kind {kind}")
            if kind == "BASE_TABLE":
                self._table(node, scope)
            elif kind == "TABLE_FUNCTION":
                self._function(node["function"], _TABLE_FUNCTIONS, "table function")
            elif kind == "SHOW_REF" and (
                node["show_type"] not in ("DESCRIBE", "SUMMARY") or node["query"] is None
            ):
                _refuse("SHOW")

    def _table(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        name = node["table_name"].lower()
        catalog, schema = node["catalog_name"].lower(), node["schema_name"].lower()
        if not catalog and not schema and name in scope:
            return
        # In `a.b` DuckDB takes a for a schema or a database, whichever there is.
        own = (catalog in self._catalogs and schema in ("", "main")) or (
            not catalog and schema in self._catalogs
        )
        if not own or name not in _RELATIONS:
            _refuse(
                f"a query of {'.'.join(part for part in (catalog, schema, node['table_name']) if part)!r}"
            )

    def _function(self, node: dict[str, Any], allowed: frozenset[str], what: str) -> None:
        name = node["function_name"].lower()
        if (
            name not in allowed
            or node["schema"] not in ("", "main")
            or node["catalog"].lower() not in self._catalogs
        ):
            _refuse(f"the {what} {name!r}")
