"""The archive: the event log as Parquet files, so that a rebuild need not read the primary. Needs the extra «archive»."""

from position_ledger.archive.exporting import ExportReport, export
from position_ledger.archive.history import Archive, open_archive
from position_ledger.archive.verifying import ArchiveReport, compare_with_log, verify

__all__ = ["Archive", "ArchiveReport", "ExportReport", "compare_with_log", "export", "open_archive", "verify"]
