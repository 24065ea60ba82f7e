"""What large sets of images cost: a table a kind of cost, against timm where it has the like.

    python benchmarks/large_data.py --table cache|encoding [--images 200000] [--classes 1000]
        [--side 256] [--work-dir DIR] [options of the table]
    python benchmarks/large_data.py --table cache --help

cache     Seconds to the first batch, without and with a cache; opening the cache; images/s from
          the second epoch, with the files in memory and with none of them there; peak memory.
          Ours against timm's ImageFolder and create_loader, the same JPEGs and transforms.
encoding  Bytes, time and error of JPEG and WebP at several qualities, on photographs, and how
          often a pretrained model answers otherwise.

JPEGs are written once into the work folder and used again. A table is a module of this folder,
`large_data_NAME`, with two functions: `add_arguments(parser)`, and `measure(arguments)`, which
prints its lines. Each measured side runs in a process of its own.
"""

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
TABLES = ("cache", "encoding")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=False
    )
    parser.add_argument("--table", choices=TABLES, required="-h" not in sys.argv[1:2])
    parser.add_argument("--images", type=int, default=200_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--side", type=int, default=256, help="shorter side of a JPEG in pixels")
    default = Path(tempfile.gettempdir(), f"large-data-{os.getuid()}")
    parser.add_argument("--work-dir", type=Path, default=default)
    parser.add_argument("-h", "--help", action="store_true")
    known, _ = parser.parse_known_args()
    if known.table is None:
        parser.print_help()
        return
    table = importlib.import_module(f"large_data_{known.table}")
    table.add_arguments(parser)
    if known.help:
        parser.print_help()
        return
    table.measure(parser.parse_args())


if __name__ == "__main__":
    main()
