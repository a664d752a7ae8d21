"""Data Science Bowl 2018: cell nuclei in microscopy; 670 training images with one mask per nucleus."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets import DatasetFacts
from medseg.errors import DataError

__all__ = ["FACTS", "prepare"]

FACTS = DatasetFacts(
    title="Data Science Bowl 2018: nuclei",
    spatial_dims=2,
    modality=("RGB",),
    labels={0: "background", 255: "nucleus"},
    source="kaggle.com/c/data-science-bowl-2018, also BBBC038; Caicedo et al. 2019, Nature Methods 16, 1247",
    terms="CC0 (BBBC038)",
    layout="{stage1_train/<id>/{images/<id>.png, masks/*.png}, stage1_test/<id>/images/<id>.png}",
    splits={"training": 670, "test": 65},
)


def prepare(raw_dir: str | Path, out_dir: str | Path, *, num_folds: int = 5) -> Path:
    """Write ``<out_dir>/dsb2018.json``; paths are relative to ``out_dir``.

    ``images`` holds links into ``raw_dir`` (copies where the system has no links), ``labels`` the union of each
    image's masks as 0 and 255. Folds are those of the QTSeg publication: the sorted names in equal slices.

    Args:
        num_folds: number of folds; the publication has 5.

    Raises:
        DataError: the folder is missing, or a case has no image or no mask.
        CasesFailed: files could not be made.
    """
    from medseg.data.convert import convert_files, link_or_copy
    from medseg.data.picture_masks import sliced_entries, write_union

    raw, out = Path(raw_dir), Path(out_dir)
    training, test = (_names(raw / f"stage1_{part}") for part in ("train", "test"))
    _refuse_incomplete(raw, training, test)
    images = [_image(raw, part, name) for part, names in (("train", training), ("test", test)) for name in names]
    convert_files([(path, out / "images" / path.name) for path in images], link_or_copy)
    masks = [sorted((raw / "stage1_train" / name / "masks").glob("*.png")) for name in training]
    convert_files([(m, out / "labels" / f"{n}.png") for m, n in zip(masks, training, strict=True)], write_union)
    cases = sliced_entries([f"{name}.png" for name in training], num_folds)
    return FACTS.write(
        out / "dsb2018.json",
        out,
        {"training": cases, "test": [{"image": f"images/{name}.png"} for name in test]},
        name="DSB 2018",
        description="Cell nuclei in microscopy, semantic masks; folds of the QTSeg publication",
    )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.is_dir() and not path.name.startswith("."))


def _image(raw: Path, part: str, name: str) -> Path:
    return raw / f"stage1_{part}" / name / "images" / f"{name}.png"


def _refuse_incomplete(raw: Path, training: list[str], test: list[str]) -> None:
    if not training:
        raise DataError(f"{raw / 'stage1_train'} holds no folders of images. Expected {FACTS.layout}; unpack it.")
    parts = (("train", training), ("test", test))
    missing = [str(_image(raw, part, name)) for part, names in parts for name in names]
    missing = [path for path in missing if not Path(path).is_file()]
    folders = [raw / "stage1_train" / name / "masks" for name in training]
    missing += [str(folder / "*.png") for folder in folders if not any(folder.glob("*.png"))]
    if missing:
        raise DataError(f"{len(missing)} images or masks are missing, the first is {missing[0]}; unpack it again.")
