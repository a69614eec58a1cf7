"""Unpacks what matches a pattern from every wheel in a folder: unzip.py WHEELS DESTINATION PATTERN..."""

import fnmatch
import pathlib
import sys
import zipfile

wheels, destination, *keep = sys.argv[1:]
for wheel in sorted(pathlib.Path(wheels).glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if any(fnmatch.fnmatchcase(name, pattern) for pattern in keep)]
        archive.extractall(destination, names)
