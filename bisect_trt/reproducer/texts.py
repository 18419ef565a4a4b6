"""All that is text in the folder of a reproducer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import bisect_trt
from bisect_trt.environment import Environment, describe
from bisect_trt.reproducer import attach, documents, issue, script, tool_inputs
from bisect_trt.reproducer.files import ISSUE, LOG, REPORT, SCRIPT, draft
from bisect_trt.result import Reduction


def write_papers(
    reduction: Reduction,
    environment: Environment | None = None,
    pages: Mapping[str, str] = MappingProxyType({}),
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Write all that is text, `report.json` last: when it is there, everything is.

    `pages` are further texts by file name, `facts` what `report.json` holds of them. Input values for
    other tools are written where asked for.

    Raises:
        OSError: a file cannot be written.
    """
    version = bisect_trt.__version__
    document = documents.report(reduction, environment or describe(), version)
    texts = {
        SCRIPT: script.render(reduction, version),
        ISSUE: issue.render(reduction, document, f"{attach.folder_name(reduction.out)}.zip"),
        LOG: reduction.log.rstrip("\n") + "\n",
        **pages,
        REPORT: json.dumps({**document, **facts}, indent=2, ensure_ascii=False, allow_nan=False) + "\n",
    }
    with draft(reduction.out, REPORT) as folder:
        tool_inputs.write(reduction.best, reduction.settings.papers.inputs_for, folder)
        for file, text in texts.items():
            (folder / file).write_bytes(text.encode("utf-8", errors="replace"))
