import tempfile, shutil
from pathlib import Path
from bench.arena import servers
from bench.booked.log import make_log
from bench import archiving as b
if __name__=="__main__":
    with servers() as s, s.arena() as arena:
        n=make_log(arena,1_200_000); folder=Path(tempfile.mkdtemp())/"a"
        print(n, "export", b._apart(b._export, arena, folder), flush=True)
        shutil.rmtree(folder.parent)
