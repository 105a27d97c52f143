"""The queries of introspect.py.

Each takes ``%(schema)s`` and returns rows with a ``name`` and, where it belongs to a table or view, its ``relation``.
Column names are the field names of catalogue.py. Definitions are asked for in the pretty form: the plain one keeps the
parentheses of the nesting as it was parsed, and a restored dump is parsed another time (x BETWEEN 0 AND 1 AND y is another
tree then), so that the same table would not compare equal.
"""

from __future__ import annotations

from typing import Final


def _grants(acl: str, kind: str, owner: str) -> str:
    """Privileges as JSON, those of the defaults included; the owner under a name that is the same in every database."""
    return f"""
        (SELECT jsonb_agg(jsonb_build_object(
                    'grantee', CASE WHEN g.grantee = 0 THEN '<public>' WHEN g.grantee = {owner} THEN '<owner>'
                                    ELSE g.grantee::regrole::text END,
                    'privilege', g.privilege_type, 'grantable', g.is_grantable))
           FROM aclexplode(coalesce({acl}, acldefault('{kind}', {owner}))) g)
    """


def _of_extension(catalogue: str, oid: str) -> str:
    return f"""EXISTS (SELECT FROM pg_depend e WHERE e.classid = '{catalogue}'::regclass AND e.objid = {oid}
                       AND e.deptype = 'e')"""


RELATIONS: Final = f"""
    SELECT c.relname::text AS name, c.relkind::text AS kind, obj_description(c.oid, 'pg_class') AS comment,
           c.reloptions || (SELECT array_agg('toast.' || o) FROM pg_class t, unnest(t.reloptions) o
                            WHERE t.oid = c.reltoastrelid) AS options,
           c.relowner::regrole::text AS owner, {_grants("c.relacl", "r", "c.relowner")} AS grants,
           CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid, true) END AS definition,
           CASE WHEN c.relkind IN ('v', 'm') THEN
               (SELECT array_agg(DISTINCT u.relname::text ORDER BY u.relname::text)
                  FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
                  JOIN pg_class u ON d.refclassid = 'pg_class'::regclass AND u.oid = d.refobjid
                 WHERE w.ev_class = c.oid AND u.oid <> c.oid AND u.relnamespace = c.relnamespace) END AS reads,
           array_remove(ARRAY[
               CASE WHEN c.relkind = 'p' THEN 'partitioning' WHEN c.relkind = 'f' THEN 'a foreign server' END,
               CASE WHEN c.relpersistence <> 'p' THEN 'not being logged' END,
               CASE WHEN c.relrowsecurity OR c.relforcerowsecurity
                      OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) THEN 'row level security' END,
               CASE WHEN EXISTS (SELECT FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent))
                    THEN 'inheritance' END,
               CASE WHEN c.reloftype <> 0 THEN 'a composite type as its definition' END,
               CASE WHEN c.reltablespace <> 0 THEN 'a tablespace of its own' END,
               CASE WHEN a.amname <> 'heap' THEN 'access method ' || a.amname END,
               CASE WHEN c.relkind = 'r' AND c.relreplident <> 'd' THEN 'replica identity ' || c.relreplident::text END
           ], NULL) AS unsupported
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_am a ON a.oid = c.relam
     WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
       AND NOT {_of_extension("pg_class", "c.oid")}
     ORDER BY c.relname
"""

# Volatility: a default is stored as a node tree; the functions it calls stand in it as :funcid and :opfuncid, and the
# clock keywords (CURRENT_TIMESTAMP …) as SQLVALUEFUNCTION. The worst of them counts.
COLUMNS: Final = f"""
    SELECT c.relname::text AS relation, a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
           a.attnotnull AND NOT EXISTS (
               SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'n' AND NOT k.convalidated
                  AND k.conkey = ARRAY[a.attnum]) AS not_null,
           pg_get_expr(d.adbin, d.adrelid, true) AS default,
           CASE WHEN d.adbin IS NULL THEN ''
                ELSE coalesce((SELECT max(v) FROM (
                    SELECT p.provolatile::text FROM regexp_matches(d.adbin::text, ':(?:op)?funcid (\\d+)', 'g') m
                      JOIN pg_proc p ON p.oid = m[1]::oid
                    UNION ALL SELECT 's' WHERE d.adbin::text ~ 'SQLVALUEFUNCTION') f(v)), 'i')
           END AS default_volatility,
           a.attgenerated::text AS generated, a.attidentity::text AS identity,
           CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::regcollation::text END AS collation,
           CASE WHEN a.attstorage <> t.typstorage THEN a.attstorage::text END AS storage,
           a.attcompression::text AS compression, col_description(c.oid, a.attnum) AS comment,
           CASE WHEN a.attstattarget >= 0 THEN a.attstattarget::int END AS statistics_target, a.attoptions AS options,
           CASE WHEN a.attacl IS NOT NULL THEN {_grants("a.attacl", "c", "c.relowner")} END AS grants
      FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_type t ON t.oid = a.atttypid
      LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE n.nspname = %(schema)s AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'f', 'v', 'm')
     ORDER BY c.relname, a.attnum
"""

# PostgreSQL 18 keeps NOT NULL in pg_constraint, 15 does not: it is told by the column, unless it is NOT VALID.
CONSTRAINTS: Final = """
    SELECT c.relname::text AS relation, k.conname::text AS name, k.contype::text AS kind,
           pg_get_constraintdef(k.oid, true) AS definition, obj_description(k.oid, 'pg_constraint') AS comment
      FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %(schema)s AND (k.contype IN ('c', 'f', 'p', 'u', 'x')
        OR k.contype = 'n' AND NOT k.convalidated)
     ORDER BY c.relname, k.conname
"""

# The three-argument form leaves out the schema of the table, unlike the one-argument form.
INDEXES: Final = """
    SELECT c.relname::text AS relation, i.relname::text AS name, pg_get_indexdef(i.oid, 0, true) AS definition,
           EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.oid AND k.contype IN ('p', 'u', 'x')) AS constraint,
           x.indisvalid AND x.indisready AS valid,
           i.reloptions AS options, obj_description(i.oid, 'pg_class') AS comment,
           (SELECT jsonb_agg(jsonb_build_array(a.attnum, a.attstattarget) ORDER BY a.attnum) FROM pg_attribute a
             WHERE a.attrelid = i.oid AND a.attstattarget >= 0) AS statistics_targets
      FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class c ON c.oid = x.indrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %(schema)s
     ORDER BY c.relname, i.relname
"""

TRIGGERS: Final = """
    SELECT c.relname::text AS relation, t.tgname::text AS name, pg_get_triggerdef(t.oid, true) AS definition,
           t.tgenabled::text AS enabled, obj_description(t.oid, 'pg_trigger') AS comment
      FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %(schema)s AND NOT t.tgisinternal
     ORDER BY c.relname, t.tgname
"""

STATISTICS: Final = """
    SELECT c.relname::text AS relation, s.stxname::text AS name, quote_ident(n.nspname) AS quoted_schema,
           pg_get_statisticsobjdef(s.oid) AS definition
      FROM pg_statistic_ext s JOIN pg_class c ON c.oid = s.stxrelid JOIN pg_namespace n ON n.oid = s.stxnamespace
     WHERE n.nspname = %(schema)s AND c.relnamespace = n.oid
     ORDER BY c.relname, s.stxname
"""

RULES: Final = """
    SELECT c.relname::text AS relation, r.rulename::text AS name, pg_get_ruledef(r.oid, true) AS definition
      FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %(schema)s AND r.rulename <> '_RETURN'
     ORDER BY c.relname, r.rulename
"""

FUNCTIONS: Final = f"""
    SELECT format('%%I(%%s)', p.proname, pg_get_function_identity_arguments(p.oid)) AS name,
           p.proname::text AS relation, quote_ident(n.nspname) AS quoted_schema,
           CASE WHEN p.prokind = 'a'
                THEN (SELECT concat_ws(' ', 'AGGREGATE', g.aggtransfn::regproc, g.aggfinalfn::regproc,
                                       format_type(g.aggtranstype, NULL), g.agginitval)
                        FROM pg_aggregate g WHERE g.aggfnoid = p.oid)
                ELSE pg_get_functiondef(p.oid) END AS definition,
           obj_description(p.oid, 'pg_proc') AS comment, {_grants("p.proacl", "f", "p.proowner")} AS grants
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname = %(schema)s AND NOT {_of_extension("pg_proc", "p.oid")}
     ORDER BY 1
"""

SEQUENCES: Final = f"""
    SELECT c.relname::text AS name, concat_ws(' ', format_type(s.seqtypid, NULL), 'start', s.seqstart, 'increment',
               s.seqincrement, 'min', s.seqmin, 'max', s.seqmax, 'cache', s.seqcache, 'cycle', s.seqcycle)
               AS definition,
           o.relname || '.' || a.attname AS owned_by, o.relname::text AS relation,
           obj_description(c.oid, 'pg_class') AS comment, {_grants("c.relacl", "s", "c.relowner")} AS grants
      FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
      LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i')
                           AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
      LEFT JOIN pg_class o ON o.oid = d.refobjid
      LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE n.nspname = %(schema)s AND NOT {_of_extension("pg_class", "c.oid")}
     ORDER BY c.relname
"""

TYPES: Final = f"""
    SELECT t.typname::text AS name, obj_description(t.oid, 'pg_type') AS comment,
           {_grants("t.typacl", "T", "t.typowner")} AS grants,
           CASE t.typtype
               WHEN 'e' THEN 'enum ' || (SELECT string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
                                           FROM pg_enum e WHERE e.enumtypid = t.oid)
               WHEN 'd' THEN concat_ws(' ', 'domain', format_type(t.typbasetype, t.typtypmod),
                                       CASE WHEN t.typnotnull THEN 'not null' END, 'default ' || t.typdefault,
                                       'collate ' || nullif(t.typcollation, 0)::regcollation::text,
                                       (SELECT string_agg(k.conname || ' ' || pg_get_constraintdef(k.oid, true), ' '
                                                          ORDER BY k.conname)
                                          FROM pg_constraint k WHERE k.contypid = t.oid AND k.contype = 'c'))
               WHEN 'c' THEN 'composite ' || coalesce((
                   SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
                     FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped), '')
               ELSE 'range ' || (SELECT format_type(r.rngsubtype, NULL) FROM pg_range r WHERE r.rngtypid = t.oid)
           END AS definition
      FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN pg_class c ON c.oid = t.typrelid
     WHERE n.nspname = %(schema)s AND (t.typtype IN ('e', 'd', 'r') OR t.typtype = 'c' AND c.relkind = 'c')
       AND NOT {_of_extension("pg_type", "t.oid")}
     ORDER BY t.typname
"""

SCHEMA: Final = f"""
    SELECT n.nspname::text AS name, obj_description(n.oid, 'pg_namespace') AS comment,
           {_grants("n.nspacl", "n", "n.nspowner")} AS grants
      FROM pg_namespace n WHERE n.nspname = %(schema)s
"""

DEFAULT_GRANTS: Final = """
    SELECT format('%%s: %%s to %%s%%s', d.defaclobjtype, g.privilege_type,
                  CASE WHEN g.grantee = 0 THEN '<public>' WHEN g.grantee = d.defaclrole THEN '<owner>'
                       ELSE g.grantee::regrole::text END,
                  CASE WHEN g.is_grantable THEN ' with grant option' END) AS name
      FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace, aclexplode(d.defaclacl) g
     WHERE n.nspname = %(schema)s
     ORDER BY 1
"""

SURROUNDINGS: Final = """
    SELECT 'extension ' || e.extname || ' ' || e.extversion AS name FROM pg_extension e
    UNION ALL SELECT 'publication ' || pubname || ' of ' || coalesce((
        SELECT string_agg(r.prrelid::regclass::text, ', ' ORDER BY r.prrelid::regclass::text)
          FROM pg_publication_rel r WHERE r.prpubid = p.oid), 'nothing') FROM pg_publication p
    UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
    UNION ALL SELECT 'foreign server ' || srvname FROM pg_foreign_server
    UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_'
    UNION ALL SELECT 'relation ' || c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', %(schema)s)
    UNION ALL SELECT 'function ' || p.oid::regprocedure::text
                FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
               WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', %(schema)s)
    UNION ALL SELECT concat_ws(' ', 'role', rolname, CASE WHEN rolsuper THEN 'superuser' END,
                               CASE WHEN rolbypassrls THEN 'bypassrls' END, CASE WHEN rolcreaterole THEN 'createrole' END,
                               CASE WHEN rolcreatedb THEN 'createdb' END, CASE WHEN rolcanlogin THEN 'login' END,
                               array_to_string(rolconfig, ' '))
                FROM pg_roles WHERE rolname !~ '^pg_'
    UNION ALL SELECT 'member ' || m.member::regrole::text || ' of ' || m.roleid::regrole::text FROM pg_auth_members m
    ORDER BY 1
"""
