"""The process of one launched worker: `python -m rloop.engines.trl.member FOLDER`."""

import gc
import os
import socket
import sys
import traceback
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from rloop.config import Recipe
from rloop.engines.trl.channel import SocketChannel
from rloop.engines.trl.worker import serve


def main() -> None:
    """Work until the run is over; leave at once when it cannot go on.

    An interpreter that ends in the usual way waits for the other workers, which wait for it.
    """
    try:
        is_over = work(Path(sys.argv[1]))
    except BaseException:  # noqa: BLE001 - whatever it is, the others must learn of it
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    if not is_over:
        os._exit(1)


@record
def work(folder: Path) -> bool:
    """Return whether the run is over; the first worker meets rloop at the folder's socket."""
    gc.freeze()  # what was imported stays: a collection after each phase need not look at it
    recipe = Recipe.model_validate_json((folder / "recipe.json").read_text())
    if int(os.environ["RANK"]) > 0:
        return serve(recipe, None)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / "socket"))
        return serve(recipe, SocketChannel(connection))


if __name__ == "__main__":
    main()
