"""What an installation takes on the disk, by the packages that lie in this environment.

    python benchmarks/install_size.py [EXTRA ...]

Counts the files of avsc-e2e with these extras (lite0 where none is named) and of all that it asks for. The CPU wheels
of torch ask for neither NVIDIA's libraries nor triton, and their torch is smaller than the one here: the second sum is
an upper bound of theirs.
"""

import importlib.metadata as metadata
import os
import re
import sys

from packaging.requirements import Requirement

GPU = re.compile(r"nvidia|triton|cuda")


def closure(name: str, extras: set[str]) -> set[str]:
    """The installed distributions that a distribution asks for, with their own, as far as they are here."""
    found: set[str] = set()
    wanted = [(name, frozenset(extras))]
    seen = set(wanted)
    while wanted:
        one, of_extras = wanted.pop()
        try:
            requires = metadata.requires(one) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(re.sub(r"[-_.]+", "-", one).lower())
        for requirement in map(Requirement, requires):
            applies = [not requirement.marker or requirement.marker.evaluate({"extra": e}) for e in (*of_extras, "")]
            key = (requirement.name, frozenset(requirement.extras))
            if any(applies) and key not in seen:
                seen.add(key)
                wanted.append(key)
    return found


def size(name: str) -> int:
    """Bytes of the files of a distribution."""
    files = (str(file.locate()) for file in metadata.files(name) or [])
    return sum(os.path.getsize(file) for file in files if os.path.isfile(file))


def main() -> None:
    extras = set(sys.argv[1:]) or {"lite0"}
    sizes = {name: size(name) for name in closure("avsc-e2e", extras)}
    whole, gpu = sum(sizes.values()), sum(bytes_ for name, bytes_ in sizes.items() if GPU.match(name))
    print(f"avsc-e2e[{','.join(sorted(extras))}]: {len(sizes)} packages, {whole / 1e9:.1f} GB")
    print(f"without those of a GPU: {(whole - gpu) / 1e9:.1f} GB")
    for name in sorted(sizes, key=sizes.get, reverse=True)[:12]:
        print(f"{sizes[name] / 1e6:8.0f} MB  {name}")


if __name__ == "__main__":
    main()
