"""The disk holds what the rules say, and never less than tonight."""

from __future__ import annotations

from pathlib import Path

from fakes import Site, fails, passes

from bisect_trt.nightly import retention
from bisect_trt.nightly.config import Retention
from bisect_trt.nightly.history import FILE, History


def folders(out: Path, kind: str) -> list[str]:
    return sorted(p.name for p in (out / kind).iterdir())


def test_nights_and_their_reproducers_go(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1, retention={"nights": 2, "history": 3})
    for night in range(5):
        site.night({"a": fails(f"failure {night}"), "b": fails("steady"), "c": passes()})
        assert len(folders(site.out, "nights")) == min(night + 1, 2)
    kept = [n for n in folders(site.out, "reproducers")]
    assert sum(n.startswith("a-") for n in kept) == 2, "those of the nights that are kept"
    assert sum(n.startswith("b-") for n in kept) == 1, "the steady one is in use as long as it fails"
    history = History(site.out / FILE, read_only=True)
    assert [n.id for n in history.nights(9)] == [5, 4, 3]


def test_size(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    for night in range(4):
        site.night({"a": fails(f"failure {night}"), "b": fails("steady")})
        for folder in (site.out / "reproducers").iterdir():
            (folder / "weights.bin").write_bytes(b"x" * 300_000)
    history = History(site.out / FILE)
    whole = retention.size_of(site.out)
    most = whole - 700_000
    retention.clean(site.out, history, Retention(max_size=most), lambda line: None)
    assert retention.size_of(site.out) <= most
    assert folders(site.out, "nights") == ["00004-2026-01-04"], "older nights go first"
    left = folders(site.out, "reproducers")
    assert any(n.startswith("b-") for n in left) and 2 <= len(left) <= 3
    retention.clean(site.out, history, Retention(max_size=1), said := [].append)
    assert said is not None
    tonight = {Path(row.repro).parts[1] for row in site.rows().values()}
    assert set(folders(site.out, "reproducers")) == tonight, "tonight's stay: somebody was told of them"
    assert folders(site.out, "nights") == ["00004-2026-01-04"], "but not tonight's page"


def test_unfinished_work_goes_before_reproducers_in_use(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    site.night({"a": fails("one")})
    work = site.out / site.rows()["a"].repro / "work"
    work.mkdir()
    (work / "t0.npy").write_bytes(b"x" * 500_000)
    history = History(site.out / FILE)
    most = retention.size_of(site.out) - 400_000
    retention.clean(site.out, history, Retention(max_size=most), lambda line: None)
    assert not work.exists() and (work.parent / "repro.onnx").exists()


def test_hard_links_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    alone = retention.size_of(tmp_path)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert retention.size_of(tmp_path) == alone >= 100_000


def test_log_is_rotated(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1, retention={"log_size": 2000})
    models = {f"m{k:03}": passes() for k in range(200)}
    site.night(models)
    logs = sorted(site.out.glob("nightly.log*"))
    assert [p.name for p in logs] == ["nightly.log", "nightly.log.1", "nightly.log.2", "nightly.log.3"]
    assert all(p.stat().st_size <= 2000 for p in logs)


def test_ballast_is_there_during_the_night_only(tmp_path: Path) -> None:
    site = Site(tmp_path, confirm=1)
    seen: list[int] = []
    place = site.out / retention.BALLAST
    site.night({"a": passes()}, before=lambda runner, asked: seen.append(place.stat().st_size))
    assert seen == [retention.BALLAST_SIZE] and not place.exists()
