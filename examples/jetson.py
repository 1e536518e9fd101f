"""A Jetson with a camera that counts what passes: frames with detections in, one row per class and frame out.

    python jetson.py DATABASE_URL [--device crossing-7] [--simulate] [--frames N]

A frame of a detector has dozens of boxes; the transform of the exporter makes of it what is worth a radio link: counts
of the classes that the detector is sure of. It runs in the thread of the camera, on a copy, before anything is queued.
Should the CUDA library take the whole process down, nothing that was sent is lost: the next start delivers it.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import logging
import random
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from resilient_exporters import SQLExporter

SURE = 0.5


def counts(frame: dict[str, Any]) -> dict[str, Any]:
    """The transform: boxes become counts."""
    sure = [box["label"] for box in frame.pop("detections") if box["confidence"] >= SURE]
    found = collections.Counter(sure)
    return {**frame, **{label: found.get(label, 0) for label in ("person", "bicycle", "car")}}


def camera() -> Iterator[list[dict[str, Any]]]:
    """Detections of one frame after the other, by jetson-inference."""
    # It comes with the device, not from an index of packages; nothing else here needs it.
    from jetson_inference import detectNet  # type: ignore[import-not-found] # on the device only
    from jetson_utils import videoSource  # type: ignore[import-not-found] # as above

    network, source = detectNet("ssd-mobilenet-v2", threshold=SURE), videoSource("csi://0")
    while True:
        yield [
            {"label": network.GetClassDesc(box.ClassID), "confidence": box.Confidence, "box": list(box.ROI)}
            for box in network.Detect(source.Capture())
        ]


def simulated(seed: int = 7) -> Iterator[list[dict[str, Any]]]:
    """A crossing in the evening, for machines without a camera."""
    chance = random.Random(seed)  # noqa: S311 - a traffic model, no secret
    while True:
        yield [
            {"label": chance.choice(["person", "bicycle", "car"]), "confidence": chance.random(), "box": [0, 0, 9, 9]}
            for _ in range(chance.randrange(12))
        ]


def main() -> None:
    """Count until there are no more frames."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="sqlite:///counts.db, postgresql://user:password@host/database, …")
    parser.add_argument("--device", default="crossing-7")
    parser.add_argument("--frames", type=int, help="end after so many")
    parser.add_argument("--simulate", action="store_true", help="without a camera")
    given = parser.parse_args()

    frames = simulated() if given.simulate else camera()
    with SQLExporter(given.url, "counts", transform=counts, name=f"{given.device}-counts") as database:
        for number, detections in enumerate(itertools.islice(frames, given.frames)):
            frame = {"device": given.device, "frame": number, "time": datetime.now(timezone.utc)}
            database.send({**frame, "detections": detections})
    target = database.stats().targets[database.name]
    print(f"{target.accepted} frames, {target.delivered} delivered, {target.pending} wait")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
