"""Every kind of manifest gives the same rows."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import webdataset
from pyarrow import feather, parquet

from mmcore.config import DataConfig
from mmcore.errors import DataError, SourceError
from mmcore.records import count_by
from mmcore.sources.fingerprints import fingerprints
from mmcore.sources.manifest import Manifest, read_manifest
from mmcore.sources.reading import read_source
from mmcore.sources.references import is_list, pack, unpack, words_of

IMAGE = {"kind": "image", "column": "image"}
TEXT = {"kind": "text", "column": "text"}
LABELS = ["cat", "dog", "cat", "dog"]
SPLITS = ["train", "train", "val", "test"]


def _config(manifest: Any, modalities: dict[str, Any] | None = None, **settings: Any) -> DataConfig:
    return DataConfig.model_validate({"manifest": manifest, "modalities": modalities or {"image": IMAGE}, **settings})


def _bytes_of(manifest: Manifest, name: str) -> list[bytes | None]:
    """What the references of a modality lead to."""
    found: list[Any] = []
    for cell, partition in zip(
        manifest.table[f"media.{name}"].to_pylist(), manifest.table["partition"].to_pylist(), strict=True
    ):
        if cell is None:
            found.append(None)
            continue
        ref, root = unpack(cell), manifest.roots[partition]
        (mark,) = fingerprints(root, [ref if isinstance(ref, str) else ref[1]], "stat")
        found.append(read_source(root, ref, mark, 1000))
    return found


class TestClassFolders:
    def _make(self, folder: Path, *paths: str) -> str:
        for path in paths:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(path)
        return str(folder)

    def test_files_of_one_stem_are_one_sample(self, tmp_path: Path) -> None:
        paths = ["cat/1.jpg", "cat/1.TXT", "cat/2.PNG", "dog/1.jpeg", "dog/.hidden.jpg", "dog/notes.xyz", "top.jpg"]
        folder = self._make(tmp_path, *paths)
        modalities = {"image": IMAGE, "text": TEXT}
        manifest = read_manifest(
            _config(folder, modalities, split={"ratios": {"train": 1, "val": 0, "test": 0}}), learnable=False
        )
        assert manifest.table.drop_columns(["partition"]).to_pydict() == {
            "key": ["cat_1", "cat_2", "dog_1"],
            "label": ["cat", "cat", "dog"],
            "split": ["train"] * 3,
            "media.image": ["cat/1.jpg", "cat/2.PNG", "dog/1.jpeg"],
            "media.text": ["cat/1.TXT", None, None],
        }
        assert _bytes_of(manifest, "image") == [b"cat/1.jpg", b"cat/2.PNG", b"dog/1.jpeg"]

    def test_folders_of_splits_above_the_classes(self, tmp_path: Path) -> None:
        folder = self._make(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg", "validation/cat/1.jpg", "Test/dog/1.jpg")
        table = read_manifest(_config(folder)).table
        assert dict(zip(table["key"].to_pylist(), table["split"].to_pylist(), strict=True)) == {
            "Test_dog_1": "test",
            "train_cat_1": "train",
            "train_dog_1": "train",
            "validation_cat_1": "val",
        }
        assert table["label"].to_pylist() == ["dog", "cat", "dog", "cat"]

    def test_a_name_that_is_no_text_is_a_malformed_row(self, tmp_path: Path) -> None:
        folder = self._make(tmp_path, "cat/1.jpg", "dog/2.jpg")
        with open(os.fsencode(folder) + b"/cat/b\xff.jpg", "wb") as file:
            file.write(b"x")
        manifest = read_manifest(_config(folder, split={}), learnable=False)
        assert manifest.table["key"].to_pylist() == ["cat_1", "dog_2"]
        (reject,) = manifest.rejects
        assert (reject.code, manifest.rows) == ("malformed-row", 3)
        assert reject.message == r"the name 'cat/b\udcff' is not valid UTF-8"

    def test_notes_are_nothing_where_only_pictures_are_wanted(self, tmp_path: Path) -> None:
        folder = self._make(tmp_path, "cat/1.jpg", "cat/1.txt", "cat/1.md", "dog/2.jpg", "dog/about.txt")
        manifest = read_manifest(_config(folder, split={}), learnable=False)
        assert manifest.table["key"].to_pylist() == ["cat_1", "dog_2"]
        assert (manifest.rows, manifest.rejects) == (2, ())

    def test_what_is_wrong_with_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="holds no class folders"):
            read_manifest(_config(str(tmp_path)))
        folder = self._make(tmp_path, "cat/1.jpg", "cat/1.png")
        with pytest.raises(SourceError, match=r"two files of one kind: cat/1.jpg and cat/1.png"):
            read_manifest(_config(folder))
        (tmp_path / "cat" / "1.png").unlink()
        with pytest.raises(SourceError, match=r"Set data.split, or sort the class folders"):
            read_manifest(_config(folder))


class TestBytesInTables:
    TABLE = pa.table(
        {
            "id": ["a", "b", "c", "d"],
            "label": LABELS,
            "split": SPLITS,
            "image": pa.array([b"one", None, b"three", b"four"], pa.binary()),
        }
    )

    @pytest.mark.parametrize("kind", ["parquet", "arrow", "feather", "stream"])
    def test_cells_are_read_when_they_are_needed(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / f"rows.{'arrow' if kind == 'stream' else kind}"
        if kind == "parquet":
            parquet.write_table(self.TABLE, path, row_group_size=3)
        elif kind == "feather":
            feather.write_feather(self.TABLE, path)
        else:
            make = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
            with pa.OSFile(str(path), "wb") as sink, make(sink, self.TABLE.schema) as writer:
                writer.write_table(self.TABLE)
        manifest = read_manifest(_config(str(path)), learnable=False)
        assert manifest.table["key"].to_pylist() == ["a", "c", "d"]
        assert [reject.code for reject in manifest.rejects] == ["no-modality"]
        assert _bytes_of(manifest, "image") == [b"one", b"three", b"four"]

    def test_a_large_cell_is_set_aside(self, tmp_path: Path) -> None:
        path = tmp_path / "rows.parquet"
        parquet.write_table(self.TABLE, path)
        (mark,) = fingerprints(str(tmp_path), ["rows.parquet"], "stat")
        ref = ["table", "rows.parquet", 2, "image"]
        assert read_source(str(tmp_path), ref, mark, 5) == b"three"
        assert read_source(str(tmp_path), ref, mark, 4).code == "too-many-bytes"  # type: ignore[union-attr]

    def test_a_saved_hugging_face_data_set(self, tmp_path: Path) -> None:
        """The layout that `datasets` 2 to 5 write: Arrow streams, state.json, and features in the schema's metadata."""
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}
        for split, rows in (("train", [0, 1]), ("validation", [0]), ("test", [1])):
            folder = tmp_path / "saved" / split
            folder.mkdir(parents=True)
            images = [{"bytes": f"{split} {row}".encode(), "path": None} for row in rows]
            table = pa.table({"image": pa.array(images, kind), "label": pa.array(rows, pa.int64())})
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
            name = "data-00000-of-00001.arrow"
            with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
        manifest = read_manifest(_config(str(tmp_path / "saved"), columns={"key": None}))
        table = manifest.table.to_pydict()
        by_key = {key: (table["label"][n], table["split"][n]) for n, key in enumerate(table["key"])}
        assert by_key == {
            "test-data-00000-of-00001-00000001": ("dog", "test"),
            "train-data-00000-of-00001-00000001": ("cat", "train"),
            "train-data-00000-of-00001-00000002": ("dog", "train"),
            "val-data-00000-of-00001-00000001": ("cat", "val"),
        }
        assert sorted(filter(None, _bytes_of(manifest, "image"))) == [
            b"test 1",
            b"train 0",
            b"train 1",
            b"validation 0",
        ]


class TestTars:
    @pytest.mark.parametrize("maker", ["webdataset", "gnu", "pax"])
    def test_members_become_references(self, tmp_path: Path, maker: str) -> None:
        samples = [(f"s{n}", f"image {n}".encode(), LABELS[n], SPLITS[n]) for n in range(4)]
        path = tmp_path / "any.tar"
        if maker == "webdataset":
            with webdataset.TarWriter(str(path)) as writer:
                for key, image, label, split in samples:
                    writer.write({"__key__": key, "jpg": image, "cls": label.encode(), "json": {"split": split}})
        else:
            kind = tarfile.GNU_FORMAT if maker == "gnu" else tarfile.PAX_FORMAT
            with tarfile.open(path, "w", format=kind) as tar:
                for key, image, label, split in samples:
                    members = {"png": image, "cls": label.encode(), "json": json.dumps({"split": split}).encode()}
                    for name, data in members.items():
                        info = tarfile.TarInfo(f"{'deep/' * 3}{key}.{name}")
                        info.size = len(data)
                        tar.addfile(info, io.BytesIO(data))
        columns = {"key": "__key__", "label": "cls", "split": "json.split"}
        modalities = {"image": {"kind": "image", "column": "jpg;png"}}
        config = _config(str(path), modalities, columns=columns)
        manifest = read_manifest(config)
        before = "" if maker == "webdataset" else "deep_" * 3
        assert manifest.table["key"].to_pylist() == [f"{before}s{n}" for n in range(4)]
        assert manifest.table["label"].to_pylist() == LABELS
        assert manifest.table["split"].to_pylist() == SPLITS
        assert _bytes_of(manifest, "image") == [image for _, image, _, _ in samples]

    def test_the_split_in_the_name(self, tmp_path: Path) -> None:
        for split in ("train", "val", "test"):
            with webdataset.TarWriter(str(tmp_path / f"{split}-000.tar")) as writer:
                for n, label in enumerate(["cat", "dog"]):
                    writer.write({"__key__": f"{split}{n}", "jpg": b"x", "cls": label.encode()})
        config = _config(
            str(tmp_path / "*.tar"),
            {"image": {"kind": "image", "column": "jpg"}},
            columns={"key": "__key__", "label": "cls"},
        )
        table = read_manifest(config).table
        assert all(
            key.startswith(split)
            for key, split in zip(*map(pa.ChunkedArray.to_pylist, table.select(["key", "split"]).columns), strict=True)
        )

    def test_a_damaged_tar_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "train.tar"
        with webdataset.TarWriter(str(path)) as writer:
            writer.write({"__key__": "a", "jpg": b"x" * 2000, "cls": b"cat"})
        path.write_bytes(path.read_bytes()[:3000])
        with pytest.raises(SourceError, match="cut off"):
            read_manifest(_config(str(path), columns={"key": "__key__", "label": "cls"}))


SEVERAL = {"image": {**IMAGE, "several": True}}


class TestLists:
    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
    def test_lists_of_files(self, tmp_path: Path, kind: str) -> None:
        lists = [["a.png", "b.png"], ["c.png"], [], None]
        path = tmp_path / f"rows.{kind}"
        if kind == "csv":
            cells = [";".join(one or []) for one in lists]
            path.write_text(
                "id,label,split,image\n"
                + "\n".join(f"{n},{LABELS[n]},{SPLITS[n]},{cell}" for n, cell in enumerate(cells))
            )
        elif kind == "jsonl":
            rows = [{"id": str(n), "label": LABELS[n], "split": SPLITS[n], "image": one} for n, one in enumerate(lists)]
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            columns = {"id": [str(n) for n in range(4)], "label": LABELS, "split": SPLITS, "image": lists}
            parquet.write_table(pa.table(columns), path)
        manifest = read_manifest(_config(str(path), SEVERAL), learnable=False)
        assert manifest.table["media.image"].to_pylist() == ['["a.png","b.png"]', '["c.png"]']
        assert count_by(reject.code for reject in manifest.rejects) == {"no-modality": 2}

    def test_a_list_where_one_file_is_expected(self, tmp_path: Path) -> None:
        (tmp_path / "rows.jsonl").write_text('{"id": "a", "label": "x", "split": "train", "image": ["a.png"]}\n')
        with pytest.raises(DataError, match="'image' holds a list"):
            read_manifest(_config(str(tmp_path / "rows.jsonl")))


def test_references_in_words() -> None:
    for ref in ("a/b.jpg", ["tar", "x.tar", 512, 3], ["list", "a", ["tar", "x.tar", 1, 2]]):
        assert unpack(pack(ref)) == ref
        assert is_list(ref) == (ref[0] == "list")
    assert words_of(["list", "a", ["tar", "x.tar", 1, 2]]) == "a; x.tar#1,2"
