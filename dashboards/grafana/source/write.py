"""Writes the dashboards' JSON beside this folder: `python write.py DIR`. Needs grafana-foundation-sdk, as the test that calls it says."""

import json
import pathlib
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder

import learning
import operations

target = pathlib.Path(sys.argv[1])
for make in learning.ALL_PAGES + operations.ALL_PAGES:
    page = make()
    (target / f"{page.uid}.json").write_text(json.dumps(page, cls=JSONEncoder, indent=1, sort_keys=True) + "\n")
