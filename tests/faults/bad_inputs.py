"""A corpus of bad and odd inputs, each with the sentence and the exit status that it must end in.

``python tests/faults/bad_inputs.py FOLDER`` writes each case as a dataset of its own into FOLDER (for other tools to
try) and prints the table of cases. `test_bad_inputs` runs them all.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bad_case import World
from bad_datasets import DATASETS, FILES
from bad_images import IMAGES
from bad_outputs import GROUP, PLACES

CASES = (*IMAGES, *FILES, *DATASETS, *PLACES, *GROUP)


def main() -> None:
    """Write the cases and print their table."""
    folder = Path(sys.argv[1])
    print("case\tlevel\texit status\tsays")
    for number, case in enumerate(CASES):
        if not case.earlier:  # the others spoil what an earlier run wrote
            world = World(folder / f"{number:03d}")
            world.root.mkdir(parents=True)
            case.build(world.make())
        print(f"{case.name}\t{case.level}\t{case.status}\t{case.says or '(nothing: it is done as usual)'}")
    print(f"{len(CASES)} cases")


if __name__ == "__main__":
    main()
