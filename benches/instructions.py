"""Instructions per operation of the hot path's pieces, counted by valgrind's callgrind.

    instructions.py BINARY [TIMES]

BINARY is the `instructions` bench, which does one piece so many times. Each piece is run N and then 2N times; the
difference, divided by N, is what one operation costs, without start-up and making the inputs. What the loop itself
costs (the piece `nothing`) is taken off. The counts depend on compiler, libraries and processor family, not on how
busy the machine is, but for what grows on the way (a buffer, a table) or is done once in a while.

It gates nothing: it prints a table.
"""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

TIMES = 20_000


def run(binary: str, piece: str, times: int) -> int:
    """All instructions of one run."""
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory) / "callgrind"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", binary, piece, str(times)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{piece}: {done.stderr.strip()[-2000:]}")
        # Its last part has the sum of all events, of which instructions are the only one asked for.
        found = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.MULTILINE)
        if not found:
            sys.exit(f"{piece}: callgrind gave no sum")
        return int(found.group(1))


def each(binary: str, piece: str, times: int) -> float:
    return (run(binary, piece, 2 * times) - run(binary, piece, times)) / times


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    if shutil.which("valgrind") is None:
        sys.exit("No valgrind on this machine (Debian: apt-get install valgrind).")
    binary, times = sys.argv[1], int(sys.argv[2]) if len(sys.argv) == 3 else TIMES
    pieces = subprocess.run([binary], capture_output=True, text=True, check=True).stdout.split()
    pieces.remove("nothing")
    loop = each(binary, "nothing", times)
    width = max(map(len, pieces))
    print(f"{'piece':{width}}  instructions")
    for piece in pieces:
        print(f"{piece:{width}}  {each(binary, piece, times) - loop:12.0f}", flush=True)


if __name__ == "__main__":
    main()
