"""What the command ``annfeed`` takes, its errors, and its exit status; each part is in a module of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Any

from annfeed._core import __version__
from annfeed.cli.show import show
from annfeed.display.text import printable
from annfeed.errors import AnnfeedWarning
from annfeed.inputs.patterns import files_of, is_one_file
from annfeed.inspection import Inspection, ManyInspections, inspect_file, inspect_files


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 0, or 1 after printing an error to stderr, or where a file of several cannot be read.

    Examples
    --------
    >>> main(["inspect", "/no/such/file.h5ad"])
    1
    """
    try:
        try:
            options = argument_parser().parse_args(arguments)
            with _warnings_told():
                return int(options.run(options) or 0)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe (| head). Without this Python would report it again at its end.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (OSError, ValueError, KeyError, MemoryError) as error:
        _tell(error)
        return 1


@contextlib.contextmanager
def _warnings_told() -> Iterator[None]:
    """Print this package's warnings as its errors, each once: there is no line of a user that they could point at."""
    with warnings.catch_warnings():
        usual, told = warnings.showwarning, set[str]()

        def show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if not issubclass(category, AnnfeedWarning):
                usual(message, category, *place, **more)
            elif str(message) not in told:
                told.add(str(message))
                _tell(message)

        warnings.showwarning = show_warning
        yield


def _tell(message: object) -> None:
    lines = f"annfeed: {message}".split("\n")
    print("\n".join(map(printable, lines)), file=sys.stderr)  # it may quote names of a hostile file


def argument_parser() -> argparse.ArgumentParser:
    """Return what reads the arguments."""
    parser = argparse.ArgumentParser(prog="annfeed", description="Minibatches from .h5ad files for PyTorch.")
    parser.add_argument("--version", action="version", version=f"annfeed {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    inspect = commands.add_parser(
        "inspect", help="print how a file is stored, the cost of each order, settings, and obs columns"
    )
    inspect.set_defaults(run=_inspect)
    bench = commands.add_parser("bench", help="measure cells per second from a file, in several orders")
    bench.set_defaults(run=_bench)
    for command in (inspect, bench):
        command.add_argument(
            "files",
            metavar="FILE",
            nargs="+",
            help='.h5ad or Cell Ranger .h5 files, patterns ("atlas/*.h5ad") or folders; read as one',
        )
        command.add_argument("--elem", default="X", help="place of the matrix (default: X)")
        command.add_argument("--window", type=int, default=6000, help="rows read together (default: 6000)")
    rewrite = commands.add_parser(
        "rewrite", help="write a file again in a form that reads faster; the source is not changed"
    )
    rewrite.set_defaults(run=_rewrite)
    rewrite.add_argument("source", metavar="IN", help="an .h5ad file, or a Cell Ranger .h5")
    rewrite.add_argument("target", metavar="OUT", help="the new file")
    rewrite.add_argument("--codec", default="zstd", help="zstd, bitshuffle, lz4, gzip or lzf (default: zstd)")
    rewrite.add_argument(
        "--rows", choices=("kept", "shuffled"), default="kept", help="shuffled: in a random order (default: kept)"
    )
    rewrite.add_argument("--seed", type=int, default=0, help="seed of the random order (default: 0)")
    rewrite.add_argument("--level", type=int, help="level of zstd (1 to 22, default: 3) or gzip (1 to 9, default: 4)")
    rewrite.add_argument("--chunk-rows", type=int, help="mean rows of a chunk (default: by the length of rows)")
    rewrite.add_argument("--genome", help="of a Cell Ranger 2 file with several genomes, which one")
    rewrite.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    rewrite.add_argument("--threads", type=int, help="threads that decode and compress (default: all cores)")
    doctor = commands.add_parser("doctor", help="print versions, limits, and how a file is read, for a report")
    doctor.set_defaults(run=_doctor)
    doctor.add_argument("file", metavar="FILE", nargs="?", help="an .h5ad file that is read wrongly or slowly")
    doctor.add_argument("--elem", default="X", help="place of the matrix (default: X)")
    for command in (inspect, doctor):
        command.add_argument("--json", action="store_true", help="print JSON")
    bench.add_argument("--batch-size", type=int, default=128, help="rows of a batch (default: 128)")
    bench.add_argument("--seconds", type=float, default=5.0, help="seconds for each order (default: 5)")
    bench.add_argument("--cache", default="0", help="memory for decoded rows: bytes, '4GiB' or 'auto' (default: 0)")
    bench.add_argument("--cold", action="store_true", help="drop the file from the page cache before each order")
    bench.add_argument("--io-depth", default="auto", help="reads in flight on slow storage, or 'auto' (default: auto)")
    kinds = ("dense", "csr", "tokens")
    bench.add_argument("--output", choices=kinds, default="dense", help="kind of batches (default: dense)")
    bench.add_argument("--plot", metavar="OUT.png", help="write the chart as a picture, too (needs matplotlib)")
    completion = commands.add_parser("completion", help="print a script that completes arguments in a shell")
    completion.set_defaults(run=_completion)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


def _inspect(options: argparse.Namespace) -> int:
    files = files_of(options.files)
    found: Inspection | ManyInspections
    # The form of the JSON is that of the arguments, however many files there are.
    if is_one_file(options.files) or (len(files) == 1 and not options.json):
        found = inspect_file(files[0], options.elem, options.window)
    else:
        found = inspect_files([(file, options.elem) for file in files], options.window, strict=False)
    show(found.report(), found.as_dict() if options.json else None)
    return 1 if isinstance(found, ManyInspections) and found.unreadable else 0


def _doctor(options: argparse.Namespace) -> None:
    from annfeed.cli.doctor import doctor  # torch and h5py come with it

    doctor(options)


def _completion(options: argparse.Namespace) -> None:
    script = files("annfeed.cli") / "completions" / f"annfeed.{options.shell}"
    print(script.read_text(encoding="utf-8"), end="")


def _bench(options: argparse.Namespace) -> None:
    from annfeed.cli.bench import bench  # torch comes with it

    bench(options)


def _rewrite(options: argparse.Namespace) -> None:
    from annfeed.rewriting.write import rewrite

    rewrite(
        options.source,
        options.target,
        codec=options.codec,
        rows=options.rows,
        seed=options.seed,
        level=options.level,
        chunk_rows=options.chunk_rows,
        genome=options.genome,
        overwrite=options.overwrite,
        threads=options.threads,
    )
    sizes = [os.path.getsize(path) for path in (options.source, options.target)]
    print(f"{options.target}: {sizes[1]:,} bytes, {sizes[1] / sizes[0]:.2f} of {options.source}; each row was compared")
