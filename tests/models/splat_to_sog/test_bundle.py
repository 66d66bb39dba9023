"""The archive keeps the engine's rules: end record last, no Zip64, plain methods, fixed time."""

from __future__ import annotations

import io
import struct
import zipfile

from models.splat_to_sog.bundle import bundle

FILES = {"meta.json": b'{"a": 1}' * 50, "means_l.webp": b"RIFF" + bytes(500), "z.webp": b"z"}


def test_end_record_is_last_and_entries_are_plain() -> None:
    data = bundle(FILES)
    assert data[-22:-18] == b"PK\x05\x06" and data[-2:] == b"\0\0"  # no comment
    assert b"PK\x06\x06" not in data and b"PK\x06\x07" not in data  # no Zip64 records
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
    assert [info.filename for info in infos] == ["means_l.webp", "z.webp", "meta.json"]
    assert [info.compress_type for info in infos] == [0, 0, 8]
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}
    assert all(info.extra == b"" and info.comment == b"" for info in infos)


def test_local_headers_carry_sizes() -> None:
    """Readers that walk the local headers need no data descriptor."""
    flags, method = struct.unpack_from("<HH", bundle(FILES), 6)
    assert (flags, method) == (0, 0)


def test_same_files_same_bytes() -> None:
    assert bundle(FILES) == bundle(dict(FILES))
