-- Migration: 010
-- Description: Views of a desk: open positions beside their markets, exposure, and every change of realized P&L
-- Date: 2026-11-22
-- Author: position-ledger maintainers
-- Related: src/position_ledger/reporting/, docs/how-to/position-manager.md
-- Summary: open_positions of migration 003 also shows the market as it is now. exposure sums what is open, never over
--   currencies or environments. realized_changes has a row for each version that realized money, with both of its times.
-- Rollback: Drops the new views and puts back open_positions as it was.

-- forward

DROP VIEW open_positions;
CREATE VIEW open_positions AS
SELECT p.id, p.position_id, p.row_effective_date, p.version, p.effective_at, p.execution_environment, p.account_id,
       p.market_id, p.platform_id, p.strategy_id, p.model_id, p.edge_id, p.currency, p.side, p.quantity,
       p.entry_price, p.average_entry_price, p.current_price, p.mark_time, p.mark_source, p.target_price,
       p.stop_loss_price, p.trailing_stop_state, p.exits_triggered, p.cost, p.realized_pnl, p.unrealized_pnl,
       p.unrealized_pnl_pct, p.entry_time, p.position_metadata, m.ticker, m.title AS market_title,
       m.status AS market_status, m.yes_price, m.no_price, m.yes_bid, m.yes_ask, m.no_bid, m.no_ask, m.last_price,
       m.quote_time, m.close_time
  FROM positions AS p
  LEFT JOIN markets AS m ON m.ticker = p.market_id AND m.execution_environment = p.execution_environment
                        AND m.row_current_ind
 WHERE p.row_current_ind AND p.status = 'open';
COMMENT ON VIEW open_positions IS 'What is held now, beside its market as it is now; what comes from the market is null where it is not registered.';

CREATE VIEW exposure AS
SELECT p.execution_environment, p.currency, p.account_id, p.market_id, p.strategy_id,
       count(*) AS positions,
       sum(p.cost) AS cost,
       sum(CASE p.side WHEN 'SHORT' THEN p.cost - p.unrealized_pnl ELSE p.cost + p.unrealized_pnl END) AS market_value,
       sum(CASE p.side WHEN 'SHORT' THEN p.unrealized_pnl - p.cost ELSE p.cost + p.unrealized_pnl END) AS net_value,
       sum(p.unrealized_pnl) AS unrealized_pnl,
       CASE WHEN bool_or(p.side = 'SHORT') THEN NULL ELSE sum(p.cost) END AS worst_case_loss,
       count(*) FILTER (WHERE p.side = 'SHORT') AS unbounded
  FROM positions AS p
 WHERE p.row_current_ind AND p.status = 'open'
 GROUP BY p.execution_environment, p.currency, p.account_id, p.market_id, p.strategy_id;
COMMENT ON VIEW exposure IS 'What is open: cost, value at the last marks and the most that it can lose (null: a SHORT has no bound). Sum it further, but never over currencies or environments.';

CREATE VIEW realized_changes AS
SELECT c.id, c.position_id, c.execution_environment, c.account_id, c.market_id, c.strategy_id, c.currency, c.status,
       c.recorded_at, c.effective_at, c.change
  FROM (SELECT p.id, p.position_id, p.execution_environment, p.account_id, p.market_id, p.strategy_id, p.currency,
               p.status, p.row_effective_date AS recorded_at, p.effective_at,
               p.realized_pnl - lag(p.realized_pnl, 1, 0::numeric)
                   OVER (PARTITION BY p.execution_environment, p.position_id ORDER BY p.version) AS change
          FROM positions AS p) AS c
 WHERE c.change <> 0;
COMMENT ON VIEW realized_changes IS 'Realized P&L, net of fees, as it was booked: a row for each version of a position that changed it. What a correction restated stands with the correction; position-ledger report pnl puts it on the days it is about.';

GRANT SELECT ON open_positions, exposure, realized_changes TO position_ledger_reader, position_ledger_projector;

-- verify

SELECT count(*) = 3 FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'v'
   AND relname IN ('open_positions', 'exposure', 'realized_changes');
SELECT count(*) = 3 FROM information_schema.columns WHERE table_schema = current_schema()
   AND table_name = 'open_positions' AND column_name IN ('ticker', 'yes_price', 'no_price');
SELECT count(*) = 3 FROM pg_class AS c WHERE c.relnamespace = current_schema()::regnamespace
   AND c.relname IN ('open_positions', 'exposure', 'realized_changes') AND obj_description(c.oid, 'pg_class') <> '';

-- rollback

DROP VIEW realized_changes;
DROP VIEW exposure;
DROP VIEW open_positions;
CREATE VIEW open_positions AS
SELECT p.id, p.position_id, p.row_effective_date, p.version, p.effective_at, p.execution_environment, p.account_id,
       p.market_id, p.platform_id, p.strategy_id, p.model_id, p.edge_id, p.currency, p.side, p.quantity,
       p.entry_price, p.average_entry_price, p.current_price, p.mark_time, p.target_price, p.stop_loss_price,
       p.trailing_stop_state, p.exits_triggered, p.cost, p.realized_pnl, p.unrealized_pnl, p.unrealized_pnl_pct, p.entry_time,
       p.position_metadata
  FROM positions AS p WHERE p.row_current_ind AND p.status = 'open';
COMMENT ON VIEW open_positions IS 'What is held now.';
GRANT SELECT ON open_positions TO position_ledger_reader, position_ledger_projector;
