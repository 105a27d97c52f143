"""The floor of a load: the table of `booked`, the best INSERT … SELECT that we could write for it, and its indexes."""

from __future__ import annotations

TABLE = """
CREATE TABLE booked (
    id                    bigint         NOT NULL,
    position_id           text           NOT NULL,
    row_current_ind       boolean        NOT NULL,
    row_effective_date    timestamptz    NOT NULL,
    row_expiration_date   timestamptz,
    version               integer        NOT NULL,
    effective_at          timestamptz    NOT NULL,
    execution_environment text           NOT NULL,
    account_id            text           NOT NULL,
    market_id             text           NOT NULL,
    currency              text           NOT NULL,
    side                  text           NOT NULL,
    action                text           NOT NULL,
    fill_quantity         numeric(38,18) NOT NULL,
    fill_price            numeric(38,18) NOT NULL,
    fill_amount           numeric(38,18) NOT NULL,
    fill_fee              numeric(38,18) NOT NULL,
    liquidity             text           NOT NULL,
    quantity              numeric(38,18) NOT NULL,
    entry_quantity        numeric(38,18) NOT NULL,
    peak_quantity         numeric(38,18) NOT NULL,
    entry_amount          numeric(38,18) NOT NULL,
    cost                  numeric(38,18) NOT NULL,
    open_fees             numeric(38,18) NOT NULL,
    entry_price           numeric(38,18) NOT NULL,
    average_entry_price   numeric(38,18) NOT NULL,
    current_price         numeric(38,18) NOT NULL,
    realized_pnl          numeric(38,18) NOT NULL,
    unrealized_pnl        numeric(38,18) NOT NULL,
    unrealized_pnl_pct    numeric(38,18) NOT NULL
) WITH (autovacuum_enabled = off)
"""

INDEXES = (
    "CREATE UNIQUE INDEX booked_pkey ON booked (id)",
    "CREATE UNIQUE INDEX booked_one_row_a_version ON booked (position_id, version)",
    "CREATE UNIQUE INDEX booked_one_current_row ON booked (position_id) WHERE row_current_ind",
    "CREATE INDEX booked_known_at ON booked (position_id, row_effective_date)",
)
"""Those of `positions` whatever a position does: key, versions, current row, what was known at a time."""

# OFFSET 0 keeps the planner from parsing a body once for each column. The window runs over the rows as they come from
# the primary key of the log, or from a sort, as the planner likes.
INSERT = """
INSERT INTO booked
SELECT b.seq, 'POS-' || b.opened, b.next_at IS NULL, b.recorded_at, b.next_at, b.version, b.effective_at,
       b.holder->>'environment', b.holder->>'account', b.holder->>'market', b.holder->>'currency', b.holder->>'side',
       b.fill->>'action', (b.fill->>'quantity')::numeric, (b.fill->>'price')::numeric, (b.fill->>'amount')::numeric,
       (b.fill->>'fee')::numeric, b.fill->>'liquidity',
       (b.figures->>'quantity')::numeric, (b.figures->>'entry_quantity')::numeric,
       (b.figures->>'peak_quantity')::numeric, (b.figures->>'entry_amount')::numeric, (b.figures->>'cost')::numeric,
       (b.figures->>'open_fees')::numeric, (b.figures->>'entry_price')::numeric,
       (b.figures->>'average_entry_price')::numeric, (b.figures->>'current_price')::numeric,
       (b.figures->>'realized_pnl')::numeric, (b.figures->>'unrealized_pnl')::numeric,
       (b.figures->>'unrealized_pnl_pct')::numeric
  FROM (SELECT p.seq, p.opened, p.next_at, p.recorded_at, p.version, p.effective_at,
               CASE WHEN p.version = 1 THEN p.body ELSE p.body->'holder' END AS holder, p.body->'fill' AS fill,
               p.body->'figures' AS figures
          FROM (SELECT e.notification_id AS seq, e.recorded_at, e.effective_at, row_number() OVER w AS version,
                       first_value(e.notification_id) OVER w AS opened, lead(e.recorded_at) OVER w AS next_at,
                       convert_from(e.state, 'UTF8')::jsonb AS body
                  FROM events AS e
                 WHERE e.topic IN ('position.opened', 'position.increased', 'position.reduced')
                   AND e.notification_id <= %(upto)s
                WINDOW w AS (PARTITION BY e.originator_id ORDER BY e.originator_version)
                OFFSET 0) AS p
        OFFSET 0) AS b
"""

DIGEST = "SELECT count(*), coalesce(bit_xor(hash_record_extended(b, 0)), 0) FROM booked AS b"
