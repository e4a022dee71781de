from __future__ import annotations

import json
import os

from mmcore.config.data import ShardsConfig
from mmcore.records import digest
from mmcore.shards.exclusions import Exclusion, read_exclusions, source_of, with_exclusions
from mmcore.shards.plan import plan_shards

from .conftest import Bench


def test_every_row_is_in_one_recipe(bench: Bench) -> None:
    plan = plan_shards(bench.write(), bench.store)
    bodies = [recipe.body for recipe in plan.recipes]
    assert sorted(key for body in bodies for key in body["keys"]) == sorted(bench.rows)
    for recipe, body, roots in zip(plan.recipes, bodies, plan.roots, strict=True):
        assert recipe.digest == digest(body)
        assert recipe.rows == len(body["keys"]) == sum(rows for _, rows in roots)
        assert all(bench.rows[key][1] == body["split"] for key in body["keys"])
        assert body["labels"] == [bench.rows[key][0] for key in body["keys"]]
        assert body["media"]["note"]["texts"] == [bench.rows[key][3] or None for key in body["keys"]]
        assert body["media"]["word"]["files"] == [f"word/{key}.txt" for key in body["keys"]]
        sizes = [int(mark.split(":")[0]) for mark in body["media"]["word"]["fingerprints"]]
        assert sizes == [len(bench.rows[key][2]) for key in body["keys"]]
    assert plan.classes == ("even", "odd")


def test_recipes_do_not_name_where_things_are(bench: Bench) -> None:
    before = plan_shards(bench.write(), bench.store)
    assert all(str(bench.folder) not in recipe.json.decode() for recipe in before.recipes)
    (bench.folder / "data").rename(bench.folder / "moved")
    bench.settings["manifest"] = str(bench.folder / "moved" / "manifest.csv")
    config = bench.write()
    after = plan_shards(config, bench.store)
    assert [r.digest for r in after.recipes] == [r.digest for r in before.recipes]
    assert after.roots != before.roots


def test_each_thing_that_matters_changes_the_recipe(bench: Bench) -> None:
    def digests() -> list[str]:
        return [recipe.digest for recipe in plan_shards(bench.write(), bench.store).recipes]

    def changed() -> int:
        nonlocal last
        before, last = last, digests()
        return sum(one != other for one, other in zip(before, last, strict=True))

    last = digests()
    assert changed() == 0
    bench.rows["k0010"][0] = "odd"
    assert changed() == 1
    bench.rows["k0010"][2] = "another"
    assert changed() == 1
    bench.rows["k0010"][3] = "another"
    assert changed() == 1
    os.utime(bench.folder / "data" / "word" / "k0010.txt", ns=(1, 1))
    assert changed() == 1
    note = {"kind": "text", "column": "note", "inline": True}
    cut_short = {"word": {"kind": "text", "column": "word", "max_chars": 5}, "note": note}
    for settings in ({"bad_modality": "drop"}, {"fingerprint": "sha256"}, {"modalities": cut_short}):
        bench.settings |= settings
        assert changed() == len(last)


def test_paths_are_relative_or_left_as_they_are(bench: Bench) -> None:
    config = bench.write()
    manifest = bench.folder / "data" / "manifest.csv"
    text = manifest.read_text()
    manifest.write_text(
        text.replace("word/k0000.txt", f"{bench.folder}/data/word/k0000.txt").replace("word/k0001.txt", "../k0001.txt")
    )
    media = {}
    for recipe in plan_shards(config, bench.store).recipes:
        column = recipe.body["media"]["word"]
        cells = zip(column["files"], column["fingerprints"], strict=True)
        media |= dict(zip(recipe.body["keys"], cells, strict=True))
    assert media["k0000"][0] == "word/k0000.txt"
    assert media["k0001"] == ("../k0001.txt", None)


def test_exclusions_hold_for_the_source_they_were_met_with(bench: Bench) -> None:
    config = bench.write()
    (before,) = [r for r in plan_shards(config, bench.store).recipes if "k0010" in r.body["keys"]]
    row = before.body["keys"].index("k0010")
    source = source_of(before.body["media"]["word"], row)
    exclusion = Exclusion("k0010", "word", source, "time-limit", "too long")
    exclusion.publish(bench.store)
    exclusion.publish(bench.store)
    assert read_exclusions(bench.store) == {("k0010", "word"): [exclusion]}

    plan = plan_shards(config, bench.store)
    (after,) = [r for r in plan.recipes if "k0010" in r.body["keys"]]
    assert after.body["excluded"] == [["k0010", "word", "time-limit", "too long"]]
    assert after == with_exclusions(before, [exclusion])
    assert after == with_exclusions(after, [exclusion])

    bench.rows["k0010"][2] = "edited"
    assert all(not r.body["excluded"] for r in plan_shards(bench.write(), bench.store).recipes)


def test_added_exclusions_are_listed_as_a_new_plan_lists_them(bench: Bench) -> None:
    config = bench.write()
    recipe = plan_shards(config, bench.store).recipes[0]
    media, keys = recipe.body["media"], recipe.body["keys"]
    cells = [(3, "word"), (1, "word"), (1, "note")]
    for row, name in cells:
        exclusion = Exclusion(keys[row], name, source_of(media[name], row), "codec-died", "died")
        exclusion.publish(bench.store)
        recipe = with_exclusions(recipe, [exclusion])
    assert recipe == plan_shards(config, bench.store).recipes[0]
    assert json.loads(recipe.json) == recipe.body


def test_a_hashed_order_has_the_same_rows_in_other_shards(bench: Bench) -> None:
    config = bench.write()
    plain = plan_shards(config, bench.store)
    mixed = plan_shards(config.model_copy(update={"shards": ShardsConfig(samples=8, order="hashed")}), bench.store)
    for split in ("train", "val", "test"):
        of_plain, of_mixed = (
            [key for recipe in plan.recipes if recipe.split == split for key in recipe.body["keys"]]
            for plan in (plain, mixed)
        )
        assert of_plain != of_mixed
        assert sorted(of_plain) == sorted(of_mixed)
    assert not {recipe.digest for recipe in plain.recipes} & {recipe.digest for recipe in mixed.recipes}
