"""Real servers without set-up: PostgreSQL and Valkey from wheels, started on demand and shared by a data folder.

How the parts keep each other honest, all of it by locks that the kernel drops when a process dies, however it dies:

* every process that uses the servers holds ``users.lock`` shared; nobody holding it means nobody is left;
* one supervisor per data folder holds ``supervisor.lock``; whoever finds that lock free starts the next supervisor
  and hands the held lock over to it, so that there is never a moment for two;
* each server, and every process it forks, holds its own lock file; a free lock proves that nothing of an earlier
  server is left in the data folder, whatever its pid file says;
* the kernel ends the servers when their supervisor dies (parent death signal), so they never outlive everybody.

Sockets are in a folder that only their owner can enter, and nothing listens on TCP.
"""

from __future__ import annotations

from position_ledger.embedded.servers import EmbeddedServers

__all__ = ["EmbeddedServers"]
