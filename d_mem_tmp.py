import sys, tempfile, time, shutil
from pathlib import Path
from bench.arena import servers
from bench.booked.log import make_log
from bench.booked.table import BOOKED
from bench import archiving as b
from position_ledger.archive import open_archive
from position_ledger.projection import chunk_ledger
from position_ledger.projection.load_crew import load
from bench.booked.floor import TABLE
from contextlib import closing
import resource
def load_booked(arena, folder):
    settings=arena.settings.model_copy(update={"projections":"bench.booked"})
    h=open_archive(folder)
    with closing(arena.connect()) as c:
        c.execute("DROP SCHEMA IF EXISTS ours CASCADE"); c.execute("CREATE SCHEMA ours"); c.execute("SET search_path=ours, ledger, pg_catalog"); c.execute(TABLE)
        chunk_ledger.create(c,"ours",h.upto,64)
    t=time.perf_counter(); n=load(arena.database_url, settings, BOOKED, "ours", processes=2, history=h)
    return {"events": n.events, "s": time.perf_counter()-t, "mb": b._peak_mb(resource.RUSAGE_CHILDREN)}
if __name__=="__main__":
    for size in (60_000, 600_000):
        with servers() as s, s.arena() as arena:
            n=make_log(arena,size); folder=Path(tempfile.mkdtemp())/"a"
            print(n, "export", b._apart(b._export, arena, folder), flush=True)
            print("load", b._apart(load_booked, arena, folder), flush=True)
            shutil.rmtree(folder.parent)
